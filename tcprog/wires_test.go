package tcprog

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	tc "github.com/florianl/go-tc"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// wireLab is a lab whose bridge has a stable port with two members, all of them
// devices. Alice is behind the loopback port, bob behind the stable one.
type wireLab struct {
	*lab
	uplink, first, second int
}

func newWireLab(t *testing.T, attach string) *wireLab {
	t.Helper()
	l := &wireLab{lab: newLab(t, attach)}
	l.uplink, l.first, l.second = l.addVeth("uplink"), l.addVeth("m1"), l.addVeth("m2")
	_, err := l.d.OpenWire(l.uplink)
	l.must(err)
	l.must(l.d.AddMember(l.uplink, l.first))
	l.must(l.d.AddMember(l.uplink, l.second))
	l.flip(l.first)
	l.must(l.endDrain())
	return l
}

// openBridge makes the bridge with its ports and stations, the gate open.
func (l *wireLab) openBridge() {
	l.t.Helper()
	l.open()
	p := accel.Port{Name: "uplink", Ifindex: l.uplink, MTU: 1500, Flags: accel.FlagLearning}
	l.must(l.d.AttachPort(testBridge, p))
	p.Seen = l.d.Version(l.uplink)
	l.must(l.d.SetPort(testBridge, p))
	l.learn(accel.Station{StationKey: key(carol), Port: l.uplink})
}

// addVeth makes a device and returns its ifindex.
func (l *wireLab) addVeth(name string) int {
	l.t.Helper()
	run(l.t, "ip", "link", "add", name, "up", "type", "veth", "peer", name+"-peer")
	ifc, err := net.InterfaceByName(name)
	l.must(err)
	return ifc.Index
}

func run(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

func (l *wireLab) flip(to int) {
	l.t.Helper()
	l.must(l.d.PrepareFlip(l.uplink))
	_, err := l.d.Flip(l.uplink, to)
	l.must(err)
}

// endDrain ends the drain of whoever is active.
func (l *wireLab) endDrain() error {
	state, err := l.d.WireState(l.uplink)
	if err != nil {
		return err
	}
	return l.d.EndDrain(l.uplink, state.Active)
}

// The actions of tc programs that are not in use elsewhere (linux/pkt_cls.h).
const tcShot = 2

// arrive runs the members' program as if the frame had come in on the member, and
// wants the action and what was counted: on the port, on the wire.
func (l *wireLab) arrive(member int, data []byte, action int, onPort, onWire accel.Reason) {
	l.t.Helper()
	w, err := l.d.wires.get(l.uplink)
	l.must(err)
	portBefore, wireBefore := l.portCounts(), l.wireCounts()
	if got := runAt(l.t, w.program(), member, data); got != action {
		l.t.Errorf("the program did %d, want %d", got, action)
	}
	l.counted("port", portBefore, l.portCounts(), onPort)
	l.counted("wire", wireBefore, l.wireCounts(), onWire)
}

// none is no reason at all.
const none = accel.Reason(accel.NumReasons)

func (l *wireLab) counted(where string, before, after map[accel.Reason]accel.Count, want accel.Reason) {
	l.t.Helper()
	var got []string
	for reason, n := range after {
		if n.Packets != before[reason].Packets {
			got = append(got, reason.String())
		}
	}
	var wanted []string
	if want != none {
		wanted = []string{want.String()}
	}
	if !slices.Equal(got, wanted) {
		l.t.Errorf("the %s counted %v, want %v", where, got, wanted)
	}
}

func (l *wireLab) portCounts() map[accel.Reason]accel.Count {
	l.t.Helper()
	br := l.d.bridges[testBridge]
	if br == nil || br.ports[l.uplink] == nil {
		return nil
	}
	counts, err := br.ports[l.uplink].counts()
	l.must(err)
	return counts
}

func (l *wireLab) wireCounts() map[accel.Reason]accel.Count {
	l.t.Helper()
	counts, err := l.d.WireCounts(l.uplink)
	l.must(err)
	return counts
}

func runAt(t *testing.T, program *ebpf.Program, ifindex int, data []byte) int {
	t.Helper()
	var context struct { // struct __sk_buff
		_       [40]byte
		Ifindex uint32
		_       [148]byte
	}
	context.Ifindex = uint32(ifindex)
	action, err := program.Run(&ebpf.RunOptions{Data: data, Context: &context})
	if err != nil {
		t.Fatal(err)
	}
	return int(int32(action))
}

// leave tells the wire that the frame came out of the backlog.
func (l *wireLab) leave(data []byte) {
	l.t.Helper()
	if got := runAt(l.t, l.d.bridges[testBridge].ports[l.uplink].program, l.uplink, data); got != passUp {
		l.t.Errorf("the stable port's program did %d", got)
	}
}

// send runs the program at the stable port's egress.
func (l *wireLab) sendOut(data []byte, action int) {
	l.t.Helper()
	w, err := l.d.wires.get(l.uplink)
	l.must(err)
	if got := runAt(l.t, w.sender, l.uplink, data); got != action {
		l.t.Errorf("at the stable port's egress the program did %d, want %d", got, action)
	}
}

// Without an accelerated bridge a wire only carries.
func TestWireCarriesWithoutABridge(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newWireLab(t, attach)
			f := frame(carol, alice)
			l.arrive(l.first, f, tcRedirect, none, none)
			l.arrive(l.second, f, tcShot, none, accel.Standby)
			l.sendOut(frame(alice, carol), tcRedirect)
			l.flip(0)
			l.must(l.endDrain())
			l.arrive(l.first, f, tcShot, none, accel.Standby)
			l.sendOut(frame(alice, carol), tcShot)
		})
	}
}

