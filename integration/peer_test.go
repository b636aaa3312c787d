package integration

import (
	"context"
	"errors"
	"flag"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// peerFrames are those of each case of TestPeerKeepsOrder.
var peerFrames = flag.Uint64("peer.frames", 60_000, "`frames` that are looked at for their order")

// Frames that go straight to the far end skip the counters of the end in the bridge.
func TestPeerIsStraight(t *testing.T) {
	const frames = 20_000
	l := newLab(t, lab.Options{Hosts: 2})
	d := startDaemon(t, l, "--redirect", "peer")
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	d.awaitActive(a.mac, b.mac)
	before := countersOf(t, l, d, a, b)
	s := streamOf(a, b, lab.Pace{PerSecond: 20_000})
	report, err := lab.Run(t.Context(), s, frames, b.wire)
	if err != nil {
		t.Fatal(err)
	}
	if want := (lab.Report{Received: frames}); report != want {
		t.Errorf("%+v, want %+v", report, want)
	}
	after := countersOf(t, l, d, a, b)
	if fast := after.Fast - before.Fast; fast < frames*99/100 {
		t.Errorf("%d of %d frames were fast", fast, frames)
	}
	if sent := after.out.TxPackets - before.out.TxPackets; sent > frames/100 {
		t.Errorf("%d of %d frames passed the end in the bridge", sent, frames)
	}
}

func streamOf(from, to station, pace lab.Pace) *lab.Sender {
	return &lab.Sender{
		Wire:  from.wire,
		Frame: lab.Frame{Source: from.mac, Destination: to.mac, Stream: 1},
		Pace:  pace,
	}
}

// peerRig is a stream that goes straight to the far end of p2.
type peerRig struct {
	*testing.T
	l      *lab.Lab
	d      *daemon
	a, b   station
	stream uint32
}

func newPeerRig(t *testing.T) *peerRig {
	t.Helper()
	l := newLab(t, lab.Options{Hosts: 2})
	x := &peerRig{T: t, l: l, d: startDaemon(t, l, "--redirect", "auto")}
	x.a, x.b = hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	introduce(t, x.a.wire, x.a.mac, x.b.wire, x.b.mac)
	x.d.awaitActive(x.a.mac, x.b.mac)
	return x
}

const peerShots = 200

// passed sends some frames and returns how many of them passed the end in the bridge.
// All must arrive, in order.
func (x *peerRig) passed() uint64 {
	x.Helper()
	x.stream++
	before := countersOf(x.T, x.l, x.d, x.a, x.b)
	s := streamOf(x.a, x.b, lab.Pace{PerSecond: 5_000})
	s.Frame.Stream = x.stream
	report, err := lab.Run(x.Context(), s, peerShots, x.b.wire)
	if err != nil {
		x.Fatal(err)
	}
	if want := (lab.Report{Received: peerShots}); report != want {
		x.Errorf("%+v, want %+v", report, want)
	}
	after := countersOf(x.T, x.l, x.d, x.a, x.b)
	return after.out.TxPackets - before.out.TxPackets
}

// awaitStraight returns when frames go straight.
func (x *peerRig) awaitStraight() {
	x.Helper()
	await(x.T, "frames go straight", func() bool { return x.passed() <= peerShots/20 })
}

// Where somebody uses what is on the end in the bridge no frame goes past it, from the
// moment in which he begins.
func TestPeerLeavesNothingOut(t *testing.T) {
	for _, c := range []struct {
		reason   string
		do, undo func(x *peerRig) error
	}{
		{"qdisc", onBridge("tc qdisc add dev p2 root pfifo"), onBridge("tc qdisc del dev p2 root")},
		{"tc_egress", (*peerRig).filterEgress, onBridge("tc qdisc del dev p2 clsact")},
		{"offloads", onBridge("ethtool -K p2 tx off"), onBridge("ethtool -K p2 tx on tso on")},
		{"napi", onHost("ethtool -K eth0 gro on"), onHost("ethtool -K eth0 gro off")},
		{"rps", steer("3"), steer("0")},
	} {
		t.Run(c.reason, func(t *testing.T) {
			x := newPeerRig(t)
			x.awaitStraight()
			if err := c.do(x); err != nil {
				t.Fatal(err)
			}
			x.expectBy(c.reason)
			if err := c.undo(x); err != nil {
				t.Fatal(err)
			}
			x.awaitStraight()
		})
	}
}

// expectBy wants every frame to pass the end in the bridge, and the daemon to say why.
func (x *peerRig) expectBy(reason string) {
	x.Helper()
	if n := x.passed(); n != peerShots {
		x.Errorf("%d of %d frames passed the end in the bridge", n, peerShots)
	}
	if p := x.d.port("p2"); p.Redirect != accel.RedirectEgress || p.RedirectReason != reason {
		x.Errorf("the daemon says %s because of %q, want %q", p.Redirect, p.RedirectReason, reason)
	}
}

func onBridge(commands ...string) func(*peerRig) error {
	return func(x *peerRig) error { return runAll(x.l.Bridge, commands) }
}

func onHost(commands ...string) func(*peerRig) error {
	return func(x *peerRig) error { return runAll(x.l.Hosts[1].Namespace, commands) }
}

func runAll(ns *lab.Namespace, commands []string) error {
	for _, command := range commands {
		if err := ns.Run(command); err != nil {
			return err
		}
	}
	return nil
}

// steer spreads what the far end receives over CPUs.
func steer(cpus string) func(*peerRig) error {
	return func(x *peerRig) error {
		return x.l.Hosts[1].WriteSys("/sys/class/net/eth0/queues/rx-0/rps_cpus", cpus)
	}
}

// filterEgress puts a filter at the egress of p2, which passes everything.
func (x *peerRig) filterEgress() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, License: "GPL",
	})
	if err != nil {
		return err
	}
	defer program.Close()
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          program.FD(), Name: "pass", DirectAction: true,
	}
	return x.l.Bridge.Do(func() error {
		dev, err := netlink.LinkByName("p2")
		if err != nil {
			return err
		}
		if err := addQdisc(dev); err != nil {
			return err
		}
		filter.LinkIndex = dev.Attrs().Index
		return netlink.FilterAdd(filter)
	})
}

