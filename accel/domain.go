package accel

import (
	"encoding/json"
	"fmt"
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
}

// Port is what the data plane must know of a bridge port.
type Port struct {
	Name    string
	Ifindex int
	// MTU is in bytes, without the Ethernet header, as ip(8) shows it.
	MTU int
	// Isolated ports do not forward to each other (BR_ISOLATED).
	Isolated bool
	// In and Out say why the port may not be the ingress, or the egress, of a
	// frame on the fast path; [Fast] where it may.
	In, Out Reason
}

// PortStats are a port's frames as the data plane counted them.
type PortStats struct {
	Ifindex int
	// Attach is how the program is attached: "tcx" or "clsact".
	Attach string
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
}

// PortState is a port as ports shows it, without its counters.
type PortState struct {
	Port
	// State is the STP state as bridge(8) writes it: forwarding, blocking ...
	State string
	// Stations counts the verified stations behind the port.
	Stations int
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
}

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
