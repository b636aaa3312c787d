package fdbsync

import (
	"cmp"
	"slices"

	"github.com/shunt-dev/shunt/accel"
)

// table is what is known of one bridge's FDB: a state machine without I/O. Its
// caller tells it what the kernel and the data plane said, and does what it
// answers.
//
// A station goes claimed → candidate → active. Any doubt takes it back to
// claimed, or out, and in either case the data plane's entry is revoked first.
type table struct {
	rows map[accel.StationKey]*row
	// claimed are the keys that wait to be admitted, and for a verdict.
	claimed map[accel.StationKey]struct{}
	// asked are the keys of stations that a dump did not show: the kernel shall
	// say what became of them.
	asked map[accel.StationKey]struct{}
	// retry are the keys whose candidate a program revoked, or for which the
	// data plane had no port or no room.
	retry map[accel.StationKey]struct{}
	dump  uint64 // number of the dump that is being read
	room  int    // how many stations the data plane can still take
}

type row struct {
	station accel.Station // as the kernel last said; Active is never set
	phase   phase
	seen    uint64 // the last dump that showed the row, or began before it came
}

type phase uint8

const (
	claimed   phase = iota // somebody said so; nothing is in the data plane
	candidate              // admitted, inactive
	active                 // confirmed by the kernel and made active
)

// newTable returns an empty table whose data plane takes that many stations.
func newTable(room int) *table {
	return &table{
		room:    room,
		rows:    make(map[accel.StationKey]*row),
		claimed: make(map[accel.StationKey]struct{}),
		asked:   make(map[accel.StationKey]struct{}),
		retry:   make(map[accel.StationKey]struct{}),
	}
}

// claim takes in what an event or a dump says of a station. It returns true if
// the data plane may hold something else: then its entry must be revoked now.
func (t *table) claim(s accel.Station) (revoke bool) {
	s.Active = false
	r := t.rows[s.StationKey]
	if r == nil {
		t.rows[s.StationKey] = &row{station: s, seen: t.dump}
		t.claimed[s.StationKey] = struct{}{}
		return false
	}
	r.seen = t.dump
	if r.station == s {
		return false
	}
	r.station = s
	t.reclaim(s.StationKey, r)
	return true
}

func (t *table) reclaim(k accel.StationKey, r *row) {
	t.leave(r)
	delete(t.asked, k)
	delete(t.retry, k)
	t.claimed[k] = struct{}{}
}

// leave gives up the place of a row in the data plane.
func (t *table) leave(r *row) {
	if r.phase != claimed {
		t.room++
	}
	r.phase = claimed
}

// remove takes in that the kernel removed a station, whose entry in the data
// plane must be revoked now.
func (t *table) remove(k accel.StationKey) {
	if r := t.rows[k]; r != nil {
		t.leave(r)
	}
	delete(t.rows, k)
	delete(t.claimed, k)
	delete(t.asked, k)
	delete(t.retry, k)
}

// beginDump starts a dump. Events that happen while it is read must be told
// after its last row.
func (t *table) beginDump() { t.dump++ }

// endDump ends it: the stations that it did not show are asked for with the next
// batch, those that wait for room too; candidates are anyway.
func (t *table) endDump() {
	for k, r := range t.rows {
		if r.seen != t.dump && r.phase != candidate {
			t.asked[k] = struct{}{}
		}
	}
}

// batch is what to admit now and to ask the kernel for after the grace period.
type batch struct {
	admit []accel.Station
	ask   []accel.StationKey
}

func (b batch) empty() bool { return len(b.ask) == 0 }

// nextBatch makes every claimed station a candidate, as far as there is room.
func (t *table) nextBatch() batch {
	var b batch
	for k := range t.claimed {
		if t.room == 0 {
			break
		}
		t.room--
		r := t.rows[k]
		r.phase = candidate
		b.admit = append(b.admit, r.station)
		b.ask = append(b.ask, k)
		delete(t.claimed, k)
		delete(t.asked, k)
	}
	for k := range t.asked {
		b.ask = append(b.ask, k)
	}
	clear(t.asked)
	return b
}

