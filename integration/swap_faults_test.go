package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/swaplab"
	"github.com/shunt-dev/shunt/nicswap"
)

var (
	faults     = flag.Int("faults", 20, "how `many` swaps get a fault")
	faultsSeed = flag.Uint64("faults.seed", 1, "the `seed` of the faults' order and phases")
	faultsRun  = flag.String("faults.run", "", "only faults whose names match this `regexp`")
)

// fault is something that goes wrong during a swap.
type fault struct {
	name string
	// early: it is there before the swap begins; else it comes in a phase.
	early bool
	// taking: it takes the target away, which may be the active member by then.
	taking bool
	inject func(*faultyRig, *swaplab.Member) error
	mend   func(*faultyRig, *swaplab.Member) error
	// only, if not empty, is the kind of target that it is for.
	only swaplab.Kind
}

// faultyRig is a rig whose state directory can be full, and whose client can go.
type faultyRig struct {
	*swapRig
	clientGoes context.CancelFunc
}

var faultsOfSwaps = []fault{
	{
		name: "the target goes down", taking: true,
		inject: inHostNamespace("ip link set %s down"),
		mend:   inHostNamespace("ip link set %s up"),
	},
	{
		name: "the target loses its carrier", taking: true,
		inject: func(_ *faultyRig, m *swaplab.Member) error { return m.SetCarrier(false) },
		mend:   func(_ *faultyRig, m *swaplab.Member) error { return m.SetCarrier(true) },
	},
	{
		name: "the MTU is refused", early: true, only: swaplab.Macvlan,
		// A macvlan cannot take more than what is below it.
		inject: inHostNamespace("ip link set l%s mtu 1400"),
		mend:   inHostNamespace("ip link set l%s mtu 1500"),
	},
	{
		name:   "the target becomes another bridge's port",
		inject: inHostNamespace("ip link set %s master other"),
		mend:   inHostNamespace("ip link set %s nomaster"),
	},
	{
		name: "the target has a master already", early: true,
		inject: inHostNamespace("ip link set %s master other"),
		mend:   inHostNamespace("ip link set %s nomaster"),
	},
	{
		name: "the daemon is killed",
		inject: func(x *faultyRig, _ *swaplab.Member) error {
			x.d.kill()
			return nil
		},
		mend: func(x *faultyRig, _ *swaplab.Member) error {
			x.restart()
			return nil
		},
	},
	{
		name: "the target is deleted and made again", taking: true,
		inject: func(_ *faultyRig, m *swaplab.Member) error { return m.Delete() },
		mend:   func(_ *faultyRig, m *swaplab.Member) error { return m.Make() },
	},
	{
		name: "the journal's disk is full", early: true,
		inject: (*faultyRig).fillDisk,
		mend:   (*faultyRig).emptyDisk,
	},
	{
		name: "the client goes",
		inject: func(x *faultyRig, _ *swaplab.Member) error {
			x.clientGoes()
			return nil
		},
		mend: func(*faultyRig, *swaplab.Member) error { return nil },
	},
}

func inHostNamespace(format string) func(*faultyRig, *swaplab.Member) error {
	return func(x *faultyRig, m *swaplab.Member) error {
		return x.l.Host.Bridge.Run(fmt.Sprintf(format, m.Name))
	}
}

// filler takes all room of the state directory.
const filler = "filler"

func (x *faultyRig) fillDisk(*swaplab.Member) error {
	f, err := os.Create(filepath.Join(x.state, filler))
	if err != nil {
		return err
	}
	chunk := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(chunk)
	}
	if errors.Is(err, unix.ENOSPC) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

