package bench

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// Shunt is first in every other round, and beside each bridge in one half of them.
func TestRoundsAlternate(t *testing.T) {
	for rounds := 1; rounds < 50; rounds++ {
		turns := schedule(rounds)
		if len(turns) != rounds {
			t.Fatalf("of %d rounds there are %d", rounds, len(turns))
		}
		var first, moves int
		var served [2]int
		for n, turn := range turns {
			if turn.shuntFirst {
				first++
			}
			served[turn.served]++
			if n > 0 && turn.served != turns[n-1].served {
				moves++
			}
			if n > 0 && turn.shuntFirst == turns[n-1].shuntFirst {
				t.Errorf("of %d rounds, %d and %d begin alike", rounds, n-1, n)
			}
		}
		if first != rounds/2 || served[0]-served[1] > 1 || served[0] < served[1] || moves > 1 {
			t.Errorf("of %d rounds shunt is first in %d, beside the bridges in %v, and moves %d times", rounds, first, served, moves)
		}
	}
}

// A measurement is one of the fast path, or an error.
func TestWhatWasNotFastIsNoFigure(t *testing.T) {
	type frames = map[accel.Reason]uint64
	for name, c := range map[string]struct {
		before, after frames
		fast, slow    uint64
		says          string
	}{
		"all fast":         {frames{}, frames{accel.Fast: 1000}, 1000, 0, ""},
		"keepalives":       {frames{}, frames{accel.Fast: 1000, accel.Keepalive: allowedSlow}, 1000, allowedSlow, ""},
		"one in a hundred": {frames{}, frames{accel.Fast: 99_000, accel.Keepalive: 1000}, 99_000, 1000, ""},
		"what was before":  {frames{accel.Fast: 500, accel.SourceUnknown: 9000}, frames{accel.Fast: 1500, accel.SourceUnknown: 9000}, 1000, 0, ""},
		"two in a hundred": {frames{}, frames{accel.Fast: 98_000, accel.SourceUnknown: 1999, accel.Keepalive: 1}, 98_000, 2000, "only 98.0 % of 100000 frames took the fast path; the most frequent reason of the others is source_unknown"},
		"all slow":         {frames{accel.Fast: 10}, frames{accel.Fast: 10, accel.SourceUnknown: 3}, 0, 3, "only 0.0 %"},
		"nothing was seen": {frames{accel.Fast: 10}, frames{accel.Fast: 10}, 0, 0, "no frame at all"},
	} {
		fast, slow, err := checkPath(c.before, c.after)
		if fast != c.fast || slow != c.slow || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d fast, %d slow, %v", name, fast, slow, err)
		}
	}
}

func TestFramesThatDidNotArriveAreNoFigure(t *testing.T) {
	for _, c := range []struct {
		sent, arrived uint64
		fine          bool
	}{{1000, 1000, true}, {1000, 990, true}, {1000, 989, false}, {1000, 0, false}, {0, 0, false}} {
		if err := checkArrival(c.sent, c.arrived); (err == nil) != c.fine {
			t.Errorf("%d of %d: %v", c.arrived, c.sent, err)
		}
	}
}

