package integration

import (
	"flag"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
	"github.com/shunt-dev/shunt/nicswap"
)

var tries = flag.Int("tries", 10, "how `often` to take the carrier from the active member")

// The active member loses its carrier, and a warm standby carries the traffic. How
// soon is reported.
func TestCarrierLossMovesToAStandby(t *testing.T) {
	x := newSwapRig(t, rigOptions{kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}})
	far := x.farMeters("m1", "m2")
	traffic := x.trafficAt(lab.Pace{PerSecond: 10_000, Gentle: true})
	var out, in []time.Duration
	for range *tries {
		active := x.group(uplink).Active
		next := map[string]string{"m1": "m2", "m2": "m1"}[active]
		outNow, inNow := x.afterLoss(traffic, x.l.Member(active), far[next])
		out, in = append(out, outNow), append(in, inNow)
		x.must(x.l.Member(active).SetCarrier(true))
		await(t, "both members are there again", func() bool {
			g := x.group(uplink)
			return g.State == "ready" && g.Active == next && memberOf(g, active).State == "standby"
		})
	}
	got := x.stopTraffic(traffic)
	if got.Out.Returned+got.In.Returned > 0 {
		t.Errorf("%d frames went out and came back", got.Out.Returned+got.In.Returned)
	}
	outMedian, outLate := quantiles(out)
	inMedian, inLate := quantiles(in)
	t.Logf("from the loss of carrier to the first frame on the standby, %d tries: p50 %v, p99 %v; longest gap into the bridge: p50 %v, p99 %v",
		*tries, outMedian, outLate, inMedian, inLate)
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
