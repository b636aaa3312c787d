package nicswap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// The phases, in the order in which they happen.
const (
	phaseResolve  = "resolve"
	phaseCheck    = "check"
	phasePrewarm  = "prewarm"
	phaseFlip     = "flip"
	phaseAnnounce = "announce"
	phaseDrain    = "drain"
	phaseRetire   = "retire"
	phaseRollBack = "roll_back"
)

const (
	// carrierTimeout is how long a target may take to get its carrier.
	carrierTimeout = 10 * time.Second
	// probeTimeout is how long the probed address may take to answer.
	probeTimeout = 3 * time.Second
)

// errStopping ends what a daemon that stops does not wait for.
var errStopping = errors.New("the daemon stops")

// run takes a swap that was resolved through its phases. Before the flip ctx may
// end; after it only the daemon's end and a loss cut it short.
func (s *swap) run(ctx context.Context) {
	before := s.until(ctx)
	err := s.phase(before, phaseCheck, s.check)
	if err == nil {
		err = s.phase(before, phasePrewarm, s.prewarm)
	}
	if err == nil {
		err = s.phase(before, phaseFlip, s.flip)
	}
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		s.failed(s.because(err))
		s.rollBack(ctx)
		s.end(ctx, resultFailed)
		return
	}
	s.settle(ctx)
}

// rollBack is the last phase of a swap that was not flipped.
func (s *swap) rollBack(ctx context.Context) {
	s.phase(ctx, phaseRollBack, func(ctx context.Context) error {
		defer s.leave()
		return s.undo(ctx)
	})
}

// because says in words that the caller went away.
func (s *swap) because(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("who asked for it went away before the flip")
	}
	return err
}

// settle is what follows the flip, whoever flipped.
func (s *swap) settle(ctx context.Context) {
	after := s.until(ctx)
	err := s.phase(after, phaseAnnounce, s.announce)
	s.keep = errors.Is(err, errStopping)
	s.phase(after, phaseDrain, s.drain)
	result, over := resultDone, false
	if !s.interrupted() {
		s.phase(ctx, phaseRetire, func(ctx context.Context) error {
			defer func() { over = s.leave() }()
			return s.retire(ctx)
		})
	}
	for !over { // it was told of a loss, perhaps in the last moment
		result, over = s.afterLoss(ctx)
	}
	s.end(ctx, result)
}

// resolve finds the target and takes the group: of two swaps, the second is
// refused.
func (s *swap) resolve(context.Context) error {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return accel.Statusf(409, "%s is being released", g.Name)
	case g.running != nil:
		return accel.Statusf(409, "a swap of %s is running since %s", g.Name, g.running.began.Format(time.TimeOnly))
	case g.port.Ifindex == 0:
		return accel.Statusf(409, "%s has no stable port: %s", g.Name, orElse(g.trouble, "it is not set up yet"))
	}
	to, err := s.choose()
	if err != nil {
		return err
	}
	s.to, s.from = to, nil
	if g.active != 0 {
		s.from = g.on
	}
	s.name()
	if !s.request.DryRun {
		g.running = s
		s.e.told(g)
	}
	return nil
}

// choose returns the member that the request names. The group is locked.
func (s *swap) choose() (*member, error) {
	g := s.group
	if s.request.To == physical || s.request.To == virtual {
		return s.chooseOfKind(s.request.To)
	}
	m, err := g.member(s.request.To)
	switch {
	case err != nil:
		return nil, err
	case g.isActive(m):
		return nil, accel.Statusf(409, "%s is on %s already", g.Name, m.name)
	case m.away:
		return nil, accel.Statusf(409, "%s is being upgraded", m.name)
	}
	return m, nil
}

// chooseOfKind returns the first member of a kind that is usable at once, or else the
// first that may become so.
func (s *swap) chooseOfKind(wanted string) (*member, error) {
	g := s.group
	if m := g.on; g.active != 0 && m != nil && kind(m.link) == wanted {
		return nil, accel.Statusf(409, "%s is on %s already, which is %s", g.Name, m.name, wanted)
	}
	of := func(ok func(*member) bool) *member {
		for _, m := range g.members {
			if m.link.Ifindex != 0 && !m.away && kind(m.link) == wanted && ok(m) {
				return m
			}
		}
		return nil
	}
	if m := of((*member).usable); m != nil {
		return m, nil
	}
	m := of(func(m *member) bool { return m.unfit == "" && s.e.claimedElsewhere(g, m) == "" })
	if m == nil {
		return nil, accel.Statusf(409, "no %s member of %s can be used now", wanted, g.Name)
	}
	return m, nil
}

