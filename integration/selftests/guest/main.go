// Command guest is what works inside the machine of selftests: it runs one
// script, and with SHUNT=1 a daemon in every network namespace while the
// namespace is there.
//
//	guest                    run $SCRIPT and power off; called by init
//	guest hook WHAT [NAME]   called by the wrapper of ip(8), see hook.go
//
// It speaks to the host in lines that begin with "guest: ".
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	socket  = "/run/guest.sock"
	scripts = "/selftests/scripts"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "hook" {
		if err := call(strings.Join(os.Args[2:], " ")); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(os.Getenv("SCRIPT"), os.Getenv("SHUNT") == "1"); err != nil {
		fmt.Println("guest: error", err)
	}
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

func run(script string, withShunt bool) error {
	d := newDaemons(withShunt)
	if err := d.serve(); err != nil {
		return err
	}
	if err := d.enter(""); err != nil {
		return err
	}
	code, err := runScript(script)
	if err != nil {
		return err
	}
	fmt.Println("guest: exit", code)
	return d.end()
}

// runScript runs it as the kernel's own runner does: in its directory. The
// names of the interfaces are arguments, since the scripts of 6.1 have none by
// default.
func runScript(script string) (code int, err error) {
	args := []string{filepath.Base(script)}
	if strings.HasPrefix(script, "net/forwarding/") {
		for i := range 10 {
			args = append(args, fmt.Sprintf("veth%d", i))
		}
	}
	cmd := exec.Command("bash", args...)
	cmd.Dir = filepath.Join(scripts, filepath.Dir(script))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); cmd.ProcessState == nil {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}
