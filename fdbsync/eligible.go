package fdbsync

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// bridgeReason judges the bridge by its own options. Whatever is not certain to
// be the plain way of a frame leaves the bridge to the kernel.
func bridgeReason(l link) accel.Reason {
	switch {
	case !l.known || !l.bridge.known:
		return accel.Unchecked
	case l.bridge.vlanFiltering: // until its VLANs are read
		return accel.Unchecked
	case l.bridge.mst:
		return accel.MST
	case l.bridge.vlanStats:
		return accel.VLANStats
	case l.bridge.ageing == 0:
		return accel.Hub
	case l.promiscuity > 0 || l.flags&unix.IFF_PROMISC != 0:
		return accel.Promiscuous
	}
	return accel.Fast
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
	vlanDevice bool
	netfilter  bool
	tc         accel.Reason
}

// bothWays judges a port in either direction.
func bothWays(l link, s surroundings) accel.Reason {
	const carrier = unix.IFF_UP | unix.IFF_LOWER_UP
	switch {
	case !l.known || !l.port.known:
		return accel.PortUnknown
	case !l.ethernet:
		return accel.PortNotEthernet
	case l.flags&carrier != carrier:
		return accel.PortDown
	case l.port.state != brStateForwarding:
		return accel.PortBlocked
	case l.port.vlanTunnel:
		return accel.PortVLANTunnel
	case l.port.proxiesNeighbor:
		return accel.PortProxy
	case l.inSwitch:
		return accel.PortSwitch
	case s.netfilter:
		return accel.PortNetfilter
	}
	return s.tc
}

// portOf is the port as the data plane shall have it.
func portOf(l link, s surroundings) accel.Port {
	p := accel.Port{Name: l.name, Ifindex: l.ifindex, MTU: l.mtu, HasVLANDevices: s.vlanDevice}
	if l.port.isolated {
		p.Flags |= accel.FlagIsolated
	}
	p.In = bothWays(l, s)
	p.Out = p.In
	if p.Out == accel.Fast && l.port.backup {
		p.Out = accel.PortBackup
	}
	return p
}

// stateNames are the STP states as bridge(8) writes them (BR_STATE_*).
var stateNames = [...]string{"disabled", "listening", "learning", "forwarding", "blocking"}

func stateName(state uint8) string {
	if int(state) < len(stateNames) {
		return stateNames[state]
	}
	return "unknown"
}
