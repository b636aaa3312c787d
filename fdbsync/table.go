package fdbsync

import (
	"cmp"
	"iter"
	"maps"
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
	// rows hold no pointers, and no more than is needed: there may be millions.
	rows map[accel.StationKey]row
	// claimed are the stations that wait to be admitted, and for a verdict.
	claimed queue
	// asked are the stations that a dump did not show: the kernel shall say what became
	// of them.
	asked queue
	// retry are the stations whose candidate a program revoked, or for which the data
	// plane had no port or no room.
	retry    []accel.StationKey
	queued   int             // rows that are in claimed
	phases   [active + 1]int // rows that are in each
	behind   map[int]int     // active stations that are not the host's, by port
	dump     uint8           // number of the dump that is being read, or was last
	turn     uint8           // number of the comparison
	batch    uint16          // number of the last batch
	ticket   uint16          // of the last that was put into claimed
	room     int             // how many stations the data plane can still take
	mostRows int             // since rows was made
	piece    int             // how many rows a walk meets at a time
}

// row is what is known of one station.
type row struct {
	port  int32 // as accel.Station has it
	flags rowFlags
	phase phase
	seen  uint8  // the last dump that showed the row, or began before it came
	held  uint8  // the last comparison that found it in the data plane
	batch uint16 // the last that admitted it; of one in claimed its ticket
}

type rowFlags uint8

const (
	rowLocal rowFlags = 1 << iota
	rowNoSource
	rowSticky
	rowQueued // it is in claimed
	rowAsked  // it is in asked
	rowLost   // it is in retry
)

// rowStation are the flags that the kernel told.
const rowStation = rowLocal | rowNoSource | rowSticky

type phase uint8

const (
	claimed   phase = iota // somebody said so; nothing is in the data plane
	candidate              // admitted, inactive
	active                 // confirmed by the kernel and made active
)

// newTable returns an empty table whose data plane takes that many stations.
func newTable(room int) *table {
	return &table{room: room, rows: make(map[accel.StationKey]row), behind: make(map[int]int), piece: walkPiece}
}

// rowOf is what the kernel says of a station.
func rowOf(s accel.Station) (r row) {
	r.port = int32(s.Port)
	if s.Local {
		r.flags |= rowLocal
	}
	if s.NoSource {
		r.flags |= rowNoSource
	}
	if s.Sticky {
		r.flags |= rowSticky
	}
	return r
}

// says is whether both say the same of a station.
func (r row) says(other row) bool {
	return r.port == other.port && r.flags&rowStation == other.flags&rowStation
}

// station is the row as the kernel last told it; it is not Active.
func (r row) station(k accel.StationKey) accel.Station {
	return accel.Station{
		StationKey: k, Port: int(r.port),
		Local: r.flags&rowLocal != 0, NoSource: r.flags&rowNoSource != 0, Sticky: r.flags&rowSticky != 0,
	}
}

// enter puts a row into a phase, and keeps count.
func (t *table) enter(r *row, p phase) {
	t.count(*r, -1)
	r.phase = p
	t.count(*r, 1)
}

func (t *table) count(r row, n int) {
	t.phases[r.phase] += n
	if r.phase == active && r.flags&rowLocal == 0 {
		if t.behind[int(r.port)] += n; t.behind[int(r.port)] == 0 {
			delete(t.behind, int(r.port))
		}
	}
}

// claim takes in what an event says of a station. It returns true if the data plane may
// hold something else: then its entry must be revoked now.
func (t *table) claim(s accel.Station) (revoke bool) {
	told := rowOf(s)
	r, known := t.rows[s.StationKey]
	if !known {
		t.add(s.StationKey, told)
		return false
	}
	r.seen = t.dump
	if revoke = !r.says(told); revoke {
		t.leave(&r) // as what it was
		r.port, r.flags = told.port, told.flags|r.flags&^rowStation
		t.queue(s.StationKey, &r)
	}
	t.rows[s.StationKey] = r
	return revoke
}

func (t *table) add(k accel.StationKey, r row) {
	r.seen = t.dump
	t.count(r, 1)
	t.queue(k, &r)
	t.rows[k] = r
	t.mostRows = max(t.mostRows, len(t.rows))
}

// show takes in a row of a dump, as claim does; but what an event told since the dump
// began is younger than the row.
func (t *table) show(s accel.Station) (revoke bool) {
	if r, known := t.rows[s.StationKey]; known && r.seen == t.dump {
		return false
	}
	return t.claim(s)
}