// takeBack undoes nextBatch for the keys that were not asked for yet: they go
// into the next batch.
func (t *table) takeBack(ask []accel.StationKey) {
	for _, k := range ask {
		switch r := t.rows[k]; {
		case r == nil:
		case r.phase == active:
			t.asked[k] = struct{}{}
		default:
			t.reclaim(k, r)
		}
	}
}

// answer takes in what the kernel said when it was asked for one entry; nil if
// it has none. The caller makes the station active, or revokes its entry, or
// does nothing.
func (t *table) answer(k accel.StationKey, kernel *accel.Station) action {
	r := t.rows[k]
	switch {
	case r == nil:
		return revokeIt // removed since; nothing may be left of it
	case kernel == nil:
		t.remove(k)
		return revokeIt
	case *kernel != r.station:
		r.station = *kernel
		t.reclaim(k, r)
		return revokeIt
	case r.phase == candidate:
		r.phase = active
		return activateIt
	}
	return nothing // active already, or claimed anew since it was asked for
}

type action uint8

const (
	nothing action = iota
	activateIt
	revokeIt
)

// lost takes in that the data plane had no candidate to make active: a program
// revoked it, or there was no room. It is tried again later.
func (t *table) lost(keys []accel.StationKey) {
	for _, k := range keys {
		if r := t.rows[k]; r != nil {
			t.leave(r)
			t.retry[k] = struct{}{}
		}
	}
}

// again claims anew what was lost.
func (t *table) again() {
	for k := range t.retry {
		t.claimed[k] = struct{}{}
	}
	clear(t.retry)
}

// compare takes in what the data plane holds, and returns what it must not: a
// station that is only claimed takes a place there that is not its own. The
// active stations that it does not hold are claimed anew.
func (t *table) compare(held []accel.Station) (revoke []accel.StationKey) {
	have := make(map[accel.StationKey]struct{}, len(held))
	for _, h := range held {
		r := t.rows[h.StationKey]
		if r == nil || !isSame(h, r.station) || r.phase == claimed || (h.Active && r.phase != active) {
			revoke = append(revoke, h.StationKey)
			continue
		}
		if h.Active {
			have[h.StationKey] = struct{}{}
		}
	}
	for k, r := range t.rows {
		if _, ok := have[k]; !ok && r.phase == active {
			t.reclaim(k, r)
		}
	}
	return revoke
}

// isFull says whether stations wait for room in the data plane.
func (t *table) isFull() bool { return t.room == 0 && len(t.claimed) > 0 }

// isSame compares what the data plane holds with what it should hold. It knows
// no port of a local station: a frame to that goes up wherever it came in.
func isSame(held, want accel.Station) bool {
	held.Active = false
	if held.Local && want.Local {
		held.Port = want.Port
	}
	return held == want
}

// counts returns how many stations are active, on their way, and without room.
func (t *table) counts() (activeRows, pending, unmirrored int) {
	if t.isFull() {
		unmirrored = len(t.claimed)
	}
	for _, r := range t.rows {
		if r.phase == active {
			activeRows++
		}
	}
	return activeRows, len(t.rows) - activeRows - unmirrored, unmirrored
}

// activeBehind counts the active stations by port.
func (t *table) activeBehind() map[int]int {
	behind := make(map[int]int)
	for _, r := range t.rows {
		if r.phase == active && !r.station.Local {
			behind[r.station.Port]++
		}
	}
	return behind
}

// stations returns all rows, by VLAN and address.
func (t *table) stations() []accel.Station {
	all := make([]accel.Station, 0, len(t.rows))
	for _, r := range t.rows {
		s := r.station
		s.Active = r.phase == active
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b accel.Station) int {
		if c := cmp.Compare(a.VID, b.VID); c != 0 {
			return c
		}
		return slices.Compare(a.MAC[:], b.MAC[:])
	})
	return all
}
