package accel

import (
	"encoding/json"
	"fmt"
)

// Reason says what became of a frame, or why a port or a bridge takes the slow
// path. The numbers are stable and never used again: tcprog/bpf/reasons.h has
// the same ones (a test holds the two together) and the names are the values of
// the metric label.
type Reason uint16

// NumReasons is one more than the highest number that will ever fit: the size
// of the counters array in the data plane.
const NumReasons = 96

// What became of a frame. [Fast] is the only one that is not the slow path.
const (
	Fast Reason = 0

	// The class of the frame (always passed up).
	Multicast       Reason = 1
	SourceMulticast Reason = 2
	SourceZero      Reason = 3
	ARP             Reason = 4
	CFM             Reason = 5
	MRP             Reason = 6
	LLC             Reason = 7
	DoubleTagged    Reason = 8
	IPHeader        Reason = 9
	PPPoE           Reason = 10
	Malformed       Reason = 11
	Tagged          Reason = 12
	PriorityTagged  Reason = 13
	ForeignTag      Reason = 14
	Neighbour       Reason = 15

	// What the forwarding table says of it.
	SourceUnknown      Reason = 20
	SourceMoved        Reason = 21
	SourceLocal        Reason = 22
	SourceLocked       Reason = 23
	Unverified         Reason = 24
	DestinationUnknown Reason = 25
	DestinationLocal   Reason = 26
	SamePort           Reason = 27
	Isolated           Reason = 28
	MTU                Reason = 29
	Keepalive          Reason = 30
	VLANIngress        Reason = 31
	VLANEgress         Reason = 32
	SourceElsewhere    Reason = 36

	// What becomes of a frame on a stable port's wire. Frames of [OutOfTurn] go to the
	// bridge; those of the others are dropped, but Drained, which were delivered
	// from a member that was left.
	OutOfTurn   Reason = 33
	OwnReturned Reason = 34
	Doubled     Reason = 35
	Standby     Reason = 37
	NoMember    Reason = 38
	Drained     Reason = 39

	// The state of a port. 43 (port_locked), 44 (port_learning), 46
	// (port_neigh_suppress), 49 (port_vlan_device) and 54 (port_hairpin) are not
	// used any more.
	PortUnknown     Reason = 40
	PortBlocked     Reason = 41
	PortDown        Reason = 42
	PortVLANTunnel  Reason = 45
	PortBackup      Reason = 47
	PortSwitch      Reason = 48
	PortNetfilter   Reason = 50
	PortForeignTC   Reason = 51
	PortUnattached  Reason = 52
	PortEgress      Reason = 53
	PortNotEthernet Reason = 55
	PortChanged     Reason = 56

	// The state of the whole bridge. 63 (vlan_filtering) is not used any more.
	Off             Reason = 60
	Lease           Reason = 61
	Syncing         Reason = 62
	MST             Reason = 64
	VLANStats       Reason = 65
	BridgeNetfilter Reason = 66
	BrNetfilter     Reason = 67
	Promiscuous     Reason = 68
	Hub             Reason = 69
	BridgeDown      Reason = 70
	Absent          Reason = 71
	Unwatched       Reason = 72
	Unchecked       Reason = 73
	BridgeChanged   Reason = 74
)

