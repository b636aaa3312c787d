package accel

import (
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"time"
)

// MAC is an Ethernet address.
type MAC [6]byte

// ParseMAC reads a 48-bit address in any of the forms that net.ParseMAC reads.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is not an Ethernet address such as 52:54:00:12:34:56", s)
	}
	return MAC(hw), nil
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText writes the address as ip(8) does.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *MAC) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMAC(string(text))
	return err
}

// StationKey names a station: a MAC in a VLAN of one bridge. VID is 0 on a
// bridge without VLAN filtering.
type StationKey struct {
	MAC MAC
	VID uint16
}

func (k StationKey) String() string {
	if k.VID == 0 {
		return k.MAC.String()
	}
	return fmt.Sprintf("%s vlan %d", k.MAC, k.VID)
}

// Station is one FDB entry of a bridge as the data plane needs it.
type Station struct {
	StationKey
	// Port is the ifindex of the port behind which the station is; 0 for an
	// address of the bridge itself.
	Port int
	// Local marks an address of the host (NUD_PERMANENT): frames to it go up.
	Local bool
	// NoSource marks an entry that a source may not be checked against
	// (NTF_EXT_LOCKED; net/bridge/br_input.c: br_handle_frame_finish).
	NoSource bool
	// Sticky marks an entry that does not move to another port
	// (NTF_STICKY; net/bridge/br_fdb.c: br_fdb_update).
	Sticky bool
	// Active is false while the station is a candidate that was not verified
	// yet. The data plane takes no decision from a candidate.
	Active bool
}

// Bridge names a bridge in the daemon's network namespace.
type Bridge struct {
	Name    string
	Ifindex int
}

// Gate is what the data plane must know of a bridge as a whole.
type Gate struct {
	// Reason says why the whole bridge takes the slow path; [Fast] when it
	// does not have to.
	Reason Reason
	// Keepalive is how long a source may stay on the fast path before one of
	// its frames is passed up, so that the bridge refreshes its entry.
	Keepalive time.Duration
	// CheckIP makes the data plane check IP headers as br_netfilter does
	// (net/bridge/br_netfilter_hooks.c: br_validate_ipv4).
	CheckIP bool
	// CheckND makes the data plane pass up IPv6 neighbour discovery, which a
	// port of the bridge suppresses (net/bridge/br_arp_nd_proxy.c).
	CheckND bool
	// VLANProtocol is the EtherType of the bridge's tags, 0x8100 or 0x88a8,
	// where it filters VLANs; 0 where it does not.
	VLANProtocol uint16
	// BypassNetfilter is the operator's written wish that netfilter is not
	// asked. A hook that appears voids the gate only until the daemon has looked.
	BypassNetfilter bool
	// Seen is the bridge's version (see the data plane's Version) before the
	// kernel was asked for what stands here. The gate is shut once the kernel
	// changed something since.
	Seen uint64
}

// Port is what the data plane must know of a bridge port.
type Port struct {
	Name    string
	Ifindex int
	// MTU is in bytes, without the Ethernet header, as ip(8) shows it.
	MTU   int
	Flags PortFlags
	// HasVLANDevices: a VLAN device on the port takes tagged frames before the
	// bridge does (net/8021q/vlan_core.c: vlan_do_receive).
	HasVLANDevices bool
	// PVID is the VLAN of untagged frames on a bridge that filters VLANs; 0
	// where they are dropped.
	PVID  uint16
	VLANs VLANs
	// In and Out say why the port may not be the ingress, or the egress, of a
	// frame on the fast path; [Fast] where it may.
	In, Out Reason
	// Seen is the port's version before the kernel was asked for what stands
	// here. The port takes the slow path once the kernel changed it since.
	Seen uint64
}

// PortFlags are a port's flags that matter for known unicast, with the kernel's
// own bits (include/linux/if_bridge.h: BR_*), which the data plane compares with
// the port's where it can read them.
type PortFlags uint32

// The flags.
const (
	FlagHairpin           PortFlags = 1 << 0
	FlagLearning          PortFlags = 1 << 5
	FlagProxyARP          PortFlags = 1 << 8
	FlagProxyARPWifi      PortFlags = 1 << 10
	FlagVLANTunnel        PortFlags = 1 << 13
	FlagNeighSuppress     PortFlags = 1 << 15
	FlagIsolated          PortFlags = 1 << 16
	FlagLocked            PortFlags = 1 << 21
	FlagNeighVLANSuppress PortFlags = 1 << 23
)

// Isolated ports do not forward to each other.
func (f PortFlags) Isolated() bool { return f&FlagIsolated != 0 }

