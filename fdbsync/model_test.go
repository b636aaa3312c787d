package fdbsync

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

const modelBridge = 5

// world is a kernel, a data plane and what happens to them, all at random: at
// any call of the mirror, stations may come, move and go, with their events
// queued, while the mirror looks at dumps that miss and repeat rows.
type world struct {
	*fakePlane
	random *rand.Rand
	now    time.Time
	table  map[accel.StationKey]accel.Station
	dying  map[accel.StationKey]time.Time // revoked, and not unlinked before then
	queue  []happening
	known  map[int]link // the interfaces
	// filters are the packet filters, for tests with a syncer.
	filters firewall
	// programs revoke inside the kernel whatever it changes, as where the
	// tracepoints are there. Without them only events do.
	programs bool
	busy     bool // things may happen
	lying    bool // dumps miss and repeat
	piece    int  // how many rows of a dump come at a time; 0: as it happens
	born     map[accel.StationKey]time.Time
	wrong    error // the first rule that was broken
}

// happening is one event of the kernel.
type happening struct {
	station accel.Station
	removed bool
}

func newWorld(seed uint64, programs bool, room int) *world {
	w := &world{
		fakePlane: newFakePlane(), random: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0),
		table: make(map[accel.StationKey]accel.Station), dying: make(map[accel.StationKey]time.Time),
		born: make(map[accel.StationKey]time.Time), programs: programs, busy: true, lying: true,
	}
	w.fakePlane.OpenBridge(accel.Bridge{Name: "br0", Ifindex: modelBridge})
	w.bridges[modelBridge].room = room
	return w
}

func (w *world) blame(format string, args ...any) {
	if w.wrong == nil {
		w.wrong = fmt.Errorf(format, args...)
	}
}

func (w *world) key() accel.StationKey {
	return accel.StationKey{MAC: accel.MAC{2, 0, 0, 0, 0, byte(w.random.IntN(24))}, VID: uint16(w.random.IntN(2))}
}

// happen lets something happen, or nothing.
func (w *world) happen() {
	if !w.busy {
		return
	}
	switch k := w.key(); w.random.IntN(40) {
	case 0, 1, 2, 3:
		w.add(k)
	case 4, 5:
		w.delete(k)
	case 6:
		w.bridges[modelBridge].revoke(k) // a spoofed frame
	case 7:
		if w.random.IntN(20) == 0 {
			for k := range w.table {
				w.delete(k)
			}
		}
	}
}

// add learns a station, moves it, or changes what kind of entry it has.
func (w *world) add(k accel.StationKey) {
	if _, ok := w.dying[k]; ok {
		return // its entry is still in the way
	}
	s := accel.Station{StationKey: k, Port: 10 + w.random.IntN(3), NoSource: w.random.IntN(10) == 0}
	if old, ok := w.table[k]; ok && old != s {
		w.revokeInKernel(k)
	} else if ok {
		return // refreshed; nobody is told
	}
	w.table[k] = s
	w.queue = append(w.queue, happening{station: s})
}

// delete runs the program first and unlinks some time later, as the kernel does
// (net/bridge/br_fdb.c: fdb_delete).
func (w *world) delete(k accel.StationKey) {
	if _, ok := w.table[k]; !ok || !w.dying[k].IsZero() {
		return
	}
	w.revokeInKernel(k)
	w.dying[k] = w.now.Add(time.Duration(w.random.Int64N(int64(gracePeriod))))
}

func (w *world) revokeInKernel(k accel.StationKey) {
	if w.programs {
		w.bridges[modelBridge].revoke(k)
	}
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for k, at := range w.dying {
		if at.After(w.now) {
			continue
		}
		w.queue = append(w.queue, happening{station: w.table[k], removed: true})
		delete(w.table, k)
		delete(w.dying, k)
	}
}

func (w *world) links() (map[int]link, error) {
	all := make(map[int]link)
	for ifindex := range w.known {
		all[ifindex], _, _ = w.link(ifindex)
	}
	return all, nil
}