func TestMemberTakesTheFastPath(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newWireLab(t, attach)
			l.openBridge()
			in, out := frame(carol, alice), frame(alice, carol)
			l.arrive(l.first, in, tcRedirect, accel.Keepalive, none)
			l.leave(in)
			l.arrive(l.first, in, tcRedirect, accel.Fast, none)
			l.expect(out, accel.Fast)
			l.arrive(l.first, frame(carol, bob), tcRedirect, accel.Fast, none)
			l.arrive(l.first, frame(carol, accel.MAC{2, 9}), tcRedirect, accel.DestinationUnknown, none)
			l.arrive(l.second, in, tcShot, none, accel.Standby)

			l.flip(0)
			l.expect(out, accel.NoMember)
			l.flip(l.second)
			l.must(l.endDrain())
			l.arrive(l.first, in, tcShot, none, accel.Standby)
			l.arrive(l.second, in, tcRedirect, accel.Fast, none)
			l.expect(out, accel.Fast)

			// The bridge is left alone again: the wire stays.
			l.must(l.d.CloseBridge(testBridge))
			l.arrive(l.second, in, tcRedirect, none, none)
			if w := l.d.wires.find(l.uplink); w.program() != w.plain {
				t.Error("the members are judged for a bridge that is closed")
			}
		})
	}
}

// While a frame is on its way through the backlog, those behind it must not
// overtake it; others may.
func TestFramesKeepTheirOrder(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	in := frame(carol, alice)
	l.arrive(l.first, in, tcRedirect, accel.Keepalive, none)
	l.arrive(l.first, in, tcRedirect, accel.OutOfTurn, none)
	l.arrive(l.first, frame(carol, bob), tcRedirect, accel.Fast, none)
	l.leave(in)
	l.arrive(l.first, in, tcRedirect, accel.OutOfTurn, none)
	l.leave(in)
	l.leave(in)
	l.arrive(l.first, in, tcRedirect, accel.Fast, none)

	// What enters over one member must not be overtaken over the other either.
	l.must(l.d.SetGate(testBridge, accel.Gate{Reason: accel.Off}))
	l.arrive(l.first, in, tcRedirect, accel.Off, none)
	l.openGate(accel.Gate{Keepalive: time.Hour})
	l.flip(l.second)
	l.arrive(l.second, in, tcRedirect, accel.OutOfTurn, none)
	l.leave(in)
	l.leave(in)
	l.arrive(l.second, in, tcRedirect, accel.Fast, none)
}

// What the backlog dropped never leaves: a lane that has long been quiet is empty.
func TestALostFrameDoesNotShutItsLane(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	in := frame(carol, alice)
	l.arrive(l.first, in, tcRedirect, accel.Keepalive, none)
	l.changeLane(func(lane *shuntLane) { lane.EnteredNs -= uint64(2 * time.Second) })
	l.arrive(l.first, in, tcRedirect, accel.Fast, none)
}

