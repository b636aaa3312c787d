package nicswap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

const (
	// sampleEvery is how often the load is measured.
	sampleEvery = time.Second
	// calm is what a load of a second ago still counts for. The load is a mean in
	// which a second weighs a quarter: traffic that pauses for a second does not
	// break a hold unless it was close to the threshold, and what ended is below
	// a tenth after eight seconds.
	calm = 0.75
	// A move that failed is tried again after firstRetry, then after twice as long
	// each time, up to lastRetry.
	firstRetry = 10 * time.Second
	lastRetry  = 10 * time.Minute
)

// mover is what a policy asks of the groups; the engine serves it.
type mover interface {
	Swap(ctx context.Context, r Request) (SwapV1, error)
	Groups() []GroupV1
}

// counterSource reads the counters of devices; package links serves it. The
// error is links.ErrGone where the device is not there.
type counterSource interface {
	Counters(ifindex int) (links.Counters, error)
}

// policy moves groups to physical members above a load, and back to virtual ones
// below it. It measures all of them and moves one at a time: those that give a
// physical member back first, then the busiest.
//
// A physical member that several groups have is taken by the group that needs it
// and is free. Nothing is taken from a group whose load is not below its own
// lower threshold: a member that went to and fro between two busy groups would
// serve neither.
type policy struct {
	mover    mover
	counters counterSource
	// upgrading says whether an upgrade has the group, which is then left alone.
	upgrading func(group string) bool
	logger    *slog.Logger
	groups    []*policed

	moving bool
	moved  chan move
	work   sync.WaitGroup
}

// move is a swap that the policy asked for, and how it went.
type move struct {
	group *policed
	to    string
	err   error
}

// policed is a group that has a policy.
type policed struct {
	accel.GroupPolicy
	name string

	// What is measured, and since when: the device of the active member.
	ifindex int
	at      time.Time
	last    links.Counters
	load    load
	known   bool // load has a value

	want  string // the kind that the load asks for; "" for none
	since time.Time

	said string // what was logged last, so that it is logged once

	// What failed last: a move to that kind is not tried again before retry.
	failed  string
	retry   time.Time
	backoff time.Duration
}

// load is a load of both directions, per second.
type load struct{ packets, bits float64 }

// newPolicy takes those of the groups that have a policy.
func newPolicy(m mover, c counterSource, upgrading func(string) bool, groups []accel.Group, logger *slog.Logger) *policy {
	p := &policy{mover: m, counters: c, upgrading: upgrading, logger: logger, moved: make(chan move, 1)}
	for _, g := range groups {
		if g.Policy != nil {
			p.groups = append(p.groups, &policed{GroupPolicy: *g.Policy, name: g.Name})
		}
	}
	return p
}

// run works until ctx ends; then it waits for a move that is under way.
func (p *policy) run(ctx context.Context) {
	defer p.work.Wait()
	if len(p.groups) == 0 {
		return
	}
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.measure(time.Now())
		case m := <-p.moved:
			p.settle(m, time.Now())
		}
		p.decide(ctx, time.Now())
	}
}

// measure reads the counters of every group's active member.
func (p *policy) measure(now time.Time) {
	groups := p.mover.Groups()
	for _, g := range p.groups {
		active, ok := activeOf(groups, g.name)
		if !ok {
			g.restart(0)
			continue
		}
		count, err := p.counters.Counters(active.Ifindex)
		if err != nil {
			g.restart(0)
			continue
		}
		g.sample(active, count, now)
	}
}

// activeOf returns the active member of a group.
func activeOf(groups []GroupV1, name string) (MemberV1, bool) {
	g, ok := groupOf(groups, name)
	if !ok {
		return MemberV1{}, false
	}
	return memberOf(g, g.Active)
}

func groupOf(groups []GroupV1, name string) (GroupV1, bool) {
	i := slices.IndexFunc(groups, func(g GroupV1) bool { return g.Group == name })
	if i < 0 {
		return GroupV1{}, false
	}
	return groups[i], true
}

func memberOf(g GroupV1, name string) (MemberV1, bool) {
	i := slices.IndexFunc(g.Members, func(m MemberV1) bool { return m.Member == name })
	if i < 0 {
		return MemberV1{}, false
	}
	return g.Members[i], true
}

