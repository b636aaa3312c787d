package nicswap

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// watchAgain is how long a watch that failed waits before it begins anew.
const watchAgain = time.Second

// listen begins to hear of devices. What happens from then on is not missed.
func (e *Engine) listen() error {
	run, err := e.devices.Subscribe()
	if err != nil {
		return fmt.Errorf("listen to the devices: %w", err)
	}
	e.workers.Go(func() { e.hear(e.working, run) })
	return nil
}

// hear takes in what the kernel tells of devices, until ctx ends.
func (e *Engine) hear(ctx context.Context, run watch) {
	for {
		var err error
		if run != nil {
			err = run(ctx, e.seen)
		}
		if ctx.Err() != nil {
			return
		}
		e.logger.Error("the kernel does not tell of devices any more; it is tried again", "error", err)
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
			return
		}
		if run, err = e.devices.Subscribe(); err != nil {
			e.logger.Error("the kernel cannot be listened to", "error", err)
		}
		e.lookAtAll()
	}
}

// carrierInterval is how often the carriers of active members are looked at.
const carrierInterval = 2 * time.Millisecond

// feel looks whether the group's active member has lost its carrier: what the kernel
// tells of it waits for whoever holds its lock on devices, and for NICs without a lower
// device it is told at most once a second for all together (net/core/link_watch.c:
// linkwatch_urgent_event).
func (e *Engine) feel(g *group) {
	g.mu.Lock()
	if e.hasMoved(g) {
		e.judge(g)
	}
	g.mu.Unlock()
	if l, carries := g.activeLink(); carries {
		e.feelFor(l)
	}
}

// lateWatch tells that a failover hangs on how busy the host is.
func (e *Engine) lateWatch(err error) {
	e.tellLate.Do(func() {
		e.logger.Warn("the carriers of members may be looked at late while the host is busy", "error", err)
	})
}

// feelBack looks, until ctx ends, at members that were found without a carrier.
func (e *Engine) feelBack(ctx context.Context, g *group) {
	again := time.NewTicker(backInterval)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			for _, l := range g.feltLinks() {
				e.look(l.Ifindex, l.Name)
			}
		case <-ctx.Done():
			return
		}
	}
}

// backInterval is how often those are looked at that were found without a carrier. One
// that has it back before the kernel would have told has changed nothing for it.
const backInterval = 100 * time.Millisecond

// feltLinks are those members.
func (g *group) feltLinks() (felt []links.Link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.members {
		if m.felt && m.link.Ifindex != 0 {
			felt = append(felt, m.link)
		}
	}
	return felt
}

// feelFor looks at one device: without a lock, or else as ethtool does. A macvlan has
// its carrier from the device below it, and late.
func (e *Engine) feelFor(l links.Link) {
	has, err := e.wires.Carrier(l.Ifindex)
	if below := l.Lower; below != 0 && l.MacvlanMode != "" && err == nil && has {
		has, err = e.wires.Carrier(below)
	}
	switch {
	case err == nil && !has:
		e.lost(l.Ifindex)
	case errors.Is(err, errors.ErrUnsupported) && l.Lower == 0: // of others it is told at once
		if has, err := e.devices.HasCarrier(l.Name); err == nil && !has {
			e.look(l.Ifindex, l.Name)
		}
	}
}

// lost takes in that a device has lost its carrier, before the kernel has told.
func (e *Engine) lost(ifindex int) {
	for _, g := range e.all() {
		g.mu.Lock()
		if m := g.at(ifindex); m != nil {
			m.link.Carrier, m.link.Running, m.felt = false, false, true
			e.judge(g)
		}
		g.mu.Unlock()
	}
}

// activeLink is the active member, if it carries traffic as far as is known.
func (g *group) activeLink() (l links.Link, carries bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.on; g.active != 0 && m != nil {
		return m.link, m.carries()
	}
	return l, false
}

// seen is called with every event. An event says that something changed; how it
// is now is asked for.
func (e *Engine) seen(event links.Event) {
	if event.All {
		e.lookAtAll()
		return
	}
	e.look(event.Ifindex, event.Name)
}

// look asks how a device is now, and takes that in.
func (e *Engine) look(ifindex int, name string) {
	e.looking.Lock()
	defer e.looking.Unlock()
	l, err := e.devices.ByIndex(ifindex)
	isGone := errors.Is(err, links.ErrGone)
	if err != nil && !isGone {
		e.logger.Warn("a device cannot be looked at", "device", name, "error", err)
		return
	}
	for _, g := range e.all() {
		g.mu.Lock()
		if isGone {
			g.gone(ifindex, name)
		} else {
			g.there(l)
		}
		e.judge(g)
		g.mu.Unlock()
	}
}

