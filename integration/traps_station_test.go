package integration

import (
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

// A station that moves is where its last frame came from: the first frame from
// its new port counts. Under load see TestFramesFollowAStationThatMoves.
func TestTrap12_Move(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 4})
	to := flow{from: 2, to: 1}
	x.warm(to)
	x.warm(to.back())
	x.stopped(func() {
		fromNew := flow{from: 3, to: 2, src: lab.MACOf(1)}
		x.expect(fromNew, 2)
		x.expect(to, 3)
		x.expect(flow{from: 1, to: 2}, 2) // and back
		x.expect(to, 1)
	})
	x.awaitFast(to)
}

// The move counts also where the first frame is one that shunt leaves alone, or
// goes to nobody that it knows.
func TestTrap12_MoveByAnyFrame(t *testing.T) {
	for name, dst := range map[string]net.HardwareAddr{
		"broadcast": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "unknown": lab.MACOf(0x77), "the same port": lab.MACOf(3),
	} {
		t.Run(name, func(t *testing.T) {
			x := newTrap(t, lab.Options{Hosts: 4})
			to := flow{from: 2, to: 1}
			x.warm(to)
			x.send(flow{from: 3, to: 2}) // host 3 is known
			x.stopped(func() {
				x.send(flow{from: 3, src: lab.MACOf(1), dst: dst})
				x.expect(to, 3)
			})
		})
	}
}

// A static entry moves and stays static; a sticky one stays where it is, and the
// frames of who claims its address are forwarded all the same
// (net/bridge/br_fdb.c: br_fdb_update).
func TestTrap20_StickyStaysStaticMoves(t *testing.T) {
	for name, c := range map[string]struct {
		flags string
		at    int // where the station is after a frame from host 3
	}{
		"sticky": {"dynamic sticky", 2}, "static": {"static", 3}, "sticky and static": {"static sticky", 2},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTrap(t, lab.Options{Hosts: 4})
			mac := lab.MACOf(0x20)
			x.run("bridge fdb add " + mac.String() + " dev p2 master " + c.flags)
			f := flow{from: 1, to: 2, dst: mac}
			x.warm(f)
			claimed := flow{from: 3, to: 1, src: mac}
			before := x.fast(f)
			x.stopped(func() {
				x.expect(claimed, 1)
				x.expect(f, c.at)
				x.expect(claimed, 1)
				x.expect(f, c.at)
			})
			if fast := x.fast(f) - before; c.at == f.to && fast < 2*shots-2 {
				t.Errorf("%d frames were fast: who claims a sticky station's address takes its fast path", fast)
			}
			f.to = c.at
			x.awaitFast(f)
			x.expect(claimed, 1)
			x.expect(f, c.at)
		})
	}
}

// A control plane that takes a station over says where it is.
func TestTrap22_ExternLearnTakeover(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 4})
	f := flow{from: 1, to: 2}
	x.warm(f)
	const mac = "02:00:00:00:00:02"
	x.stopped(func() {
		x.run("bridge fdb replace " + mac + " dev p3 master extern_learn dynamic")
		x.expect(f, 3)
	})
	f = flow{from: 1, to: 3, dst: lab.MACOf(2)}
	x.awaitFast(f)
	x.stopped(func() { // and a frame from the station takes it back
		x.expect(flow{from: 2, to: 1}, 1)
		x.expect(f, 2)
	})
	f = flow{from: 1, to: 2}
	x.awaitFast(f)
	x.stopped(func() { // where it is: only who vouches for it changes
		x.run("bridge fdb replace " + mac + " dev p2 master extern_learn dynamic")
		x.expect(f, 2)
		x.run("bridge fdb del " + mac + " dev p2 master extern_learn dynamic")
		x.expect(f, 2, 3, 4)
	})
}

// An addition may be on its way to the data plane while the kernel takes the
// entry back. The daemon is stopped anywhere in between, and goes on.
func TestTrap26_RevokedBeforeAdmission(t *testing.T) {
	const rounds = 40
	x := newTrap(t, lab.Options{Hosts: 4})
	x.learn(flow{from: 1, to: 4})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for n := range rounds {
		mac := lab.MACOf(0x2600 + n)
		f := flow{from: 1, to: 2, dst: mac}
		x.send(flow{from: 2, to: 1, src: mac})
		for range random.IntN(2000) { // from before the message is read to after the admission
			x.l.Bridge.Path()
		}
		x.stopped(func() {
			if n%2 == 0 {
				x.run("bridge fdb del " + mac.String() + " dev p2 master")
				x.expect(f, 2, 3, 4)
			} else {
				x.send(flow{from: 3, to: 1, src: mac})
				f.to = 3
				x.expect(f, 3)
			}
		})
		hosts := []int{f.to}
		if n%2 == 0 {
			hosts = []int{2, 3, 4}
		}
		x.expect(f, hosts...)
		x.d.bridge() // an answer comes after what the daemon was doing
		x.expect(f, hosts...)
	}
}

// A guest that claims another's address, at full rate, takes that one's frames,
// as it would without shunt. It does not take the others' fast path.
func TestTrap27_SpoofingGuest(t *testing.T) {
	const rounds = 2000
	x := newTrap(t, lab.Options{Hosts: 4})
	f := flow{from: 1, to: 2}
	x.warm(f)
	spoof, true4 := flow{from: 3, to: 2, src: lab.MACOf(4)}, flow{from: 4, to: 2}
	x.warm(true4)
	before, sent := x.fast(f), uint64(0)
	for range rounds {
		x.send(spoof)
		x.expect(f, 2)
		x.send(true4)
		x.expect(f, 2)
		sent += 2 * shots
	}
	fast := x.fast(f) - before
	t.Logf("%d of %d frames of the others were fast", fast, sent)
	if fast < sent*95/100 {
		t.Errorf("%d of %d frames were fast, want 95 %%", fast, sent)
	}
	x.expect(flow{from: 2, to: 4}, 4)
	x.send(spoof)
	x.expect(flow{from: 2, to: 4}, 3)
}

// What the fast path carries to a station does not keep it alive.
func TestTrap14_SilentStationAges(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3, Ageing: 2 * time.Second})
	f := flow{from: 1, to: 2}
	x.warm(f)
	talking, silent := lab.MACOf(1).String(), lab.MACOf(2).String()
	await(t, "the silent station is forgotten", func() bool {
		rows := entriesOf(t, x.l, []string{talking, silent})
		if len(rows) == 0 || rows[0].MAC != talking {
			t.Fatal("the bridge forgot the station that talks")
		}
		x.send(f)
		return len(rows) == 1
	})
	x.expect(f, 2, 3)
}