// Nor does one shut it that was lost from a stream that never pauses.
func TestALostFrameDoesNotShutABusyLane(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	in := frame(carol, alice)
	l.arrive(l.first, in, tcRedirect, accel.Keepalive, none)
	l.arrive(l.first, in, tcRedirect, accel.OutOfTurn, none)
	l.arrive(l.first, in, tcRedirect, accel.OutOfTurn, none)
	l.leave(in)
	l.leave(in)
	l.arrive(l.first, in, tcRedirect, accel.OutOfTurn, none)
	l.changeLane(func(lane *shuntLane) { lane.SinceNs -= uint64(2 * time.Second) })
	// One is lost; the last is still on its way.
	l.arrive(l.first, in, tcRedirect, accel.OutOfTurn, none)
	l.leave(in)
	l.leave(in)
	l.arrive(l.first, in, tcRedirect, accel.Fast, none)
}

// Another CPU let a frame in after this one looked at the clock.
func TestALaneIsTakenByWhatEnteredJustNow(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	in := frame(carol, alice)
	l.arrive(l.first, in, tcRedirect, accel.Keepalive, none)
	l.changeLane(func(lane *shuntLane) {
		lane.EnteredNs += uint64(time.Second)
		lane.SinceNs += uint64(time.Second)
	})
	l.arrive(l.first, in, tcRedirect, accel.OutOfTurn, none)
}

// changeLane changes the one lane that is in use.
func (l *wireLab) changeLane(change func(*shuntLane)) {
	l.t.Helper()
	w, err := l.d.wires.get(l.uplink)
	l.must(err)
	lanesOf := l.d.wires.maps[wireMapLanes]
	changed := 0
	for n := range uint32(lanes) {
		var lane shuntLane
		l.must(lanesOf.Lookup(w.number*lanes+n, &lane))
		if lane.Entered != 0 {
			change(&lane)
			l.must(lanesOf.Put(w.number*lanes+n, lane))
			changed++
		}
	}
	if changed != 1 {
		l.t.Fatalf("%d lanes have a frame, want 1", changed)
	}
}

func TestTheDrainIsAProtocol(t *testing.T) {
	for name, withBridge := range map[string]bool{"wire alone": false, "fast path": true} {
		t.Run(name, func(t *testing.T) {
			l := newWireLab(t, "auto")
			reason := none
			if withBridge {
				l.openBridge()
				reason = accel.DestinationUnknown
			}
			dave, erin := accel.MAC{2, 0, 0, 0, 4, 4}, accel.MAC{2, 0, 0, 0, 5, 5}
			out := frame(alice, dave)
			l.must(l.d.PrepareFlip(l.uplink))
			l.sendOut(out, tcRedirect)
			_, err := l.d.Flip(l.uplink, l.second)
			l.must(err)

			// In flight at the flip, late or not: delivered. What comes by both, once.
			in := frameOf(carol, dave, testEtherType, make([]byte, 100))
			late := frameOf(carol, dave, testEtherType, make([]byte, 101))
			l.arrive(l.first, in, tcRedirect, reason, accel.Drained)
			l.arrive(l.second, in, tcShot, none, accel.Doubled)
			l.arrive(l.second, in, tcRedirect, reason, none)
			l.arrive(l.first, late, tcRedirect, reason, accel.Drained)
			l.arrive(l.first, in, tcShot, none, accel.Doubled)
			// One that is sent again is no copy.
			l.arrive(l.first, late, tcRedirect, reason, accel.Drained)
			// Only the beginning tells frames apart, and their length.
			differs := slices.Clone(late)
			differs[50]++
			l.arrive(l.second, differs, tcRedirect, reason, none)
			// What goes to all comes over the target.
			broadcast := accel.MAC{255, 255, 255, 255, 255, 255}
			l.arrive(l.first, frame(carol, broadcast), tcShot, none, accel.Doubled)
			// What we sent comes back by neither.
			l.arrive(l.first, out, tcShot, none, accel.OwnReturned)
			l.arrive(l.second, out, tcShot, none, accel.OwnReturned)
			if withBridge {
				// Not marked, but its source is behind another port, or of the host: what
				// announces it, for one.
				l.arrive(l.first, frame(alice, broadcast), tcShot, none, accel.OwnReturned)
				l.arrive(l.first, frame(alice, erin), tcShot, none, accel.OwnReturned)
				l.arrive(l.first, frame(host, erin), tcShot, none, accel.OwnReturned)
			}
			l.must(l.endDrain())
			l.arrive(l.first, in, tcShot, none, accel.Standby)
		})
	}
}