// sample takes the counters of the active member. Another device than before, or
// counters that went back, restart the measurement: they say nothing about what
// was before.
func (g *policed) sample(active MemberV1, count links.Counters, now time.Time) {
	if g.ifindex != active.Ifindex || wentBack(g.last, count) {
		g.restart(active.Ifindex)
	}
	if passed := now.Sub(g.at); !g.at.IsZero() && passed > 0 {
		g.add(g.last, count, passed.Seconds())
		g.judge(active.Kind, now)
	}
	g.at, g.last = now, count
}

// restart forgets what was measured, and what was decided from it. What failed is
// kept: a move that was rolled back has changed the active member twice.
func (g *policed) restart(ifindex int) {
	*g = policed{
		GroupPolicy: g.GroupPolicy, name: g.name, ifindex: ifindex,
		failed: g.failed, retry: g.retry, backoff: g.backoff,
	}
}

func wentBack(from, to links.Counters) bool {
	return to.RxPackets < from.RxPackets || to.TxPackets < from.TxPackets ||
		to.RxBytes < from.RxBytes || to.TxBytes < from.TxBytes
}

// add makes the load of what was counted in a time, in seconds.
func (g *policed) add(from, to links.Counters, seconds float64) {
	packets := to.RxPackets - from.RxPackets + to.TxPackets - from.TxPackets
	octets := to.RxBytes - from.RxBytes + to.TxBytes - from.TxBytes
	now := load{float64(packets) / seconds, float64(octets) * 8 / seconds}
	if !g.known {
		g.load, g.known = now, true
		return
	}
	old := math.Pow(calm, seconds)
	g.load.packets = old*g.load.packets + (1-old)*now.packets
	g.load.bits = old*g.load.bits + (1-old)*now.bits
}

// judge finds out which kind of member the load asks for, and since when it has
// done so without a break.
func (g *policed) judge(kind string, now time.Time) {
	want := ""
	switch {
	case kind == virtual && g.above():
		want = physical
	case kind == physical && g.below():
		want = virtual
	}
	if want != g.want {
		g.want, g.since, g.said = want, now, ""
	}
}

// above: either is enough.
func (g *policed) above() bool {
	return over(g.load.packets, g.AbovePackets) || over(g.load.bits, g.AboveBits)
}

func over(load float64, threshold uint64) bool { return threshold > 0 && load > float64(threshold) }

// below: both must be, of those that are looked at.
func (g *policed) below() bool {
	return g.BelowPackets+g.BelowBits > 0 && under(g.load.packets, g.BelowPackets) && under(g.load.bits, g.BelowBits)
}

func under(load float64, threshold uint64) bool {
	return threshold == 0 || load < float64(threshold)
}

// decide moves the first group that is to be moved and can be. The others have
// their turn when that has ended.
func (p *policy) decide(ctx context.Context, now time.Time) {
	if p.moving || ctx.Err() != nil {
		return
	}
	due := p.due(now)
	if len(due) == 0 {
		return
	}
	groups := p.mover.Groups()
	for _, g := range due {
		state, _ := groupOf(groups, g.name)
		if p.upgrading(g.name) || state.State == groupSwapping || state.State == groupUpgrading {
			continue
		}
		if !slices.ContainsFunc(state.Members, func(m MemberV1) bool { return m.Kind == g.want && usable(groups, g.name, m) }) {
			p.say(g, g.want, "no "+g.want+" member is free and usable")
			continue
		}
		p.start(ctx, g, now)
		return
	}
}

// due returns the groups that are to be moved: first those that give a physical
// member back, then the others, the busiest first. Packets count before bits,
// because it is packets that cost.
func (p *policy) due(now time.Time) []*policed {
	var due []*policed
	for _, g := range p.groups {
		if g.want != "" && now.Sub(g.since) >= g.Hold && (g.want != g.failed || !now.Before(g.retry)) {
			due = append(due, g)
		}
	}
	slices.SortStableFunc(due, func(a, b *policed) int {
		if a.want != b.want {
			return cmp.Compare(b.want, a.want) // virtual before physical
		}
		return cmp.Or(cmp.Compare(b.load.packets, a.load.packets), cmp.Compare(b.load.bits, a.load.bits))
	})
	return due
}

