package fdbsync

import (
	"slices"
	"testing"

	"github.com/shunt-dev/shunt/accel"
)

// at is the station with that number behind a port.
func at(number byte, port int) accel.Station {
	return accel.Station{StationKey: accel.StationKey{MAC: accel.MAC{2, 0, 0, 0, 0, number}}, Port: port}
}

// tableWith has one station in the given phase.
func tableWith(s accel.Station, p phase) *table {
	t := newTable(100)
	t.claim(s)
	if p == claimed {
		return t
	}
	t.nextBatch(100)
	if p == active {
		t.answer(s.StationKey, &s)
	}
	return t
}

func (t *table) phaseOf(k accel.StationKey) (phase, bool) {
	r, known := t.rows[k]
	return r.phase, known
}

func wantPhase(t *testing.T, table *table, k accel.StationKey, want phase) {
	t.Helper()
	if got, ok := table.phaseOf(k); !ok || got != want {
		t.Errorf("the station is in phase %d (known %v), want %d", got, ok, want)
	}
}

func wantNextBatch(t *testing.T, table *table, admit, ask int) {
	t.Helper()
	if b := table.nextBatch(100); len(b.admit) != admit || len(b.ask) != ask {
		t.Errorf("the batch admits %d and asks for %d, want %d and %d", len(b.admit), len(b.ask), admit, ask)
	}
}

func TestClaimBecomesActiveThroughTheKernelsAnswer(t *testing.T) {
	s := at(1, 10)
	table := newTable(100)
	if table.claim(s) {
		t.Error("a first claim revokes something")
	}
	b := table.nextBatch(100)
	if !slices.Equal(b.admit, []accel.Station{s}) || !slices.Equal(b.ask, []accel.StationKey{s.StationKey}) {
		t.Errorf("the batch is %+v", b)
	}
	wantPhase(t, table, s.StationKey, candidate)
	if got := table.answer(s.StationKey, &s); got != activateIt {
		t.Errorf("the kernel's yes does %d", got)
	}
	wantPhase(t, table, s.StationKey, active)
	wantNextBatch(t, table, 0, 0)
}

func TestClaimOfTheSameChangesNothing(t *testing.T) {
	for _, p := range []phase{claimed, candidate, active} {
		s := at(1, 10)
		table := tableWith(s, p)
		s.Active = true // whoever says so
		if table.claim(s) {
			t.Errorf("phase %d: the same claim revokes", p)
		}
		wantPhase(t, table, s.StationKey, p)
	}
}

func TestClaimOfAnotherRevokes(t *testing.T) {
	changes := map[string]func(*accel.Station){
		"port":   func(s *accel.Station) { s.Port = 11 },
		"local":  func(s *accel.Station) { s.Local = true },
		"locked": func(s *accel.Station) { s.NoSource = true },
	}
	for name, change := range changes {
		for _, p := range []phase{claimed, candidate, active} {
			s := at(1, 10)
			table := tableWith(s, p)
			change(&s)
			if !table.claim(s) {
				t.Errorf("%s, phase %d: nothing is revoked", name, p)
			}
			wantPhase(t, table, s.StationKey, claimed)
			wantNextBatch(t, table, 1, 1)
		}
	}
}

func TestAnswerToAnOldQuestion(t *testing.T) {
	s, moved := at(1, 10), at(1, 11)
	for name, c := range map[string]struct {
		meanwhile func(*table)
		kernel    *accel.Station
		want      action
	}{
		"removed":               {func(t *table) { t.remove(s.StationKey) }, &s, revokeIt},
		"removed and back":      {func(t *table) { t.remove(s.StationKey); t.claim(s) }, &s, nothing},
		"moved":                 {func(t *table) { t.claim(moved) }, &moved, nothing},
		"moved, and the kernel": {func(t *table) { t.claim(moved) }, &s, revokeIt},
		"there and back":        {func(t *table) { t.claim(moved); t.claim(s) }, &s, nothing},
		"gone in the kernel":    {func(*table) {}, nil, revokeIt},
		"moved in the kernel":   {func(*table) {}, &moved, revokeIt},
	} {
		table := tableWith(s, candidate)
		c.meanwhile(table)
		if got := table.answer(s.StationKey, c.kernel); got != c.want {
			t.Errorf("%s: the answer does %d, want %d", name, got, c.want)
		}
		if p, ok := table.phaseOf(s.StationKey); ok && p != claimed {
			t.Errorf("%s: the station is in phase %d", name, p)
		}
	}
}

