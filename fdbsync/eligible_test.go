package fdbsync

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// plainBridge and plainPort may take the fast path.
func plainBridge() link {
	return link{
		ifindex: 2, name: "br0", kind: "bridge", ethernet: true, known: true,
		flags: unix.IFF_UP | unix.IFF_LOWER_UP, mtu: 1500,
		bridge: bridgeOptions{known: true, ageing: 300 * time.Second, forwardDelay: 15 * time.Second},
	}
}

func plainPort(ifindex int, name string) link {
	return link{
		ifindex: ifindex, name: name, kind: "veth", ethernet: true, known: true, master: 2,
		flags: unix.IFF_UP | unix.IFF_LOWER_UP, mtu: 1500, promiscuity: 1,
		port: portOptions{isPort: true, known: true, state: brStateForwarding, flags: accel.FlagLearning},
	}
}

func TestBridgeReason(t *testing.T) {
	for _, c := range []struct {
		change func(*link)
		want   accel.Reason
	}{
		{func(*link) {}, accel.Fast},
		{func(l *link) { l.bridge.stp = true }, accel.Fast},
		{func(l *link) { l.known = false }, accel.Unchecked},
		{func(l *link) { l.bridge.known = false }, accel.Unchecked},
		{func(l *link) { l.bridge.vlanFiltering, l.bridge.vlanProtocol = true, 0x8100 }, accel.Fast},
		{func(l *link) { l.bridge.vlanFiltering, l.bridge.vlanProtocol = true, 0x88a8 }, accel.Fast},
		{func(l *link) { l.bridge.vlanFiltering, l.bridge.vlanProtocol = true, 0x9100 }, accel.Unchecked},
		{func(l *link) { l.bridge.vlanFiltering = true }, accel.Unchecked},
		{func(l *link) { l.bridge.mst = true }, accel.MST},
		{func(l *link) { l.bridge.vlanStats = true }, accel.VLANStats},
		{func(l *link) { l.bridge.ageing = 0 }, accel.Hub},
		{func(l *link) { l.promiscuity = 1 }, accel.Promiscuous},
		{func(l *link) { l.flags |= unix.IFF_PROMISC }, accel.Promiscuous},
	} {
		l := plainBridge()
		c.change(&l)
		if got := bridgeReason(l); got != c.want {
			t.Errorf("%+v: %v, want %v", l, got, c.want)
		}
	}
}

func TestPortOf(t *testing.T) {
	const fast = accel.Fast
	flag := func(f accel.PortFlags) func(*link, *surroundings) {
		return func(l *link, _ *surroundings) { l.port.flags |= f }
	}
	for _, c := range []struct {
		change  func(*link, *surroundings)
		in, out accel.Reason
	}{
		{func(*link, *surroundings) {}, fast, fast},
		{flag(accel.FlagIsolated), fast, fast},
		{flag(accel.FlagLocked), fast, fast},
		{flag(accel.FlagHairpin), fast, fast},
		{flag(accel.FlagNeighSuppress), fast, fast},
		{flag(accel.FlagProxyARP), fast, fast},
		{flag(accel.FlagVLANTunnel), accel.PortVLANTunnel, accel.PortVLANTunnel},
		{func(l *link, _ *surroundings) { l.port.flags = 0 }, fast, fast}, // it does not learn
		{func(l *link, _ *surroundings) { l.known = false }, accel.PortUnknown, accel.PortUnknown},
		{func(l *link, _ *surroundings) { l.port.known = false }, accel.PortUnknown, accel.PortUnknown},
		{func(_ *link, s *surroundings) { s.filtering = true }, accel.PortUnknown, accel.PortUnknown},
		{func(l *link, s *surroundings) { s.filtering, l.vlans = true, someVLANs() }, fast, fast},
		{func(l *link, _ *surroundings) { l.vlans = someVLANs() }, fast, fast},
		{func(l *link, _ *surroundings) { l.ethernet = false }, accel.PortNotEthernet, accel.PortNotEthernet},
		{func(l *link, _ *surroundings) { l.flags &^= unix.IFF_UP }, accel.PortDown, accel.PortDown},
		{func(l *link, _ *surroundings) { l.flags &^= unix.IFF_LOWER_UP }, accel.PortDown, accel.PortDown},
		{func(l *link, _ *surroundings) { l.port.state = 2 }, accel.PortBlocked, accel.PortBlocked},
		{func(l *link, _ *surroundings) { l.inSwitch = true }, accel.PortSwitch, accel.PortSwitch},
		{func(_ *link, s *surroundings) { s.vlanDevice = true }, fast, fast},
		{func(_ *link, s *surroundings) { s.netfilter = true }, accel.PortNetfilter, accel.PortNetfilter},
		{func(_ *link, s *surroundings) { s.tc = accel.PortForeignTC }, accel.PortForeignTC, accel.PortForeignTC},
		{func(l *link, _ *surroundings) { l.port.backup = true }, fast, accel.PortBackup},
	} {
		l, s := plainPort(4, "p1"), surroundings{}
		l.seen = 9
		c.change(&l, &s)
		want := accel.Port{
			Name: "p1", Ifindex: 4, MTU: 1500, Flags: l.port.flags, HasVLANDevices: s.vlanDevice, Seen: 9, In: c.in, Out: c.out,
		}
		if s.filtering {
			want.PVID, want.VLANs = l.vlans.pvid, l.vlans.members
		}
		if got := portOf(l, s); got != want {
			t.Errorf("%+v, %+v:\ngot  %+v\nwant %+v", l, s, got, want)
		}
	}
}