// So does a tcx program at its egress.
func TestPeerLeavesNoProgramOut(t *testing.T) {
	x := newPeerRig(t)
	x.awaitStraight()
	program := dropProgram(t)
	var at link.Link
	err := x.l.Bridge.Do(func() error {
		dev, err := netlink.LinkByName("p2")
		if err != nil {
			return err
		}
		at, err = link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: program, Attach: ebpf.AttachTCXEgress})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := streamOf(x.a, x.b, lab.Pace{PerSecond: 5_000})
	s.Frame.Stream = 1 << 20
	report, err := lab.Run(t.Context(), s, peerShots, x.b.wire)
	if err != nil {
		t.Fatal(err)
	}
	if report.Received > 0 {
		t.Errorf("%d frames passed a program that drops all", report.Received)
	}
	if err := at.Close(); err != nil {
		t.Fatal(err)
	}
	x.awaitStraight()
}

// A capture on the end in the bridge, or on all devices, sees every frame, from the
// moment in which it begins.
func TestPeerIsCaptured(t *testing.T) {
	for _, device := range []string{"p2", "any"} {
		t.Run(device, func(t *testing.T) {
			x := newPeerRig(t)
			x.awaitStraight()
			capture, err := x.l.Bridge.SeeSent(device)
			if err != nil {
				t.Fatal(err)
			}
			x.expectBy("capture")
			if err := capture.Close(); err != nil {
				t.Fatal(err)
			}
			x.awaitStraight()
		})
	}
}

// A frame that is longer than the far end may take does not get there, from the moment
// in which it may not.
func TestPeerKeepsMTU(t *testing.T) {
	x := newPeerRig(t)
	x.awaitStraight()
	long := make([]byte, 1400)
	copy(long, lab.Frame{Source: x.a.mac, Destination: x.b.mac, Stream: 1 << 20}.Bytes())
	if err := x.l.Hosts[1].Run("ip link set eth0 mtu 1000"); err != nil {
		t.Fatal(err)
	}
	before, err := x.l.Hosts[1].Counters("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := x.a.wire.Write(long); err != nil {
			t.Fatal(err)
		}
	}
	x.passed()
	after, err := x.l.Hosts[1].Counters("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if n := after.RxPackets - before.RxPackets; n != peerShots {
		t.Errorf("the far end received %d frames, want %d", n, peerShots)
	}
	x.awaitStraight()
}

// A frame for another address than the far end's arrives as one for somebody else,
// which the host's stack leaves alone: so it does not go straight.
func TestPeerKeepsWhoseAFrameIs(t *testing.T) {
	x := newPeerRig(t)
	x.awaitStraight()
	if err := x.l.Hosts[1].Run("ip link set eth0 address 02:00:00:00:77:01"); err != nil {
		t.Fatal(err)
	}
	if n := x.passed(); n != peerShots {
		t.Errorf("%d of %d frames passed the end in the bridge", n, peerShots)
	}
}

