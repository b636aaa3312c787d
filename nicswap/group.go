package nicswap

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// group is a stable port and its members.
type group struct {
	accel.Group
	// configured: the configuration names it. Others were adopted, or are left of
	// a configuration that named them.
	configured bool
	kick       chan struct{} // wakes who tends the group
	end        context.CancelFunc
	ended      chan struct{} // closed when nobody tends the group any more

	recording sync.Mutex // the group's file, and:
	record    record

	mu     sync.Mutex
	port   links.Link // Ifindex is 0 while it is not there
	stub   links.Link
	active int     // ifindex, as the wire has it
	on     *member // with that ifindex, also when its device is gone; nil if it is no member of ours
	// draining was left a moment ago and may still deliver.
	draining  int
	guarded   *[2]accel.Guard // whom the programs know; nil: not sure
	failovers uint64          // of the programs, that were followed
	// lost is the ifindex of a stable port that is gone; its wire is to be closed.
	lost     int
	members  []*member
	running  *swap
	stranger bool   // the active device is no member of ours, and is there
	stuck    bool   // the traffic could not be moved off a member that is lost
	closed   bool   // it is being released
	settled  bool   // it was set up once
	trouble  string // what is wrong with the port or the bridge
	adopted  bool
	lastTold string        // the state that followers know
	changed  chan struct{} // closed, and made anew, with every change
}

// member is a NIC of a group. Its fields are guarded by the group's mu.
type member struct {
	name   string
	link   links.Link // Ifindex is 0 while it is missing
	shared bool       // other groups have it too
	warm   bool       // made ready, and on the wire
	busy   bool       // is being made ready
	away   bool       // reserved by an upgrade
	felt   bool       // its carrier was found lost, of which the kernel may tell nothing
	unfit  string     // why it cannot be made ready
	tried  time.Time  // when it was last to rescue the group

	lastTold string
}

func newGroup(definition accel.Group) *group {
	g := &group{
		Group: definition, kick: make(chan struct{}, 1), changed: make(chan struct{}),
		end: func() {}, ended: make(chan struct{}),
	}
	for _, name := range definition.Members {
		g.members = append(g.members, &member{name: name})
	}
	return g
}

// tend wakes who tends the group.
func (g *group) tend() {
	select {
	case g.kick <- struct{}{}:
	default: // it is awake already
	}
}

