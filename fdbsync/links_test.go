package fdbsync

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// newFakeSyncer is a syncer on fakes, without goroutines, that knows nothing yet.
func newFakeSyncer(t *testing.T, names ...string) (*Syncer, *world) {
	w := newWorld(1, false, 100)
	w.busy, w.lying = false, false
	clear(w.bridges)
	w.calls = nil
	s := newSyncer()
	s.logger, s.plane, s.kernel, s.stations, s.names = testLogger(t), w, w, 100, names
	s.firewall = func() (firewall, error) {
		w.note("firewall")
		return w.filters, nil
	}
	return s, w
}

// startFake lets the syncer take what there is, and mirror it.
func startFake(t *testing.T, s *Syncer, w *world, links ...link) {
	t.Helper()
	w.known = linksOf(links...)
	must(t, s.begin(t.Context()))
	_, err := s.advance(w.now)
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// change lets the kernel change an interface, and its programs count that.
func (w *world) change(ifindex int, how func(*link)) {
	l := w.known[ifindex]
	how(&l)
	w.known[ifindex] = l
	w.version[ifindex]++
}

func filteringBridge() link {
	b := plainBridge()
	b.bridge.vlanFiltering, b.bridge.vlanProtocol = true, unix.ETH_P_8021Q
	return b
}

func memberOf(ifindex int, name string) link {
	p := plainPort(ifindex, name)
	p.vlans = someVLANs()
	return p
}

func TestVLANsAreAskedForWhereTheyCount(t *testing.T) {
	for name, c := range map[string]struct {
		bridge link
		want   portVLANs
	}{
		"filtering": {filteringBridge(), someVLANs()},
		"not":       {plainBridge(), portVLANs{}},
	} {
		s, w := newFakeSyncer(t, "br0")
		startFake(t, s, w, c.bridge, memberOf(4, "p1"))
		must(t, s.readLinks())
		if got := s.links[4].vlans; got != c.want {
			t.Errorf("%s, all: %+v", name, got)
		}
		must(t, s.refresh(4))
		if got := s.links[4].vlans; got != c.want {
			t.Errorf("%s, one: %+v", name, got)
		}
		told, gate := w.bridges[2].ports[4], w.bridges[2].gate
		if told.PVID != c.want.pvid || told.VLANs != c.want.members || gate.VLANProtocol != c.bridge.bridge.vlanProtocol {
			t.Errorf("%s: the port is %+v, the gate %+v", name, told, gate)
		}
	}
}

// TestFilteringThatIsTurnedOn: no event of the ports tells of it.
func TestFilteringThatIsTurnedOn(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), memberOf(4, "p1"), memberOf(6, "p2"))
	w.known[2] = filteringBridge()
	s.changed.links[2] = struct{}{}
	must(t, s.catchUp())
	for _, p := range w.bridges[2].ports {
		if p.In != accel.Fast || p.PVID != 10 || p.VLANs != someVLANs().members {
			t.Errorf("then %+v", p)
		}
	}
	w.known[2] = plainBridge()
	s.changed.links[2] = struct{}{}
	must(t, s.catchUp())
	for _, p := range w.bridges[2].ports {
		if p.In != accel.Fast || p.PVID != 0 || p.VLANs != "" {
			t.Errorf("without filtering %+v", p)
		}
	}
	if g := w.bridges[2].gate; g.VLANProtocol != 0 {
		t.Errorf("the gate is %+v", g)
	}
}

// TestVersionIsOlderThanTheAnswer lets the kernel change a device between the
// reading of its version and the question: what the data plane is told must not
// bear the later version, however new the answer is.
func TestVersionIsOlderThanTheAnswer(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	for name, ask := range map[string]func() error{
		"one": func() error { return errors.Join(s.refresh(2), s.refresh(4)) },
		"all": s.readLinks,
	} {
		for _, ifindex := range []int{2, 4} {
			before := w.version[ifindex]
			w.answered = func(asked int) { // it is read, and then the kernel changes it
				if asked == ifindex {
					w.answered = nil
					w.change(ifindex, func(l *link) { l.mtu-- })
				}
			}
			must(t, ask())
			if got := s.links[ifindex]; got.seen != before || got.mtu != w.known[ifindex].mtu {
				t.Errorf("%s, %d: version %d of an answer that is of %d", name, ifindex, got.seen, before)
			}
			must(t, s.settle(false))
			if told := w.bridges[2].gate.Seen; ifindex == 2 && told != before {
				t.Errorf("%s: the gate bears %d, want %d", name, told, before)
			}
			if told := w.bridges[2].ports[4].Seen; ifindex == 4 && told != before {
				t.Errorf("%s: the port bears %d, want %d", name, told, before)
			}
			if got := s.mirrors[0].outdated(); !slices.Equal(got, []int{ifindex}) {
				t.Errorf("%s: outdated are %v, want %d", name, got, ifindex)
			}
			must(t, s.lookAgain())
			if got := s.mirrors[0].outdated(); len(got) > 0 {
				t.Errorf("%s: after a second look %v are outdated", name, got)
			}
		}
	}
}