// someVLANs are VLANs of a port: 10 untagged, which is the PVID, and 20.
func someVLANs() portVLANs {
	return portVLANs{known: true, pvid: 10, members: accel.NewVLANs([]accel.VLAN{
		{VID: 10, Untagged: true, Forwarding: true}, {VID: 20, Forwarding: true},
	})}
}

func TestNarrowed(t *testing.T) {
	vlans := func(all ...accel.VLAN) accel.VLANs { return accel.NewVLANs(all) }
	ten, tenUntagged, twenty := accel.VLAN{VID: 10, Forwarding: true}, accel.VLAN{VID: 10, Forwarding: true, Untagged: true}, accel.VLAN{VID: 20}
	for name, c := range map[string]struct{ from, to, want accel.Port }{
		"opens":              {accel.Port{In: accel.PortDown, Out: accel.PortDown}, accel.Port{}, accel.Port{In: accel.PortDown, Out: accel.PortDown}},
		"shuts":              {accel.Port{}, accel.Port{In: accel.PortDown, Out: accel.PortBackup}, accel.Port{In: accel.PortDown, Out: accel.PortBackup}},
		"for another reason": {accel.Port{In: accel.PortDown}, accel.Port{In: accel.PortBlocked}, accel.Port{In: accel.PortBlocked}},
		"a longer MTU":       {accel.Port{MTU: 1400}, accel.Port{MTU: 1500}, accel.Port{MTU: 1400}},
		"a shorter MTU":      {accel.Port{MTU: 1500}, accel.Port{MTU: 1400}, accel.Port{MTU: 1400}},
		"isolated":           {accel.Port{}, accel.Port{Flags: accel.FlagIsolated}, accel.Port{Flags: accel.FlagIsolated}},
		"isolated no more":   {accel.Port{Flags: accel.FlagIsolated}, accel.Port{}, accel.Port{Flags: accel.FlagIsolated}},
		"hairpin":            {accel.Port{}, accel.Port{Flags: accel.FlagHairpin}, accel.Port{}},
		"hairpin no more":    {accel.Port{Flags: accel.FlagHairpin}, accel.Port{}, accel.Port{}},
		"still hairpin":      {accel.Port{Flags: accel.FlagHairpin}, accel.Port{Flags: accel.FlagHairpin}, accel.Port{Flags: accel.FlagHairpin}},
		"a VLAN device":      {accel.Port{}, accel.Port{HasVLANDevices: true}, accel.Port{HasVLANDevices: true}},
		"no VLAN device":     {accel.Port{HasVLANDevices: true}, accel.Port{}, accel.Port{HasVLANDevices: true}},
		"another PVID":       {accel.Port{PVID: 10}, accel.Port{PVID: 20}, accel.Port{}},
		"more VLANs":         {accel.Port{VLANs: vlans(ten)}, accel.Port{VLANs: vlans(ten, twenty)}, accel.Port{VLANs: vlans(ten)}},
		"other VLANs":        {accel.Port{VLANs: vlans(ten)}, accel.Port{VLANs: vlans(twenty)}, accel.Port{}},
		"untagged now":       {accel.Port{VLANs: vlans(ten, twenty)}, accel.Port{VLANs: vlans(tenUntagged, twenty)}, accel.Port{VLANs: vlans(twenty)}},
		"a later version":    {accel.Port{Seen: 1, MTU: 9}, accel.Port{Seen: 2, MTU: 9}, accel.Port{Seen: 1, MTU: 9}},
	} {
		if got := narrowed(c.from, c.to); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestKeepalive(t *testing.T) {
	for _, c := range []struct {
		ageing, delay time.Duration
		stp           bool
		want          time.Duration
	}{
		{300 * time.Second, 15 * time.Second, false, time.Second},
		{2 * time.Second, 15 * time.Second, false, 500 * time.Millisecond},
		{300 * time.Second, 2 * time.Second, false, time.Second},
		{300 * time.Second, 2 * time.Second, true, 500 * time.Millisecond},
		{time.Second, 15 * time.Second, true, 250 * time.Millisecond},
	} {
		got := keepaliveOf(bridgeOptions{ageing: c.ageing, forwardDelay: c.delay, stp: c.stp})
		if got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestStateNames(t *testing.T) {
	for state, want := range map[uint8]string{0: "disabled", 3: "forwarding", 4: "blocking", 5: "unknown", 255: "unknown"} {
		if got := stateName(state); got != want {
			t.Errorf("state %d is %q, want %q", state, got, want)
		}
	}
}
