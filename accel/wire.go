package accel

// The types of the control API, version 1, which are also what -j prints. A
// field is never renamed and never changes its meaning under /v1; new ones may
// be added.

// StatusV1 answers GET /v1/status.
type StatusV1 struct {
	// Ready is true from the moment when every component has started until
	// the daemon begins to stop.
	Ready     bool       `json:"ready"`
	Version   string     `json:"version"`
	PID       int        `json:"pid"`
	Namespace uint64     `json:"namespace"`
	Bridges   []BridgeV1 `json:"bridges"`
}

// BridgeV1 is a bridge in StatusV1, and in the answer to POST /v1/on and
// /v1/off.
type BridgeV1 struct {
	Name    string `json:"name"`
	Ifindex int    `json:"ifindex"`
	Present bool   `json:"present"`
	Synced  bool   `json:"synced"`
	// On is what the operator asked for.
	On bool `json:"on"`
	// Eligible is true while known unicast takes the fast path: Reason is
	// "fast", and Text and Advice are missing.
	Eligible bool   `json:"eligible"`
	Reason   Reason `json:"reason"`
	Text     string `json:"text,omitempty"`
	Advice   string `json:"advice,omitempty"`
	Ports    int    `json:"ports"`
	Stations int    `json:"stations"`
	Pending  int    `json:"pending"`
	// FDBFull counts the stations for which the map has no room.
	FDBFull int `json:"fdb_full"`
	// Netfilter is "respect", or "bypass" where the operator gave the firewall
	// up for this bridge.
	Netfilter string `json:"netfilter"`
	// Revocation says how changes in the kernel reach the data plane; null
	// while the bridge does not exist. Weaker says which guarantee is weaker
	// than it could be, and is missing if none is.
	Revocation *Revocation `json:"revocation"`
	Weaker     string      `json:"weaker,omitempty"`
	TrafficV1
}

// TrafficV1 is how many frames, and bytes with their Ethernet headers, took
// each path.
type TrafficV1 struct {
	Fast      uint64 `json:"fast"`
	Slow      uint64 `json:"slow"`
	FastBytes uint64 `json:"fast_bytes"`
	SlowBytes uint64 `json:"slow_bytes"`
}

func (t *TrafficV1) add(s PortStats) {
	fast, slow := s.Split()
	t.Fast += fast.Packets
	t.Slow += slow.Packets
	t.FastBytes += fast.Bytes
	t.SlowBytes += slow.Bytes
}

// PortV1 is an element of the answer to GET /v1/ports.
type PortV1 struct {
	Port    string `json:"port"`
	Bridge  string `json:"bridge"`
	Ifindex int    `json:"ifindex"`
	State   string `json:"state"`
	// Attach is "tcx" or "clsact"; "none" without a program.
	Attach string `json:"attach"`
	// Redirect is "egress", or "peer" where frames go straight to the far end of a
	// veth. RedirectReason is a word for why they do not where that was asked for.
	Redirect       string `json:"redirect"`
	RedirectReason string `json:"redirect_reason"`
	MTU            int    `json:"mtu"`
	Isolated       bool   `json:"isolated"`
	// PVID is the VLAN of untagged frames and VLANs are the port's memberships,
	// on a bridge that filters VLANs; 0 and empty elsewhere.
	PVID     uint16   `json:"pvid"`
	VLANs    []VLANV1 `json:"vlans"`
	In       Reason   `json:"in"`
	Out      Reason   `json:"out"`
	Stations int      `json:"stations"`
	TrafficV1
}

// VLANV1 is a port's membership in a VLAN, in PortV1.
type VLANV1 struct {
	VID        uint16 `json:"vid"`
	Untagged   bool   `json:"untagged"`
	Forwarding bool   `json:"forwarding"`
}

// EntryV1 is an element of the answer to GET /v1/fdb.
type EntryV1 struct {
	MAC    MAC    `json:"mac"`
	VLAN   uint16 `json:"vlan"`
	Port   string `json:"port"`
	Bridge string `json:"bridge"`
	// Flags are "permanent" for an address of this host, "locked" for one that
	// may not be a source, and "sticky" for one that does not move.
	Flags []string `json:"flags"`
	// Active is false until the entry has been verified.
	Active bool `json:"active"`
}

// ReasonV1 is an element of the answer to GET /v1/reasons.
type ReasonV1 struct {
	Reason Reason `json:"reason"`
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
}

// SnapshotV1 answers GET /v1/snapshot: what the data plane has counted at one
// moment. Two of them make rates.
type SnapshotV1 struct {
	// TimeNS is the daemon's own clock (CLOCK_MONOTONIC), in nanoseconds, when the
	// counters were read.
	TimeNS  int64      `json:"time_ns"`
	Status  StatusV1   `json:"status"`
	Ports   []PortV1   `json:"ports"`
	Reasons []ReasonV1 `json:"reasons"`
}

// ExplainV1 answers GET /v1/explain: what the data plane would do with a frame.
type ExplainV1 struct {
	// Verdict is "fast" or "slow".
	Verdict string `json:"verdict"`
	Reason  Reason `json:"reason"`
	Text    string `json:"text"`
	// Advice is what would change the verdict; missing where it is "fast".
	Advice string `json:"advice,omitempty"`
	// WhyPort is the port's own reason, where the verdict is that a port may not
	// be used.
	WhyPort string `json:"why_port,omitempty"`
	Bridge  string `json:"bridge"`
	In      string `json:"in"`
	// Out is the egress port; empty if the verdict came before it was known.
	Out string `json:"out"`
	// VLAN is the frame's; 0 on a bridge that does not filter VLANs.
	VLAN uint16 `json:"vlan"`
	// Source and Destination are the entries that were found; null if none was,
	// or if the verdict came before one was looked for.
	Source      *EntryV1 `json:"source"`
	Destination *EntryV1 `json:"destination"`
	// Action is what happens to the tag: "untag", "tag 10", or nothing.
	Action string `json:"action"`
}

// SwitchV1 is the body of POST /v1/on and /v1/off. An empty name means every
// bridge.
type SwitchV1 struct {
	Bridge string `json:"bridge"`
}

// DetachV1 answers POST /v1/detach. It comes when everything is removed.
type DetachV1 struct {
	// Daemon is true when a daemon did it, and false when what a daemon had
	// left was removed without one.
	Daemon bool `json:"daemon"`
	// Bridges are those that the daemon let go of.
	Bridges []string `json:"bridges"`
	// Removed are what was found and removed without a daemon.
	Removed []string `json:"removed"`
	// Kept are what the daemon left in place because traffic hangs on it, with how
	// each is removed.
	Kept []string `json:"kept"`
}

// ErrorV1 is the body of every answer that is not 200.
type ErrorV1 struct {
	Error string `json:"error"`
}
