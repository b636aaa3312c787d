package nicswap

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestThePulseRunsBeforeOtherProcesses needs CAP_SYS_NICE. With one CPU it must not:
// the Go runtime would wait there for threads that it keeps from running.
func TestThePulseRunsBeforeOtherProcesses(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	defer end()
	want, isLate := uint32(unix.SCHED_FIFO), false
	if runtime.NumCPU() == 1 {
		want = unix.SCHED_NORMAL
	}
	policies := make(chan uint32, 1)
	go realtime(ctx, time.Millisecond, func() {
		defer end()
		if attr, err := unix.SchedGetAttr(0, 0); err != nil {
			t.Error(err)
		} else {
			policies <- attr.Policy
		}
		close(policies)
	}, func(err error) { t.Log(err); isLate = true })
	if policy := <-policies; policy != want || isLate != (want == unix.SCHED_NORMAL) {
		t.Errorf("the thread's policy is %d, and it was said that it may be late: %v", policy, isLate)
	}
}

// TestThePulseWithOneCPU runs that test again in a process that has one.
func TestThePulseWithOneCPU(t *testing.T) {
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestThePulseRunsBeforeOtherProcesses$")
	if out, err := onOneCPU(again); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// onOneCPU runs a command from a thread that may use one, as the command may then. The
// thread ends with its goroutine.
func onOneCPU(c *exec.Cmd) (out []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var all, one unix.CPUSet
		if err = unix.SchedGetaffinity(0, &all); err != nil {
			return
		}
		for cpu := 0; one.Count() == 0; cpu++ {
			if all.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		if err = unix.SchedSetaffinity(0, &one); err == nil {
			out, err = c.CombinedOutput()
		}
	}()
	<-done
	return out, err
}
