package tcprog

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// guarded makes both members have their carrier, and the programs know them.
func guarded(t *testing.T, attach string) *wireLab {
	t.Helper()
	l := newWireLab(t, attach)
	l.plug("m1", true)
	l.plug("m2", true)
	l.must(l.d.Guard(l.uplink, [2]accel.Guard{{Member: l.first}, {Member: l.second}}))
	return l
}

// plug gives a veth its carrier, or takes it.
func (l *wireLab) plug(device string, in bool) {
	l.t.Helper()
	run(l.t, "ip", "link", "set", device+"-peer", map[bool]string{true: "up", false: "down"}[in])
}

// addMacvlan makes a member on a device of its own, both with a carrier.
func (l *wireLab) addMacvlan(name, below string) int {
	l.t.Helper()
	l.addVeth(below)
	l.plug(below, true)
	run(l.t, "ip", "link", "add", name, "link", below, "up", "type", "macvlan")
	ifc, err := net.InterfaceByName(name)
	l.must(err)
	l.must(l.d.AddMember(l.uplink, ifc.Index))
	return ifc.Index
}

func (l *wireLab) wants(active, draining int) {
	l.t.Helper()
	state, err := l.d.WireState(l.uplink)
	l.must(err)
	if state.Active != active || state.Draining != draining {
		l.t.Errorf("%d is active and %d draining, want %d and %d", state.Active, state.Draining, active, draining)
	}
}

// The first frame after the loss leaves by the standby, whoever sends it: nobody else
// had to notice. Our own stations are not heard there, as after a flip of the daemon's.
func TestTheNextFrameFailsOver(t *testing.T) {
	for name, send := range map[string]func(*wireLab){
		"out of the stable port": func(l *wireLab) { l.sendOut(frame(alice, carol), tcRedirect) },
		"on the fast path":       func(l *wireLab) { l.expect(frame(alice, carol), accel.Fast) },
		"from outside":           func(l *wireLab) { l.arrive(l.second, frame(carol, alice), tcRedirect, accel.Fast, none) },
	} {
		t.Run(name, func(t *testing.T) {
			l := guarded(t, "auto")
			l.openBridge()
			l.expect(frame(alice, carol), accel.Fast)
			l.arrive(l.first, frame(carol, alice), tcRedirect, accel.Keepalive, none)
			l.leave(frame(carol, alice))
			l.sendOut(frame(alice, carol), tcRedirect)
			l.wants(l.first, 0)
			now, err := l.d.Members(l.uplink)
			l.must(err)
			if now.Failovers != 0 {
				t.Errorf("a program moved the traffic though nothing was lost: %+v", now)
			}

			began := time.Now()
			l.plug("m1", false)
			send(l)
			l.wants(l.second, l.first)
			now, err = l.d.Members(l.uplink)
			l.must(err)
			if now.Active != l.second || now.Failovers != 1 || now.FailedOver.Before(began) || now.FailedOver.After(time.Now()) {
				t.Errorf("the wire says %+v", now)
			}
			l.arrive(l.second, frame(alice, bob), tcShot, none, accel.OwnReturned)

			draining, err := l.d.Flip(l.uplink, l.second)
			l.must(err)
			if draining != l.first {
				t.Errorf("a flip behind that of a program says that %d drains, want %d", draining, l.first)
			}
			l.must(l.endDrain())
			l.wants(l.second, 0)
		})
	}
}