func TestDumpThatLacksARowAsksForIt(t *testing.T) {
	s := at(1, 10)
	table := tableWith(s, active)
	table.beginDump()
	table.endWholeDump()
	wantPhase(t, table, s.StationKey, active)
	b := table.nextBatch(100)
	if len(b.admit) != 0 || !slices.Equal(b.ask, []accel.StationKey{s.StationKey}) {
		t.Fatalf("the batch is %+v, want one question", b)
	}
	if got := table.answer(s.StationKey, &s); got != nothing {
		t.Errorf("a row that is there after all: %d", got)
	}
	wantPhase(t, table, s.StationKey, active)
}

func TestNoStationIsAskedForTwice(t *testing.T) {
	for _, p := range []phase{claimed, candidate, active} {
		table := tableWith(at(1, 10), p)
		table.beginDump()
		table.endWholeDump()
		if want := map[phase]int{claimed: 1, candidate: 0, active: 1}[p]; len(table.nextBatch(100).ask) != want {
			t.Errorf("phase %d: not asked for %d times", p, want)
		}
	}
}

func TestStationThatWaitsForRoomIsAskedForToo(t *testing.T) {
	table := newTable(0)
	s := at(1, 10)
	table.claim(s)
	table.beginDump()
	table.endWholeDump()
	wantNextBatch(t, table, 0, 1)
	table.answer(s.StationKey, nil)
	if len(table.rows) != 0 {
		t.Error("a station that is gone waits for room")
	}
}

func TestStationThatIsClaimedAnewIsAskedForToo(t *testing.T) {
	s := at(1, 10)
	table := tableWith(s, active)
	table.beginDump()
	table.endWholeDump()
	table.beginCompare()
	for w := table.walk(); table.reclaimMissing(w); {
	}
	table.room = 0 // so that its turn does not come
	wantNextBatch(t, table, 0, 1)
}

func TestStationThatTheDumpLacksAndTheKernelToo(t *testing.T) {
	s := at(1, 10)
	table := tableWith(s, active)
	table.beginDump()
	table.endWholeDump()
	table.nextBatch(100)
	if got := table.answer(s.StationKey, nil); got != revokeIt {
		t.Errorf("the kernel's no does %d", got)
	}
	if len(table.rows) != 0 {
		t.Error("the row is still there")
	}
}

func TestDumpThatShowsARowTwice(t *testing.T) {
	s := at(1, 10)
	table := tableWith(s, active)
	table.beginDump()
	for range 2 {
		if table.claim(s) {
			t.Error("the same row revokes")
		}
	}
	table.endWholeDump()
	wantNextBatch(t, table, 0, 0)
}

func TestLostCandidateIsTriedAgainWhenAsked(t *testing.T) {
	s := at(1, 10)
	table := tableWith(s, active)
	table.lost([]accel.StationKey{s.StationKey, at(2, 10).StationKey})
	wantPhase(t, table, s.StationKey, claimed)
	wantNextBatch(t, table, 0, 0)
	if activeRows, pending, unmirrored := table.counts(); activeRows != 0 || pending != 1 || unmirrored != 0 {
		t.Errorf("%d active, %d pending and %d unmirrored, want one pending", activeRows, pending, unmirrored)
	}
	table.again()
	wantNextBatch(t, table, 1, 1)
}

func TestRoomIsGivenBack(t *testing.T) {
	one, two := at(1, 10), at(2, 10)
	for name, leave := range map[string]func(*table){
		"removed":            func(t *table) { t.remove(one.StationKey) },
		"removed twice":      func(t *table) { t.remove(one.StationKey); t.remove(one.StationKey); t.claim(at(3, 10)) },
		"gone in the kernel": func(t *table) { t.answer(one.StationKey, nil) },
		"lost":               func(t *table) { t.lost([]accel.StationKey{one.StationKey}) },
	} {
		table := newTable(1)
		table.claim(one)
		wantNextBatch(t, table, 1, 1)
		table.claim(two)
		wantNextBatch(t, table, 0, 0)
		if _, _, unmirrored := table.counts(); unmirrored != 1 {
			t.Errorf("%s: %d unmirrored, want 1", name, unmirrored)
		}
		leave(table)
		wantNextBatch(t, table, 1, 1)
	}
}

