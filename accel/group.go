package accel

import (
	"net/netip"
	"time"
)

// Group is a stable port and the NICs, its members, of which one at a time carries
// its traffic. nicswap works on groups.
type Group struct {
	// Name is what swap and upgrade call the group.
	Name string
	// Bridge is the bridge that the stable port belongs to; it must be one of the
	// accelerated ones.
	Bridge string
	// Port is the interface name of the stable port, which is made if it is not
	// there. It is the group's name if it is left out.
	Port string
	// Members are interface names in the order of preference.
	Members []string
	// Drain is how long the member that was left may still deliver what is in
	// flight.
	Drain time.Duration
	// Announce: stations behind the other ports are announced on the new member.
	Announce bool
	// AnnounceRate bounds that, in frames/s.
	AnnounceRate int
	// Probe is an address that must answer over the target before a planned swap;
	// the zero Addr asks for no probe.
	Probe netip.Addr
	// Policy moves the group between physical and virtual members by its load; nil
	// leaves that to the operator.
	Policy *GroupPolicy
}

// DefaultGroup returns what holds for a group of which nothing is said. It has no
// name, bridge, port or member.
func DefaultGroup() Group {
	return Group{Drain: time.Second, Announce: true, AnnounceRate: 5000}
}

// GroupPolicy says when a group is moved to a physical member and back to a
// virtual one. Of packets and bits either is enough to go up; both must be below
// to go down. 0 does not look at the one or the other.
type GroupPolicy struct {
	AbovePackets, BelowPackets uint64 // packets/s, both directions
	AboveBits, BelowBits       uint64 // bit/s, both directions
	// Hold is how long the load must have been above, or below, without a break.
	Hold time.Duration
}

// Guard is a member of a stable port of which programs see whether it has its carrier,
// by ifindex.
type Guard struct {
	Member int // 0: none
	// Below is the device that the member has its carrier from, as a macvlan has; 0 where
	// it is its own.
	Below int
}

// WireNow is who carries the traffic of a stable port in this instant, by ifindex; 0 is
// none.
type WireNow struct {
	Active, Draining int
	// Failovers counts the flips that programs did or tried; FailedOver is when the last
	// one was, if there was one.
	Failovers  uint64
	FailedOver time.Time
}

// WireState is how a stable port is wired now, by ifindex; 0 is none.
type WireState struct {
	Port int
	// Active carries the traffic. Draining was left a moment ago and may still
	// deliver.
	Active, Draining int
	// Members have the wire's program at their ingress, the active one among them.
	Members []int
	// Generation counts the flips that were prepared.
	Generation uint64
}
