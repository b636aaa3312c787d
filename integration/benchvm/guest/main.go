// Command guest is what works inside the machine of benchvm, as its first process:
// it measures the rows that $ROWS names and powers off. It speaks to the host in
// lines that begin with "bench: ".
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/shunt-dev/shunt/integration/benchvm/rows"
)

func main() {
	debug.SetGCPercent(-1) // nothing but the frames is to happen
	runtime.LockOSThread()
	if err := run(strings.Split(os.Getenv("ROWS"), ",")); err != nil {
		fmt.Println("bench: error", err)
	} else {
		fmt.Println("bench: end")
	}
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

func run(wanted []string) error {
	if err := shell(hosts); err != nil {
		return err
	}
	if err := checkClock(); err != nil {
		return err
	}
	b, err := newBench()
	if err != nil {
		return err
	}
	for _, row := range rows.All {
		if !slices.Contains(wanted, row.Key) {
			continue
		}
		result, err := b.measure(row)
		if errors.Is(err, errMode) {
			fmt.Printf("bench: missing %s %v\n", row.Key, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("row %s: %w", row.Key, err)
		}
		line, err := json.Marshal(result)
		if err != nil {
			return err
		}
		fmt.Printf("bench: row %s\n", line)
	}
	return nil
}

// hosts are two, behind the ports p1 and p2. Without IPv6 they send nothing by
// themselves.
const hosts = `
for host in 1 2; do
	ip netns add h$host
	ip netns exec h$host sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
	sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
	ip link add p$host type veth peer name eth0 address 02:00:00:00:00:0$host netns h$host
	ip -n h$host link set eth0 up
	ip link set p$host up
done
`

// shell runs commands until one fails.
func shell(commands string) error {
	out, err := exec.Command("/tools/dash", "-ec", commands).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