// lookAtAll asks how every device is now.
func (e *Engine) lookAtAll() {
	e.looking.Lock()
	defer e.looking.Unlock()
	all, err := e.devices.All()
	if err != nil {
		e.logger.Error("the devices cannot be listed", "error", err)
		return
	}
	for _, g := range e.all() {
		g.mu.Lock()
		g.takeAll(all)
		e.judge(g)
		g.tend()
		g.mu.Unlock()
	}
}

// takeAll takes in every device, and that the others are gone.
func (g *group) takeAll(all []links.Link) {
	there := make(map[int]bool, len(all))
	for _, l := range all {
		there[l.Ifindex] = true
		g.there(l)
	}
	for _, m := range g.members {
		if m.link.Ifindex != 0 && !there[m.link.Ifindex] {
			g.gone(m.link.Ifindex, m.name)
		}
	}
	g.stranger = g.stranger && there[g.active]
	for _, l := range []links.Link{g.port, g.stub} {
		if l.Ifindex != 0 && !there[l.Ifindex] {
			g.gone(l.Ifindex, l.Name)
		}
	}
}

// there takes in how a device is. A device that has another number than the one
// of that name before is another device.
func (g *group) there(l links.Link) {
	if m := g.at(l.Ifindex); m != nil && m.name != l.Name {
		g.loseMember(m) // it was given another name
	}
	for _, m := range g.members {
		if m.name != l.Name {
			continue
		}
		if m.link.Ifindex != 0 && m.link.Ifindex != l.Ifindex {
			g.loseMember(m)
		}
		if m.link.Ifindex == 0 {
			m.unfit = ""
			g.tend()
		}
		if m.link.Master != l.Master {
			g.tend()
		}
		m.link = l
		m.felt = m.felt && !m.carries()
	}
	switch {
	case l.Ifindex == g.port.Ifindex:
		if l.Master != g.port.Master || l.MTU != g.port.MTU {
			g.tend()
		}
		g.port = l
	case l.Ifindex == g.stub.Ifindex:
		if l.Up != g.stub.Up {
			g.tend() // the carrier is not the operator's to take
		}
		g.stub = l
	case l.Name == g.Bridge && g.trouble != "":
		g.tend()
	}
}

// gone takes in that a device is not there any more.
func (g *group) gone(ifindex int, name string) {
	switch {
	case ifindex == g.port.Ifindex, ifindex == g.stub.Ifindex:
		g.losePort()
	case ifindex == g.active && g.stranger:
		g.stranger = false
	case name == g.Bridge:
		g.tend()
	default:
		if m := g.at(ifindex); m != nil {
			g.loseMember(m)
		}
	}
}

// loseMember takes in that a member's device is gone. Its programs went with it, or it
// took them along into another network namespace: see tendStrays.
func (g *group) loseMember(m *member) {
	if s := g.running; s != nil && s.flipped && s.from == m && m.link.Ifindex == g.draining {
		close(s.sourceGone)
		g.draining = 0
	}
	m.link, m.warm, m.unfit, m.felt = links.Link{}, false, "", false
	g.guarded = nil // the next device may get its number
	g.tend()
}

// losePort takes in that somebody deleted the stable port: it is made anew.
func (g *group) losePort() {
	if g.port.Ifindex != 0 {
		g.lost = g.port.Ifindex
	}
	g.port, g.stub, g.active, g.draining, g.stranger = links.Link{}, links.Link{}, 0, 0, false
	g.guarded, g.failovers = nil, 0
	for _, m := range g.members {
		m.warm = false
	}
	g.tend()
}

// guard lets the data plane do what judge would, for the next frame and by itself. The
// group is locked.
func (e *Engine) guard(g *group) {
	var members [2]accel.Guard
	if to := g.refuge(); to != nil && !g.closed && g.settled && g.active != 0 && g.on != nil && g.on.link.Ifindex == g.active {
		members = [2]accel.Guard{guardOf(g.on.link), guardOf(to.link)}
	}
	if g.port.Ifindex == 0 || g.guarded != nil && members == *g.guarded {
		return
	}
	err := e.wires.Guard(g.port.Ifindex, members)
	if err != nil && !errors.Is(err, syscall.ENODEV) {
		e.logger.Warn("a failover waits for the daemon", "group", g.Name, "error", err)
	}
	g.guarded = &members
	if err != nil {
		g.guarded = nil
	}
}

func guardOf(l links.Link) accel.Guard {
	if l.MacvlanMode == "" {
		return accel.Guard{Member: l.Ifindex}
	}
	return accel.Guard{Member: l.Ifindex, Below: l.Lower}
}

// wireNow is what the wire itself says, and whether that is something that the group
// does not know. The group is locked.
func (e *Engine) wireNow(g *group) (now accel.WireNow, isNews bool) {
	if g.port.Ifindex == 0 || g.closed || !g.settled {
		return now, false
	}
	now, err := e.wires.Members(g.port.Ifindex)
	if err != nil {
		return now, false
	}
	return now, now.Active != g.active || now.Draining != g.draining && g.at(now.Draining) != nil
}

