package nicswap

import "time"

// The types of nicswap's part of the control API, version 1, which are also what
// -j prints. A field is never renamed and never changes its meaning under /v1.

// GroupV1 is an element of the answer to GET /v1/groups.
type GroupV1 struct {
	Group  string `json:"group"`
	Bridge string `json:"bridge"`
	Port   string `json:"port"`
	// Ifindex is that of the stable port; 0 while it is not there.
	Ifindex int `json:"ifindex"`
	// State is "ready", "swapping", "upgrading", "degraded" (a member is missing or
	// has no carrier) or "down" (no member carries traffic).
	State string `json:"state"`
	// Why says what is wrong, in a sentence; missing where State is "ready".
	Why string `json:"why,omitempty"`
	// Active is the member that carries the traffic; empty if none does.
	Active  string     `json:"active"`
	Adopted bool       `json:"adopted"`
	Members []MemberV1 `json:"members"`
	// Dropped counts frames that the wire dropped, by reason; Drained those that
	// it delivered from members that were left.
	Dropped map[string]uint64 `json:"dropped"`
	Drained uint64            `json:"drained"`
}

// MemberV1 is a member in GroupV1.
type MemberV1 struct {
	Member  string `json:"member"`
	Ifindex int    `json:"ifindex"` // 0 while it is missing
	// Kind is "physical" or "virtual"; LinkKind what ip(8) calls a virtual one:
	// veth, tun, macvlan. Driver is missing where there is none.
	Kind     string `json:"kind"`
	LinkKind string `json:"link_kind"`
	Driver   string `json:"driver,omitempty"`
	// State is "active", "draining", "standby" (warm), "cold" (shared and not
	// claimed now, or not fit: Why of the group says so), "away" (being upgraded),
	// "no_carrier" or "missing".
	State   string `json:"state"`
	Carrier bool   `json:"carrier"`
	MTU     int    `json:"mtu"`
}

// SwapRequestV1 is the body of POST /v1/swap.
type SwapRequestV1 struct {
	Groups []string `json:"groups"`
	// To is a member's name, or "physical" or "virtual".
	To     string `json:"to"`
	DryRun bool   `json:"dry_run"`
}

// AdoptRequestV1 is the body of POST /v1/adopt.
type AdoptRequestV1 struct {
	// Port is the port of a bridge that is to become the first member.
	Port string `json:"port"`
	// Group is the name of the new group, and of its stable port; that of the port
	// with ".s" if it is left out.
	Group string `json:"group"`
	// Members are further members, in the order of preference.
	Members []string `json:"members"`
	DryRun  bool     `json:"dry_run"`
}

// ReleaseRequestV1 is the body of POST /v1/release.
type ReleaseRequestV1 struct {
	Group  string `json:"group"`
	DryRun bool   `json:"dry_run"`
}

// ChangeV1 answers POST /v1/adopt and /v1/release.
type ChangeV1 struct {
	Group  string `json:"group"`
	Bridge string `json:"bridge"`
	// Port is the stable port, Ifindex its number, 0 before it is made.
	Port    string `json:"port"`
	Ifindex int    `json:"ifindex"`
	// Member is the device that leaves the bridge, or enters it.
	Member string `json:"member"`
	// Done is false for a dry run.
	Done bool `json:"done"`
	// Steps say what is done, Costs what it costs, a sentence each.
	Steps []string `json:"steps"`
	Costs []string `json:"costs"`
}

// SwapV1 is a swap, done, failed or only planned: an element of the answers to POST
// /v1/swap and GET /v1/swaps.
type SwapV1 struct {
	ID    string `json:"id"`
	Group string `json:"group"`
	From  string `json:"from"`
	To    string `json:"to"`
	// FromKind and ToKind are "physical" or "virtual"; empty for no member.
	FromKind string `json:"from_kind"`
	ToKind   string `json:"to_kind"`
	// Cause is "request", "policy", "loss", "upgrade" or "recovery"; Why says more.
	Cause string `json:"cause"`
	Why   string `json:"why,omitempty"`
	// Result is "planned" (dry run), "running", "done", "failed" or "rolled_back"
	// (traffic is on From again). A swap that failed has changed nothing for
	// traffic, unless Error says that the target was lost after the flip.
	Result string `json:"result"`
	// Error says why it failed; Phase is where.
	Error string    `json:"error,omitempty"`
	Phase string    `json:"phase,omitempty"`
	Began time.Time `json:"began"`
	// Phases are in the order in which they happened.
	Phases []PhaseV1 `json:"phases"`
	// Plan has what a dry run found, a sentence each.
	Plan []string `json:"plan,omitempty"`
	// FlipNS is how long the one store took, in nanoseconds.
	FlipNS int64 `json:"flip_ns"`
	// Stations are the entries of the bridge's table that the swap did not touch;
	// Announced the frames that told the outside of those behind other ports.
	Stations  int `json:"stations"`
	Announced int `json:"announced"`
	// Drained counts the frames that the source still delivered, Dropped what the
	// wire dropped meanwhile, by reason.
	Drained uint64            `json:"drained"`
	Dropped map[string]uint64 `json:"dropped"`
	TraceID string            `json:"trace_id,omitempty"`
}

// PhaseV1 is a phase of a swap that was entered.
type PhaseV1 struct {
	// Phase is "resolve", "check", "prewarm", "flip", "announce", "drain", "retire"
	// or "roll_back".
	Phase      string  `json:"phase"`
	DurationMS float64 `json:"duration_ms"`
	Error      string  `json:"error,omitempty"`
}

// EventV1 is a line of GET /v1/events. The first one is "follow": what happens from
// then on is told.
type EventV1 struct {
	Time  time.Time `json:"time"`
	Group string    `json:"group"`
	// Event is "follow", "phase", "swap" (ended), "member" (its state changed), "group" (its
	// state changed), "upgrade" or "lost" (events were: Text says how many).
	Event  string  `json:"event"`
	Member string  `json:"member,omitempty"`
	State  string  `json:"state,omitempty"`
	Phase  string  `json:"phase,omitempty"`
	Swap   *SwapV1 `json:"swap,omitempty"`
	Text   string  `json:"text,omitempty"`
}
