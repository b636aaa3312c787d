package nicswap

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pulse calls do every so often until ctx ends, and before that late, once, if do may be
// called late on a busy host.
type pulse func(ctx context.Context, every time.Duration, do func(), late func(error))

// realtime is a pulse with a thread of its own, which the kernel runs before all that
// are not real-time, however busy the host is; and which waits in the kernel, so that
// no other thread of this process must wake it.
func realtime(ctx context.Context, every time.Duration, do func(), late func(error)) {
	runtime.LockOSThread() // and it ends with the goroutine
	if err := goFirst(); err != nil {
		late(err)
	}
	for pause := unix.NsecToTimespec(every.Nanoseconds()); ctx.Err() == nil; {
		unix.Nanosleep(&pause, nil) // a signal may end it early
		do()
	}
}

// goFirst makes the calling thread real-time, at the lowest priority of its kind.
// Threads that it starts are not. It does not where there is one CPU only: when the
// thread comes back from the kernel while another one collects its garbage, the Go
// runtime waits without sleeping (casgstatus), and would keep that one from ever
// ending, and all else from running.
func goFirst() error {
	if runtime.NumCPU() == 1 {
		return errors.New("with one CPU, nothing else would run while the watch waits for another thread of shunt")
	}
	err := unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
	if err != nil {
		return fmt.Errorf("run before other processes: %w; give shunt CAP_SYS_NICE", err)
	}
	return nil
}
