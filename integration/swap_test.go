package integration

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

// How often the tests of swaps swap. The issue's own numbers are larger than what
// every run can wait for.
var (
	swaps    = flag.Int("swaps", 100, "how `often` to swap under numbered streams")
	tcpSwaps = flag.Int("swaps.tcp", 20, "how `often` to swap under a TCP stream")
)

// A swap loses, doubles and reorders nothing, and the bridge does not notice.
func TestSwapsLoseNothing(t *testing.T) {
	pairs := [][]swaplab.Kind{
		{swaplab.Veth, swaplab.Veth}, {swaplab.Veth, swaplab.Tap},
		{swaplab.Veth, swaplab.Macvlan}, {swaplab.Tap, swaplab.Macvlan},
	}
	for _, kinds := range pairs {
		t.Run(fmt.Sprintf("%s and %s", kinds[0], kinds[1]), func(t *testing.T) {
			testSwaps(t, kinds, max(*swaps/len(pairs), 2))
		})
	}
}

func testSwaps(t *testing.T, kinds []swaplab.Kind, count int) {
	x := newSwapRig(t, rigOptions{kinds: kinds})
	traffic := x.traffic()
	entries, port := x.entries(), x.group(uplink).Ifindex
	w := x.watch()
	dropped, drained := make(map[string]uint64), uint64(0)
	for n := range count {
		s := x.swap([]string{"m2", "m1"}[n%2])
		drained += s.Drained
		for reason, frames := range s.Dropped {
			dropped[reason] += frames
		}
	}
	x.expectUnnoticed(w)
	got := x.stopTraffic(traffic)
	t.Logf("%d swaps; %d frames came by the member that was left; dropped on the wire: %v", count, drained, dropped)
	// A tap keeps frames until its reader comes: what the next member carries may
	// overtake them.
	x.expectWhole(got, !slices.Contains(kinds, swaplab.Tap))
	if after := x.entries(); !slices.Equal(after, entries) {
		t.Errorf("the bridge's table was %v and is %v", entries, after)
	}
	if after := x.group(uplink).Ifindex; after != port {
		t.Errorf("the stable port had ifindex %d and has %d", port, after)
	}
}

// entries are the rows of the bridge's table in a fixed order.
func (x *swapRig) entries() (rows []string) {
	x.t.Helper()
	table, err := x.l.Host.FDB()
	x.must(err)
	for _, row := range table {
		rows = append(rows, fmt.Sprint(row))
	}
	slices.Sort(rows)
	return rows
}

// What the guest sends to nobody in particular, the outside floods to every member.
// None of it may come back to the bridge, during the drain least of all: the guest
// would seem to have moved behind the stable port.
func TestUnknownUnicastComesBackNever(t *testing.T) {
	const rounds = 10
	x := newSwapRig(t, rigOptions{guests: 2, kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}})
	x.introduceUplink()
	nobody := swaplab.StationMAC(7, 1)
	out, err := swaplab.StartStream(x.l.Guest(), x.l.Station(), nobody, 11, lab.Pace{PerSecond: 5_000, Burst: 8, Gentle: true})
	x.must(err)
	defer out.Stop()
	x.must(out.AwaitFlow(100))
	w := x.watch()
	returned := uint64(0)
	for n := range rounds {
		s := x.swap([]string{"m2", "m1"}[n%2])
		returned += s.Dropped["own_returned"]
	}
	x.expectUnnoticed(w)
	got, err := out.Stop()
	x.must(err)
	t.Logf("%v; %d of our own frames came back in drains and were dropped", got, returned)
	if got.Lost+got.Doubled+got.Reordered+got.Returned > 0 {
		t.Errorf("%v", got)
	}
	if returned == 0 {
		t.Error("no frame came back in a drain: the test shows nothing")
	}
}

