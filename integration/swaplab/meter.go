package swaplab

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

// Meter counts the lab's frames that arrive on a device, stream by stream.
type Meter struct {
	ring    *lab.Ring
	stopped atomic.Bool
	running sync.WaitGroup

	mu      sync.Mutex
	streams map[uint32]*counted
	failed  error
	drops   uint64 // at the end
}

type counted struct {
	tally   lab.Tally
	longest Gap
	last    time.Time
	times   []int64 // of arrival, as the kernel's clock had it; ns since 1970
}

// Gap is a time without a frame of a stream.
type Gap struct {
	From   time.Time
	Length time.Duration
}

// NewMeter counts what comes to the host's eth0.
func NewMeter(h *lab.Host) (*Meter, error) { return newMeter(h.Namespace, "eth0", false) }

// Meter counts what the switch outside gets from the member.
func (m *Member) Meter() (*Meter, error) { return newMeter(m.outside.Bridge, m.Far, true) }

// NewMeterOn counts what arrives on a device of a namespace, before a bridge or a
// program takes it.
func NewMeterOn(ns *lab.Namespace, device string) (*Meter, error) { return newMeter(ns, device, true) }

func newMeter(ns *lab.Namespace, device string, below bool) (*Meter, error) {
	ring, err := ns.OpenRing(device, below)
	if err != nil {
		return nil, err
	}
	m := &Meter{ring: ring, streams: make(map[uint32]*counted)}
	m.running.Go(m.run)
	return m, nil
}

func (m *Meter) run() {
	const wait = 20 * time.Millisecond
	for !m.stopped.Load() {
		if err := m.ring.Read(wait, m.take); err != nil {
			m.mu.Lock()
			m.failed = err
			m.mu.Unlock()
			return
		}
	}
}

func (m *Meter) take(b []byte, arrived time.Time) {
	f, ok := lab.ParseFrame(b)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[f.Stream]
	if s == nil {
		s = &counted{last: arrived}
		m.streams[f.Stream] = s
	}
	s.tally.Add(f.Sequence)
	if gap := arrived.Sub(s.last); gap > s.longest.Length {
		s.longest = Gap{s.last, gap}
	}
	s.last = arrived
	s.times = append(s.times, arrived.UnixNano())
}

// Report returns what came of a stream so far.
func (m *Meter) Report(id uint32) lab.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[id]; s != nil {
		return s.tally.Report()
	}
	return lab.Report{}
}

// Missing returns the first numbers of a stream below sent that did not come.
func (m *Meter) Missing(id uint32, sent uint64, most int) []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[id]; s != nil {
		return s.tally.Missing(sent, most)
	}
	return nil
}

// LostBelow returns how many frames of a stream below a number have not come yet.
func (m *Meter) LostBelow(id uint32, number uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[id]; s != nil {
		return s.tally.LostBelow(number)
	}
	return number
}

// Longest returns the longest time without a frame of the stream, between two of
// them.
func (m *Meter) Longest(id uint32) Gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[id]; s != nil {
		return s.longest
	}
	return Gap{}
}

// FirstAfter returns when the first frame of a stream arrived at or after a moment.
func (m *Meter) FirstAfter(id uint32, moment time.Time) (time.Time, bool) {
	return m.arrival(id, moment, 0)
}

// LastBefore returns when the last frame of a stream arrived before a moment.
func (m *Meter) LastBefore(id uint32, moment time.Time) (time.Time, bool) {
	return m.arrival(id, moment, -1)
}

// arrival returns when a frame came: the first one at or after a moment, or that so
// many places from it.
func (m *Meter) arrival(id uint32, moment time.Time, places int) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[id]
	if s == nil {
		return time.Time{}, false
	}
	// Arrivals are sorted but for what two CPUs delivered at once.
	n, _ := slices.BinarySearch(s.times, moment.UnixNano())
	if n += places; n < 0 || n >= len(s.times) {
		return time.Time{}, false
	}
	return time.Unix(0, s.times[n]), true
}

// LongestAfter returns the longest time without a frame of a stream, of those that
// ended after a moment.
func (m *Meter) LongestAfter(id uint32, moment time.Time) (longest Gap) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[id]
	if s == nil {
		return Gap{}
	}
	n, _ := slices.BinarySearch(s.times, moment.UnixNano())
	for n = max(n, 1); n < len(s.times); n++ {
		if gap := time.Duration(s.times[n] - s.times[n-1]); gap > longest.Length {
			longest = Gap{time.Unix(0, s.times[n-1]), gap}
		}
	}
	return longest
}

// Drops returns how many frames found no room in the meter itself.
func (m *Meter) Drops() (uint64, error) {
	if m.stopped.Load() {
		return m.drops, nil
	}
	return m.ring.Drops()
}

// Close ends the counting. What was counted stays to be asked for. Closing twice is
// no error.
func (m *Meter) Close() (err error) {
	if m.stopped.Swap(true) {
		return nil
	}
	m.running.Wait()
	m.drops, err = m.ring.Drops()
	return errors.Join(err, m.failed, m.ring.Close())
}