// A flip that is undone: what comes by the one member again and not by the other is
// no copy.
func TestAFlipThatIsUndoneDrainsToo(t *testing.T) {
	l := newWireLab(t, "auto")
	in := frame(carol, alice)
	l.flip(l.second)
	l.arrive(l.second, in, tcRedirect, none, none)
	_, err := l.d.Flip(l.uplink, l.first)
	l.must(err)
	l.arrive(l.second, in, tcRedirect, none, accel.Drained)
	l.arrive(l.first, in, tcShot, none, accel.Doubled)
	l.arrive(l.first, in, tcRedirect, none, none)
}

// The fast path sends past the stable port's own program: what leaves by it is
// known again all the same.
func TestOwnFramesOfTheFastPathAreKnown(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	l.expect(frame(alice, carol), accel.Fast)
	l.must(l.d.PrepareFlip(l.uplink))
	l.expect(frame(alice, carol), accel.Fast)
	_, err := l.d.Flip(l.uplink, l.second)
	l.must(err)
	l.arrive(l.second, frame(alice, carol), tcShot, none, accel.OwnReturned)
}

// A flip that nobody could prepare: nothing was marked, and stations of our own are
// not heard from outside until the drain is over.
func TestOwnFramesAfterALoss(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	_, err := l.d.Flip(l.uplink, l.second)
	l.must(err)
	l.arrive(l.second, frame(alice, bob), tcShot, none, accel.OwnReturned)
	l.must(l.endDrain())
	l.arrive(l.second, frame(alice, bob), tcRedirect, accel.SourceMoved, none)
}

func TestWireOutlivesItsDaemon(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newWireLab(t, attach)
			l.openBridge()
			l.flip(l.second)
			before, err := l.d.WireState(l.uplink)
			l.must(err)
			l.must(l.d.Stop(t.Context()))

			l.d = l.newDataplane(attach)
			after, err := l.d.OpenWire(l.uplink)
			l.must(err)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(diff)
			}
			l.arrive(l.second, frame(carol, alice), tcRedirect, none, none)
			l.openBridge()
			l.arrive(l.second, frame(carol, alice), tcRedirect, accel.Keepalive, none)

			l.must(l.d.CloseWire(l.uplink))
			l.must(l.d.CloseBridge(testBridge))
			l.nothingIsOn("uplink", "m1", "m2")
		})
	}
}

// Whoever mirrors the bridge may not know yet that the port will leave it.
func TestPortOfAClosedWireIsNotAttached(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	l.must(l.d.CloseWire(l.uplink))
	if err := l.d.SetPort(testBridge, accel.Port{Name: "uplink", Ifindex: l.uplink, MTU: 1500}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("SetPort: %v, want ENOENT", err)
	}
}

// A member that is gone, and a port whose number is another's by now, are not taken
// for what they were.
func TestWireForgetsWhatIsGone(t *testing.T) {
	l := newWireLab(t, "auto")
	l.must(l.d.Stop(t.Context()))
	run(t, "ip", "link", "del", "m1")
	run(t, "ip", "link", "add", "m1", "index", "77", "up", "type", "veth", "peer", "m1-peer")
	l.d = l.newDataplane("auto")
	state, err := l.d.OpenWire(l.uplink)
	l.must(err)
	if want := (accel.WireState{Port: l.uplink, Members: []int{l.second}, Generation: 1}); !cmp.Equal(state, want) {
		t.Errorf("the wire is %+v, want %+v", state, want)
	}
	l.must(l.d.Stop(t.Context()))
	run(t, "ip", "link", "del", "uplink")
	l.d = l.newDataplane("auto")
	if n := len(l.d.wires.byPort); n != 0 {
		t.Errorf("%d wires are left of a port that is gone", n)
	}
	l.nothingIsOn("m2")
}

func (l *wireLab) nothingIsOn(devices ...string) {
	l.t.Helper()
	for _, name := range devices {
		ifc, err := net.InterfaceByName(name)
		l.must(err)
		foreign, err := l.d.Foreign(ifc.Index)
		l.must(err)
		filters, err := filtersAt(place{ifindex: ifc.Index})
		l.must(err)
		if foreign || len(filters) != 0 {
			l.t.Errorf("a program is left on %s", name)
		}
	}
}