// check says why the target cannot carry the group. It changes nothing.
func (s *swap) check(context.Context) error {
	l, err := s.e.check(s.group, s.to.name)
	if err != nil {
		return err
	}
	if holder := s.e.claimedElsewhere(s.group, s.to); s.to.shared && holder != "" {
		return fmt.Errorf("%s is used by group %s now", s.to.name, holder)
	}
	port, err := s.e.devices.ByIndex(s.portIndex())
	if err == nil {
		err = s.e.checkHairpin(port)
	}
	if err != nil {
		return err
	}
	s.target = device{Link: l}
	s.target.IPv6, err = s.e.devices.IPv6(l.Name)
	return err
}

// prewarm makes the target ready while the source works.
func (s *swap) prewarm(ctx context.Context) error {
	g := s.group
	if err := g.await(ctx, func() bool { return !s.to.busy }); err != nil {
		return err
	}
	if err := s.claim(); err != nil {
		return err
	}
	g.mu.Lock()
	s.wasWarm, s.port = s.to.warm, g.port
	g.mu.Unlock()
	if err := s.journal(phasePrewarm); err != nil {
		return err
	}
	s.touched = true
	if err := s.e.ready(s.target.Link, s.port.MTU); err != nil {
		return err
	}
	if err := s.addTarget(); err != nil {
		return err
	}
	if err := s.awaitCarrier(ctx); err != nil {
		return err
	}
	s.prepared = true
	if err := s.e.wires.PrepareFlip(s.port.Ifindex); err != nil {
		return fmt.Errorf("prepare the flip: %w", err)
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	return s.letFramesReturn(ctx)
}

// floodTime is how long a frame that the outside floods may take to come back. What
// was sent before PrepareFlip is not known by its mark: it must have come back, to a
// member that is silent, before that member is heard.
const floodTime = 50 * time.Millisecond

func (s *swap) letFramesReturn(ctx context.Context) error {
	select {
	case <-time.After(s.e.floodTime):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// claim takes a shared target for this group.
func (s *swap) claim() error {
	if !s.to.shared {
		return nil
	}
	s.claimed = true
	return s.e.claim(s.group, s.to)
}

// device is one as it was before it was made ready. LRO is not among it: a member
// must not have it, and nothing needs it.
type device struct {
	links.Link
	IPv6 links.IPv6 `json:"ipv6"`
}

// ready makes a device fit to be a member: silent, with the stable port's MTU,
// every frame whole and to whomever, and up.
func (e *Engine) ready(l links.Link, mtu int) error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"quiet IPv6 on %s", func() error { return e.devices.QuietIPv6(l.Name) }},
		{"set the MTU of %s", func() error {
			if l.MTU == mtu {
				return nil
			}
			return e.devices.SetMTU(l.Ifindex, mtu)
		}},
		{"switch LRO off on %s", func() error { return e.devices.DisableLRO(l.Name) }},
		{"make %s promiscuous", func() error {
			if l.Promisc {
				return nil
			}
			return e.devices.SetPromisc(l.Ifindex, true)
		}},
		{"set %s up", func() error {
			if l.Up {
				return nil
			}
			return e.devices.SetUp(l.Ifindex, true)
		}},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf(step.what+": %w", l.Name, err)
		}
	}
	return nil
}

func (s *swap) addTarget() error {
	if err := s.e.wires.AddMember(s.port.Ifindex, s.target.Ifindex); err != nil {
		return fmt.Errorf("put the programs on %s: %w", s.to.name, err)
	}
	return nil
}

// awaitCarrier waits for what the kernel tells of the target. It looks itself
// first: what was told may be older than the target is.
func (s *swap) awaitCarrier(ctx context.Context) error {
	s.e.look(s.target.Ifindex, s.to.name)
	ctx, cancel := context.WithTimeoutCause(ctx, carrierTimeout, fmt.Errorf("%s has no carrier after %v", s.to.name, carrierTimeout))
	defer cancel()
	isGone := false
	err := s.group.await(ctx, func() bool {
		isGone = s.to.link.Ifindex != s.target.Ifindex
		return isGone || s.to.carries()
	})
	if err == nil && isGone {
		return fmt.Errorf("%s is gone", s.to.name)
	}
	return err
}

// probe asks the configured address over the target.
func (s *swap) probe(ctx context.Context) error {
	if !s.group.Probe.IsValid() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("%v does not answer over %s", s.group.Probe, s.to.name))
	defer cancel()
	err := s.e.sender.Probe(ctx, s.target.Ifindex, s.target.MAC, s.group.Probe)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	} else if err != nil {
		return fmt.Errorf("probe %v over %s: %w", s.group.Probe, s.to.name, err)
	}
	return nil
}