// queue claims a row, of which the data plane has nothing any more. A question that waits
// is asked all the same: it may be long until there is room for the row.
func (t *table) queue(k accel.StationKey, r *row) {
	r.flags &^= rowLost
	if r.flags&rowQueued != 0 {
		return
	}
	t.claimed.tidy(t.queued, t.hasTurn)
	t.ticket++
	t.claimed.put(k, t.ticket)
	r.batch = t.ticket
	r.flags |= rowQueued
	t.queued++
}

// hasTurn says whether a place in claimed is that of a row.
func (t *table) hasTurn(p place) bool {
	r := t.rows[p.key]
	return r.flags&rowQueued != 0 && r.batch == p.ticket
}

// reclaim claims a station anew.
func (t *table) reclaim(k accel.StationKey, r row) {
	t.leave(&r)
	t.queue(k, &r)
	t.rows[k] = r
}

// leave gives up the place of a row in the data plane.
func (t *table) leave(r *row) {
	if r.phase != claimed {
		t.room++
	}
	t.enter(r, claimed)
}

// remove takes in that the kernel removed a station, whose entry in the data
// plane must be revoked now.
func (t *table) remove(k accel.StationKey) {
	if r, known := t.rows[k]; known {
		t.leave(&r)
		t.count(r, -1)
		if r.flags&rowQueued != 0 {
			t.queued--
		}
		delete(t.rows, k)
	}
}

// beginDump starts a dump. Events may be told while it is read.
func (t *table) beginDump() { t.dump++ }

// endDump ends it, and returns the walk for askMissed.
func (t *table) endDump() *walk {
	t.shrink()
	return t.walk()
}

// askMissed goes on to look for stations that the dump did not show, and says whether
// there are more rows to look at. They are asked for with the next batch, those that wait
// for room too; candidates are anyway.
func (t *table) askMissed(w *walk) (more bool) {
	return t.goOn(w, func(k accel.StationKey, r row) {
		if r.seen != t.dump && r.phase != candidate {
			t.ask(k, r)
		}
	})
}

// markDump takes in that all that the dump showed, or did not, waits for its turn.
func (t *table) markDump() {
	t.claimed.mark()
	t.asked.mark()
}

// walk is a way through the rows, a piece at a time, while they change: who is there all
// the time is met once.
type walk struct {
	next func() (accel.StationKey, bool)
	stop func()
}

// walkPiece is how many rows a walk meets at a time.
const walkPiece = 1024

func (t *table) walk() *walk {
	next, stop := iter.Pull(maps.Keys(t.rows))
	return &walk{next, stop}
}

// end ends it, wherever it is; a walk that never began has nothing to end.
func (w *walk) end() {
	if w != nil {
		w.stop()
	}
}

// goOn calls f for the next rows, and says whether there are more.
func (t *table) goOn(w *walk, f func(accel.StationKey, row)) (more bool) {
	for range t.piece {
		k, ok := w.next()
		if !ok {
			return false
		}
		if r, known := t.rows[k]; known { // shrink may have made another map
			f(k, r)
		}
	}
	return true
}

func (t *table) ask(k accel.StationKey, r row) {
	if r.flags&rowAsked == 0 {
		t.asked.tidy(len(t.rows), func(p place) bool { return t.rows[p.key].flags&rowAsked != 0 })
		t.asked.put(k, 0)
		r.flags |= rowAsked
		t.rows[k] = r
	}
}

// smallTable is how many rows are not worth the work of shrink.
const smallTable = 1 << 14

// shrink gives back the memory of a table that was far larger once: a map keeps what it
// ever had.
func (t *table) shrink() {
	if t.mostRows < max(4*len(t.rows), smallTable) {
		return
	}
	rows := make(map[accel.StationKey]row, len(t.rows))
	for k, r := range t.rows {
		rows[k] = r
	}
	t.rows, t.mostRows = rows, len(rows)
}

// isDue says whether a station that the last dump showed, or did not show, waits for
// its turn still; what there is no room for does not.
func (t *table) isDue() bool {
	return t.asked.marked > 0 || t.claimed.marked > 0 && t.room > 0
}

// batch is what to admit now and to ask the kernel for after the grace period.
type batch struct {
	number uint16
	admit  []accel.Station
	ask    []accel.StationKey
}