// reasonTexts is the one table of names, meanings and advice. The name is the
// metric label and what -j prints; the text completes "slow because ...".
var reasonTexts = map[Reason]struct{ name, text, advice string }{
	Fast: {"fast", "took the fast path", ""},

	Multicast:       {"multicast", "the destination is multicast or broadcast", ""},
	SourceMulticast: {"source_multicast", "the source address is multicast; the bridge drops it", "find the sender: no host may send from such an address"},
	SourceZero:      {"source_zero", "the source address is zero; the bridge drops it", "find the sender: no host may send from such an address"},
	ARP:             {"arp", "ARP and RARP belong to the bridge", ""},
	CFM:             {"cfm", "CFM (EtherType 0x8902) belongs to the bridge", ""},
	MRP:             {"mrp", "MRP (EtherType 0x88e3) belongs to the bridge", ""},
	LLC:             {"llc", "the frame has an 802.3 length, not an EtherType", ""},
	DoubleTagged:    {"double_tagged", "a second VLAN tag is in the frame", ""},
	IPHeader:        {"ip_header", "br_netfilter is present and would drop or trim the frame: options, padding or a wrong header", "unload br_netfilter if nothing on this host needs it"},
	PPPoE:           {"pppoe", "br_netfilter is present and may look into PPPoE", "unload br_netfilter if nothing on this host needs it"},
	Malformed:       {"malformed", "the frame is shorter than its headers", ""},

	Tagged:         {"tagged", "the frame has a VLAN tag, and a VLAN device on the port, perhaps in another namespace, may take it", ""},
	PriorityTagged: {"priority_tagged", "the frame has a tag without a VLAN (priority-tagged)", ""},
	ForeignTag:     {"foreign_tag", "the frame's tag is not of the bridge's vlan_protocol", ""},
	Neighbour:      {"neigh_suppress", "a port suppresses neighbour discovery: the bridge may answer", ""},

	SourceUnknown:      {"source_unknown", "the bridge has no entry for the source yet", "look for fdb_full in shunt status if it stays so"},
	SourceMoved:        {"source_moved", "the source was known behind another port; its entry was revoked", "two ports claim one address if this keeps growing: look for a loop or a spoofing guest"},
	SourceLocal:        {"source_local", "the source is an address of this host; the bridge drops it", "look for a loop, or for a guest with the bridge's address"},
	SourceLocked:       {"source_locked", "the source's entry is locked (MAB)", ""},
	Unverified:         {"unverified", "the station is known but not verified yet", ""},
	DestinationUnknown: {"destination_unknown", "the bridge has no entry for the destination", "the destination is silent or aged out; the bridge floods"},
	DestinationLocal:   {"destination_local", "the frame is for this host", ""},
	SamePort:           {"same_port", "source and destination are behind the same port", ""},
	Isolated:           {"isolated", "both ports are isolated", ""},
	MTU:                {"mtu", "the frame is longer than the egress port's MTU", "give the ports of the bridge the same MTU"},
	OutOfTurn:          {"out_of_turn", "an earlier frame of the flow is on its way to the bridge and must not be overtaken", ""},
	OwnReturned:        {"own_returned", "our own frame came back over another member and was dropped", ""},
	Doubled:            {"doubled", "the new member has delivered for these stations: what the old one brings was dropped, it would come twice", ""},
	Standby:            {"standby", "it arrived on a member that does not carry the group, and was dropped", ""},
	NoMember:           {"no_member", "the stable port has no active member, and the frame was dropped", "see shunt groups: bring a member back"},
	Drained:            {"drained", "was delivered from the member that was left", ""},
	Keepalive:          {"keepalive", "one frame in a while goes to the bridge so that its entry stays fresh", ""},

	VLANIngress:     {"vlan_ingress", "the port does not take frames of this VLAN: no member, no PVID, or the VLAN's state is not forwarding", "see bridge vlan show dev PORT"},
	SourceElsewhere: {"source_elsewhere", "the source's entry is behind another port and stays there: it is sticky, or the port does not learn", "find out who sends from this address"},
	VLANEgress:      {"vlan_egress", "the destination's port does not send frames of this VLAN", "see bridge vlan show"},

	PortUnknown:     {"port_unknown", "the port is not set up yet", ""},
	PortBlocked:     {"port_state", "the port is not in the forwarding state", "see bridge -d link"},
	PortDown:        {"port_down", "the port is down or has no carrier", "see ip link"},
	PortVLANTunnel:  {"port_vlan_tunnel", "the port maps VLANs to tunnels", ""},
	PortBackup:      {"port_backup", "the port has a backup port", ""},
	PortSwitch:      {"port_switch", "the port belongs to a switch that forwards in hardware", ""},
	PortNetfilter:   {"port_netfilter", "a netdev ingress or egress chain is on the port", "see nft list ruleset netdev"},
	PortForeignTC:   {"port_foreign_tc", "another tc program or filter is on the port", "see tc filter show dev PORT ingress and bpftool net"},
	PortUnattached:  {"port_unattached", "the program could not be attached to the port", "see the daemon's log"},
	PortEgress:      {"port_egress", "the destination's port may not be used as egress", "see shunt ports"},
	PortNotEthernet: {"port_not_ethernet", "the port is not Ethernet", ""},

	PortChanged: {"port_changed", "the kernel changed the port, and shunt has not looked at it since", "it looks at once; if this keeps growing, see shunt status: the daemon may hang"},

	Off:             {"off", "switched off by the operator", "shunt on"},
	Lease:           {"lease", "the daemon did not renew its lease", "see that the daemon runs: systemctl status shunt"},
	Syncing:         {"syncing", "the bridge's table is being read", ""},
	MST:             {"mst", "the bridge has multiple spanning trees", ""},
	VLANStats:       {"vlan_stats", "the bridge counts per VLAN", "ip link set dev BRIDGE type bridge vlan_stats_enabled 0"},
	BridgeNetfilter: {"bridge_netfilter", "nftables or ebtables rules are in the bridge family", "see nft list ruleset bridge and ebtables -L"},
	BrNetfilter:     {"br_netfilter", "br_netfilter is present and IP chains exist: they may apply to bridged frames", "unload br_netfilter if bridged frames need no IP rules"},
	Promiscuous:     {"promiscuous", "the bridge device is promiscuous: it must see every frame", "stop the capture on the bridge, or remove the macvlan from it"},
	Hub:             {"hub", "ageing_time is 0: the bridge works as a hub", "ip link set dev BRIDGE type bridge ageing_time 30000"},
	BridgeDown:      {"bridge_down", "the bridge is down", "ip link set dev BRIDGE up"},
	Absent:          {"absent", "the bridge does not exist", "shunt takes it as soon as it appears"},
	Unwatched:       {"unwatched", "a port carries no program, so a move to it would go unseen", "see shunt ports and the daemon's log"},
	BridgeChanged:   {"bridge_changed", "the kernel changed the bridge or a netfilter hook, and shunt has not looked since", "it looks at once; if this keeps growing, see that the daemon runs: systemctl status shunt"},
	Unchecked:       {"unchecked", "the firewall could not be read, so it may apply", "see the daemon's log and shunt doctor"},
}

// Reasons returns every reason in the order of its number.
func Reasons() []Reason {
	var all []Reason
	for r := range Reason(NumReasons) {
		if _, ok := reasonTexts[r]; ok {
			all = append(all, r)
		}
	}
	return all
}

// String returns the stable name, such as "source_moved".
func (r Reason) String() string {
	if t, ok := reasonTexts[r]; ok {
		return t.name
	}
	return fmt.Sprintf("reason_%d", uint16(r))
}

// Text completes the sentence "on the slow path because ...".
func (r Reason) Text() string { return reasonTexts[r].text }

// Advice says what an operator can do about it; empty when nothing is wrong.
func (r Reason) Advice() string { return reasonTexts[r].advice }

// MarshalJSON writes the name.
func (r Reason) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// UnmarshalJSON reads a name.
func (r *Reason) UnmarshalJSON(data []byte) error {
	var name string
	if err := json.Unmarshal(data, &name); err != nil {
		return err
	}
	for candidate, t := range reasonTexts {
		if t.name == name {
			*r = candidate
			return nil
		}
	}
	return fmt.Errorf("unknown reason %q", name)
}
