package machine

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Machine is what to boot.
type Machine struct {
	Kernel Kernel
	Initrd string
	// Env is KEY=VALUE each, which the kernel passes on to the first process.
	Env []string
	// CPUs is their number where the machine's clock is the host's. With 0 the
	// machine has one, and its clock counts instructions, 2 ns each, and jumps over
	// idle time: so nothing in it times out because the host is slow or busy, and
	// its sleeps cost nothing.
	CPUs int
}

// Boot runs the machine until it powers itself off, and hands over every line that
// it prints.
func (m Machine) Boot(ctx context.Context, print func(line string)) error {
	args := append(m.clock(), "-cpu", "max", "-m", "3G",
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
		"-kernel", m.Kernel.vmlinuz(), "-initrd", m.Initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off "+strings.Join(m.Env, " "))
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		print(strings.TrimRight(lines.Text(), "\r"))
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("the machine was ended: %w", context.Cause(ctx))
	}
	return err
}

func (m Machine) clock() []string {
	if m.CPUs == 0 {
		return []string{"-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-rtc", "clock=vm", "-smp", "1"}
	}
	return []string{"-accel", "tcg,thread=multi", "-smp", strconv.Itoa(m.CPUs)}
}
