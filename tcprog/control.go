package tcprog

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// The flags of struct control in bpf/maps.h.
const (
	controlCheckIP = 1
	controlCheckND = 2
)

// void is a version that nothing has: a record that was seen at it is true for
// nothing.
const void = math.MaxUint64

// control is the page that the bridge's programs read for every frame, mapped
// into the daemon. Stores are atomic: a program may read between any two, and
// programs add to the epochs too, which a map update would undo.
type control struct {
	page   []byte
	shared *shuntControl
	tick   uint64 // ns: so much behind is the clock by which programs see the lease end
}

func mapControl(m *ebpf.Map) (*control, error) {
	tick, err := tickLength()
	if err != nil {
		return nil, err
	}
	page, err := memoryOf(m)
	if err != nil {
		return nil, fmt.Errorf("map the control page: %w", err)
	}
	return &control{page: page, shared: (*shuntControl)(unsafe.Pointer(&page[0])), tick: uint64(tick)}, nil
}

func (c *control) unmap() error {
	if c == nil {
		return nil
	}
	return unix.Munmap(c.page)
}

// shut ends the fast path: the next frame is passed up for this reason.
func (c *control) shut(reason accel.Reason) {
	atomic.StoreUint32(&c.shared.Reason, uint32(reason))
	atomic.StoreUint64(&c.shared.LeaseNs, 0)
	c.bumpAll()
}

// setGate shuts the gate, or prepares it so that renew opens it. While the page
// changes it is true for no version, and the flows that were decided by the old
// one are gone before the new one is there. It is true for g.Seen, or for nothing.
func (c *control) setGate(g accel.Gate, image bridgeImage) {
	if g.Reason != accel.Fast {
		c.shut(g.Reason)
	}
	atomic.StoreUint64(&c.shared.Seen, void)
	c.bumpAll()
	atomic.StoreUint32(&c.shared.Flags, gateFlags(g))
	atomic.StoreUint32(&c.shared.VlanProtocol, uint32(g.VLANProtocol))
	atomic.StoreUint64(&c.shared.KeepaliveNs, uint64(g.Keepalive.Nanoseconds()))
	atomic.StoreUint32(&c.shared.Reason, uint32(g.Reason))
	c.shared.Image = image
	c.bumpAll() // who read half of each must not meet the open page
	atomic.StoreUint64(&c.shared.Seen, g.Seen)
}

func gateFlags(g accel.Gate) (flags uint32) {
	if g.CheckIP {
		flags |= controlCheckIP
	}
	if g.CheckND {
		flags |= controlCheckND
	}
	return flags
}

// renew sets the end of the lease, which is never for 0, unless the gate is shut.
func (c *control) renew(lease time.Duration) {
	if atomic.LoadUint32(&c.shared.Reason) != uint32(accel.Fast) {
		return
	}
	end := uint64(math.MaxUint64)
	if lease != 0 {
		end = monotonicNow() + uint64(lease.Nanoseconds()) - c.tick
	}
	if before := atomic.SwapUint64(&c.shared.LeaseNs, end); end < before {
		c.bumpAll() // a flow may last until the end of the lease that it was decided in
	}
}

// monotonicNow is the clock of bpf_ktime_get_coarse_ns, in nanoseconds.
func monotonicNow() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0 // cannot fail for this clock; 0 would leave the gate shut
	}
	return uint64(now.Nano())
}

// tickLength is how long a jiffy is, in nanoseconds: the coarse clocks go by ticks
// (kernel/time/posix-timers.c: posix_get_coarse_res).
func tickLength() (int64, error) {
	var length unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &length); err != nil {
		return 0, fmt.Errorf("ask for the length of a tick: %w", err)
	}
	return length.Nano(), nil
}

// leap makes every flow of an earlier daemon invalid for good. Its number of changes was
// another one than ours: the sum of that and the epochs must not come out the same.
func (c *control) leap() { c.raise(1 << 32) }

// bumpAll makes every cached flow of the bridge invalid.
func (c *control) bumpAll() { c.raise(1) }

func (c *control) raise(by uint64) {
	for shard := range c.shared.Epoch {
		atomic.AddUint64(&c.shared.Epoch[shard], by)
	}
}

func (c *control) revoked() uint64 { return atomic.LoadUint64(&c.shared.Revoked) }
