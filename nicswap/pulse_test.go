package nicswap

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestThePulseRunsBeforeOtherProcesses needs CAP_SYS_NICE.
func TestThePulseRunsBeforeOtherProcesses(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	defer end()
	policies := make(chan uint32, 1)
	go realtime(ctx, time.Millisecond, func() {
		defer end()
		if attr, err := unix.SchedGetAttr(0, 0); err != nil {
			t.Error(err)
		} else {
			policies <- attr.Policy
		}
		close(policies)
	}, func(err error) { t.Error(err) })
	if policy := <-policies; policy != unix.SCHED_FIFO {
		t.Errorf("the thread's policy is %d", policy)
	}
}