func TestLostStationThatIsRemovedIsNotTriedAgain(t *testing.T) {
	s := at(1, 10)
	table := tableWith(s, active)
	table.lost([]accel.StationKey{s.StationKey})
	table.remove(s.StationKey)
	table.again()
	wantNextBatch(t, table, 0, 0)
}

func TestTakenBackBatchComesAgain(t *testing.T) {
	s, old := at(1, 10), at(2, 10)
	table := tableWith(old, active)
	table.beginDump()
	table.endWholeDump()
	table.claim(s)
	table.claim(at(3, 10))
	b := table.nextBatch(100)
	table.remove(at(3, 10).StationKey)
	for _, k := range b.ask {
		table.takeBack(k)
	}
	wantPhase(t, table, s.StationKey, claimed)
	wantPhase(t, table, old.StationKey, active)
	wantNextBatch(t, table, 1, 2)
}

// endWholeDump ends a dump and looks at every row at once.
func (t *table) endWholeDump() {
	for w := t.endDump(); t.askMissed(w); {
	}
	t.markDump()
}

// compareAll is a whole comparison.
func (t *table) compareAll(held []accel.Station) (revoke []accel.StationKey) {
	t.beginCompare()
	for _, h := range held {
		if t.compare(h) {
			revoke = append(revoke, h.StationKey)
		}
	}
	for w := t.walk(); t.reclaimMissing(w); {
	}
	return revoke
}

func TestCompare(t *testing.T) {
	s, other := at(1, 10), at(1, 11)
	isActive := func(s accel.Station) accel.Station { s.Active = true; return s }
	for name, c := range map[string]struct {
		phase  phase
		held   []accel.Station
		revoke bool
		after  phase
	}{
		"both active":              {active, []accel.Station{isActive(s)}, false, active},
		"revoked by a program":     {active, nil, false, claimed},
		"only a candidate is held": {active, []accel.Station{s}, false, claimed},
		"another port":             {active, []accel.Station{isActive(other)}, true, claimed},
		"active without an answer": {candidate, []accel.Station{isActive(s)}, true, candidate},
		"candidate":                {candidate, []accel.Station{s}, false, candidate},
		"candidate taken back":     {claimed, []accel.Station{s}, true, claimed},
		"candidate without entry":  {candidate, nil, false, candidate},
	} {
		table := tableWith(s, c.phase)
		if revoke := table.compareAll(c.held); (len(revoke) == 1) != c.revoke {
			t.Errorf("%s: revokes %v, want %v", name, revoke, c.revoke)
		}
		if p, _ := table.phaseOf(s.StationKey); p != c.after {
			t.Errorf("%s: then in phase %d, want %d", name, p, c.after)
		}
	}
	if revoke := newTable(100).compareAll([]accel.Station{isActive(s)}); len(revoke) != 1 {
		t.Error("a station that nobody knows is kept")
	}
}

func TestStationsAreSortedAndCounted(t *testing.T) {
	table := newTable(100)
	inVLAN := at(1, 10)
	inVLAN.VID = 7
	host := at(9, 0)
	host.Local = true
	for _, s := range []accel.Station{inVLAN, at(3, 11), at(2, 10), host} {
		table.claim(s)
		table.nextBatch(100)
		table.answer(s.StationKey, &s)
	}
	table.claim(at(4, 11))
	var order []byte
	all := table.stations()
	sortStations(all)
	for _, s := range all {
		order = append(order, s.MAC[5])
		if s.Active != (s.MAC[5] != 4) {
			t.Errorf("%v is shown with Active=%v", s.StationKey, s.Active)
		}
	}
	if !slices.Equal(order, []byte{2, 3, 4, 9, 1}) {
		t.Errorf("the order is %v", order)
	}
	if behind := table.activeBehind(); behind[10] != 2 || behind[11] != 1 || len(behind) != 2 {
		t.Errorf("the stations behind the ports are %v", behind)
	}
	if activeRows, pending, _ := table.counts(); activeRows != 4 || pending != 1 {
		t.Errorf("%d active and %d pending, want 4 and 1", activeRows, pending)
	}
}