// usable: traffic of the group could be moved to the member. A shared one that is
// cold may turn out to have no carrier when it is set up.
func usable(groups []GroupV1, group string, m MemberV1) bool {
	switch m.State {
	case memberActive, memberStandby:
		return true
	case memberCold:
		return isShared(groups, m.Member) && !takenElsewhere(groups, group, m.Member)
	}
	return false
}

// isShared says whether several groups have the member, which is cold then unless
// one needs it. Other members are cold only until they are made ready, or because
// they cannot be.
func isShared(groups []GroupV1, member string) bool {
	n := 0
	for _, g := range groups {
		if _, ok := memberOf(g, member); ok {
			n++
		}
	}
	return n > 1
}

// takenElsewhere says whether another group uses the member, or an upgrade has it.
func takenElsewhere(groups []GroupV1, group, member string) bool {
	return slices.ContainsFunc(groups, func(g GroupV1) bool {
		m, ok := memberOf(g, member)
		return ok && g.Group != group && m.State != memberCold && m.State != memberMissing
	})
}

// start swaps a group, while the loads of all are measured on.
func (p *policy) start(ctx context.Context, g *policed, now time.Time) {
	r := Request{Group: g.name, To: g.want, Cause: "policy", Why: g.why(now)}
	p.moving = true
	p.work.Go(func() {
		s, err := p.mover.Swap(ctx, r)
		p.moved <- move{g, r.To, swapError(s, err)}
	})
}

// swapError makes one error of what Swap returns: nil if the swap was done, or
// planned where it was dry.
func swapError(s SwapV1, err error) error {
	if err != nil || s.Result == resultDone || s.Result == resultPlanned {
		return err
	}
	return errors.New(orElse(s.Error, "it was "+s.Result))
}

// settle takes the outcome of a move.
func (p *policy) settle(m move, now time.Time) {
	p.moving = false
	if m.err == nil {
		m.group.failed, m.group.backoff = "", 0
		m.group.restart(0)
		return
	}
	p.say(m.group, m.to, m.err.Error())
	m.group.fail(m.to, now)
}

// fail puts the next try off.
func (g *policed) fail(to string, now time.Time) {
	if g.failed != to {
		g.failed, g.backoff = to, 0
	}
	g.backoff = min(max(2*g.backoff, firstRetry), lastRetry)
	g.retry = now.Add(g.backoff)
}

// say logs why a group stays where it is, once.
func (p *policy) say(g *policed, to, why string) {
	if g.said == why {
		return
	}
	g.said = why
	p.logger.Warn("the policy cannot move the group", "group", g.name, "to", to, "why", why)
}

// why says which thresholds ask for the move, such as "23,400 packets/s for 10 s,
// above 20,000".
func (g *policed) why(now time.Time) string {
	held := fmt.Sprintf("for %d s", int(now.Sub(g.since).Seconds()))
	if g.want == physical {
		if over(g.load.packets, g.AbovePackets) {
			return fmt.Sprintf("%s packets/s %s, above %s", thousands(g.load.packets), held, thousands(float64(g.AbovePackets)))
		}
		return fmt.Sprintf("%s bit/s %s, above %s", thousands(g.load.bits), held, thousands(float64(g.AboveBits)))
	}
	var loads, thresholds []string
	if g.BelowPackets > 0 {
		loads = append(loads, thousands(g.load.packets)+" packets/s")
		thresholds = append(thresholds, thousands(float64(g.BelowPackets)))
	}
	if g.BelowBits > 0 {
		loads = append(loads, thousands(g.load.bits)+" bit/s")
		thresholds = append(thresholds, thousands(float64(g.BelowBits)))
	}
	return fmt.Sprintf("%s %s, below %s", strings.Join(loads, " and "), held, strings.Join(thresholds, " and "))
}

// thousands writes a number in full, cut to a whole one, with its thousands apart.
func thousands(n float64) string {
	text := fmt.Sprint(uint64(n))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