func (w *world) close() error { return nil }

func (w *world) link(ifindex int) (link, bool, error) {
	l, ok := w.known[ifindex]
	l.vlans = portVLANs{} // asked for apart
	return l, ok, nil
}

func (w *world) vlans(port int) (portVLANs, error) { return w.known[port].vlans, nil }

// worldDump shows the keys that there were at its beginning as they are when it comes to
// them: some of them at a time where the world lies.
type worldDump struct {
	*world
	keys []accel.StationKey
}

func (w *world) fdb(int) (dump, error) {
	if err := w.breaking("fdb"); err != nil {
		return nil, err
	}
	return &worldDump{world: w, keys: slices.Collect(maps.Keys(w.table))}, nil
}

func (d *worldDump) close() error { return nil }

func (d *worldDump) next(f func(accel.Station)) (more bool, err error) {
	piece := len(d.keys)
	switch {
	case d.piece > 0:
		piece = min(piece, d.piece)
	case d.lying:
		piece = min(piece, d.random.IntN(8))
	}
	var rows []accel.Station
	for _, k := range d.keys[:piece] {
		d.happen()
		s, ok := d.table[k]
		if !ok || d.lying && d.random.IntN(5) == 0 {
			continue
		}
		rows = append(rows, s)
		if d.lying && d.random.IntN(5) == 0 {
			rows = append(rows, s)
		}
	}
	for _, s := range rows {
		f(s)
	}
	d.keys = d.keys[piece:]
	return len(d.keys) > 0 || d.piece > 0 && len(rows) > 0, nil // the kernel says it in a piece of its own
}

func (w *world) stations(_ int, keys []accel.StationKey) ([]*accel.Station, error) {
	if err := w.breaking("neigh"); err != nil {
		return nil, err
	}
	answers := make([]*accel.Station, len(keys))
	for i, k := range keys {
		w.happen()
		if s, ok := w.table[k]; ok {
			answers[i] = &s
		}
	}
	return answers, nil
}

// Admit remembers when a candidate came.
func (w *world) Admit(bridge int, stations []accel.Station) (int, error) {
	w.happen()
	before := clone(w.bridges[bridge].stations)
	n, err := w.fakePlane.Admit(bridge, stations)
	for k := range w.bridges[bridge].stations {
		if _, ok := before[k]; !ok {
			w.born[k] = w.now
		}
	}
	w.happen()
	return n, err
}

// Activate holds the grace period against the clock.
func (w *world) Activate(bridge int, stations []accel.Station) ([]accel.StationKey, error) {
	w.happen()
	for _, s := range stations {
		if h, ok := w.bridges[bridge].stations[s.StationKey]; ok && h.Active {
			w.blame("%v is activated twice", s.StationKey)
		} else if ok && w.now.Sub(w.born[s.StationKey]) < gracePeriod {
			w.blame("%v was active %v after its admission", s.StationKey, w.now.Sub(w.born[s.StationKey]))
		}
	}
	lost, err := w.fakePlane.Activate(bridge, stations)
	w.happen()
	return lost, err
}

func (w *world) Revoke(bridge int, keys []accel.StationKey) error {
	w.happen()
	defer w.happen()
	return w.fakePlane.Revoke(bridge, keys)
}

// check holds every active entry against the kernel's table. Without programs
// an entry may be as late as the events are, and no later while the gate may be
// open.
func (w *world) check(m *mirror) {
	for k, h := range w.bridges[modelBridge].stations {
		if !h.Active {
			continue
		}
		s, ok := w.table[k]
		s.Active = true
		right := ok && s == h && w.dying[k].IsZero()
		if !right && (w.programs || m.synced && !w.isQueued(k)) {
			w.blame("%v is active behind port %d and the kernel has %+v (%v)", k, h.Port, s, ok)
		}
	}
}

func (w *world) isQueued(k accel.StationKey) bool {
	return !w.dying[k].IsZero() || slices.ContainsFunc(w.queue, func(h happening) bool { return h.station.StationKey == k })
}