// Without a daemon detach leaves the wires, and takes the fast path off them: its
// tables are true for nothing any more.
func TestCleanLeavesWires(t *testing.T) {
	for _, attach := range []string{"auto", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newWireLab(t, attach)
			l.openBridge()
			l.must(l.d.wires.close())
			l.d.wires = nil
			removed, err := new(Dataplane).Clean(t.Context(), l.ns)
			l.must(err)
			if !slices.ContainsFunc(removed, func(s string) bool { return strings.Contains(s, "stable port uplink") }) {
				t.Errorf("removed: %q", removed)
			}
			if _, err := os.Stat(l.d.bridges[testBridge].dir); !os.IsNotExist(err) {
				t.Errorf("the bridge's pins are left: %v", err)
			}
			l.d.bridges = nil
			l.d = l.newDataplane("auto")
			state, err := l.d.OpenWire(l.uplink)
			l.must(err)
			if state.Active != l.first || len(state.Members) != 2 {
				t.Errorf("the wire is %+v", state)
			}
			l.must(l.d.CloseWire(l.uplink))
		})
	}
}

func TestForeignProgramsAreSeen(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	if foreign, err := l.d.Foreign(l.second); foreign || err != nil {
		t.Errorf("our own program is foreign: %v", err)
	}
	reason, err := l.d.Coexist(testBridge, l.uplink)
	l.must(err)
	if reason != accel.Fast {
		t.Errorf("alone on the stable port: %s", reason)
	}
	for _, ifindex := range []int{l.second, l.uplink} {
		err := withTC(func(c *tc.Tc) error { return c.Qdisc().Add(clsactQdisc(ifindex)) })
		if err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatal(err)
		}
		l.must(addForeignFilter(place{ifindex: ifindex, egress: true}))
	}
	if foreign, err := l.d.Foreign(l.second); !foreign || err != nil {
		t.Errorf("a filter at the egress was not seen: %v", err)
	}
	if reason, err = l.d.Coexist(testBridge, l.uplink); err != nil || reason != accel.PortForeignTC {
		t.Errorf("a filter at the stable port's egress means %s: %v", reason, err)
	}
}

func TestCarrierIsReadAsItIs(t *testing.T) {
	l := newWireLab(t, "auto")
	for _, c := range []struct {
		device, state string
		want          bool
	}{{"m1-peer", "up", true}, {"m1-peer", "down", false}, {"m1-peer", "up", true}, {"m1", "down", false}} {
		run(t, "ip", "link", "set", c.device, c.state)
		if has, err := l.d.Carrier(l.first); has != c.want || err != nil {
			t.Errorf("with %s %s the carrier is %v: %v", c.device, c.state, has, err)
		}
	}
	run(t, "ip", "link", "del", "m1")
	if has, err := l.d.Carrier(l.first); has || err == nil {
		t.Errorf("a device that is gone has a carrier: %v, %v", has, err)
	}
}

func TestMemberThatCarriesIsNotRemoved(t *testing.T) {
	l := newWireLab(t, "auto")
	if l.d.RemoveMember(l.uplink, l.first) == nil {
		t.Error("the active member was removed")
	}
	l.flip(l.second)
	if l.d.RemoveMember(l.uplink, l.first) == nil {
		t.Error("the draining member was removed")
	}
	l.must(l.endDrain())
	run(t, "ip", "link", "del", "m1")
	l.must(l.d.RemoveMember(l.uplink, l.first))
	l.must(l.d.RemoveMember(l.uplink, l.first))
	if err := l.d.AddMember(l.uplink, 999); err == nil {
		t.Error("a device that is not there became a member")
	}
}

// A member that was away may come back without its program.
func TestAMemberThatWasAway(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newWireLab(t, attach)
			for _, away := range [][]string{
				{"ip", "link", "del", "m2"},
				{"ip", "link", "set", "m2", "netns", elsewhere(t)},
			} {
				run(t, away...)
				if err := l.d.AddMember(l.uplink, l.second); !errors.Is(err, unix.ENODEV) {
					t.Errorf("a member that is away is added: %v", err)
				}
				run(t, "ip", "link", "add", "m2", "index", strconv.Itoa(l.second), "up", "type", "veth")
				l.must(l.d.AddMember(l.uplink, l.second))
				w, err := l.d.wires.get(l.uplink)
				l.must(err)
				if has, err := l.d.wires.memberPlace(w.number, l.second).hasProgram(); !has || err != nil {
					t.Errorf("after %v the member has no program: %v", away, err)
				}
			}
		})
	}
}