// A standby that has no carrier either is no better, nor one that nobody named.
func TestNothingFailsOverToWhatCarriesNothing(t *testing.T) {
	for name, change := range map[string]func(*wireLab){
		"no carrier": func(l *wireLab) { l.plug("m2", false) },
		"down": func(l *wireLab) { // a veth that is down has no carrier either
			member := l.addMacvlan("mv", "below")
			l.must(l.d.Guard(l.uplink, [2]accel.Guard{{Member: l.first}, {Member: member}}))
			run(l.t, "ip", "link", "set", "mv", "down")
		},
		"no guard": func(l *wireLab) { l.must(l.d.Guard(l.uplink, [2]accel.Guard{{Member: l.first}})) },
		"removed":  func(l *wireLab) { l.must(l.d.RemoveMember(l.uplink, l.second)) },
		"deleted":  func(l *wireLab) { run(l.t, "ip", "link", "del", "m2") },
		"in another namespace, and up there": func(l *wireLab) {
			pid := elsewhere(l.t)
			run(l.t, "ip", "link", "set", "m2", "netns", pid)
			run(l.t, "nsenter", "-t", pid, "-n", "ip", "link", "set", "m2", "up")
			l.plug("m2", true)
		},
		"given to a bridge": func(l *wireLab) { run(l.t, "ip", "link", "set", "m2", "master", "br0") },
	} {
		t.Run(name, func(t *testing.T) {
			l := guarded(t, "auto")
			change(l)
			l.plug("m1", false)
			l.sendOut(frame(alice, carol), tcRedirect)
			l.wants(l.first, 0)
		})
	}
}

// A device that went to another namespace is lost, though it may be well there.
func TestAnActiveMemberThatIsElsewhereIsLost(t *testing.T) {
	l := guarded(t, "auto")
	pid := elsewhere(t)
	run(t, "ip", "link", "set", "m1", "netns", pid)
	run(t, "nsenter", "-t", pid, "-n", "ip", "link", "set", "m1", "up")
	l.plug("m1", true)
	l.sendOut(frame(alice, carol), tcRedirect)
	l.wants(l.second, l.first)
}

// Whoever is told of while a program decides, that is the standby, or nobody: what was
// compared is what is used.
func TestAStandbyIsReadOnce(t *testing.T) {
	l := guarded(t, "auto")
	w, err := l.d.wires.get(l.uplink)
	l.must(err)
	at := &l.d.wires.guards.table[w.number].Members[1]
	standby := *at
	l.plug("m1", false)
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				at.store(shuntGuard{})
				at.store(standby)
			}
		}
	})
	for range 4000 {
		atomic.StoreUint64(&w.shared.Members, packMembers(l.first, 0))
		_, err := w.sender.Run(&ebpf.RunOptions{Data: frame(alice, carol), Repeat: 50})
		l.must(err)
		if active, _ := w.state(); active != l.first && active != l.second {
			t.Errorf("%d is active", active)
			break
		}
	}
	close(stop)
	changing.Wait()
}

// A drain that a program began is not ended by who does not know of it.
func TestADrainOfAProgramIsKept(t *testing.T) {
	l := guarded(t, "auto")
	l.plug("m1", false)
	l.sendOut(frame(alice, carol), tcRedirect)
	l.must(l.d.EndDrain(l.uplink, l.first))
	l.wants(l.second, l.first)
}

// There is a way back without a daemon, but no frame takes it before it must.
func TestAMemberThatIsBackWaits(t *testing.T) {
	l := guarded(t, "auto")
	l.plug("m1", false)
	l.sendOut(frame(alice, carol), tcRedirect)
	l.plug("m1", true)
	l.sendOut(frame(alice, carol), tcRedirect)
	l.wants(l.second, l.first)
	l.plug("m2", false)
	l.sendOut(frame(alice, carol), tcRedirect)
	l.wants(l.first, l.second)
}

// What was marked for a flip that was prepared counts behind one that a program did
// meanwhile.
func TestAPreparedFlipThatAProgramDid(t *testing.T) {
	l := guarded(t, "auto")
	l.must(l.d.PrepareFlip(l.uplink))
	l.sendOut(frame(bob, carol), tcRedirect)
	l.plug("m1", false)
	l.sendOut(frame(alice, carol), tcRedirect)
	l.arrive(l.second, frame(bob, carol), tcShot, none, accel.OwnReturned)
}

// What was marked for a flip that is over means nothing for one that a program does.
func TestAProgramsFlipVoidsMarks(t *testing.T) {
	l := guarded(t, "auto")
	l.must(l.d.PrepareFlip(l.uplink))
	l.sendOut(frame(bob, carol), tcRedirect)
	l.must(l.endDrain())
	l.plug("m1", false)
	l.sendOut(frame(alice, carol), tcRedirect)
	l.arrive(l.second, frame(bob, carol), tcRedirect, none, none)
}

