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
	// Counting makes the clock count instructions at 1 ns each, with CPUs 0: what
	// the machine's own monotonic clock then says is how many it has run.
	Counting bool
	// Input is what the machine reads from its console; nil is nothing.
	Input *os.File
	// Monitor is where QEMU's own monitor listens, a socket; "" is nowhere.
	Monitor string
}

// Boot runs the machine until it powers itself off, and hands over every line that
// it prints.
func (m Machine) Boot(ctx context.Context, print func(line string)) error {
	args := append(m.clock(), "-cpu", "max", "-m", "3G",
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
		"-kernel", m.Kernel.vmlinuz(), "-initrd", m.Initrd,
		"-append", m.commandLine())
	if m.Monitor != "" {
		args = append(args, "-monitor", "unix:"+m.Monitor+",server,nowait")
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	if m.Input != nil {
		cmd.Stdin = m.Input
	}
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

func (m Machine) commandLine() string {
	words := []string{"console=ttyS0 quiet panic=-1 mitigations=off"}
	if m.Counting {
		words = append(words, "tsc=reliable clocksource=tsc")
	}
	return strings.Join(append(words, m.Env...), " ")
}

func (m Machine) clock() []string {
	switch {
	case m.CPUs != 0:
		return []string{"-accel", "tcg,thread=multi", "-smp", strconv.Itoa(m.CPUs)}
	case m.Counting:
		// Its random numbers and its date are always the same too.
		return append(oneCPU("0"), "-rtc", "base=2026-01-01,clock=vm", "-seed", "1")
	}
	return append(oneCPU("1"), "-rtc", "clock=vm")
}

// oneCPU is one whose instructions take 2^shift ns each.
func oneCPU(shift string) []string {
	return []string{"-accel", "tcg,thread=single", "-icount", "shift=" + shift + ",sleep=off", "-smp", "1"}
}