// TestAttachedPortIsAskedForAgain: what was known of it is older than its
// version.
func TestAttachedPortIsAskedForAgain(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	w.version[4] = 7
	w.attaching = func(int) { w.change(4, func(l *link) { l.mtu = 1400 }) }
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	if p := w.bridges[2].ports[4]; p.Seen != 8 || p.MTU != 1400 || p.In != accel.Fast {
		t.Errorf("the port is %+v", p)
	}
	if got := s.mirrors[0].outdated(); len(got) > 0 {
		t.Errorf("%v are outdated", got)
	}
}

// TestPortThatLeavesWhileItIsAttached must not be told of.
func TestPortThatLeavesWhileItIsAttached(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	w.attaching = func(ifindex int) { delete(w.known, ifindex) }
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	if len(w.bridges[2].ports) > 0 || len(s.mirrors[0].ports) > 0 || w.bridges[2].gate.Reason != accel.Fast {
		t.Errorf("the bridge is %+v", w.bridges[2])
	}
}

// TestOpenedBridgeIsAskedForAgain: its version is 0 before it is opened.
func TestOpenedBridgeIsAskedForAgain(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	w.version[2] = 7
	startFake(t, s, w, plainBridge())
	if g := w.bridges[2].gate; g.Seen != 7 {
		t.Errorf("the gate is %+v", g)
	}
}

// TestFirewallIsReadAfterTheVersion: a bridge's version counts the hooks too, so
// that rules read before it must not be told with it.
func TestFirewallIsReadAfterTheVersion(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	w.version[2]++ // a hook came
	w.filters.bridge = true
	w.calls = nil
	must(t, s.lookAgain())
	wantCalls(t, w, "firewall", "gate bridge_netfilter")

	w.version[4]++ // that of a port counts those of its device
	must(t, s.lookAgain())
	wantCalls(t, w, "firewall", "port p1 in fast out fast")
}

// TestForeignProgramsAreLookedForAfterTheVersion: a port's version counts the tc
// programs on it too.
func TestForeignProgramsAreLookedForAfterTheVersion(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	w.version[4]++
	w.foreign = map[string]accel.Reason{"p1": accel.PortForeignTC}
	must(t, s.lookAgain())
	if p := w.bridges[2].ports[4]; p.In != accel.PortForeignTC || p.Seen != w.version[4] {
		t.Errorf("the port is %+v", p)
	}
}

// TestGateOpensWithTheVersionLast: ports that are not told yet must not be opened
// by the gate's new version, which counts the hooks at their devices too.
func TestGateOpensWithTheVersionLast(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	w.version[2]++
	w.filters.devices = map[string]bool{"p1": true}
	w.calls = nil
	must(t, s.lookAgain())
	wantCalls(t, w, "firewall", "port p1 in port_netfilter out port_netfilter", "gate fast")
	if g := w.bridges[2].gate; g.Seen != 1 {
		t.Errorf("the gate is %+v", g)
	}
}

// TestSecondLook: an event may come before the program that counts the change.
func TestSecondLook(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	grace, again := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	s.lookDue = false
	w.known[4] = func(l link) link { l.mtu = 1400; return l }(w.known[4])
	must(t, s.handle(func(s *Syncer) error { s.changed.links[4] = struct{}{}; return nil }))
	w.version[4]++ // only now
	must(t, s.goOn(grace, again))
	if p := w.bridges[2].ports[4]; p.Seen != 0 || p.MTU != 1400 {
		t.Errorf("the port is %+v", p)
	}
	if !s.looking {
		t.Fatal("there is no second look")
	}
	<-again.C
	must(t, s.lookAgain())
	if p := w.bridges[2].ports[4]; p.Seen != 1 {
		t.Errorf("then the port is %+v", p)
	}
	if !s.lookDue {
		t.Fatal("where something was found there is no further look")
	}
	must(t, s.goOn(grace, again))
	<-again.C
	must(t, s.lookAgain())
	if s.lookDue {
		t.Error("it would look for ever")
	}
}