// VLAN is a port's membership in a VLAN.
type VLAN struct {
	VID uint16
	// Untagged: the tag is taken off at egress (BRIDGE_VLAN_INFO_UNTAGGED).
	Untagged bool
	// Forwarding is the VLAN's own state on the port; frames of a VLAN in any
	// other state are dropped (net/bridge/br_vlan.c: br_vlan_state_allowed).
	Forwarding bool
}

// VLANs are a port's memberships in the order of VIDs. It is a string so that
// two ports can be compared.
type VLANs string

const (
	vlanUntagged   = 1
	vlanForwarding = 2
	vlanBytes      = 3 // VID, high byte first, and flags
)

// NewVLANs packs the memberships; they must be in the order of VIDs.
func NewVLANs(vlans []VLAN) VLANs {
	packed := make([]byte, 0, vlanBytes*len(vlans))
	for _, v := range vlans {
		var flags byte
		if v.Untagged {
			flags |= vlanUntagged
		}
		if v.Forwarding {
			flags |= vlanForwarding
		}
		packed = append(packed, byte(v.VID>>8), byte(v.VID), flags)
	}
	return VLANs(packed)
}

// All goes through the memberships.
func (v VLANs) All() iter.Seq[VLAN] {
	return func(yield func(VLAN) bool) {
		for i := 0; i+vlanBytes <= len(v); i += vlanBytes {
			flags := v[i+2]
			if !yield(VLAN{
				VID:        uint16(v[i])<<8 | uint16(v[i+1]),
				Untagged:   flags&vlanUntagged != 0,
				Forwarding: flags&vlanForwarding != 0,
			}) {
				return
			}
		}
	}
}

// Revocation says how a change in the kernel reaches the data plane.
type Revocation struct {
	// Entries: programs at the bridge's tracepoints revoke a station in the
	// instant in which the kernel deletes or moves its entry.
	Entries bool `json:"entries"`
	// State says how a change of ports, VLANs, the bridge and netfilter is
	// noticed: see the constants.
	State string `json:"state"`
	// VLANs: changes of VLAN memberships are noticed as State says, or the bridge
	// does not filter VLANs.
	VLANs bool `json:"vlans"`
}

// How a change of state is noticed.
const (
	// StateTraced: programs at the exit of the kernel's own functions void what
	// they changed (fexit).
	StateTraced = "traced"
	// StateLive: the programs read the kernel's state with every frame. They
	// cannot see VLAN memberships.
	StateLive = "live"
	// StateNetlink: the daemon hears of it, milliseconds later.
	StateNetlink = "netlink"
)

// AtOnce says whether every change takes effect with the next frame, whatever
// the daemon is doing.
func (r Revocation) AtOnce() bool { return r.Entries && r.State != StateNetlink && r.VLANs }

// Weaker says which guarantee is weaker than it could be; empty if none is.
func (r Revocation) Weaker() string {
	switch {
	case !r.Entries && r.State == StateNetlink:
		return "what the bridge deletes, moves or changes is revoked when netlink tells of it, milliseconds later, and by the lease if the daemon hangs"
	case !r.Entries:
		return "what the bridge deletes or moves is revoked when netlink tells of it, milliseconds later, and by the lease if the daemon hangs"
	case r.State == StateNetlink:
		return "changes of ports, VLANs, the bridge and netfilter take effect when netlink tells of them, milliseconds later, and by the lease if the daemon hangs"
	case !r.VLANs:
		return "changes of VLAN memberships take effect when netlink tells of them, milliseconds later, and by the lease if the daemon hangs"
	}
	return ""
}

// Question is a frame for [Explainer].
type Question struct {
	Bridge int // ifindex
	In     int // ifindex of the port where it arrives
	// Frame is the frame from its destination address on, without the tag.
	Frame []byte
	// Tag is the tag's VID; TagProtocol its EtherType, 0 if there is no tag.
	Tag         uint16
	TagProtocol uint16
}

// Explanation is what the data plane would do with a frame, and the records that
// it took for that.
type Explanation struct {
	Reason Reason
	// VID is the VLAN of the frame: 0 without VLAN filtering.
	VID uint16
	// Source and Destination are the entries that were found; nil if none was,
	// or if none was looked for.
	Source, Destination *Station
	// Out is the ifindex of the egress port, 0 if the verdict came before.
	Out int
	// Push is the VID of the tag that is put on, Pop says that one is taken off.
	Push uint16
	Pop  bool
}

// PortStats are a port's frames as the data plane counted them.
type PortStats struct {
	Ifindex int
	// Attach is how the program is attached: "tcx" or "clsact".
	Attach string
	// Redirect is how frames leave by the port: [RedirectEgress], or [RedirectPeer],
	// straight to the far end of a veth.
	Redirect string
	// RedirectReason is why they do not go straight where that was asked for: a word
	// of docs/peer.md. Empty if they do, or if it was not.
	RedirectReason string
	// Counts has an entry for every reason that was seen. [Fast] is the fast
	// path; every other reason is a frame that was passed up.
	Counts map[Reason]Count
}

