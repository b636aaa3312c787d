package swaplab

import (
	"flag"
	"testing"
	"time"
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