func TestGateSaysWhatIsAsked(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	p1 := memberOf(4, "p1")
	for name, c := range map[string]struct {
		flags accel.PortFlags
		want  bool
	}{
		"suppression":          {accel.FlagNeighSuppress, true},
		"suppression per VLAN": {accel.FlagNeighVLANSuppress, true},
		"proxy ARP":            {accel.FlagProxyARP | accel.FlagProxyARPWifi, false},
	} {
		s, w := newFakeSyncer(t, "br0")
		p1.port.flags = c.flags
		startFake(t, s, w, filteringBridge(), p1, memberOf(6, "p2"))
		if g := w.bridges[2].gate; g.CheckND != c.want || g.VLANProtocol != unix.ETH_P_8021Q || g.Reason != accel.Fast {
			t.Errorf("%s: the gate is %+v", name, g)
		}
		if p := w.bridges[2].ports[4]; p.Flags != c.flags {
			t.Errorf("%s: the port is %+v", name, p)
		}
	}
	w.filters.brNetfilter = true
	startFake(t, s, w, plainBridge())
	if g := w.bridges[2].gate; !g.CheckIP || g.CheckND || g.BypassNetfilter {
		t.Errorf("the gate is %+v", g)
	}
}

func TestBypassNetfilter(t *testing.T) {
	s, w := newFakeSyncer(t, "br0", "br1")
	s.bypass = []string{"br1"}
	w.filters = firewall{bridge: true, ip: true, brNetfilter: true, devices: map[string]bool{"": true}}
	br1, p2 := plainBridge(), plainPort(6, "p2")
	br1.ifindex, br1.name, p2.master = 3, "br1", 3
	startFake(t, s, w, plainBridge(), br1, plainPort(4, "p1"), p2)
	if g := w.bridges[2].gate; g.Reason != accel.BridgeNetfilter || g.BypassNetfilter || !g.CheckIP {
		t.Errorf("br0 respects: %+v", g)
	}
	if g := w.bridges[3].gate; g.Reason != accel.Fast || !g.BypassNetfilter || g.CheckIP {
		t.Errorf("br1 does not: %+v", g)
	}
	if in, out := w.bridges[2].ports[4].In, w.bridges[3].ports[6].In; in != accel.PortNetfilter || out != accel.Fast {
		t.Errorf("p1 is %v, p2 %v", in, out)
	}
	s.firewall = func() (firewall, error) { return firewall{}, errTest }
	must(t, s.settle(true))
	if a, b := w.bridges[2].gate.Reason, w.bridges[3].gate.Reason; a != accel.Unchecked || b != accel.Fast {
		t.Errorf("where the firewall cannot be read br0 is %v, br1 %v", a, b)
	}
	if b := s.Bridges(); b[0].BypassNetfilter || !b[1].BypassNetfilter {
		t.Errorf("shown as %+v", b)
	}
}

func TestLease(t *testing.T) {
	atOnce := accel.Revocation{Entries: true, State: accel.StateTraced, VLANs: true}
	for _, c := range []struct {
		configured time.Duration
		kernel     accel.Revocation
		want       time.Duration
	}{
		{time.Second, accel.Revocation{}, time.Second},
		{time.Second, atOnce, time.Second},
		{0, accel.Revocation{Entries: true, State: accel.StateNetlink, VLANs: true}, 2 * time.Second},
		{0, accel.Revocation{State: accel.StateTraced, VLANs: true}, 2 * time.Second},
		{0, accel.Revocation{Entries: true, State: accel.StateLive}, 2 * time.Second},
		{0, accel.Revocation{Entries: true, State: accel.StateLive, VLANs: true}, 0},
		{0, atOnce, 0},
	} {
		s, w := newFakeSyncer(t, "br0")
		s.lease, w.can = c.configured, c.kernel
		startFake(t, s, w, plainBridge())
		if !slices.Equal(w.leases, []time.Duration{c.want}) {
			t.Errorf("%+v: when the gate opened the leases are %v", c, w.leases)
		}
		must(t, s.renew())
		if len(w.leases) != 2 || w.leases[1] != c.want {
			t.Errorf("%+v: then the leases are %v", c, w.leases)
		}
		if got := s.Bridges()[0].Revocation; got != c.kernel {
			t.Errorf("%+v: shown is %+v", c, got)
		}
		must(t, s.Switch(t.Context(), "br0", false))
		must(t, s.renew())
		if len(w.leases) != 2 {
			t.Errorf("a gate that is shut has leases: %v", w.leases)
		}
		if s.renewInterval() <= 0 || c.want > 0 && s.renewInterval() > c.want/4 {
			t.Errorf("%+v: renewed every %v", c, s.renewInterval())
		}
	}
}

