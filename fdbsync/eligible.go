package fdbsync

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// bridgeReason judges the bridge by its own options. Whatever is not certain to
// be the plain way of a frame leaves the bridge to the kernel.
func bridgeReason(l link) accel.Reason {
	if reasons := bridgeReasons(l); len(reasons) > 0 {
		return reasons[0]
	}
	return accel.Fast
}

// bridgeReasons are all that keep the bridge on the slow path, the first to see to
// first.
func bridgeReasons(l link) (reasons []accel.Reason) {
	if !l.known || !l.bridge.known || l.bridge.vlanFiltering && !isTag(l.bridge.vlanProtocol) {
		return []accel.Reason{accel.Unchecked} // what else is read of it may be wrong
	}
	if l.bridge.mst {
		reasons = append(reasons, accel.MST)
	}
	if l.bridge.vlanStats {
		reasons = append(reasons, accel.VLANStats)
	}
	if l.bridge.ageing == 0 {
		reasons = append(reasons, accel.Hub)
	}
	if l.promiscuity > 0 || l.flags&unix.IFF_PROMISC != 0 {
		reasons = append(reasons, accel.Promiscuous)
	}
	return reasons
}

// isTag says whether the EtherType is one of the two that a bridge's VLANs can
// have (net/bridge/br_vlan.c: br_vlan_set_proto).
func isTag(protocol uint16) bool {
	return protocol == unix.ETH_P_8021Q || protocol == unix.ETH_P_8021AD
}

// keepaliveOf is how long a source may stay unseen by the bridge: a quarter of
// the time in which its entry ages, and at most a second. A topology change
// ages entries in forward_delay (net/bridge/br_stp.c: __br_set_topology_change).
func keepaliveOf(o bridgeOptions) time.Duration {
	age := o.ageing
	if o.stp {
		age = min(age, o.forwardDelay)
	}
	return min(age/4, time.Second)
}

// surroundings are what others have put on a port.
type surroundings struct {
	inSwitch   bool // it, or a link below it
	vlanDevice bool
	netfilter  bool
	tc         accel.Reason
	// filtering: the port's bridge filters VLANs.
	filtering bool
}

// bothWays judges a port in either direction.
func bothWays(l link, s surroundings) accel.Reason {
	const carrier = unix.IFF_UP | unix.IFF_LOWER_UP
	switch {
	case !l.known || !l.port.known, s.filtering && !l.vlans.known:
		return accel.PortUnknown
	case !l.ethernet:
		return accel.PortNotEthernet
	case l.flags&carrier != carrier:
		return accel.PortDown
	case l.port.state != brStateForwarding:
		return accel.PortBlocked
	case l.port.flags&accel.FlagVLANTunnel != 0:
		return accel.PortVLANTunnel
	case s.inSwitch:
		return accel.PortSwitch
	case s.netfilter:
		return accel.PortNetfilter
	}
	return s.tc
}

// portOf is the port as the data plane shall have it.
func portOf(l link, s surroundings) accel.Port {
	p := accel.Port{
		Name: l.name, Ifindex: l.ifindex, MTU: l.mtu, Flags: l.port.flags,
		HasVLANDevices: s.vlanDevice, Seen: l.seen,
	}
	if s.filtering {
		p.PVID, p.VLANs = l.vlans.pvid, l.vlans.members
	}
	p.In = bothWays(l, s)
	p.Out = p.In
	if p.Out == accel.Fast && l.port.backup {
		p.Out = accel.PortBackup
	}
	return p
}

// narrowed is a port that may do only what it may do both before and after a
// change. What was seen of it stays old, so that what the kernel changed
// meanwhile keeps it on the slow path.
func narrowed(from, to accel.Port) accel.Port {
	p := to
	p.Seen = from.Seen
	if from.In != accel.Fast && to.In == accel.Fast {
		p.In = from.In
	}
	if from.Out != accel.Fast && to.Out == accel.Fast {
		p.Out = from.Out
	}
	p.MTU = min(from.MTU, to.MTU)
	// Every flag but hairpin takes something away.
	p.Flags = (from.Flags|to.Flags)&^accel.FlagHairpin | from.Flags&to.Flags
	p.HasVLANDevices = from.HasVLANDevices || to.HasVLANDevices
	if from.PVID != to.PVID {
		p.PVID = 0
	}
	p.VLANs = common(from.VLANs, to.VLANs)
	return p
}

// common are the memberships that are the same in both.
func common(a, b accel.VLANs) accel.VLANs {
	if a == b {
		return a
	}
	in := make(map[accel.VLAN]bool)
	for v := range a.All() {
		in[v] = true
	}
	var both []accel.VLAN
	for v := range b.All() {
		if in[v] {
			both = append(both, v)
		}
	}
	return accel.NewVLANs(both)
}

// stateNames are the STP states as bridge(8) writes them (BR_STATE_*).
var stateNames = [...]string{"disabled", "listening", "learning", "forwarding", "blocking"}

func stateName(state uint8) string {
	if int(state) < len(stateNames) {
		return stateNames[state]
	}
	return "unknown"
}