// To a far end in the bridge's own namespace the kernel lets nothing go straight, and
// says nothing: such a port has its frames by its own device.
func TestPeerInTheSameNamespace(t *testing.T) {
	x := newPeerRig(t)
	x.awaitStraight()
	if err := x.l.Hosts[1].Run("ip link set eth0 netns " + x.l.Bridge.Path()); err != nil {
		t.Fatal(err)
	}
	if err := x.l.Bridge.Run("ip link set eth0 up"); err != nil {
		t.Fatal(err)
	}
	wire, err := x.l.Bridge.WireOn("eth0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wire.Close() })
	if err := x.l.AwaitForwarding(); err != nil {
		t.Fatal(err)
	}
	x.b.wire = wire
	introduce(t, x.a.wire, x.a.mac, x.b.wire, x.b.mac)
	x.d.awaitActive(x.a.mac, x.b.mac)
	x.expectBy("same_namespace")
}

// No frame that goes straight overtakes one that took the bridge, or the port's own
// device, and waits in a CPU's backlog.
func TestPeerKeepsOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		// set up before the daemon starts
		commands []string
		again    string // again and again under the frames
		slow     bool   // frames take the bridge
	}{
		{name: "keepalives beside the frames"},
		{name: "keepalives over the bridge", commands: []string{"ip link set br0 type bridge group_fwd_mask 0x4000"}, slow: true},
		{name: "a table that is flushed", again: "ip link set p2 type bridge_slave fdb_flush", slow: true},
		{name: "a source that is flushed", again: "ip link set p1 type bridge_slave fdb_flush", slow: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 2, Ageing: 400 * time.Millisecond})
			for _, command := range c.commands {
				if err := l.Bridge.Run(command); err != nil {
					t.Fatal(err)
				}
			}
			// What waits, waits on a CPU that the sender leaves alone.
			if err := l.Bridge.WriteSys("/sys/class/net/p1/queues/rx-0/rps_cpus", "2"); err != nil {
				t.Fatal(err)
			}
			d := startDaemon(t, l, "--redirect", "peer")
			a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
			introduce(t, a.wire, a.mac, b.wire, b.mac)
			d.awaitActive(a.mac, b.mac)
			before := countersOf(t, l, d, a, b)
			stop, hush := again(t, l, c.again), answer(t, b, a)
			s := streamOf(a, b, lab.Pace{PerSecond: 15_000, Burst: 32})
			report, err := lab.Run(t.Context(), s, *peerFrames, b.wire)
			stop()
			hush()
			if err != nil {
				t.Fatal(err)
			}
			if want := (lab.Report{Received: *peerFrames}); report != want {
				t.Errorf("%+v, want %+v", report, want)
			}
			after := countersOf(t, l, d, a, b)
			fast, slow := after.Fast-before.Fast, after.Slow-before.Slow
			straight := *peerFrames - (after.out.TxPackets - before.out.TxPackets)
			t.Logf("%d fast, %d slow, %d straight", fast, slow, straight)
			if straight < *peerFrames/2 || c.slow && slow < 10 {
				t.Errorf("%d frames went straight and %d were slow: the test shows nothing", straight, slow)
			}
		})
	}
}

// The copy that the bridge is shown keeps its source in the table, and reaches no other
// port: also where the bridge would forward it, for there it is not made.
func TestPeerShowsTheBridgeItsStations(t *testing.T) {
	for _, mask := range []string{"0", "0x4000"} {
		t.Run("group_fwd_mask "+mask, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3, Ageing: 2 * time.Second})
			if err := l.Bridge.Run("ip link set br0 type bridge group_fwd_mask " + mask); err != nil {
				t.Fatal(err)
			}
			d := startDaemon(t, l, "--redirect", "peer")
			a, b, third := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1]), hostStation(t, l.Hosts[2])
			introduce(t, a.wire, a.mac, b.wire, b.mac)
			d.awaitActive(a.mac, b.mac)
			deleted := watchDeletes(t, l)
			drain(t, third.wire)
			hush := answer(t, b, a)
			const frames = 12_000 // of six seconds
			report, err := lab.Run(t.Context(), streamOf(a, b, lab.Pace{PerSecond: 2_000}), frames, b.wire)
			hush()
			if err != nil {
				t.Fatal(err)
			}
			if want := (lab.Report{Received: frames}); report != want {
				t.Errorf("%+v, want %+v", report, want)
			}
			if gone := deleted(); slices.Contains(gone, a.mac.String()) {
				t.Error("the bridge forgot the station, which was in use")
			}
			expectNothing(t, third.wire)
		})
	}
}

// expectNothing wants nothing to wait at the wire.
func expectNothing(t *testing.T, w lab.Wire) {
	t.Helper()
	buffer := make([]byte, 2048)
	if err := w.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := w.Read(buffer)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a third host received % x (%v)", buffer[:n], err)
	}
}

// again runs the command again and again until stop.
func again(t *testing.T, l *lab.Lab, command string) (stop func()) {
	if command == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() {
		for ctx.Err() == nil {
			if err := l.Bridge.Run(command); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-time.After(50 * time.Millisecond): // so that frames are fast in between
			case <-ctx.Done():
			}
		}
	})
	return func() {
		cancel()
		working.Wait()
	}
}

// answer sends something now and then until stop, so that the bridge knows the sender.
func answer(t *testing.T, from, to station) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	s := streamOf(from, to, lab.Pace{PerSecond: 100})
	var working sync.WaitGroup
	working.Go(func() {
		if err := s.Send(ctx, 1<<32); err != nil {
			t.Error(err)
		}
	})
	return func() {
		cancel()
		working.Wait()
	}
}