func bridgeAs(ifindex int, name string) link {
	b := plainBridge()
	b.ifindex, b.name = ifindex, name
	return b
}

func opened(w *world) map[string]int {
	open := make(map[string]int)
	for ifindex, b := range w.bridges {
		open[b.Name] = ifindex
	}
	return open
}

func wantOpen(t *testing.T, w *world, want map[string]int) {
	t.Helper()
	if got := opened(w); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("open are %v, want %v", got, want)
	}
}

func TestAllBridges(t *testing.T) {
	s, w := newFakeSyncer(t)
	s.all = true
	startFake(t, s, w, plainPort(4, "p1"), bridgeAs(3, "b"), bridgeAs(2, "a"))
	wantOpen(t, w, map[string]int{"a": 2, "b": 3})
	if all := s.Bridges(); len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" {
		t.Errorf("the bridges are %+v", all)
	}
	for _, now := range []map[string]int{
		{"b": 3, "0": 5}, // one comes, one goes
		{"c": 3, "0": 5}, // one is renamed
		{"0": 3, "c": 5}, // two change names
		{"0": 7, "c": 5}, // one is made again
		{},
		{"a": 9},
	} {
		clear(w.known)
		for name, ifindex := range now {
			w.known[ifindex] = bridgeAs(ifindex, name)
		}
		must(t, s.readLinks())
		must(t, s.settle(false))
		wantOpen(t, w, now)
		if len(s.mirrors) != len(now) {
			t.Errorf("%d mirrors of %v", len(s.mirrors), now)
		}
	}
}

// TestNamedBridgesStay: what the configuration names is shown when it is absent.
func TestNamedBridgesStay(t *testing.T) {
	s, w := newFakeSyncer(t, "a")
	s.all = true
	startFake(t, s, w, bridgeAs(2, "a"), bridgeAs(3, "b"))
	clear(w.known)
	must(t, s.readLinks())
	must(t, s.settle(false))
	if all := s.Bridges(); len(all) != 1 || all[0].Name != "a" || all[0].Present {
		t.Errorf("the bridges are %+v", all)
	}
	w.known[5] = bridgeAs(5, "a")
	must(t, s.readLinks())
	must(t, s.settle(false))
	wantOpen(t, w, map[string]int{"a": 5})
}

// TestReadyWaitsForWhatWasThere, and for nothing that comes later.
func TestReadyWaitsForWhatWasThere(t *testing.T) {
	s, w := newFakeSyncer(t)
	s.all = true
	w.known = linksOf(bridgeAs(2, "a"), bridgeAs(3, "b"))
	w.table[at(1, 4).StationKey] = at(1, 4) // in either, for the world
	must(t, s.begin(t.Context()))
	isReady := func() bool {
		for range 2 { // what was read is admitted with the next turn
			_, err := s.advance(w.now)
			must(t, err)
		}
		select {
		case <-s.ready:
			return true
		default:
			return false
		}
	}
	if isReady() {
		t.Error("ready before the tables are mirrored")
	}
	w.pass(2 * gracePeriod)
	delete(w.known, 3)
	w.known[5] = bridgeAs(5, "c")
	must(t, s.readLinks())
	must(t, s.settle(false))
	if !isReady() {
		t.Error("not ready, though what was there is mirrored or gone")
	}
}

