package top

import (
	"cmp"
	"math"
	"slices"

	"github.com/shunt-dev/shunt/accel"
)

// flow is how much took each path in a second, if that is known.
type flow struct {
	known              bool
	fast, slow         uint64 // frames
	fastBits, slowBits uint64
}

func (f flow) add(g flow) flow {
	return flow{f.known || g.known, f.fast + g.fast, f.slow + g.slow, f.fastBits + g.fastBits, f.slowBits + g.slowBits}
}

// portKey names a port. One that left and came back is another.
type portKey struct {
	bridge  string
	ifindex int
}

func keyOf(p accel.PortV1) portKey { return portKey{p.Bridge, p.Ifindex} }

// rates are what happened between two snapshots. What was not in both is missing.
type rates struct {
	bridges map[string]flow
	ports   map[portKey]flow
	reasons map[accel.Reason]uint64 // frames a second
}

// between compares two snapshots by the daemon's clock; those of different daemons
// say nothing.
func between(before, after accel.SnapshotV1) rates {
	took := after.TimeNS - before.TimeNS
	if before.Status.PID != after.Status.PID || took <= 0 {
		return rates{}
	}
	r := rates{make(map[string]flow), make(map[portKey]flow), make(map[accel.Reason]uint64)}
	was := make(map[portKey]accel.TrafficV1)
	for _, p := range before.Ports {
		was[keyOf(p)] = p.TrafficV1
	}
	for _, p := range after.Ports {
		if traffic, ok := was[keyOf(p)]; ok {
			f := flowBetween(traffic, p.TrafficV1, took)
			r.ports[keyOf(p)] = f
			r.bridges[p.Bridge] = r.bridges[p.Bridge].add(f)
		}
	}
	counted := make(map[accel.Reason]uint64) // a reason is in no list before its first frame
	for _, reason := range before.Reasons {
		counted[reason.Reason] = reason.Frames
	}
	for _, reason := range after.Reasons {
		if n := counted[reason.Reason]; n <= reason.Frames {
			r.reasons[reason.Reason] = perSecond(n, reason.Frames, took)
		}
	}
	return r
}

// flowBetween is unknown where a counter went back: the port's counters began anew.
func flowBetween(before, after accel.TrafficV1, took int64) flow {
	if after.Fast < before.Fast || after.Slow < before.Slow || after.FastBytes < before.FastBytes || after.SlowBytes < before.SlowBytes {
		return flow{}
	}
	return flow{
		known: true,
		fast:  perSecond(before.Fast, after.Fast, took), fastBits: 8 * perSecond(before.FastBytes, after.FastBytes, took),
		slow: perSecond(before.Slow, after.Slow, took), slowBits: 8 * perSecond(before.SlowBytes, after.SlowBytes, took),
	}
}

// perSecond is rounded: a reading is a little late, and one frame a second would be
// none if it were cut.
func perSecond(before, after uint64, nanoseconds int64) uint64 {
	return uint64(math.Round(float64(after-before) * 1e9 / float64(nanoseconds)))
}

// rank puts the reasons for the slow path into the order of their rates, and of their
// frames where those are equal or not known.
func (r rates) rank(reasons []accel.ReasonV1) []accel.ReasonV1 {
	slow := slices.DeleteFunc(slices.Clone(reasons), func(v accel.ReasonV1) bool { return v.Reason == accel.Fast })
	slices.SortStableFunc(slow, func(a, b accel.ReasonV1) int {
		return cmp.Or(cmp.Compare(r.reasons[b.Reason], r.reasons[a.Reason]), cmp.Compare(b.Frames, a.Frames), cmp.Compare(a.Reason, b.Reason))
	})
	return slow
}