func (x *faultyRig) emptyDisk(*swaplab.Member) error {
	err := os.Remove(filepath.Join(x.state, filler))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// mountSmall makes the state directory a disk of its own with hardly any room.
func (x *faultyRig) mountSmall() {
	x.t.Helper()
	x.must(os.MkdirAll(x.state, 0o700))
	x.must(unix.Mount("shunt-test", x.state, "tmpfs", 0, "size=256k,mode=0700"))
	x.t.Cleanup(func() {
		if err := unix.Unmount(x.state, unix.MNT_DETACH); err != nil {
			x.t.Error(err)
		}
	})
}

// Whatever goes wrong in a swap, in whatever phase, one member works after it,
// nothing goes in circles, and nothing is lost unless the member that carried the
// traffic was taken away.
func TestFaultsInSwaps(t *testing.T) {
	x := &faultyRig{swapRig: newSwapLab(t, rigOptions{})}
	x.mountSmall()
	g := groupConfig{name: uplink, port: stable}
	for n, kind := range []swaplab.Kind{swaplab.Veth, swaplab.Veth, swaplab.Macvlan} {
		g.members = append(g.members, x.addMember(n+1, kind).Name)
	}
	x.must(x.l.Host.Bridge.Run("ip link add other type bridge"))
	x.start(g)
	x.must(x.l.SpreadFrames(stable))
	traffic := x.traffic()
	random := rand.New(rand.NewPCG(*faultsSeed, 0))
	chosen := regexp.MustCompile(*faultsRun)
	// Every fault comes before one comes again.
	var order []int
	lost := uint64(0)
	for n := range *faults {
		if len(order) == 0 {
			order = random.Perm(len(faultsOfSwaps))
		}
		f := faultsOfSwaps[order[0]]
		order = order[1:]
		if !chosen.MatchString(f.name) {
			continue
		}
		now, excused := x.withFault(f, random, traffic)
		if now > lost && !excused {
			t.Errorf("fault %d, %s: %d frames are lost", n, f.name, now-lost)
		}
		lost = now
		if t.Failed() {
			t.FailNow()
		}
	}
	got := x.stopTraffic(traffic)
	if got.Out.Returned+got.In.Returned > 0 {
		t.Errorf("%d frames went out and came back", got.Out.Returned+got.In.Returned)
	}
}

// phases are those in which a fault may come.
var phases = []string{"check", "prewarm", "flip", "announce", "drain", "retire"}

// withFault swaps once, with the fault. It returns how many frames were lost since
// the traffic began, and whether those of this swap are excused.
func (x *faultyRig) withFault(f fault, random *rand.Rand, traffic *swaplab.Traffic) (lost uint64, excused bool) {
	x.t.Helper()
	target, phase := x.pickTarget(f, random), phases[random.IntN(len(phases))]
	ctx, cancel := context.WithCancel(x.t.Context())
	defer cancel()
	x.clientGoes = cancel
	if f.early {
		phase = "before"
		x.must(f.inject(x, target))
	}
	type outcome struct {
		swap nicswap.SwapV1
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		swap, err := x.trySwap(ctx, target.Name)
		done <- outcome{swap, err}
	}()
	reached := f.early
	if !f.early {
		if _, reached = x.events.until(uplink, phase); reached {
			x.must(f.inject(x, target))
		}
	}
	result := <-done
	if reached {
		if result.err == nil || ctx.Err() != nil { // else the daemon is gone
			x.events.end(uplink)
		}
		x.must(f.mend(x, target))
	}
	g := x.awaitWhole()
	out, in, err := traffic.Lost()
	x.must(err)
	flipped := slices.ContainsFunc(result.swap.Phases, func(p nicswap.PhaseV1) bool { return p.Phase == "flip" })
	x.t.Logf("%s in phase %s of the swap to %s: %s in %s: %s %v; active is %s; %d frames drained, dropped: %v", f.name, phase, target.Name,
		result.swap.Result, result.swap.Phase, result.swap.Error, result.err, g.Active, result.swap.Drained, result.swap.Dropped)
	return out + in, f.taking && flipped
}

// pickTarget returns a member that is not active.
func (x *faultyRig) pickTarget(f fault, random *rand.Rand) *swaplab.Member {
	x.t.Helper()
	active := x.group(uplink).Active
	if f.only != "" && x.l.Member(active).Kind == f.only { // it must be free
		x.swap("m1")
		x.events.end(uplink)
		active = "m1"
	}
	var choice []*swaplab.Member
	for _, name := range x.groups[0].members {
		m := x.l.Member(name)
		if name != active && (f.only == "" || m.Kind == f.only) {
			choice = append(choice, m)
		}
	}
	return choice[random.IntN(len(choice))]
}

// awaitWhole waits until the group is ready with one active member and the others
// standing by.
func (x *faultyRig) awaitWhole() (g nicswap.GroupV1) {
	x.t.Helper()
	whole := func() bool {
		g = x.group(uplink)
		active := 0
		for _, m := range g.Members {
			switch m.State {
			case "active":
				active++
			case "standby":
			default:
				return false
			}
		}
		return g.State == "ready" && active == 1
	}
	defer func() {
		if x.t.Failed() {
			x.t.Logf("the group: %+v", g)
		}
	}()
	await(x.t, "the group is whole again", whole)
	return g
}