// flip makes the target active by one store. What was journalled and counted
// before it costs the traffic nothing.
func (s *swap) flip(ctx context.Context) error {
	if err := s.journal(phaseFlip); err != nil {
		return err
	}
	s.countFrom()
	s.e.look(s.target.Ifindex, s.to.name) // the kernel may tell of a carrier late
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.to.link.Ifindex != s.target.Ifindex || !s.to.carries() {
		return fmt.Errorf("%s has lost its carrier", s.to.name)
	}
	if s.to.taken() {
		return fmt.Errorf("%s was given to another device meanwhile", s.to.name)
	}
	if err := s.e.flip(g, s.to, s); err != nil {
		return fmt.Errorf("make %s active: %w", s.to.name, err)
	}
	s.to.warm = true
	s.e.told(g)
	return nil
}

// flip is the one store. The group is locked.
func (e *Engine) flip(g *group, to *member, s *swap) error {
	ifindex := 0
	if to != nil {
		ifindex = to.link.Ifindex
	}
	began := time.Now()
	from, err := e.wires.Flip(g.port.Ifindex, ifindex)
	took := time.Since(began)
	if err != nil {
		return err
	}
	g.active, g.on, g.draining, g.stranger = ifindex, to, from, false
	if s != nil {
		s.flipped = true
		s.note(func(v *SwapV1) { v.FlipNS = max(1, took.Nanoseconds()) })
	}
	return nil
}

// announce tells the outside, on the new member, of the stations behind the
// bridge's other ports. The bridge's table is read once. That an announcement
// fails is no reason to move the traffic again.
//
// After a loss the outside is told first: it still sends to where nobody listens,
// while the source of a planned swap goes on delivering.
func (s *swap) announce(ctx context.Context) error {
	if s.request.Cause != causeLoss {
		s.journalLate(phaseAnnounce)
		return s.announceOn(ctx, s.to)
	}
	err := s.announceOn(ctx, s.to)
	if s.before != nil {
		<-s.before.done // it may still write its journal
	}
	s.journalLate(phaseAnnounce)
	return err
}

func (s *swap) announceOn(ctx context.Context, m *member) error {
	g := s.group
	if err := s.e.awaitTable(ctx, g.Bridge); err != nil {
		return err
	}
	g.mu.Lock()
	port, ifindex := g.port.Ifindex, m.link.Ifindex
	g.mu.Unlock()
	stations, entries, err := s.e.stations(g.Bridge, port)
	if err != nil {
		return fmt.Errorf("read the table of %s: %w", g.Bridge, err)
	}
	s.note(func(v *SwapV1) { v.Stations = entries })
	if !g.Announce || len(stations) == 0 || ifindex == 0 {
		return nil
	}
	frames, err := s.e.sender.Send(ctx, ifindex, stations, g.AnnounceRate)
	s.note(func(v *SwapV1) { v.Announced += frames })
	if err != nil {
		return fmt.Errorf("announce on %s: %w", m.name, err)
	}
	return nil
}