// nextBatch makes claimed stations candidates, as far as there is room: it asks for most
// keys, and leaves the others for the next time.
func (t *table) nextBatch(most int) (b batch) {
	t.batch++
	b.number = t.batch
	for t.room > 0 && len(b.ask) < most {
		p, ok := t.claimed.take()
		if !ok {
			break
		}
		if !t.hasTurn(p) {
			continue // removed since
		}
		k, r := p.key, t.rows[p.key]
		r.flags &^= rowQueued | rowAsked
		t.queued--
		t.room--
		t.enter(&r, candidate)
		r.batch = b.number
		t.rows[k] = r
		b.admit, b.ask = append(b.admit, r.station(k)), append(b.ask, k)
	}
	for len(b.ask) < most {
		p, ok := t.asked.take()
		if !ok {
			break
		}
		if r := t.rows[p.key]; r.flags&rowAsked != 0 {
			r.flags &^= rowAsked
			t.rows[p.key] = r
			b.ask = append(b.ask, p.key)
		}
	}
	return b
}

// isOf says whether a batch is the last that an entry was in: one that came back since is
// a candidate anew, and has a grace period of its own.
func (t *table) isOf(k accel.StationKey, batch uint16) bool {
	r := t.rows[k]
	return r.phase != candidate || r.batch == batch
}

// waits says whether a call of nextBatch may find something.
func (t *table) waits() bool {
	return t.asked.len() > 0 || t.claimed.len() > 0 && t.room > 0
}

// takeBack undoes nextBatch for a key that was not asked for yet: it goes into the next
// batch.
func (t *table) takeBack(k accel.StationKey) {
	switch r, known := t.rows[k]; {
	case !known:
	case r.phase == active:
		t.ask(k, r)
	default:
		t.reclaim(k, r)
	}
}

// answer takes in what the kernel said when it was asked for one entry; nil if
// it has none. The caller makes the station active, or revokes its entry, or
// does nothing.
func (t *table) answer(k accel.StationKey, kernel *accel.Station) action {
	r, known := t.rows[k]
	switch {
	case !known:
		return revokeIt // removed since; nothing may be left of it
	case kernel == nil:
		t.remove(k)
		return revokeIt
	case !rowOf(*kernel).says(r):
		t.claim(*kernel)
		return revokeIt
	case r.phase == candidate:
		t.enter(&r, active)
		r.held = t.turn // of a comparison that passed its place already
		t.rows[k] = r
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
		if r, known := t.rows[k]; known {
			t.leave(&r)
			r.flags |= rowLost
			t.rows[k] = r
			t.retry = append(t.retry, k)
		}
	}
}

// again claims anew what was lost.
func (t *table) again() {
	for _, k := range t.retry {
		if r := t.rows[k]; r.flags&rowLost != 0 {
			t.queue(k, &r)
			t.rows[k] = r
		}
	}
	t.retry = nil
}

// beginCompare starts a comparison with what the data plane holds.
func (t *table) beginCompare() { t.turn++ }

// compare takes in what the data plane holds of a station, and returns whether it must
// not: a station that is only claimed takes a place there that is not its own.
func (t *table) compare(held accel.Station) (revoke bool) {
	r, known := t.rows[held.StationKey]
	if !known || !isSame(held, r.station(held.StationKey)) || r.phase == claimed || (held.Active && r.phase != active) {
		return true
	}
	if held.Active {
		r.held = t.turn
		t.rows[held.StationKey] = r
	}
	return false
}

// reclaimMissing goes on to claim anew the active stations that the data plane did not
// hold, and says whether there are more rows to look at.
func (t *table) reclaimMissing(w *walk) (more bool) {
	return t.goOn(w, func(k accel.StationKey, r row) {
		if r.phase == active && r.held != t.turn {
			t.reclaim(k, r)
		}
	})
}

// isFull says whether stations wait for room in the data plane.
func (t *table) isFull() bool { return t.room == 0 && t.queued > 0 }

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
		unmirrored = t.queued
	}
	return t.phases[active], len(t.rows) - t.phases[active] - unmirrored, unmirrored
}

// activeBehind counts the active stations by port.
func (t *table) activeBehind() map[int]int { return t.behind }

// stations returns all rows, in any order.
func (t *table) stations() []accel.Station {
	all := make([]accel.Station, 0, len(t.rows))
	for k, r := range t.rows {
		s := r.station(k)
		s.Active = r.phase == active
		all = append(all, s)
	}
	return all
}

// sortStations sorts them by VLAN and address.
func sortStations(all []accel.Station) {
	slices.SortFunc(all, func(a, b accel.Station) int {
		if c := cmp.Compare(a.VID, b.VID); c != 0 {
			return c
		}
		return slices.Compare(a.MAC[:], b.MAC[:])
	})
}