func (e *Engine) hasMoved(g *group) bool {
	_, isNews := e.wireNow(g)
	return isNews
}

// follow takes in that the data plane moved the traffic itself, once or there and back.
// The carrier of the member that was left may be back: that is seen soon. Whom the
// group does not know is a stranger: judge moves the traffic from there. The group is
// locked.
func (e *Engine) follow(g *group) {
	now, isNews := e.wireNow(g)
	if !isNews {
		return
	}
	from, to := g.on, g.at(now.Active)
	if now.Active == g.active {
		from = g.at(now.Draining)
	}
	if to == nil {
		g.active, g.on, g.draining, g.stranger = now.Active, nil, now.Draining, now.Active != 0
		return
	}
	if from != nil && from.link.Ifindex != 0 {
		from.link.Carrier, from.link.Running, from.felt = false, false, true
	}
	began := time.Now()
	if now.Failovers != g.failovers {
		g.failovers, began = now.Failovers, now.FailedOver
	}
	e.failover(g, from, to, whyLost(from), began)
}

// judge looks whether the traffic must move, which happens at once: no journal
// and no other swap is waited for. There is no way back by itself: who lost its
// carrier for a moment is a standby afterwards. The group is locked.
func (e *Engine) judge(g *group) {
	defer e.told(g)
	if g.port.Ifindex == 0 || g.closed || !g.settled {
		return
	}
	e.follow(g)
	works := g.active != 0 && g.on != nil && g.on.link.Ifindex == g.active && g.on.carries()
	if works && !g.on.taken() {
		return
	}
	works = works || g.stranger // of whose carrier nothing is known
	to := g.refuge()
	if to == nil && (works || g.active == 0) {
		return // as before
	}
	if g.active == 0 {
		e.failover(g, nil, to, "no member was usable before", time.Now())
	} else {
		e.failover(g, g.on, to, whyLost(g.on), time.Now())
	}
}

func whyLost(m *member) string {
	switch {
	case m == nil:
		return "the active device is no member of the group"
	case m.link.Ifindex == 0:
		return m.name + " is gone"
	case !m.link.Up:
		return m.name + " was set down"
	case m.carries() && m.taken():
		return m.name + " was given to another device"
	}
	return m.name + " has lost its carrier"
}

// failover moves the traffic from a member that is lost, nil if none was active,
// to another; nil if there is none. Nothing prepared the flip, and nothing should:
// what was sent before it is known by the bridge's table (tcprog/bpf/shunt.c:
// may_be_own). The data plane may have flipped when it began. The group is locked.
func (e *Engine) failover(g *group, from, to *member, why string, began time.Time) {
	next := e.newSwap(g, Request{Group: g.Name, Cause: causeLoss, Why: why})
	next.began, next.v.Began = began, began
	next.from, next.to = from, to
	err := e.flip(g, to, next)
	wasStuck := g.stuck
	g.stuck = err != nil
	if err != nil {
		if !wasStuck {
			e.logger.Error("the traffic cannot be moved", "group", g.Name, "why", why, "error", err)
		}
		return
	}
	g.tend() // the stub follows
	running := g.running
	switch {
	case to == nil:
		e.goDown(g, why)
	case running != nil && running.flipped && to == running.from:
		running.tell(loss{errors.New(why), true})
	case running != nil && from == nil && !running.flipped:
		// It was down; the swap goes on from here.
	default:
		e.takeOver(g, next, why)
	}
}

// goDown is what follows where no member is left. A swap that has not flipped yet
// goes on: it may bring one.
func (e *Engine) goDown(g *group, why string) {
	g.draining = 0
	if err := e.wires.EndDrain(g.port.Ifindex, 0); err != nil {
		e.logger.Warn("a drain cannot be ended", "group", g.Name, "error", err)
	}
	e.logger.Error("the group is down: no member carries traffic", "group", g.Name, "why", why)
	if s := g.running; s != nil && s.flipped {
		s.tell(loss{fmt.Errorf("%s, and no other member is usable", why), false})
	}
}

// takeOver makes the loss a swap of its own, which takes the group from the one
// that is running.
func (e *Engine) takeOver(g *group, next *swap, why string) {
	if running := g.running; running != nil {
		next.before = running
		if next.from != nil { // else the running one knows
			running.tell(loss{fmt.Errorf("%s meanwhile: %s is on %s now", why, g.Name, next.to.name), false})
		}
	}
	next.name()
	g.running = next
	e.workers.Go(next.runLoss)
}

// runLoss is what remains to do of a swap that was flipped at once.
func (s *swap) runLoss() {
	ctx := s.begin(context.WithoutCancel(s.e.working), trace.WithTimestamp(s.began))
	s.countFrom()
	s.tookPlace(ctx)
	s.settle(ctx)
}