// await waits until ok, which is asked with the group locked, again after every
// change.
func (g *group) await(ctx context.Context, ok func() bool) error {
	for {
		g.mu.Lock()
		good, changed := ok(), g.changed
		g.mu.Unlock()
		if good {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// moved wakes who awaits a change. The group is locked.
func (g *group) moved() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// member returns the one of that name, or a 404 that names those that there are.
func (g *group) member(name string) (*member, error) {
	for _, m := range g.members {
		if m.name == name {
			return m, nil
		}
	}
	return nil, accel.Statusf(404, "%s has no member %s; it has %s", g.Name, name, strings.Join(g.Members, ", "))
}

// at returns the member with that ifindex; nil if there is none.
func (g *group) at(ifindex int) *member {
	for _, m := range g.members {
		if ifindex != 0 && m.link.Ifindex == ifindex {
			return m
		}
	}
	return nil
}

func (g *group) isActive(m *member) bool { return g.active != 0 && g.on == m }

// carries says whether frames can pass the member now. A carrier that the kernel
// has not acted on yet does not count: what is sent is dropped until then.
func (m *member) carries() bool {
	return m.link.Ifindex != 0 && m.link.Up && m.link.Carrier && m.link.Running
}

// taken says whether somebody made the member a port of a bridge, or the like, which
// gets nothing of what arrives there, but sends what the stable port sends, too.
func (m *member) taken() bool { return m.link.Master != 0 }

// usable says whether the member can become active at once.
func (m *member) usable() bool { return m.warm && !m.away && m.carries() && !m.taken() }

// refuge is the member for traffic that must move at once: where it came from, if
// a swap left that a moment ago, else the first usable one in the order of
// preference; nil if there is none.
func (g *group) refuge() *member {
	if s := g.running; s != nil && s.flipped && s.from != nil && s.from.usable() && !g.isActive(s.from) {
		return s.from
	}
	for _, m := range g.members {
		if m.usable() && !g.isActive(m) {
			return m
		}
	}
	return nil
}

// The kinds of members.
const (
	physical = "physical"
	virtual  = "virtual"
)

func kind(l links.Link) string {
	if l.Physical {
		return physical
	}
	return virtual
}

// kindName describes a member for people.
func kindName(l links.Link) string {
	switch {
	case l.Physical && l.Driver != "":
		return fmt.Sprintf("%s, %s", physical, l.Driver)
	case l.Kind != "":
		return fmt.Sprintf("%s, %s", kind(l), l.Kind)
	}
	return kind(l)
}

// The states of a group.
const (
	groupReady     = "ready"
	groupSwapping  = "swapping"
	groupUpgrading = "upgrading"
	groupDegraded  = "degraded"
	groupDown      = "down"
)

// state says how the group is, and what is wrong.
func (g *group) state() (state, why string) {
	away, wrong := g.wrongs()
	why = strings.Join(wrong, "; ")
	switch {
	case g.active == 0:
		return groupDown, orElse(why, "no member carries traffic")
	case g.running != nil:
		return groupSwapping, orElse(why, "a swap is running")
	case len(away) > 0:
		return groupUpgrading, strings.Join(append([]string{strings.Join(away, ", ") + " is being upgraded"}, wrong...), "; ")
	case why != "":
		return groupDegraded, why
	}
	return groupReady, ""
}

// wrongs are the members that are away, and a sentence about each that could not
// take over.
func (g *group) wrongs() (away, wrong []string) {
	if g.trouble != "" {
		wrong = append(wrong, g.trouble)
	}
	if g.settled && !g.configured && !g.adopted {
		wrong = append(wrong, fmt.Sprintf("the configuration does not name it any more: it stays until \"shunt release %s\"", g.Name))
	}
	if g.stranger {
		wrong = append(wrong, "the device that carries the traffic is no member of the group any more, and no member can take over")
	}
	for _, m := range g.members {
		switch {
		case m.away:
			away = append(away, m.name)
		case m.link.Ifindex == 0:
			wrong = append(wrong, m.name+" is not there")
		case m.unfit != "":
			wrong = append(wrong, m.unfit)
		case m.taken():
			wrong = append(wrong, m.name+" was given to another device: take it out there")
		case m.warm && !m.carries():
			wrong = append(wrong, m.name+" has no carrier")
		}
	}
	return away, wrong
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// The states of a member.
const (
	memberActive    = "active"
	memberDraining  = "draining"
	memberStandby   = "standby"
	memberCold      = "cold"
	memberAway      = "away"
	memberNoCarrier = "no_carrier"
	memberMissing   = "missing"
)

func (g *group) memberState(m *member) string {
	switch {
	case m.link.Ifindex == 0:
		return memberMissing
	case m.away:
		return memberAway
	case m.warm && !m.carries(), g.isActive(m) && !m.carries():
		return memberNoCarrier
	case g.isActive(m):
		return memberActive
	case m.link.Ifindex == g.draining:
		return memberDraining
	case !m.warm:
		return memberCold
	}
	return memberStandby
}

// describe leaves the counters out. The group is locked.
func (g *group) describe() GroupV1 {
	d := GroupV1{
		Group: g.Name, Bridge: g.Bridge, Port: g.Port, Ifindex: g.port.Ifindex,
		Adopted: g.adopted, Members: []MemberV1{},
	}
	d.State, d.Why = g.state()
	for _, m := range g.members {
		d.Members = append(d.Members, MemberV1{
			Member: m.name, Ifindex: m.link.Ifindex, Kind: kind(m.link), LinkKind: m.link.Kind, Driver: m.link.Driver,
			State: g.memberState(m), Carrier: m.carries(), MTU: m.link.MTU,
		})
		if g.isActive(m) {
			d.Active = m.name
		}
	}
	return d
}

// told tells followers, and the data plane, what changed of the group and its members.
// The group is locked.
func (e *Engine) told(g *group) {
	e.guard(g)
	for _, m := range g.members {
		if state := g.memberState(m); state != m.lastTold {
			m.lastTold = state
			e.events.tell(EventV1{Group: g.Name, Event: eventMember, Member: m.name, State: state})
		}
	}
	if state, why := g.state(); state != g.lastTold {
		g.lastTold = state
		e.events.tell(EventV1{Group: g.Name, Event: eventGroup, State: state, Text: why})
	}
	g.moved()
}

// share marks the members that several groups have.
func share(groups []*group) {
	count := make(map[string]int)
	for _, g := range groups {
		for _, m := range g.members {
			count[m.name]++
		}
	}
	for _, g := range groups {
		g.mu.Lock()
		for _, m := range g.members {
			m.shared = count[m.name] > 1
		}
		g.mu.Unlock()
	}
}
