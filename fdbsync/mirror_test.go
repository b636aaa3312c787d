package fdbsync

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// newTestMirror is a mirror of br0 that nothing was told of yet, on fakes.
func newTestMirror(t *testing.T) (*mirror, *world) {
	w := newWorld(1, false, 100)
	w.busy, w.lying = false, false
	delete(w.bridges, modelBridge)
	return &mirror{name: "br0", stations: 100, on: true, plane: w, kernel: w, logger: testLogger(t)}, w
}

// linksOf maps links by ifindex.
func linksOf(all ...link) map[int]link {
	links := make(map[int]link)
	for _, l := range all {
		links[l.ifindex] = l
	}
	return links
}

// open lets the mirror take the bridge with two ports.
func (w *world) open(t *testing.T, m *mirror) map[int]link {
	t.Helper()
	links := linksOf(plainBridge(), plainPort(4, "p1"), plainPort(6, "p2"))
	w.known = links
	if err := m.appear(t.Context(), plainBridge()); err != nil {
		t.Fatal(err)
	}
	w.settle(t, m, links)
	must(t, m.read())
	if _, err := m.advance(w.now); err != nil {
		t.Fatal(err)
	}
	w.settle(t, m, links)
	return links
}

// catchUp lets the mirror read and compare to the end.
func (w *world) catchUp(t *testing.T, m *mirror) {
	t.Helper()
	for m.dump != nil || m.comparison != nil {
		_, err := m.advance(w.now)
		must(t, err)
	}
}

func (w *world) settle(t *testing.T, m *mirror, links map[int]link) {
	t.Helper()
	m.link, w.known = links[2], clone(links)
	if err := m.settle(links, firewall{}, nil); err != nil {
		t.Fatal(err)
	}
}