// elsewhere makes another network namespace, and returns the number of a process in
// it.
func elsewhere(t *testing.T) string {
	t.Helper()
	sleeper := exec.Command("unshare", "--net", "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sleeper.Process.Kill()
		sleeper.Wait()
	})
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(sleeper.Process.Pid)
	for t.Context().Err() == nil {
		if its, err := os.Readlink("/proc/" + pid + "/ns/net"); err == nil && its != ours {
			break
		}
		runtime.Gosched()
	}
	return pid
}

// What two wires deliver goes around in the bridge.
// TestAWireOutlivesItsPort until it is closed, which frees its members for another.
func TestAWireOutlivesItsPort(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newWireLab(t, attach)
			l.flip(l.first)
			run(t, "ip", "link", "del", "uplink")
			other := l.addVeth("other")
			_, err := l.d.OpenWire(other)
			l.must(err)
			if l.d.AddMember(other, l.first) == nil {
				t.Error("a device of a wire that is open is a member of another")
			}
			l.must(l.d.CloseWire(l.uplink))
			l.nothingIsOn("m1", "m2")
			l.must(l.d.AddMember(other, l.first))
		})
	}
}

func TestADeviceServesOneWire(t *testing.T) {
	l := newWireLab(t, "auto")
	other := l.addVeth("other")
	_, err := l.d.OpenWire(other)
	l.must(err)
	for _, member := range []int{l.first, l.second, l.uplink, other} {
		if l.d.AddMember(other, member) == nil {
			t.Errorf("device %d is a member of a second wire", member)
		}
	}
	l.must(l.d.RemoveMember(l.uplink, l.second))
	l.must(l.d.AddMember(other, l.second))
}

// A device that becomes a member may still be attached as a port of the bridge that
// it left: its mirror learns of that later, and takes off what it put there.
func TestAPortThatBecameAMember(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newWireLab(t, attach)
			l.openBridge()
			nic := l.addVeth("nic")
			l.must(l.d.AttachPort(testBridge, accel.Port{Name: "nic", Ifindex: nic, MTU: 1500}))
			l.must(l.d.AddMember(l.uplink, nic))
			l.must(l.d.DetachPort(testBridge, nic))
			l.hasProgramOf(nic)

			// The next daemon finds it too.
			l.must(l.d.Stop(t.Context()))
			l.d = l.newDataplane(attach)
			state, err := l.d.WireState(l.uplink)
			l.must(err)
			if !slices.Contains(state.Members, nic) {
				t.Errorf("the members are %v, without %d", state.Members, nic)
			}
			l.must(l.d.CloseWire(l.uplink))
			l.nothingIsOn("uplink", "m1", "m2", "nic")
			l.hasNoQdisc("uplink", "m1", "m2", "nic")
		})
	}
}

// hasProgramOf wants the wire's program on the member.
func (l *wireLab) hasProgramOf(member int) {
	l.t.Helper()
	w, err := l.d.wires.get(l.uplink)
	l.must(err)
	at := l.d.wires.memberPlace(w.number, member)
	has, err := at.hasFilter()
	l.must(err)
	if !has && !at.hasLink() {
		l.t.Error("no program of the wire is on the member")
	}
}

func (l *wireLab) hasNoQdisc(devices ...string) {
	l.t.Helper()
	for _, name := range devices {
		out, err := exec.Command("tc", "qdisc", "show", "dev", name).CombinedOutput()
		l.must(err)
		if strings.Contains(string(out), "clsact") {
			l.t.Errorf("a qdisc is left on %s: %s", name, out)
		}
	}
}

// A program before ours has had its say on any other port. On a stable one the fast
// path of the members passes it by.
func TestAProgramBeforeOursClosesAStablePort(t *testing.T) {
	l := newWireLab(t, "tcx")
	l.openBridge()
	w, err := l.d.wires.get(l.uplink)
	l.must(err)
	before, err := link.AttachTCX(link.TCXOptions{
		Interface: l.uplink, Program: w.plain, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
	})
	l.must(err)
	defer before.Close()
	if r, err := l.d.Coexist(testBridge, l.uplink); err != nil || r != accel.PortForeignTC {
		t.Errorf("the stable port is %s (%v), want %s", r, err, accel.PortForeignTC)
	}
}

