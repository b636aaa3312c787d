package machine

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Boot runs a machine of one CPU until it powers itself off, and hands over
// every line that it prints. The kernel passes KEY=VALUE in env on to the first
// process.
//
// The machine's clock counts instructions, 2 ns each, and jumps over idle time:
// so nothing in it times out because the host is slow or busy, and its sleeps
// cost nothing.
func Boot(ctx context.Context, k Kernel, initrd string, env []string, print func(line string)) error {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-rtc", "clock=vm",
		"-cpu", "max", "-smp", "1", "-m", "3G",
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
		"-kernel", k.vmlinuz(), "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off "+strings.Join(env, " "))
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