// TestReadyAtOnceWithoutBridges: there may be none yet.
func TestReadyAtOnceWithoutBridges(t *testing.T) {
	s, w := newFakeSyncer(t)
	s.all = true
	startFake(t, s, w)
	<-s.ready
}

// TestPortThatChangesItsBridge: one program is on a port.
func TestPortThatChangesItsBridge(t *testing.T) {
	s, w := newFakeSyncer(t)
	s.all = true
	p1 := plainPort(4, "p1")
	p1.master = 3
	startFake(t, s, w, bridgeAs(2, "a"), bridgeAs(3, "b"), p1)
	w.calls = nil
	p1.master = 2
	w.known[4] = p1
	s.changed.links[4] = struct{}{}
	must(t, s.catchUp())
	wantCalls(t, w, "gate unwatched", "detach p1", "attach p1", "port p1 in fast out fast", "gate fast")
}

// goner breaks a call of the data plane as one on a device that was deleted
// meanwhile, once.
func (w *world) goner(call string, ifindex int, err error) {
	w.breaks = func(now string) error {
		if now != call {
			return nil
		}
		w.breaks = nil
		delete(w.known, ifindex)
		return err
	}
}

// advanceOn admits what was read, and asks for it.
func (s *Syncer) advanceOn(w *world) (failed error) {
	for range 2 {
		w.pass(2 * gracePeriod)
		_, err := s.advance(w.now)
		failed = errors.Join(failed, err)
	}
	return failed
}

// wholeRound is a whole look at what comes without an event.
func (s *Syncer) wholeRound() error {
	err := s.beginRound()
	for err == nil && len(s.round) > 0 {
		err = s.lookOn()
	}
	return err
}

// TestWhatIsGoneIsNoError lets a bridge or a port vanish in the midst of every
// call: no error may come of it, and nothing may be left open.
func TestWhatIsGoneIsNoError(t *testing.T) {
	calls := []string{"open", "gate", "attach", "port", "detach", "revoke", "admit", "activate", "stations", "revocations", "fdb", "neigh", "renew"}
	for _, err := range []error{unix.ENODEV, unix.ENOENT, errTest} {
		for _, call := range calls {
			s, w := newFakeSyncer(t)
			s.all = true
			p1 := plainPort(4, "p1")
			w.table[at(1, 4).StationKey] = at(1, 4)
			w.goner(call, 2, fmt.Errorf("%s: %w", call, err))
			startFake(t, s, w, bridgeAs(2, "a"), bridgeAs(3, "b"), p1)
			failed := s.advanceOn(w)
			p1.port.state = 1
			w.known[4] = p1
			failed = errors.Join(failed, s.wholeRound(), s.neighs([]neigh{{bridge: 2, station: at(2, 4)}}), s.reconcile(), s.advanceOn(w))
			delete(w.known, 4)
			failed = errors.Join(failed, s.linkGone(4), s.lookAgain(), s.renew())
			if failed != nil {
				t.Errorf("%s, %v: %v", call, err, failed)
			}
			if w.breaks != nil {
				t.Errorf("%s was never called", call)
			}
			wantOpen(t, w, map[string]int{"b": 3})
			if g := w.bridges[3].gate.Reason; g != accel.Fast {
				t.Errorf("%s, %v: the other bridge is %v", call, err, g)
			}
		}
	}
}

// TestPortThatIsGoneCostsOnlyItself.
func TestPortThatIsGoneCostsOnlyItself(t *testing.T) {
	for _, call := range []string{"attach", "port"} {
		s, w := newFakeSyncer(t, "br0")
		w.goner(call, 4, errTest)
		startFake(t, s, w, plainBridge(), plainPort(4, "p1"), plainPort(6, "p2"))
		if b := w.bridges[2]; len(b.ports) != 1 || b.gate.Reason != accel.Fast || strings.Count(strings.Join(w.log(), " "), "open") != 1 {
			t.Errorf("%s: the bridge is %+v", call, b)
		}
	}
}

// TestWhatIsStillThereBeginsAnew: an error about something that is gone, of a
// bridge that is not, must not leave it as it happens to be.
func TestWhatIsStillThereBeginsAnew(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	w.breaks = func(call string) error {
		if call != "gate" {
			return nil
		}
		w.breaks = nil
		return unix.ENODEV
	}
	s.mirrors[0].on = false
	must(t, s.settle(false))
	wantOpen(t, w, map[string]int{})
	if !s.lookDue {
		t.Error("nobody will look again")
	}
	must(t, s.lookAgain())
	if g := w.bridges[2].gate.Reason; g != accel.Off {
		t.Errorf("the gate is %v", g)
	}
}