// Frames to a station that the outside does not know come by both members during a
// drain. Each is delivered, and at most one of a pair of stations twice.
func TestUnknownStationsGetAtMostOneFrameTwice(t *testing.T) {
	const rounds = 10
	x := newSwapRig(t, rigOptions{guests: 2, kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}})
	silent := x.l.Host.Hosts[1]
	x.introduceUplink()
	in, err := swaplab.StartStream(x.l.Station(), silent, silent.MAC, 12, lab.Pace{PerSecond: 5_000, Burst: 8, Gentle: true})
	x.must(err)
	defer in.Stop()
	x.must(in.AwaitFlow(100))
	doubled := uint64(0)
	for n := range rounds {
		s := x.swap([]string{"m2", "m1"}[n%2])
		doubled += s.Dropped["doubled"]
	}
	got, err := in.Stop()
	x.must(err)
	t.Logf("%v in %d swaps; %d second copies were dropped", got, rounds, doubled)
	if got.Lost+got.Reordered > 0 || got.Doubled > rounds {
		t.Errorf("%v, want at most %d doubled and none lost", got, rounds)
	}
	if doubled == 0 {
		t.Error("no frame came by both members: the test shows nothing")
	}
}

// introduceUplink lets the bridge and the outside learn the guest and the station.
func (x *swapRig) introduceUplink() {
	x.t.Helper()
	introduce(x.t, newWire(x.t, x.l.Guest()), x.l.Guest().MAC, newWire(x.t, x.l.Station()), x.l.Station().MAC)
	await(x.t, "the bridge has learned the guest and the station", func() bool {
		rows, err := x.l.Host.FDB()
		x.must(err)
		at := make(map[string]string)
		for _, row := range rows {
			at[row.MAC] = row.Port
		}
		return at[x.l.Guest().MAC.String()] == x.l.Guest().Port && at[x.l.Station().MAC.String()] == stable
	})
}

// TestTCPOverSwaps moves a stream of TCP from member to member.
func TestTCPOverSwaps(t *testing.T) {
	x := newSwapRig(t, rigOptions{kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth, swaplab.Macvlan}})
	s, err := x.l.StartTCP()
	x.must(err)
	defer s.Stop()
	x.must(s.AwaitBytes(1 << 20))
	before, err := s.Retransmitted()
	x.must(err)
	for n := range *tcpSwaps {
		x.swap([]string{"m2", "m3", "m1"}[n%3])
	}
	after, err := s.Retransmitted()
	x.must(err)
	x.must(s.AwaitBytes(1 << 20))
	got := s.Stop()
	t.Logf("%d swaps: %.1f MB in %.1f s, %d segments sent again, longest gap %.1f ms",
		*tcpSwaps, float64(got.Bytes)/1e6, got.For.Seconds(), after-before, float64(got.Longest.Microseconds())/1000)
	if after != before {
		t.Errorf("%d segments were sent again", after-before)
	}
}

// TestFlipTime reports how long after the flip the first frame leaves by the new
// member: from the event that tells of the phase, which writes a journal first, and
// from the last frame by the old member, which nobody's clock has a part in.
func TestFlipTime(t *testing.T) {
	rounds := max(*swaps/4, 10)
	x := newSwapRig(t, rigOptions{kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}})
	far := x.farMeters("m1", "m2")
	x.trafficAt(lab.Pace{PerSecond: 20_000, Burst: 2, Gentle: true})
	var sinceEvent, sinceLast, store []time.Duration
	for n := range rounds {
		from, to := []string{"m1", "m2"}[n%2], []string{"m2", "m1"}[n%2]
		s := x.swap(to)
		flip, ok := x.events.until(uplink, "flip")
		if !ok {
			t.Fatal("no event told of the flip")
		}
		x.events.end(uplink)
		var first time.Time
		await(t, "a frame leaves by "+to, func() (ok bool) {
			first, ok = far[to].FirstAfter(swaplab.Out, flip.Time)
			return ok
		})
		sinceEvent = append(sinceEvent, first.Sub(flip.Time))
		if last, ok := far[from].LastBefore(swaplab.Out, first); ok {
			sinceLast = append(sinceLast, first.Sub(last))
		}
		store = append(store, time.Duration(s.FlipNS))
	}
	for what, times := range map[string][]time.Duration{
		"to the first frame by the new member, from the event": sinceEvent,
		"the same, from the last frame by the old one":         sinceLast,
		"the store itself": store,
	} {
		median, p99 := quantiles(times)
		t.Logf("%s: p50 %v, p99 %v, in %d swaps at a frame each 50 µs", what, median, p99, len(times))
	}
}