// drain lets the source deliver what is in flight. It ends early when the source
// is gone, or when the swap is told that the target is.
//
// A tap hands its frames to its reader, which this does not see: what the guest's
// side of a tap has queued may come after the first frames of the target. See the
// README.
func (s *swap) drain(ctx context.Context) error {
	s.journalLate(phaseDrain)
	if s.from == nil || s.group.Drain == 0 || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	over := time.NewTimer(s.group.Drain)
	defer over.Stop()
	select {
	case <-over.C:
	case <-s.sourceGone:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// retire ends the drain: the source is a warm standby from now on, or free for
// others where they have it too.
func (s *swap) retire(context.Context) error {
	s.journalLate(phaseRetire)
	err := s.endDrain()
	s.countTo()
	s.dismiss(s.from)
	return err
}

func (s *swap) endDrain() error {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.e.hasMoved(g) {
		s.e.judge(g) // the drain is the next swap's
		return nil
	}
	g.draining = 0
	if err := s.e.wires.EndDrain(g.port.Ifindex, g.active); err != nil {
		return fmt.Errorf("end the drain: %w", err)
	}
	return nil
}

// dismiss frees a shared member that the group does not use any more.
func (s *swap) dismiss(m *member) {
	g := s.group
	if m == nil || !m.shared {
		return
	}
	g.mu.Lock()
	s.e.follow(g)
	l, port := m.link, g.port.Ifindex
	used := l.Ifindex != 0 && (l.Ifindex == g.active || l.Ifindex == g.draining)
	wasWarm := m.warm
	if !used {
		m.warm = false
	}
	s.e.told(g)
	g.mu.Unlock()
	if used {
		return
	}
	if l.Ifindex != 0 {
		if err := s.e.wires.RemoveMember(port, l.Ifindex); err != nil {
			s.warn("a shared member cannot be freed", err)
			s.keepWarm(m, l, wasWarm)
			return
		}
		s.warn("a shared member stays promiscuous", s.e.devices.SetPromisc(l.Ifindex, false))
	}
	s.e.unclaim(g, m)
}

// keepWarm leaves a member as it was that could not be taken off the wire: the data
// plane may have moved the traffic there in that moment.
func (s *swap) keepWarm(m *member, as links.Link, warm bool) {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	m.warm = warm && m.link.Ifindex == as.Ifindex
	s.e.judge(g)
}

// afterLoss is what remains to do when the active member was lost after the
// flip. The traffic was moved already; back on the source, the outside is told.
func (s *swap) afterLoss(ctx context.Context) (result string, over bool) {
	loss := s.takeLoss()
	s.failed(loss.err)
	s.phase(ctx, phaseRollBack, func(ctx context.Context) error {
		defer func() { over = s.leave() }()
		s.journalLate(phaseRollBack)
		if !loss.back { // another swap goes on from here
			s.dismiss(s.from)
			return nil
		}
		err := s.announceOn(s.until(ctx), s.from)
		err = errors.Join(err, s.endDrain())
		s.countTo()
		s.dismiss(s.to)
		return err
	})
	if loss.back {
		return resultRolledBack, over
	}
	return resultFailed, over
}

// undo takes back what prewarm did. A warm member stays one, as it is, and so does one
// that another swap, which took the group meanwhile, left to be made warm.
func (s *swap) undo(context.Context) error {
	if !s.touched {
		s.disclaim()
		return nil
	}
	var errs []error
	if s.prepared && !s.interrupted() { // else the swap that took over needs it
		errs = append(errs, s.endDrain())
	}
	if !s.wasWarm && s.giveUp() {
		errs = append(errs, s.e.restore(s.port.Ifindex, s.target))
		s.letGo()
	}
	s.disclaim()
	return errors.Join(errs...)
}

// giveUp takes the target off the standbys, unless it is in use or tended already. Until
// letGo nobody tends it.
func (s *swap) giveUp() bool {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	s.e.follow(g)
	if g.isActive(s.to) || g.running != s && !s.to.shared {
		return false
	}
	s.to.warm, s.to.busy = false, true
	s.e.told(g)
	return true
}

func (s *swap) letGo() {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	s.to.busy = false
	g.moved()
	g.tend()
}

func (s *swap) disclaim() {
	if s.claimed && !s.wasWarm && !s.isActive(s.to) {
		s.e.unclaim(s.group, s.to)
	}
}

func (s *swap) isActive(m *member) bool {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	return s.group.isActive(m)
}

// restore takes a member off the wire and gives it the settings of before.
func (e *Engine) restore(port int, before device) error {
	if err := e.wires.RemoveMember(port, before.Ifindex); err != nil {
		return fmt.Errorf("take the programs off %s: %w", before.Name, err)
	}
	return e.restoreSettings(before)
}

// restoreSettings undoes what ready did. A device that is gone needs nothing, and its
// number may be another's by now: after a reboot, above all.
func (e *Engine) restoreSettings(before device) error {
	var errs []error
	try := func(what string, err error) {
		if err != nil && !errors.Is(err, links.ErrGone) {
			errs = append(errs, fmt.Errorf("%s %s: %w", what, before.Name, err))
		}
	}
	now, err := e.devices.ByIndex(before.Ifindex)
	if err != nil {
		try("look at", err)
		return errors.Join(errs...)
	}
	if now.Name != before.Name {
		return nil
	}
	if now.Promisc != before.Promisc {
		try("restore the promiscuity of", e.devices.SetPromisc(before.Ifindex, before.Promisc))
	}
	if now.Up != before.Up {
		try("restore the state of", e.devices.SetUp(before.Ifindex, before.Up))
	}
	if now.MTU != before.MTU {
		try("restore the MTU of", e.devices.SetMTU(before.Ifindex, before.MTU))
	}
	try("restore IPv6 on", e.devices.SetIPv6(before.Name, before.IPv6))
	return errors.Join(errs...)
}
