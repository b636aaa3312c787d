package fdbsync

import (
	"runtime"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// many is the station with that number of a large table.
func many(n, port int) accel.Station {
	return accel.Station{StationKey: accel.StationKey{MAC: accel.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}}, Port: port}
}

// TestBridgeCountsWhenAllOfItIsConfirmed, though its table comes in pieces and the first
// of them is confirmed while others are read.
func TestBridgeCountsWhenAllOfItIsConfirmed(t *testing.T) {
	for name, c := range map[string]struct{ entries, piece int }{
		"in pieces":                      {1000, 7},
		"more than may wait at one time": {mostWaiting + 1000, mostWaiting + 2000},
	} {
		t.Run(name, func(t *testing.T) { countWhenConfirmed(t, c.entries, c.piece) })
	}
}

func countWhenConfirmed(t *testing.T, entries, piece int) {
	m, w := newTestMirror(t)
	m.stations = 2 * entries
	w.open(t, m)
	for n := range entries {
		w.table[many(n, 4).StationKey] = many(n, 4)
	}
	w.piece = piece
	must(t, m.distrust())
	must(t, m.read())
	for !m.synced {
		w.pass(gracePeriod / 5)
		_, err := m.advance(w.now)
		must(t, err)
	}
	if active, _, _ := m.table.counts(); active != entries {
		t.Errorf("%d entries of %d are active when the bridge counts", active, entries)
	}
}

func TestRowThatIsOlderThanAnEvent(t *testing.T) {
	old, moved := at(1, 10), at(1, 11)
	table := tableWith(old, active)
	table.beginDump()
	if !table.claim(moved) {
		t.Error("the event revokes nothing")
	}
	if table.show(old) || table.rows[old.StationKey].port != 11 {
		t.Error("the row of the dump counts more than the event behind it")
	}
	table.endWholeDump()
	table.beginDump()
	if !table.show(old) {
		t.Error("a row of the next dump does not count")
	}
}

// TestQueueIsBounded, though nobody has a turn: there is no room, and stations come and
// go without end.
func TestQueueIsBounded(t *testing.T) {
	const stations = 50
	table := newTable(0)
	for n := range 100_000 {
		s := at(byte(n%stations), 10)
		table.remove(s.StationKey)
		table.claim(s)
	}
	if n := table.claimed.len(); n > 2*slack {
		t.Errorf("the queue has %d places for %d stations", n, stations)
	}
	table.room = 100
	wantNextBatch(t, table, stations, stations)
}

// TestNoEventLooksAtTheWholeQueue, however much of it is not needed: there is no room, and
// most of what waited for some is gone.
func TestNoEventLooksAtTheWholeQueue(t *testing.T) {
	const many = 100_000
	var q queue
	for n := range many {
		q.put(accel.StationKey{VID: uint16(n % 10)}, 0)
	}
	q.mark()
	needed := func(p place) bool { return p.key.VID == 0 }
	for puts := 0; puts == 0 || q.tidies; puts++ {
		looked := 0
		q.tidy(many/10+puts, func(p place) bool { looked++; return needed(p) })
		if q.put(accel.StationKey{}, 1); looked > tidyPiece {
			t.Fatalf("%d of %d places are looked at at once", looked, many)
		}
		if puts > many {
			t.Fatal("the queue is never tidied")
		}
	}
	if q.marked != many/10 {
		t.Errorf("%d are marked, of %d that are needed", q.marked, many/10)
	}
	for n := range many / 10 {
		if p, ok := q.take(); !ok || !needed(p) || p.ticket != 0 {
			t.Fatalf("place %d is %+v (%v)", n, p, ok)
		}
	}
	if p, _ := q.take(); q.marked != 0 || p.ticket != 1 {
		t.Errorf("%d are marked still, and the next is %+v", q.marked, p)
	}
}

// TestTableShrinks when it was large once: memory that a flood took is given back.
func TestTableShrinks(t *testing.T) {
	const entries = 500_000
	before := heap()
	table := newTable(entries)
	for n := range entries {
		table.claim(many(n, 10))
	}
	for n := range entries - 10 {
		table.remove(many(n, 10).StationKey)
	}
	table.beginDump()
	table.endWholeDump()
	table.nextBatch(entries)
	if len(table.rows) != 10 {
		t.Errorf("%d rows are left", len(table.rows))
	}
	if grown := int(heap() - before); grown > 2<<20 {
		t.Errorf("ten rows take %d bytes", grown)
	}
	runtime.KeepAlive(table)
}

