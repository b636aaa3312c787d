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
		port: portOptions{isPort: true, known: true, state: brStateForwarding, learning: true},
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
		{func(l *link) { l.bridge.vlanFiltering = true }, accel.VLANFiltering},
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
	for _, c := range []struct {
		change  func(*link, *surroundings)
		in, out accel.Reason
	}{
		{func(*link, *surroundings) {}, fast, fast},
		{func(l *link, _ *surroundings) { l.port.isolated = true }, fast, fast},
		{func(l *link, _ *surroundings) { l.known = false }, accel.PortUnknown, accel.PortUnknown},
		{func(l *link, _ *surroundings) { l.port.known = false }, accel.PortUnknown, accel.PortUnknown},
		{func(l *link, _ *surroundings) { l.ethernet = false }, accel.PortNotEthernet, accel.PortNotEthernet},
		{func(l *link, _ *surroundings) { l.flags &^= unix.IFF_UP }, accel.PortDown, accel.PortDown},
		{func(l *link, _ *surroundings) { l.flags &^= unix.IFF_LOWER_UP }, accel.PortDown, accel.PortDown},
		{func(l *link, _ *surroundings) { l.port.state = 2 }, accel.PortBlocked, accel.PortBlocked},
		{func(l *link, _ *surroundings) { l.port.locked = true }, accel.PortLocked, accel.PortLocked},
		{func(l *link, _ *surroundings) { l.port.vlanTunnel = true }, accel.PortVLANTunnel, accel.PortVLANTunnel},
		{func(l *link, _ *surroundings) { l.port.proxiesNeighbor = true }, accel.PortNeighbour, accel.PortNeighbour},
		{func(l *link, _ *surroundings) { l.port.hairpin = true }, accel.PortHairpin, accel.PortHairpin},
		{func(l *link, _ *surroundings) { l.inSwitch = true }, accel.PortSwitch, accel.PortSwitch},
		{func(_ *link, s *surroundings) { s.vlanDevice = true }, accel.PortVLANDevice, accel.PortVLANDevice},
		{func(_ *link, s *surroundings) { s.netfilter = true }, accel.PortNetfilter, accel.PortNetfilter},
		{func(_ *link, s *surroundings) { s.tc = accel.PortForeignTC }, accel.PortForeignTC, accel.PortForeignTC},
		{func(l *link, _ *surroundings) { l.port.learning = false }, accel.PortLearning, fast},
		{func(l *link, _ *surroundings) { l.port.backup = true }, fast, accel.PortBackup},
	} {
		l, s := plainPort(4, "p1"), surroundings{}
		c.change(&l, &s)
		want := accel.Port{Name: "p1", Ifindex: 4, MTU: 1500, Isolated: l.port.isolated, In: c.in, Out: c.out}
		if got := portOf(l, s); got != want {
			t.Errorf("%+v, %+v:\ngot  %+v\nwant %+v", l, s, got, want)
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