// farMeters count what leaves by members.
func (x *swapRig) farMeters(members ...string) map[string]*swaplab.Meter {
	x.t.Helper()
	meters := make(map[string]*swaplab.Meter)
	for _, name := range members {
		m, err := x.l.Member(name).Meter()
		x.must(err)
		x.t.Cleanup(func() { m.Close() })
		meters[name] = m
	}
	return meters
}

// The flip takes no longer with many stations behind the stable port than with few.
func TestFlipDoesNotDependOnStations(t *testing.T) {
	const few, many, rounds, each = 10, 10_000, 3, 4
	x := newSwapRig(t, rigOptions{kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}, idle: true})
	times := make(map[int][]time.Duration)
	n := 0
	for range rounds {
		for _, stations := range []int{few, many} {
			x.putBehindUplink(stations)
			for range each {
				s := x.swap([]string{"m2", "m1"}[n%2])
				n++
				times[stations] = append(times[stations], time.Duration(s.FlipNS))
			}
		}
	}
	withFew, _ := quantiles(times[few])
	withMany, _ := quantiles(times[many])
	t.Logf("the flip, median: %v with %d stations, %v with %d: ratio %.2f", withFew, few, withMany, many,
		float64(withMany)/float64(max(withFew, 1)))
}

// putBehindUplink lets the bridge know so many stations behind the stable port, and
// no others.
func (x *swapRig) putBehindUplink(stations int) {
	x.t.Helper()
	const crowd = 3
	x.must(x.l.Host.Bridge.Run("bridge fdb flush dev " + stable + " master dynamic"))
	x.must(swaplab.Introduce(x.l.Station(), crowd, stations))
	await(x.t, "the bridge knows the stations", func() bool {
		at, err := swaplab.Behind(x.l.Host, crowd)
		x.must(err)
		return at[stable] == stations
	})
	awaitWithin(x.t, time.Minute, "shunt knows the stations", func() bool {
		known := 0
		for _, row := range x.d.fdb() {
			if row.Port == stable {
				known++
			}
		}
		return known >= stations
	})
}

// The outside moves stations that say nothing: they are announced.
func TestSilentStationsAreMoved(t *testing.T) {
	const crowd, stations = 4, 1000
	x := newSwapRig(t, rigOptions{guests: 2, kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}, idle: true})
	x.must(swaplab.Introduce(x.l.Host.Hosts[1], crowd, stations))
	awaitAt := func(far string) {
		t.Helper()
		await(t, "the outside has every station at "+far, func() bool {
			at, err := swaplab.Behind(x.l.Outside, crowd)
			x.must(err)
			return at[far] == stations
		})
	}
	awaitAt(x.l.Member("m1").Far)
	await(t, "shunt knows the stations", func() bool { return len(x.d.fdb()) >= stations })
	w, err := swaplab.WatchBridge(x.l.Outside)
	x.must(err)
	defer w.Close()
	moved := make(chan time.Time, 1)
	go func() { moved <- awaitMoves(w, x.l.Member("m2").Far, stations) }()
	s := x.swap("m2")
	flip, ok := x.events.until(uplink, "flip")
	if !ok {
		t.Fatal("no event told of the flip")
	}
	last := <-moved
	awaitAt(x.l.Member("m2").Far)
	t.Logf("the outside had moved %d stations %.0f ms after the flip; %d frames announced them",
		stations, float64(last.Sub(flip.Time).Microseconds())/1000, s.Announced)
}

// awaitMoves returns when so many entries were seen to be at a port, or when
// nothing more comes.
func awaitMoves(w *swaplab.Watch, port string, entries int) (last time.Time) {
	const quiet = 10 * time.Second
	seen := make(map[string]bool)
	for last = time.Now(); len(seen) < entries && time.Since(last) < quiet; {
		changes, err := w.Next(quiet / 10)
		if err != nil {
			return last
		}
		for _, c := range changes {
			if c.MAC != nil && c.Device == port && !c.Gone {
				seen[c.MAC.String()], last = true, time.Now()
			}
		}
	}
	return last
}