// Who only asks moves nothing.
func TestAQuestionDoesNotFailOver(t *testing.T) {
	l := guarded(t, "auto")
	l.openBridge()
	l.expect(frame(alice, carol), accel.Fast)
	l.plug("m1", false)
	if x := l.ask(frame(alice, carol), 0, 0); x.Reason != accel.Fast {
		t.Errorf("explained as %s", x.Reason)
	}
	l.wants(l.first, 0)
}

// A macvlan keeps its own carrier for a while when the device below has lost its. Here
// the one that is named as below is another, so that it keeps it for good.
func TestAGuardLooksBelow(t *testing.T) {
	l := newWireLab(t, "auto")
	l.plug("m2", true)
	member, below := l.addMacvlan("mv", "lower"), l.addVeth("below")
	l.plug("below", true)
	l.flip(member)
	l.must(l.endDrain())
	l.must(l.d.Guard(l.uplink, [2]accel.Guard{{Member: l.second}, {Member: member, Below: below}}))
	l.sendOut(frame(alice, carol), tcRedirect)
	l.wants(member, 0)
	l.plug("below", false)
	l.sendOut(frame(alice, carol), tcRedirect)
	l.wants(l.second, member)
}

// What programs are told is checked: a number that is no member's would get frames
// that are not for it.
func TestOnlyMembersAreGuarded(t *testing.T) {
	l := guarded(t, "auto")
	stranger := l.addVeth("stranger")
	l.plug("stranger", true)
	if err := l.d.Guard(l.uplink, [2]accel.Guard{{Member: l.first}, {Member: stranger}}); err == nil {
		t.Error("a device that is no member is guarded")
	}
	l.must(l.d.Guard(l.uplink, [2]accel.Guard{{Member: l.first}, {Member: l.second}}))
	run(t, "ip", "link", "del", "m2")
	if err := l.d.Guard(l.uplink, [2]accel.Guard{{Member: l.first}, {Member: l.second}}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a device that is gone is guarded: %v", err)
	}
	w, err := l.d.wires.get(l.uplink)
	l.must(err)
	if known := l.d.wires.guards.table[w.number].Members; known != [2]shuntGuard{} {
		t.Errorf("after an error the programs know %+v", known)
	}
}

// The programs of a daemon that was killed do not flip to whom the next one has taken
// off the wire.
func TestProgramsOfAKilledDaemonAreToldToo(t *testing.T) {
	l := guarded(t, "auto")
	l.openBridge()
	l.expect(frame(alice, carol), accel.Fast)
	left := l.d.bridges[testBridge].ports[loopback].program
	l.d = l.newDataplane("auto")
	w, err := l.d.wires.open(l.uplink)
	l.must(err)
	if known := l.d.wires.guards.table[w.number].Members; known != [2]shuntGuard{} {
		t.Errorf("when the next daemon begins its programs know %+v", known)
	}
	l.must(l.d.RemoveMember(l.uplink, l.second))
	l.plug("m1", false)
	_, err = left.Run(&ebpf.RunOptions{Data: frame(alice, carol)})
	l.must(err)
	l.wants(l.first, 0)
}

// A daemon that died left its programs, and what they know.
func TestProgramsFailOverWithoutADaemon(t *testing.T) {
	l := guarded(t, "auto")
	run(t, "ip", "link", "set", "uplink-peer", "up")
	l.must(l.d.Stop(t.Context()))
	l.plug("m1", false)
	sendOn(t, "uplink", frame(alice, carol))
	l.d = l.newDataplane("auto")
	state, err := l.d.OpenWire(l.uplink)
	l.must(err)
	if state.Active != l.second {
		t.Errorf("the traffic stays on %d, which is lost", state.Active)
	}
}

// sendOn sends a frame by a device.
func sendOn(t *testing.T, device string, data []byte) {
	t.Helper()
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, data, 0, &unix.SockaddrLinklayer{Ifindex: ifc.Index}); err != nil {
		t.Fatal(err)
	}
}
