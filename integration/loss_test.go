package integration

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
	"github.com/shunt-dev/shunt/nicswap"
)

var tries = flag.Int("tries", 10, "how `often` to take the carrier from the active member")

// lossPace leaves a frame each 100 µs, which is how exact the times are.
var lossPace = lab.Pace{PerSecond: 10_000, Gentle: true}

// The active member loses its carrier, and a warm standby carries the traffic. How
// soon is reported.
func TestCarrierLossMovesToAStandby(t *testing.T) {
	t.Log(measureShunt(t, lossPace))
}

// lossTimes are how long it took from the loss of carrier to the first frame by the
// standby, and how long no frame came into the bridge.
type lossTimes struct{ out, in []time.Duration }

func (l lossTimes) String() string {
	outMedian, outLate := quantiles(l.out)
	inMedian, inLate := quantiles(l.in)
	return fmt.Sprintf("%d times; to the first frame on the standby p50 %8.2f ms, p99 %8.2f ms; without a frame into the bridge p50 %8.2f ms, p99 %8.2f ms",
		len(l.out), milliseconds(outMedian), milliseconds(outLate), milliseconds(inMedian), milliseconds(inLate))
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func measureShunt(t *testing.T, pace lab.Pace) lossTimes {
	x := newSwapRig(t, rigOptions{kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}})
	return x.loseCarriers(pace, x.group(uplink).Active, func(active, standby string) {
		await(t, "both members are there again", func() bool {
			g := x.group(uplink)
			return g.State == "ready" && g.Active == active && memberOf(g, standby).State == "standby"
		})
	})
}

// loseCarriers takes the carrier from m1 and m2 in turn, beginning with the active
// one, and gives it back. restored waits until the one is active and the other
// stands by.
func (x *swapRig) loseCarriers(pace lab.Pace, active string, restored func(active, standby string)) (times lossTimes) {
	x.t.Helper()
	far := x.farMeters("m1", "m2")
	traffic := x.trafficAt(pace)
	for range *tries {
		next := map[string]string{"m1": "m2", "m2": "m1"}[active]
		out, in := x.afterLoss(traffic, x.l.Member(active), far[next])
		times.out, times.in = append(times.out, out), append(times.in, in)
		x.must(x.l.Member(active).SetCarrier(true))
		restored(next, active)
		active = next
	}
	got := x.stopTraffic(traffic)
	if got.Out.Returned+got.In.Returned > 0 {
		x.t.Errorf("%d frames went out and came back", got.Out.Returned+got.In.Returned)
	}
	return times
}

// afterLoss takes the carrier from a member and returns how long it was until the
// first frame left by another, and how long the guest got none.
func (x *swapRig) afterLoss(traffic *swaplab.Traffic, m *swaplab.Member, other *swaplab.Meter) (out, in time.Duration) {
	x.t.Helper()
	began := time.Now()
	x.must(setDown(x.l.Outside.Bridge, m.Far))
	await(x.t, "a frame leaves by the other member", func() bool {
		at, ok := other.FirstAfter(swaplab.Out, began)
		out = at.Sub(began)
		return ok
	})
	const enough = 100
	x.must(traffic.AwaitFlow(enough))
	return out, traffic.In.To.LongestAfter(swaplab.In, began).Length
}

// setDown sets a device down without starting a program, which takes longer than
// what is measured.
func setDown(ns *lab.Namespace, device string) error {
	return ns.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
}

func memberOf(g nicswap.GroupV1, name string) nicswap.MemberV1 {
	for _, m := range g.Members {
		if m.Member == name {
			return m
		}
	}
	return nicswap.MemberV1{}
}