// The mirror of the bridge that a port left may learn of it after that of the bridge
// that has it now.
func TestAStablePortThatGoesToAnotherBridge(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			const next = testBridge + 1
			l := newWireLab(t, attach)
			l.openBridge()
			run(t, "ip", "link", "add", "name", "br1", "index", strconv.Itoa(next), "type", "bridge")
			l.must(l.d.OpenBridge(accel.Bridge{Name: "br1", Ifindex: next}))
			l.must(l.d.AttachPort(next, accel.Port{Name: "uplink", Ifindex: l.uplink, MTU: 1500}))
			l.must(l.d.DetachPort(testBridge, l.uplink))

			if w := l.d.wires.find(l.uplink); w.program() == w.plain {
				t.Error("the members are not judged for the bridge that has the port")
			}
			if r, err := l.d.Coexist(next, l.uplink); err != nil || r != accel.Fast {
				t.Errorf("the port is %s in its new bridge: %v", r, err)
			}
		})
	}
}

// What a station of ours sent in an earlier swap says nothing about it when a member
// is lost much later: it may be outside by then.
func TestMarksOfAnEarlierFlipAreVoid(t *testing.T) {
	l := newWireLab(t, "auto")
	l.must(l.d.PrepareFlip(l.uplink))
	l.sendOut(frame(bob, carol), tcRedirect)
	_, err := l.d.Flip(l.uplink, l.second)
	l.must(err)
	l.must(l.endDrain())
	_, err = l.d.Flip(l.uplink, l.first)
	l.must(err)
	l.arrive(l.first, frame(bob, carol), tcRedirect, none, none)
}

// The outside floods what the lost member sent last also when another takes over in
// two steps.
func TestOwnFramesAfterAMomentWithoutAMember(t *testing.T) {
	l := newWireLab(t, "auto")
	l.openBridge()
	for _, to := range []int{0, l.second} {
		_, err := l.d.Flip(l.uplink, to)
		l.must(err)
	}
	l.arrive(l.second, frame(alice, bob), tcShot, none, accel.OwnReturned)
}

func TestOnlyMembersBecomeActive(t *testing.T) {
	l := newWireLab(t, "auto")
	stranger := l.addVeth("stranger")
	if _, err := l.d.Flip(l.uplink, stranger); err == nil {
		t.Error("a device that is no member became active")
	}
	l.must(l.d.RemoveMember(l.uplink, l.second))
	if _, err := l.d.Flip(l.uplink, l.second); err == nil {
		t.Error("a member that was removed became active")
	}
	state, err := l.d.WireState(l.uplink)
	l.must(err)
	if state.Active != l.first || state.Draining != 0 {
		t.Errorf("the wire is %+v", state)
	}
}

// Whoever asks too early or too late gets an error.
func TestWiresOfADataplaneThatDoesNotRun(t *testing.T) {
	l := newWireLab(t, "auto")
	l.must(l.d.Stop(t.Context()))
	for when, d := range map[string]*Dataplane{"before Start": new(Dataplane), "after Stop": l.d} {
		_, open := d.OpenWire(l.uplink)
		_, flip := d.Flip(l.uplink, l.first)
		_, state := d.WireState(l.uplink)
		_, counts := d.WireCounts(l.uplink)
		for what, err := range map[string]error{
			"OpenWire": open, "Flip": flip, "WireState": state, "WireCounts": counts,
			"CloseWire": d.CloseWire(l.uplink), "AddMember": d.AddMember(l.uplink, l.first),
			"RemoveMember": d.RemoveMember(l.uplink, l.first),
			"PrepareFlip":  d.PrepareFlip(l.uplink), "EndDrain": d.EndDrain(l.uplink, 0),
		} {
			if err == nil {
				t.Errorf("%s %s is no error", what, when)
			}
		}
		if _, err := d.Foreign(l.first); err != nil {
			t.Errorf("Foreign %s: %v", when, err)
		}
	}
}

func TestAWireThatCouldNotBeOpenedLeavesNothing(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := &wireLab{lab: newLab(t, attach)}
			if _, err := l.d.OpenWire(999); err == nil {
				t.Error("a device that is not there is wired")
			}
			l.must(l.d.Stop(t.Context()))
			if _, err := os.Stat(pinRoot(l.ns)); !os.IsNotExist(err) {
				t.Errorf("pins are left: %v", err)
			}
		})
	}
}

