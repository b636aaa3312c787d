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

// TestQueueIsBounded, though nobody has a turn: there is no room, and a station comes and
// goes without end.
func TestQueueIsBounded(t *testing.T) {
	table := newTable(0)
	table.claim(at(1, 10))
	for range 100_000 {
		table.claim(at(2, 10))
		table.remove(at(2, 10).StationKey)
	}
	if n := len(table.claimed.keys); n > 2*slack {
		t.Errorf("the queue has %d keys for one station", n)
	}
	table.room = 100
	wantNextBatch(t, table, 1, 1)
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
