// Command guest is what works inside the machine of packagetest: it runs the
// commands of a page if there is one, and tries the package otherwise. It speaks to
// the host in lines that begin with "guest: " and then powers off.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// page has the commands of a page, as a script.
const page = "/packagetest/page"

func main() {
	err := try()
	if err != nil {
		fmt.Println("guest: FAILED:", err)
		tellLogs()
		fmt.Println("guest: verdict failed")
	} else {
		fmt.Println("guest: verdict passed")
	}
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

func try() error {
	if _, err := os.Stat(page); err == nil {
		return runPage()
	}
	return tryPackage()
}

// runPage shows all that the commands print.
func runPage() error {
	cmd := exec.Command("bash", page)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("a command of the page failed: %w", err)
	}
	return nil
}

// tellLogs shows why.
func tellLogs() {
	for _, args := range [][]string{
		{"systemctl", "status", "--no-pager", "shunt.service"}, {"journalctl", "--no-pager", "--lines=60", "--unit=shunt.service"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		cmd.Run()
	}
}
