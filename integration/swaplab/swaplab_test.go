package swaplab

import (
	"flag"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

var plainFor = flag.Duration("plain.for", time.Second, "how `long` to send over a bridge without shunt")

// What the tests of swaps blame shunt for must not be the lab's own: over a plain
// bridge, with the member as its port, nothing is lost.
func TestPlainBridgeLosesNothing(t *testing.T) {
	for _, kind := range []Kind{Veth, Tap, Macvlan} {
		t.Run(string(kind), func(t *testing.T) {
			l, err := New(1)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			m, err := l.AddMember("m1", kind)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Host.Bridge.Run("ip link set m1 master br0"); err != nil {
				t.Fatal(err)
			}
			if err := l.SpreadFrames(); err != nil {
				t.Fatal(err)
			}
			far, err := m.Meter()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			begin := time.Now()
			got := measure(t, l, *plainFor)
			if lost := got.Out.Lost + got.In.Lost; lost != got.Lab {
				t.Errorf("%d frames are lost, %d of them in the lab", lost, got.Lab)
			}
			if got.Out.Doubled+got.In.Doubled+got.Out.Reordered+got.In.Reordered+got.Out.Returned+got.In.Returned > 0 {
				t.Error("frames came twice, out of order, or back")
			}
			if _, ok := far.FirstAfter(Out, begin); !ok {
				t.Error("no frame was seen to leave by the member")
			}
		})
	}
}

func measure(t *testing.T, l *Lab, d time.Duration) Totals {
	t.Helper()
	traffic, err := l.StartTraffic(Pace)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(d)
	got, err := traffic.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(got)
	return got
}

// What tells that a swap went unnoticed must notice.
func TestWatchSeesEntriesAndPorts(t *testing.T) {
	l, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w, err := WatchBridge(l.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	expect := func(what string, want bool, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		changes, err := w.Changes()
		if err != nil {
			t.Fatal(err)
		}
		if got := len(changes) > 0; got != want {
			t.Errorf("%s: %v", what, changes)
		}
	}
	run := func(line string) func() error { return func() error { return l.Host.Bridge.Run(line) } }
	expect("what came before", false, func() error { _, err := w.Changes(); return err })
	expect("nothing", false, func() error { return nil })
	expect("new stations", true, func() error { return Introduce(l.Guest(), 1, 3) })
	expect("a device that is no port", false, run("ip link add v1 type veth peer name v2"))
	expect("a new port", true, run("ip link set v1 master br0"))
	expect("a port's state", true, run("bridge link set dev p2 state 1"))
	if at, err := Behind(l.Host, 1); err != nil || at["p1"] != 3 {
		t.Errorf("the stations are at %v (%v), want 3 at p1", at, err)
	}
}

// A frame that comes twice, and one that comes back, must show.
func TestTrafficShowsALoop(t *testing.T) {
	l, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.AddMember("m1", Veth); err != nil {
		t.Fatal(err)
	}
	if err := l.Host.Bridge.Run("ip link set m1 master br0"); err != nil {
		t.Fatal(err)
	}
	traffic, err := l.StartTraffic(Pace)
	if err != nil {
		t.Fatal(err)
	}
	if err := traffic.AwaitFlow(100); err != nil {
		t.Fatal(err)
	}
	inject(t, l.Guest(), lab.Frame{Source: l.Guest().MAC, Destination: l.Station().MAC, Stream: Out})
	inject(t, l.Station(), lab.Frame{Source: l.Station().MAC, Destination: l.Guest().MAC, Stream: Out})
	got, err := traffic.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if got.Out.Doubled != 1 || got.Out.Returned != 1 {
		t.Errorf("%v, want one doubled and one returned", got.Out)
	}
}

func inject(t *testing.T, from *lab.Host, f lab.Frame) {
	t.Helper()
	w, err := from.SendingWire()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(f.Bytes()); err != nil {
		t.Fatal(err)
	}
}
