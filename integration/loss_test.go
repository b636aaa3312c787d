package integration

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
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

// lossTimes are how long it took from the loss of carrier to the flip, to the first
// frame by the standby, and how long no frame came into the bridge; and how much was
// lost each way: for how long the pace sends as much. All but the flip have in them how
// long the lab's own senders waited for a CPU: idle is how long the next frame takes
// where nothing is lost.
type lossTimes struct {
	began                                []time.Time
	idle, flip, out, in, lostOut, lostIn []time.Duration
}

func (l lossTimes) String() string {
	text := fmt.Sprintf("%d losses, in ms     %8s %8s", len(l.out), "p50", "p99")
	for _, row := range []struct {
		name  string
		times []time.Duration
	}{
		{"next frame, no loss", l.idle}, {"flip", l.flip}, {"first frame out", l.out},
		{"without a frame in", l.in}, {"lost out", l.lostOut}, {"lost in", l.lostIn},
	} {
		if len(row.times) == 0 {
			continue
		}
		median, late := quantiles(row.times)
		text += fmt.Sprintf("\n  %-20s %8.2f %8.2f", row.name, milliseconds(median), milliseconds(late))
	}
	return text + "\n"
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func measureShunt(t *testing.T, pace lab.Pace) lossTimes {
	x := newSwapRig(t, rigOptions{kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}})
	times := x.loseCarriers(pace, x.group(uplink).Active, func(active, standby string) {
		await(t, "both members are there again", func() bool {
			g := x.group(uplink)
			return g.State == "ready" && g.Active == active && memberOf(g, standby).State == "standby"
		})
	})
	times.flip = x.flipsAfter(times.began)
	return times
}

// flipsAfter are how long after these moments the daemon flipped; it remembers 100.
func (x *swapRig) flipsAfter(moments []time.Time) (times []time.Duration) {
	x.t.Helper()
	var swaps []nicswap.SwapV1
	x.must(x.d.ask(x.t.Context(), http.MethodGet, "swaps", nil, &swaps))
	slices.Reverse(swaps)
	for n, s := range swaps {
		times = append(times, s.Began.Sub(moments[len(moments)-len(swaps)+n]))
	}
	return times
}

// loseCarriers takes the carrier from m1 and m2 in turn, beginning with the active
// one, and gives it back. restored waits until the one is active and the other
// stands by.
func (x *swapRig) loseCarriers(pace lab.Pace, active string, restored func(active, standby string)) (times lossTimes) {
	x.t.Helper()
	far := x.farMeters("m1", "m2")
	traffic := x.trafficAt(pace)
	var allOut, allIn uint64 // that were lost
	for range *tries {
		next := map[string]string{"m1": "m2", "m2": "m1"}[active]
		times.idle = append(times.idle, x.nextFrame(far[active], time.Now()))
		times.began = append(times.began, time.Now())
		out, in := x.afterLoss(traffic, x.l.Member(active), far[next])
		times.out, times.in = append(times.out, out), append(times.in, in)
		lostOut, lostIn, err := traffic.Lost()
		x.must(err)
		times.lostOut = append(times.lostOut, pace.Time(lostOut-allOut))
		times.lostIn = append(times.lostIn, pace.Time(lostIn-allIn))
		allOut, allIn = lostOut, lostIn
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
	out = x.nextFrame(other, began)
	const enough = 100
	x.must(traffic.AwaitFlow(enough))
	return out, traffic.In.To.LongestAfter(swaplab.In, began).Length
}

// nextFrame is how long after a moment the first frame leaves by a member.
func (x *swapRig) nextFrame(by *swaplab.Meter, moment time.Time) (took time.Duration) {
	x.t.Helper()
	await(x.t, "a frame leaves by the member", func() bool {
		at, ok := by.FirstAfter(swaplab.Out, moment)
		took = at.Sub(moment)
		return ok
	})
	return took
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
