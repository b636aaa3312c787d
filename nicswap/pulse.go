package nicswap

import (
	"context"
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
// Threads that it starts are not.
func goFirst() error {
	err := unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
	if err != nil {
		return fmt.Errorf("run before other processes: %w", err)
	}
	return nil
}
