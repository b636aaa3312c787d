package nicswap

import "github.com/shunt-dev/shunt/accel"

// Wires is what nicswap needs of the data plane; tcprog serves it. Ports and
// members are named by ifindex. A wire is pinned: it carries traffic without the
// daemon, and what an earlier daemon left is taken over as it is.
type Wires interface {
	// OpenWire puts the programs on a stable port, which may not be in its bridge
	// yet, or takes over those that are there, with members, active one and drain.
	// Members that are gone are forgotten.
	OpenWire(port int) (accel.WireState, error)
	// CloseWire takes all programs off the stable port and its members.
	CloseWire(port int) error
	// AddMember puts the program on a member, which then carries nothing until it
	// is made active: what arrives on it is dropped and counted. Adding one that is
	// there exchanges nothing. The error is syscall.ENODEV where it is gone.
	AddMember(port, member int) error
	// RemoveMember takes the program off a member that is neither active nor
	// draining. Removing one that is gone is no error.
	RemoveMember(port, member int) error
	// PrepareFlip begins a new generation: from here on the programs remember what
	// the port sends, so that they know it when the outside floods it back. What was
	// sent before must have come back when the flip is done: leave the outside some
	// time between the two.
	PrepareFlip(port int) error
	// Flip makes a member active (0: none) and the one that was active, draining,
	// by one store. It returns the one that was.
	Flip(port, to int) (from int, err error)
	// EndDrain ends the drain, or what PrepareFlip began.
	EndDrain(port int) error
	// WireState returns how the port is wired now.
	WireState(port int) (accel.WireState, error)
	// WireCounts returns what the wire's programs counted beside the port's own
	// counters: what they dropped, by reason, and accel.Drained for what they
	// delivered from a draining member.
	WireCounts(port int) (map[accel.Reason]accel.Count, error)
	// Foreign says whether programs or filters of somebody else are at the device's
	// tc hooks, which a wire would keep from seeing, or be kept from by.
	Foreign(ifindex int) (bool, error)
}

// Bridges is what nicswap needs to know of the bridges; fdbsync serves it.
type Bridges interface {
	Bridges() []accel.BridgeState
	// FDB returns the mirrored stations of a bridge.
	FDB(bridge string) ([]accel.Station, error)
}
