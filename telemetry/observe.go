package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/metric"

	"github.com/shunt-dev/shunt/accel"
)

// revoker knows how many entries the programs in the kernel took back; tcprog
// serves it. An error if the data plane does not have the bridge.
type revoker interface {
	Revocations(bridge int) (uint64, error)
}

// sources are asked when metrics are collected.
type sources struct {
	bridges  []accel.BridgeSource
	counters []accel.CounterSource
	revokers []revoker
	groups   []accel.GroupSource

	mu sync.Mutex
	// last is what was read when the components were about to stop; nil before.
	last *reading
}

// reading is everything that is read at once.
type reading struct {
	bridges []bridgeReading
	groups  []accel.GroupState
	err     error
}

// bridgeReading is a bridge with what the data plane counted of it.
type bridgeReading struct {
	accel.BridgeState
	stats       []accel.PortStats
	revocations uint64
	// counted is false where the data plane does not have the bridge.
	counted bool
}

// find finds those who serve. There may be none, or several.
func (s *sources) find(h *accel.Host) {
	s.bridges, s.counters = accel.UseAll[accel.BridgeSource](h), accel.UseAll[accel.CounterSource](h)
	s.revokers, s.groups = accel.UseAll[revoker](h), accel.UseAll[accel.GroupSource](h)
}

// settle keeps what is read now as the last that is known.
func (s *sources) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.readAll()
	s.last = &r
}

// read reads everything, or returns the last that is known.
func (s *sources) read() reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		return *s.last
	}
	return s.readAll()
}

func (s *sources) readAll() (r reading) {
	for _, source := range s.bridges {
		for _, b := range source.Bridges() {
			described, err := s.readBridge(b)
			r.bridges, r.err = append(r.bridges, described), errors.Join(r.err, err)
		}
	}
	for _, source := range s.groups {
		r.groups = append(r.groups, source.GroupStates()...)
	}
	return r
}

func (s *sources) readBridge(b accel.BridgeState) (bridgeReading, error) {
	r := bridgeReading{BridgeState: b}
	if !b.Present {
		return r, nil
	}
	for _, source := range s.counters {
		stats, err := source.PortStats(b.Ifindex)
		if err != nil {
			return r, fmt.Errorf("read the counters of bridge %s: %w", b.Name, err)
		}
		r.stats = append(r.stats, stats...)
	}
	for _, source := range s.revokers {
		if n, err := source.Revocations(b.Ifindex); err == nil {
			r.revocations, r.counted = r.revocations+n, true
		}
	}
	return r, nil
}

// measure makes the instruments, and has those read that are to be.
func (e *Exporter) measure() (err error) {
	if e.measures, err = makeMeasures(e.meters); err != nil {
		return err
	}
	return e.measures.observe(e.meters, func(_ context.Context, o metric.Observer) error {
		r := e.sources.read()
		for _, b := range r.bridges {
			e.measures.observeBridge(o, b)
		}
		for _, g := range r.groups {
			e.measures.observeGroup(o, g)
		}
		e.tellUnread(r.err)
		return nil // an error would hold back what all others measured
	})
}

// tellUnread logs what could not be read, if the last time could.
func (e *Exporter) tellUnread(err error) {
	if wasUnread := e.unread.Swap(err != nil); err != nil && !wasUnread {
		e.logger.Warn("counters of the data plane cannot be measured; this is not said again while it goes on", "error", err)
	}
}

func (m *measures) observeBridge(o metric.Observer, b bridgeReading) {
	bridge := keyBridge.String(b.Name)
	open := int64(0)
	if b.Reason == accel.Fast {
		open = 1
	}
	o.ObserveInt64(m.eligible, open, with(bridge, keyReason.String(b.Reason.String())))
	o.ObserveInt64(m.ports, int64(len(b.Ports)), with(bridge))
	for state, n := range map[string]int{"active": b.Stations, "pending": b.Pending, "unmirrored": b.Unmirrored} {
		o.ObserveInt64(m.entries, int64(n), with(bridge, keyState.String(state)))
	}
	if b.counted {
		o.ObserveInt64(m.revocations, int64(b.revocations), with(bridge))
	}
	names := make(map[int]string)
	for _, p := range b.Ports {
		names[p.Ifindex] = p.Name
	}
	for _, s := range b.stats {
		if name, ok := names[s.Ifindex]; ok { // else it left between the two questions
			m.observePort(o, b.Name, name, s)
		}
	}
}

// observePort leaves reasons out that were never seen, but for fast: a rate has a
// beginning then.
func (m *measures) observePort(o metric.Observer, bridgeName, portName string, s accel.PortStats) {
	bridge, port := keyBridge.String(bridgeName), keyPort.String(portName)
	for _, reason := range accel.Reasons() {
		n, ok := s.Counts[reason]
		if !ok && reason != accel.Fast {
			continue
		}
		o.ObserveInt64(m.frames, int64(n.Packets), with(bridge, port, keyPath.String(pathOf(reason)), keyReason.String(reason.String())))
	}
	fast, slow := s.Split()
	o.ObserveInt64(m.frameBytes, int64(fast.Bytes), with(bridge, port, keyPath.String("fast")))
	o.ObserveInt64(m.frameBytes, int64(slow.Bytes), with(bridge, port, keyPath.String("slow")))
}

func pathOf(r accel.Reason) string {
	if r == accel.Fast {
		return "fast"
	}
	return "slow"
}

// memberStates are all that a member can be in. Each is reported: one that is 0 is
// not one that is not known.
var memberStates = []string{"active", "draining", "standby", "cold", "away", "no_carrier", "missing"}

func (m *measures) observeGroup(o metric.Observer, g accel.GroupState) {
	group := keyGroup.String(g.Name)
	count := make(map[string]int64)
	for _, member := range g.Members {
		count[member.State]++
	}
	for _, state := range memberStates {
		o.ObserveInt64(m.members, count[state], with(group, keyState.String(state)))
	}
	for reason, n := range g.Frames {
		o.ObserveInt64(m.groupFrames, int64(n), with(group, keyReason.String(reason.String())))
	}
}