// startBench builds it with these probes, and has shunt beside the first lab.
func startBench(t *testing.T, only ...string) *bench {
	t.Helper()
	chosen, err := probesOf(only)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{probes: chosen, rounds: 1, duration: 20 * time.Millisecond, progress: &progress{}}
	t.Cleanup(func() {
		if err := b.remove(); err != nil {
			t.Error(err)
		}
	})
	if err := b.build(); err != nil {
		t.Fatal(err)
	}
	if err := b.serve(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// With the fast path off, every kind of traffic is refused and not measured.
func TestABridgeThatIsSlowIsNotMeasured(t *testing.T) {
	b := startBench(t, groups...)
	if _, err := b.daemon.Client().Switch(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	for i, p := range b.probes {
		_, err := b.pair(t.Context(), i, b.duration, false)
		if err == nil || !strings.Contains(err.Error(), "took the fast path") || !strings.Contains(err.Error(), accel.Off.String()) {
			t.Errorf("%s: got %v", p.metrics[0].title, err)
		}
	}
}

// A bridge that may not take the fast path is waited for in vain, and the error says why.
func TestWhyItCannotBegin(t *testing.T) {
	b := startBench(t, "rr")
	if why := b.notReady(t.Context()); why != "" {
		t.Fatal(why)
	}
	if err := b.sides[0].lab.Bridge.Run("ip link set " + lab.BridgeName + " promisc on"); err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !strings.Contains(b.notReady(late), "the bridge is not eligible: ") {
		if late.Err() != nil {
			t.Fatalf("it says %q", b.notReady(t.Context()))
		}
	}
}

// Shunt moves to the other bridge, and both sides are told apart by who is fast there.
func TestShuntChangesPlaces(t *testing.T) {
	b := startBench(t, "frames")
	if err := b.serve(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	got, err := b.pair(t.Context(), 0, b.duration, true)
	if err != nil {
		t.Fatal(err)
	}
	if got.on[0] <= 0 || got.off[0] <= 0 || got.sending <= 0 {
		t.Errorf("got %+v", got)
	}
	if got.fast == 0 || got.slow > allowedSlow {
		t.Errorf("%d frames were fast and %d slow", got.fast, got.slow)
	}
}

// What is sent arrives at the other host, whole, and at no other.
func TestFramesArrive(t *testing.T) {
	l, err := lab.New(lab.Options{Hosts: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wire, err := l.Hosts[1].SendingWire()
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	if err := l.Deliver(wire, lab.Frame{Source: station, Destination: l.Hosts[0].MAC}.Bytes()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []packet{{size: 64}, {size: 1514}, {size: superFrame, segment: superSegment}} {
		p.source, p.destination = l.Hosts[0].MAC, station
		ring, err := newBlaster(l.Hosts[0], p)
		if err != nil {
			t.Fatal(err)
		}
		before := arrivals(t, l)
		sent, _, err := ring.run(t.Context(), time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		after := arrivals(t, l)
		if got := after[1].RxPackets - before[1].RxPackets; got != sent || sent == 0 {
			t.Errorf("of %d frames of %d bytes %d arrived", sent, p.size, got)
		}
		if got := after[1].RxBytes - before[1].RxBytes; got != sent*uint64(p.size) {
			t.Errorf("of %d frames of %d bytes %d bytes arrived", sent, p.size, got)
		}
		if got := after[2].RxPackets - before[2].RxPackets; got != 0 {
			t.Errorf("%d frames came to another host", got)
		}
		if err := ring.close(); err != nil {
			t.Error(err)
		}
	}
}

func arrivals(t *testing.T, l *lab.Lab) (counted []lab.PortCounters) {
	t.Helper()
	for _, h := range l.Hosts {
		c, err := h.Counters("eth0")
		if err != nil {
			t.Fatal(err)
		}
		counted = append(counted, c)
	}
	return counted
}

// What is 0, or no number, has no ratio.
func TestFiguresThatAreNone(t *testing.T) {
	for _, figures := range [][]float64{{0}, {1, 0}, {math.NaN()}, {-1}} {
		if checkFigures(figures) == nil {
			t.Errorf("%v passes", figures)
		}
	}
	if err := checkFigures([]float64{1, 0.1}); err != nil {
		t.Error(err)
	}
}

// A moment in which the fast path was shut is measured again, and said to have been.
func TestAMomentOnTheSlowPathIsRepeated(t *testing.T) {
	b := startBench(t, "rr")
	client, before := b.daemon.Client(), b.repeated
	b.probes = []probe{{metrics: b.probes[0].metrics}}
	once := &meterOnce{meter: b.sides[0].meters[0], then: func() error {
		_, err := client.Switch(t.Context(), "", true)
		return err
	}}
	b.sides[0].meters[0] = once
	if _, err := client.Switch(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	p, err := b.pairOnFastPath(t.Context(), 0, b.duration, true)
	if err != nil {
		t.Fatal(err)
	}
	if b.repeated != before+1 || p.fast == 0 || p.slow > allowedSlow {
		t.Errorf("%d measurements were made again; %d frames were fast and %d slow", b.repeated-before, p.fast, p.slow)
	}
}

// meterOnce does something after its first measurement.
type meterOnce struct {
	meter
	then func() error
}

func (m *meterOnce) measure(ctx context.Context, d time.Duration) ([]float64, error) {
	figures, err := m.meter.measure(ctx, d)
	if m.then != nil {
		err = errors.Join(err, m.then())
		m.then = nil
	}
	return figures, err
}