func wantCalls(t *testing.T, w *world, want ...string) {
	t.Helper()
	if got := w.log(); !slices.Equal(got, want) {
		t.Errorf("the calls were\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	w.mu.Lock()
	w.calls = nil
	w.mu.Unlock()
}

func TestBridgeOpensLast(t *testing.T) {
	m, w := newTestMirror(t)
	w.calls = nil
	w.open(t, m)
	wantCalls(t, w, "open br0", "gate syncing", "gate syncing", "attach p1", "attach p2",
		"port p1 in fast out fast", "port p2 in fast out fast", "gate fast")
}

func TestWhatShutsComesFirst(t *testing.T) {
	m, w := newTestMirror(t)
	links := w.open(t, m)
	w.calls = nil

	const tunnel = accel.FlagVLANTunnel
	b, p1, p2, p3 := links[2], links[4], links[6], plainPort(8, "p3")
	b.promiscuity, p2.port.flags = 1, p2.port.flags|tunnel
	delete(links, 4)
	w.settle(t, m, linksOf(b, p2, p3))
	wantCalls(t, w, "gate promiscuous", "port p2 in port_vlan_tunnel out port_vlan_tunnel", "detach p1",
		"attach p3", "port p3 in fast out fast")

	b.promiscuity, p2.port.flags, p3.port.flags = 0, p1.port.flags, p3.port.flags|tunnel
	w.settle(t, m, linksOf(b, p1, p2, p3))
	wantCalls(t, w, "gate unwatched", "port p3 in port_vlan_tunnel out port_vlan_tunnel", "attach p1",
		"port p1 in fast out fast", "port p2 in fast out fast", "gate fast")
}

func TestGate(t *testing.T) {
	for _, c := range []struct {
		change func(*mirror, *firewall)
		err    error
		want   accel.Reason
	}{
		{func(*mirror, *firewall) {}, nil, accel.Fast},
		{func(m *mirror, _ *firewall) { m.on = false }, nil, accel.Off},
		{func(m *mirror, _ *firewall) { m.synced = false }, nil, accel.Syncing},
		{func(m *mirror, _ *firewall) { m.link.flags = 0 }, nil, accel.BridgeDown},
		{func(m *mirror, _ *firewall) { m.link.bridge.mst = true }, nil, accel.MST},
		{func(m *mirror, _ *firewall) { m.ports[4].attached = false }, nil, accel.Unwatched},
		{func(_ *mirror, f *firewall) { f.bridge = true }, nil, accel.BridgeNetfilter},
		{func(_ *mirror, f *firewall) { f.ip = true }, nil, accel.Fast},
		{func(_ *mirror, f *firewall) { f.ip, f.brNetfilter = true, true }, nil, accel.BrNetfilter},
		{func(*mirror, *firewall) {}, errTest, accel.Unchecked},
	} {
		m, w := newTestMirror(t)
		w.open(t, m)
		fw := firewall{}
		c.change(m, &fw)
		if got := m.wantGate(fw, c.err); got.Reason != c.want {
			t.Errorf("the gate is %v, want %v", got.Reason, c.want)
		}
	}
	m, w := newTestMirror(t)
	w.open(t, m)
	if g := m.wantGate(firewall{brNetfilter: true}, nil); g != (accel.Gate{Keepalive: time.Second, CheckIP: true}) {
		t.Errorf("the gate with br_netfilter is %+v", g)
	}
}

func TestPortWithoutProgramShutsTheBridge(t *testing.T) {
	m, w := newTestMirror(t)
	w.refuse["p2"] = errTest
	links := w.open(t, m)
	if m.gate.Reason != accel.Unwatched {
		t.Errorf("the gate is %v", m.gate.Reason)
	}
	if p := m.state().Ports[1]; p.In != accel.PortUnattached || p.Out != accel.PortUnattached {
		t.Errorf("the port is shown as %+v", p)
	}
	delete(w.refuse, "p2")
	w.settle(t, m, links)
	if m.gate.Reason != accel.Unwatched {
		t.Error("it was tried again at once, and would be with every event")
	}
	m.retryPorts = true
	w.settle(t, m, links)
	if m.gate.Reason != accel.Fast {
		t.Errorf("then the gate is %v", m.gate.Reason)
	}
}

func TestOtherProgramsShutTheirPort(t *testing.T) {
	m, w := newTestMirror(t)
	w.foreign["p1"] = accel.PortForeignTC
	w.open(t, m)
	if p := w.bridges[2].ports[4]; p.In != accel.PortForeignTC || m.gate.Reason != accel.Fast {
		t.Errorf("the port is %+v, the gate %v", p, m.gate.Reason)
	}
}

func TestDistrustShutsAndTakesBack(t *testing.T) {
	m, w := newTestMirror(t)
	links := w.open(t, m)
	s := at(1, 4)
	w.table[s.StationKey] = s
	m.newNeigh(s)
	if _, err := m.advance(w.now); err != nil {
		t.Fatal(err)
	}
	if err := m.distrust(); err != nil {
		t.Fatal(err)
	}
	if got := w.bridges[2].gate.Reason; got != accel.Syncing {
		t.Errorf("the gate is %v", got)
	}
	w.settle(t, m, links)
	if got := w.bridges[2].gate.Reason; got != accel.Syncing {
		t.Errorf("the gate is %v before the table was read", got)
	}
	wantPhase(t, m.table, s.StationKey, claimed)
}

func TestDumpThatShowsAnotherPortRevokes(t *testing.T) {
	m, w := newTestMirror(t)
	w.open(t, m)
	s, moved := at(1, 4), at(1, 6)
	w.bridges[2].stations[s.StationKey] = accel.Station{StationKey: s.StationKey, Port: 4, Active: true}
	m.table.claim(s)
	w.table[s.StationKey] = moved
	must(t, m.read())
	must(t, m.readOn())
	if h, ok := w.bridges[2].stations[s.StationKey]; ok {
		t.Errorf("%+v is still held", h)
	}
}

func TestDistrustKeepsAnotherReason(t *testing.T) {
	m, w := newTestMirror(t)
	links := w.open(t, m)
	m.on = false
	w.settle(t, m, links)
	if err := m.distrust(); err != nil || w.bridges[2].gate.Reason != accel.Off {
		t.Errorf("the gate is %v (%v)", w.bridges[2].gate.Reason, err)
	}
}

func TestBridgeAmongInterfaces(t *testing.T) {
	links := linksOf(plainBridge(), plainPort(4, "p1"), link{ifindex: 1, name: "lo"})
	if l, err := checkKind("br0", links); err != nil || l.ifindex != 2 {
		t.Errorf("br0 is %+v (%v)", l, err)
	}
	for name, want := range map[string]string{
		"p1": "(it is a veth)", "lo": "(it is a device without a kind)", "br9": "there is no interface br9",
	} {
		if _, err := checkKind(name, links); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestWhatIsHeldByMistakeIsRevoked(t *testing.T) {
	m, w := newTestMirror(t)
	w.open(t, m)
	unknown := at(7, 4)
	unknown.Active = true
	w.bridges[2].stations[unknown.StationKey] = unknown
	must(t, m.compare())
	w.catchUp(t, m)
	if len(w.bridges[2].stations) != 0 {
		t.Errorf("%v is still held", w.bridges[2].stations)
	}
}

// Whoever sets the clock makes no grace period longer or shorter.
func TestTheGracePeriodIsMonotonic(t *testing.T) {
	for range 1000 {
		now := time.Now()
		end := endOfGrace(now)
		if end == end.Round(0) { // which has no monotonic clock any more
			t.Fatal("the end of a grace period hangs on the clock that is set")
		}
		if grace := end.Sub(now); grace < gracePeriod || grace > gracePeriod+together {
			t.Fatalf("a grace period is %v", grace)
		}
	}
}
