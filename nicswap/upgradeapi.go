package nicswap

import "time"

// UpgradeRequestV1 is the body of POST /v1/upgrades, which is answered by a line of
// JSON for every step. The upgrade lives as long as that answer is being read: when
// the client goes, what is away is taken back and the upgrade ends.
type UpgradeRequestV1 struct {
	// Group or Driver says what is upgraded: the members of a group in turn, or
	// all members of that driver (or link kind) in all groups together.
	Group  string `json:"group,omitempty"`
	Driver string `json:"driver,omitempty"`
	// Each: the client runs its command once for each member. Without it the
	// command for a driver is run once for all. It says nothing for a group.
	Each bool `json:"each"`
	// TimeoutMS is how long a member may take to be back after the command, in
	// milliseconds; two minutes if it is 0.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// UpgradeStepV1 is a line of the answer to POST /v1/upgrades.
type UpgradeStepV1 struct {
	ID string `json:"id"`
	// Step is
	//
	//	"begin": Members are to be upgraded, Groups have them;
	//	"moved": the traffic of Groups is on Member now;
	//	"away": Members carry nothing. The client runs its command, for Member if
	//	it is set, and then posts UpgradeDoneV1;
	//	"back": Members are in service again;
	//	"end": Upgrade is the outcome. No line follows.
	Step    string     `json:"step"`
	Member  string     `json:"member,omitempty"`
	Members []string   `json:"members"`
	Groups  []string   `json:"groups"`
	Upgrade *UpgradeV1 `json:"upgrade,omitempty"`
}

// UpgradeDoneV1 is the body of POST /v1/upgrades/{id}/done: the command for Member,
// which is as in the step "away", has ended.
type UpgradeDoneV1 struct {
	Member string `json:"member,omitempty"`
	// Error says why the command failed; empty if it did not.
	Error string `json:"error,omitempty"`
}

// UpgradeV1 is the outcome of an upgrade, and what upgrade -j prints.
type UpgradeV1 struct {
	ID     string `json:"id"`
	Group  string `json:"group,omitempty"`
	Driver string `json:"driver,omitempty"`
	// Result is "done", "stopped" (as the client asked, between two members) or
	// "failed".
	Result string `json:"result"`
	Error  string `json:"error,omitempty"`
	// Upgraded are the members whose command went well and that are in service
	// again; Left those for which no command was run.
	Upgraded   []string  `json:"upgraded"`
	Left       []string  `json:"left"`
	Began      time.Time `json:"began"`
	DurationMS float64   `json:"duration_ms"`
}