// heap is how much memory is in use, in bytes.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestTableThatShrinksWhileItIsCompared: what is gone does not come back.
func TestTableThatShrinksWhileItIsCompared(t *testing.T) {
	const entries = 2 * smallTable
	table := newTable(entries)
	for n := range entries {
		table.claim(many(n, 10))
	}
	for _, s := range table.nextBatch(entries).admit {
		table.answer(s.StationKey, &s)
	}
	table.beginCompare()
	w := table.walk()
	table.reclaimMissing(w)
	for n := range entries - 10 {
		table.remove(many(n, 10).StationKey)
	}
	table.beginDump()
	table.endWholeDump()
	for n := range entries {
		table.remove(many(n, 10).StationKey)
	}
	gone := func(k accel.StationKey, _ row) {
		if _, known := table.rows[k]; !known {
			t.Fatalf("%v is met, and is gone", k)
		}
	}
	for table.goOn(w, gone) {
	}
}

// TestTableIsNotReadWithoutEnd: where reading takes longer than the time until it is due
// again, it is neither begun anew nor begun again at once.
func TestTableIsNotReadWithoutEnd(t *testing.T) {
	m, w := newTestMirror(t)
	w.open(t, m)
	for n := range 20 {
		w.table[many(n, 4).StationKey] = many(n, 4)
	}
	w.piece = 10
	must(t, m.read())
	begun := m.dump
	m.readAfter = time.Time{}
	must(t, m.readAgain())
	if m.dump != begun {
		t.Error("it is begun anew while it is read")
	}
	m.begun = time.Now().Add(-time.Minute)
	for m.dump != nil {
		must(t, m.readOn())
	}
	must(t, m.readAgain())
	if m.dump != nil {
		t.Error("it is read again at once, though that takes a minute")
	}
}

// TestLargeTableIsNotComparedWithoutEnd, though programs revoke something all the time.
func TestLargeTableIsNotComparedWithoutEnd(t *testing.T) {
	m, w := newTestMirror(t)
	w.open(t, m)
	unknown := at(7, 4)
	unknown.Active = true
	b := w.bridges[2]
	b.stations[unknown.StationKey], b.revoked = unknown, 1
	m.lookAfter = time.Now().Add(time.Hour)
	must(t, m.sweep())
	w.catchUp(t, m)
	if len(b.stations) == 0 {
		t.Error("it is compared at once, though that takes long")
	}
	m.lookAfter = time.Time{}
	must(t, m.sweep())
	w.catchUp(t, m)
	if len(b.stations) != 0 {
		t.Error("it is not compared later either")
	}
}

// crowded is a mirror with three active stations, whose data plane shows one at a time.
func crowded(t *testing.T) (*mirror, *world, map[int]link) {
	t.Helper()
	m, w := newTestMirror(t)
	links := w.open(t, m)
	w.fakePlane.piece = 1
	for n := range 3 {
		s := at(byte(1+n), 4)
		w.table[s.StationKey] = s
		m.newNeigh(s)
	}
	for range 2 {
		_, err := m.advance(w.now)
		must(t, err)
		w.pass(2 * gracePeriod)
	}
	return m, w, links
}

// TestComparisonEnds, though programs revoke something between any two of its pieces.
func TestComparisonEnds(t *testing.T) {
	m, w, _ := crowded(t)
	for turns := 0; turns == 0 || m.comparison != nil; turns++ {
		if turns > 10 {
			t.Fatal("it begins anew every time")
		}
		w.bridges[2].revoked++
		must(t, m.sweep())
		_, err := m.advance(w.now)
		must(t, err)
	}
}

// TestBridgeCountsWhenItIsCompared: after a loss the data plane may hold what it must not.
func TestBridgeCountsWhenItIsCompared(t *testing.T) {
	m, w, links := crowded(t)
	must(t, m.distrust())
	must(t, m.read())
	must(t, m.compare())
	compared := false
	for !m.synced {
		compared = compared || m.comparison != nil && m.dump == nil && m.owed == 0
		_, err := m.advance(w.now)
		must(t, err)
	}
	if !compared || m.comparison != nil {
		t.Error("it counts before it is compared")
	}
	w.settle(t, m, links)
	if got := w.bridges[2].gate.Reason; got != accel.Fast {
		t.Errorf("then the gate is %v", got)
	}
}