// Count is a number of frames, and of bytes with their Ethernet headers.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Add returns the sum of both.
func (c Count) Add(d Count) Count { return Count{c.Packets + d.Packets, c.Bytes + d.Bytes} }

// Split returns what took the fast path and what was passed up.
func (s PortStats) Split() (fast, slow Count) {
	for reason, n := range s.Counts {
		if reason == Fast {
			fast = fast.Add(n)
		} else {
			slow = slow.Add(n)
		}
	}
	return fast, slow
}

// BridgeState is a bridge as status shows it, without its counters.
type BridgeState struct {
	Bridge
	// Present is false while the bridge does not exist.
	Present bool
	// Synced is true once every entry of the kernel's table was mirrored and
	// verified.
	Synced bool
	// On is what the operator asked for with on and off.
	On bool
	// Reason says why the bridge takes the slow path; Fast when it does not.
	Reason Reason
	// Ports are the bridge's ports in the order of their names.
	Ports []PortState
	// Stations counts the entries that were mirrored and verified; Pending
	// those that wait for it; Unmirrored those for which the map has no room.
	Stations, Pending, Unmirrored int
	// Revocation says how changes in the kernel reach the data plane.
	Revocation Revocation
	// BypassNetfilter: the operator wrote "netfilter: bypass" for the bridge.
	BypassNetfilter bool
	// VLANProtocol is the EtherType of the bridge's tags where it filters VLANs;
	// 0 where it does not.
	VLANProtocol uint16
}

// PortState is a port as ports shows it, without its counters.
type PortState struct {
	Port
	// State is the STP state as bridge(8) writes it: forwarding, blocking ...
	State string
	// Stations counts the verified stations behind the port.
	Stations int
}

// GroupState is a stable port with its members, as it is measured.
type GroupState struct {
	Name, Bridge, Port string
	// State is that of the group: "ready", "swapping", "upgrading", "degraded" or "down".
	State string
	// Active is the member that carries the traffic; empty if none does.
	Active  string
	Members []MemberState
	// Frames are those that the wire dropped, or delivered in a drain, by reason.
	Frames map[Reason]uint64
}

// MemberState is a member in GroupState.
type MemberState struct {
	Name string
	Kind string // "physical" or "virtual"
	// State is "active", "draining", "standby", "cold", "away", "no_carrier" or
	// "missing".
	State string
}

// Finding is one line of doctor.
type Finding struct {
	// Check names what was looked at, such as "kernel" or "tcx".
	Check string `json:"check"`
	// Level is "ok", "note" (weaker, works) or "fail" (shunt cannot run).
	Level string `json:"level"`
	// Text says what was found.
	Text string `json:"text"`
	// Advice says what to do about it; empty when there is nothing to do.
	Advice string `json:"advice,omitempty"`
	// Bridge is the one that was looked at; empty where it was the machine.
	Bridge string `json:"bridge,omitempty"`
	// Reason is why the bridge, or the ports that Text names, take the slow path;
	// Fast, which is left out, where it does not.
	Reason Reason `json:"reason,omitzero"`
	// Traffic says what share of the bridge's frames would take the fast path, in
	// the finding "traffic"; nil elsewhere, and where nothing was counted.
	Traffic *Forecast `json:"traffic,omitempty"`
}

// Forecast is what became, or would become, of the frames that arrived at the
// ports of a bridge.
type Forecast struct {
	// Source is "sample" for frames that were only looked at, and "daemon" for
	// those that a daemon counted.
	Source string `json:"source"`
	// Seconds is for how long.
	Seconds float64 `json:"seconds"`
	// Frames arrived, Fast of them for the fast path. Of a sample Looked were
	// looked at, which stand for all where that are fewer.
	Frames uint64 `json:"frames"`
	Looked uint64 `json:"looked"`
	Fast   uint64 `json:"fast"`
	// FastIfEligible are as many as Fast where the bridge is eligible; elsewhere
	// those that would take the fast path if it were. Only a sample has it.
	FastIfEligible uint64 `json:"fast_if_eligible"`
	// Reasons are those of all frames that were counted, the most frequent first.
	Reasons []ReasonV1 `json:"reasons"`
}

// The sources of a Forecast.
const (
	SourceSample = "sample"
	SourceDaemon = "daemon"
)

// The levels of a Finding.
const (
	LevelOK   = "ok"
	LevelNote = "note"
	LevelFail = "fail"
)

var (
	_ json.Marshaler = Reason(0)
	_ fmt.Stringer   = Reason(0)
)