// The state of a stable port is read live through the addresses in its image: its
// members are no ports. A port that left, or came again, is not taken for what it was.
func TestAStablePortIsReadLive(t *testing.T) {
	l, guest := newLiveLab(t)
	in := frame(carol, alice)
	run(t, "ip", "link", "set", "uplink", "type", "bridge_slave", "isolated", "on")
	l.arrive(l.first, in, tcRedirect, accel.PortChanged, none)
	l.leave(in)
	run(t, "ip", "link", "set", "uplink", "type", "bridge_slave", "isolated", "off")
	l.arrive(l.first, in, tcRedirect, accel.Fast, none)

	run(t, "ip", "link", "set", "uplink", "nomaster")
	l.isSlow(in)
	l.enslave("uplink")
	l.isSlow(in)
	l.attachAsSeen(l.uplink, guest)
	l.arrive(l.first, in, tcRedirect, accel.Fast, none)
}

// An image whose addresses are those of other devices, or bridges, is of no use, though
// all that is read there is as it was.
func TestAnImageIsOfOnePort(t *testing.T) {
	l, guest := newLiveLab(t)
	in := frame(carol, alice)
	br := l.d.bridges[testBridge]
	image := &br.images.of[br.ports[l.uplink].slot]
	own, other := image.Device, br.images.of[br.ports[guest].slot].Device
	image.Device = other
	br.control.bumpAll()
	l.isSlow(in)
	image.Device = own
	l.arrive(l.first, in, tcRedirect, accel.Fast, none)

	alien := l.addVeth("alien")
	run(t, "ip", "link", "add", "br1", "type", "bridge")
	run(t, "ip", "link", "set", "br1", "up")
	run(t, "ip", "link", "set", "alien", "master", "br1")
	l.must(l.d.changes.watch(alien, false))
	look := l.d.changes.ofLivePort(alien)
	var known bool
	br.control.shared.Image, known = imageOf[bridgeImage](l.d.changes, look.bridge)
	if !known {
		t.Fatal("nothing is known of the other bridge")
	}
	br.control.bumpAll()
	l.isSlow(in)
}

// newLiveLab is a stable port and a guest's port in a bridge whose state is read live,
// with frames from the one to the other fast.
func newLiveLab(t *testing.T) (l *wireLab, guest int) {
	l = newWireLab(t, "auto")
	if l.d.changes.look == nil { // this kernel's changes are traced; it can be read all the same
		l.must(l.d.changes.readLive(l.d.types.get()))
	}
	l.d.changes.mode = modeLive
	guest = l.addVeth("guest")
	for _, device := range []string{"br0", "uplink-peer", "guest-peer"} {
		run(t, "ip", "link", "set", device, "up")
	}
	l.enslave("uplink")
	l.enslave("guest")
	l.must(l.d.OpenBridge(accel.Bridge{Name: "br0", Ifindex: testBridge}))
	l.attachAsSeen(l.uplink, guest)
	l.learn(accel.Station{StationKey: key(alice), Port: guest})
	l.learn(accel.Station{StationKey: key(carol), Port: l.uplink})
	in := frame(carol, alice)
	l.arrive(l.first, in, tcRedirect, accel.Keepalive, none)
	l.leave(in)
	l.arrive(l.first, in, tcRedirect, accel.Fast, none)
	return l, guest
}

// enslave puts a device into the bridge and waits until it forwards.
func (l *wireLab) enslave(device string) {
	l.t.Helper()
	run(l.t, "ip", "link", "set", device, "master", "br0")
	for {
		out, err := exec.Command("bridge", "link", "show", "dev", device).Output()
		l.must(err)
		if strings.Contains(string(out), "state forwarding") {
			return
		}
	}
}

// attachAsSeen opens the fast path between ports of a real bridge.
func (l *wireLab) attachAsSeen(ports ...int) {
	l.t.Helper()
	for _, ifindex := range ports {
		l.must(l.d.AttachPort(testBridge, accel.Port{Ifindex: ifindex, MTU: 1500}))
	}
	for _, ifindex := range ports {
		l.must(l.d.SetPort(testBridge, accel.Port{
			Ifindex: ifindex, MTU: 1500, Flags: accel.FlagLearning, Seen: l.d.Version(ifindex),
		}))
	}
	l.openGate(accel.Gate{Keepalive: time.Hour, Seen: l.d.Version(testBridge)})
}

// isSlow wants the frame that arrives on the first member to go to the bridge: what it
// finds of a port that is gone is anything.
func (l *wireLab) isSlow(data []byte) {
	l.t.Helper()
	w, err := l.d.wires.get(l.uplink)
	l.must(err)
	before := l.portCounts()
	runAt(l.t, w.program(), l.first, data)
	if l.portCounts()[accel.Fast] != before[accel.Fast] {
		l.t.Error("a frame of a port that is gone was fast")
	}
	l.leave(data)
}