// TestOtherErrorsCount: they must not be taken for something that is gone.
func TestOtherErrorsCount(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	w.breaks = func(string) error { return errTest }
	s.mirrors[0].on = false
	if err := s.settle(false); !errors.Is(err, errTest) {
		t.Errorf("the error is %v", err)
	}
}

// TestLinksThatChangeAtTheStart: the start tries again.
func TestLinksThatChangeAtTheStart(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	changing := 3
	s.kernel = restless{w, &changing}
	startFake(t, s, w, plainBridge())
	wantOpen(t, w, map[string]int{"br0": 2})
}

// TestLinksThatChangeAfterALoss: the gate stays shut until they were read.
func TestLinksThatChangeAfterALoss(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge())
	changing := 1
	s.kernel = restless{w, &changing}
	must(t, lostEvents(s))
	must(t, s.catchUp())
	_, err := s.advance(w.now)
	must(t, err)
	if g := w.bridges[2].gate.Reason; g != accel.Syncing || !s.lookDue {
		t.Errorf("the gate is %v, a further look is due: %v", g, s.lookDue)
	}
	must(t, s.lookAgain())
	w.pass(2 * gracePeriod)
	_, err = s.advance(w.now)
	must(t, err)
	if g := w.bridges[2].gate.Reason; g != accel.Fast {
		t.Errorf("then the gate is %v", g)
	}
}

// TestVLANEvent: what an event of a VLAN says is not read, only whose it is.
func TestVLANEvent(t *testing.T) {
	for _, kind := range []uint16{unix.RTM_NEWVLAN, unix.RTM_DELVLAN} {
		s, w := newFakeSyncer(t, "br0")
		startFake(t, s, w, filteringBridge(), memberOf(4, "p1"))
		w.known[4] = plainPort(4, "p1") // and of no VLAN, unread
		e := routeEvent(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind)}, Data: vlanMessage(4)})
		if e == nil {
			t.Fatalf("message %d is no event", kind)
		}
		must(t, s.handle(e))
		if p := w.bridges[2].ports[4]; p.In != accel.PortUnknown || p.VLANs != "" {
			t.Errorf("the port is %+v", p)
		}
	}
}

// TestEventsAreTakenInBetweenTwoPorts: there may be a thousand of them to look at.
func TestEventsAreTakenInBetweenTwoPorts(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	links := []link{plainBridge()}
	for n := range 20 {
		links = append(links, plainPort(10+n, fmt.Sprintf("p%d", n)))
	}
	startFake(t, s, w, links...)
	grace, again := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	must(t, s.beginRound())
	for n := range 20 {
		w.foreign[fmt.Sprintf("p%d", n)] = accel.PortForeignTC
	}
	left := len(s.round)
	if left < 20 {
		t.Fatalf("20 ports are looked at in %d pieces", left)
	}
	for ; left > 0; left-- {
		must(t, s.beginRound())
		if len(s.round) != left {
			t.Fatalf("%d pieces of a look are left, want %d", len(s.round), left)
		}
		must(t, s.goOn(grace, again))
		if left > 1 {
			select {
			case <-grace.C:
			case <-time.After(10 * time.Second):
				t.Fatal("nobody goes on with the look")
			}
		}
	}
	for _, p := range w.bridges[2].ports {
		if p.In != accel.PortForeignTC {
			t.Errorf("%s is %v when the look is over", p.Name, p.In)
		}
	}
}

// TestFirewallOfALookIsThatOfNow: what an event told in the midst of a look has another
// version, for which the firewall that was read before does not count.
func TestFirewallOfALookIsThatOfNow(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	must(t, s.beginRound())
	for len(s.round) > 1 { // the firewall is read, and nothing came of it yet
		must(t, s.lookOn())
	}
	w.version[4]++
	w.filters.devices = map[string]bool{"p1": true}
	must(t, s.refresh(4))
	must(t, s.lookOn())
	if p := w.bridges[2].ports[4]; p.In != accel.PortNetfilter {
		t.Errorf("the port is %+v", p)
	}
}