// deliver tells the mirror the next events.
func (w *world) deliver(m *mirror) error {
	for range min(len(w.queue), 1+w.random.IntN(3)) {
		h := w.queue[0]
		w.queue = w.queue[1:]
		if h.removed {
			m.delNeigh(h.station.StationKey)
		} else {
			m.newNeigh(h.station)
		}
	}
	return m.revokeDoubtful()
}

// step does one of the things that the syncer does.
func (w *world) step(m *mirror) error {
	w.happen()
	switch n := w.random.IntN(100); {
	case n < 45:
		return w.deliver(m)
	case n < 85:
		w.pass(time.Duration(w.random.Int64N(int64(gracePeriod / 2))))
		_, err := m.advance(w.now)
		return err
	case n < 95:
		return m.sweep()
	case n < 98:
		return errors.Join(m.read(), m.compare())
	case n < 99 && w.random.IntN(3) == 0:
		w.queue = nil // overrun
		return errors.Join(m.distrust(), m.read(), m.compare())
	}
	return nil
}

// rest ends all trouble and lets the mirror catch up.
func (w *world) rest(m *mirror) error {
	w.busy, w.lying = false, false
	if err := errors.Join(m.read(), m.compare()); err != nil {
		return err
	}
	for range 100 {
		for len(w.queue) > 0 {
			if err := w.deliver(m); err != nil {
				return err
			}
		}
		w.pass(2 * gracePeriod)
		_, err := m.advance(w.now)
		if err := errors.Join(err, m.sweep()); err != nil {
			return err
		}
	}
	return nil
}

// equal compares the data plane with the kernel.
func (w *world) equal(m *mirror) error {
	b := w.bridges[modelBridge]
	var active int
	for k, h := range b.stations {
		s, ok := w.table[k]
		s.Active = h.Active
		if !ok || s != h {
			return fmt.Errorf("%v is held behind port %d, and the kernel has %+v (%v)", k, h.Port, s, ok)
		}
		if h.Active {
			active++
		}
	}
	if want := min(len(w.table), b.room); active != want {
		return fmt.Errorf("%d stations are active, want %d", active, want)
	}
	rows, pending, unmirrored := m.table.counts()
	if rows != active || pending != 0 || unmirrored != len(w.table)-active {
		return fmt.Errorf("counted %d active, %d pending, %d unmirrored", rows, pending, unmirrored)
	}
	return nil
}

// runModel lets the world turn, and rest now and then.
func runModel(seed uint64, programs bool, room int) error {
	w := newWorld(seed, programs, room)
	m := &mirror{
		name: "br0", plane: w, kernel: w, logger: slog.New(slog.DiscardHandler), on: true, present: true,
		link: link{ifindex: modelBridge}, stations: room, table: newTable(room), ports: make(map[int]*member),
	}
	m.table.piece, w.fakePlane.piece = 5, 5
	for round := range 4 {
		w.busy, w.lying = true, true
		for step := range 500 {
			if err := w.step(m); err != nil {
				return err
			}
			if w.check(m); w.wrong != nil {
				return fmt.Errorf("round %d, step %d: %w", round, step, w.wrong)
			}
		}
		if err := errors.Join(w.rest(m), w.wrong); err != nil {
			return fmt.Errorf("round %d, at rest: %w", round, err)
		}
		if err := w.equal(m); err != nil {
			return fmt.Errorf("round %d, at rest: %w", round, err)
		}
	}
	return nil
}

// TestModel is right when the active entries are the kernel's at every moment
// (with programs that revoke), or as late as its events (without them), and all
// of them when nothing happens any more.
func TestModel(t *testing.T) {
	for name, programs := range map[string]bool{"programs revoke": true, "events only": false} {
		for name2, room := range map[string]int{"room": 1 << 20, "little room": 17} {
			t.Run(name+", "+name2, func(t *testing.T) {
				t.Parallel()
				for seed := range uint64(40) {
					if err := runModel(seed, programs, room); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			})
		}
	}
}
