package fdbsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

func init() {
	accel.Register(accel.Plugin{
		Name:  "fdbsync",
		After: []string{"telemetry", "tcprog", "nicswap"},
		New:   func() accel.Component { return newSyncer() },
	})
}

// Syncer keeps the data plane's tables equal to the kernel's. One goroutine
// works; it and the readers of its state share mu.
type Syncer struct {
	logger   *slog.Logger
	tracer   trace.Tracer
	meters   meters
	plane    Dataplane
	lease    time.Duration // 0: what the kernel makes needful
	stations int           // how many the data plane takes for a bridge
	names    []string
	all      bool     // every bridge that is or appears
	bypass   []string // bridges for which no packet filter counts
	fail     func(error)
	buffer   int                      // of the event socket, in bytes
	firewall func() (firewall, error) // reads what there is
	asking   func() (kernel, error)   // opens a socket for shunt doctor
	turns    atomic.Uint64            // of the loop

	mu      sync.Mutex
	kernel  kernel
	links   map[int]link
	fw      firewall
	fwErr   error
	mirrors []*mirror // in the order of their names
	changed changes
	// unsettled: something was not there any more when it was needed, so that all
	// must be settled once more.
	unsettled bool
	lookDue   bool // look again after secondLook
	looking   bool // its timer runs
	// round is what is left of the look that the last tick began: see beginRound.
	round   []func() error
	skipped uint64 // messages that could not be read
	// within is the trace of the start; resyncing is that of a resync, from when
	// events were lost until every bridge is verified. nil while there is none.
	within    context.Context
	resyncing trace.Span

	events  *listener
	chains  *listener // nil where there is no nf_tables
	inbox   chan event
	stop    context.CancelFunc
	workers sync.WaitGroup
	ready   chan struct{} // closed when every bridge was mirrored once
}

// changes are what events said must be looked at again. An event says that
// something changed; how it is now is asked for once, however many there were.
type changes struct {
	links    map[int]struct{} // ifindexes
	tc       map[int]struct{} // ifindexes
	firewall bool
	overrun  bool // events were lost: everything
}

func (c *changes) any() bool {
	return len(c.links) > 0 || len(c.tc) > 0 || c.firewall || c.overrun
}

func newChanges() changes {
	return changes{links: make(map[int]struct{}), tc: make(map[int]struct{})}
}

var (
	_ accel.Component    = (*Syncer)(nil)
	_ accel.BridgeSource = (*Syncer)(nil)
	_ accel.Heart        = (*Syncer)(nil)
)

func newSyncer() *Syncer {
	return &Syncer{buffer: eventBuffer, firewall: readFirewall, asking: askingKernel, changed: newChanges()}
}

// Provision finds the data plane.
func (s *Syncer) Provision(_ context.Context, h *accel.Host) (err error) {
	s.logger = h.Logger
	s.lease = h.Config.Lease
	s.stations = h.Config.MaxStations
	s.names = slices.Sorted(slices.Values(h.Config.Bridges))
	s.all, s.bypass = h.Config.AllBridges, h.Config.BypassNetfilter
	s.fail = h.Fail
	s.tracer, s.meters = h.Tracer, accel.UseAll[Meters](h)
	s.plane, err = accel.Use[Dataplane](h)
	return err
}

// Start returns when every bridge was mirrored. An error says what the operator
// must change: a name that is no bridge, a privilege that is missing.
func (s *Syncer) Start(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return errors.Join(err, s.Stop(ctx))
	}
	s.work()
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), s.Stop(context.WithoutCancel(ctx)))
	}
}

// open subscribes, and only then reads what there is.
func (s *Syncer) open(ctx context.Context) (err error) {
	if s.events, err = newListener(s.dialEvents); err != nil {
		return err
	}
	if s.chains, err = listenFirewall(); err != nil {
		return err
	}
	if s.kernel, err = dialRoute(s.skip); err != nil {
		return err
	}
	return s.locked(func() error { return s.begin(ctx) })
}

func (s *Syncer) dialEvents() (*netlink.Conn, error) {
	return dialEvents(s.buffer, func(err error) {
		s.logger.Warn("the kernel does not tell of changes to VLANs: they are looked at twice a second", "error", err)
	})
}

// begin takes the bridges, as part of the start's trace.
func (s *Syncer) begin(ctx context.Context) error {
	s.within = context.WithoutCancel(ctx)
	defer func() { s.within = nil }()
	err := s.readLinks()
	for errors.Is(err, errChanging) && ctx.Err() == nil {
		err = s.readLinks()
	}
	if err != nil {
		return err
	}
	for _, name := range s.names {
		if _, err := checkKind(name, s.links); err != nil {
			return err
		}
		m := s.newMirror(name)
		m.named = true
		s.mirrors = append(s.mirrors, m)
	}
	s.ready = make(chan struct{})
	s.lookDue = true
	err = s.settle(true)
	for _, m := range s.mirrors {
		m.awaited = m.present
	}
	return err
}

func (s *Syncer) newMirror(name string) *mirror {
	return &mirror{
		name: name, on: true, stations: s.stations, lease: s.lease, bypass: slices.Contains(s.bypass, name),
		plane: s.plane, kernel: s.kernel, logger: s.logger.With("bridge", name),
		chronicle: chronicle{tracer: s.tracer, bridge: name}, meters: s.meters,
	}
}

// work starts the goroutines: one for each socket, and the loop.
func (s *Syncer) work() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.inbox = make(chan event, maxEvents)
	s.workers.Go(func() { s.listen(ctx, s.events, routeEvents, lostEvents) })
	if s.chains != nil {
		s.workers.Go(func() { s.listen(ctx, s.chains, firewallEvents, firewallChanged) })
	}
	s.workers.Go(func() { s.loop(ctx) })
}

// Stop ends the goroutines and closes every bridge in the data plane.
func (s *Syncer) Stop(context.Context) error {
	if s.stop != nil {
		s.stop()
	}
	s.events.close() // ends who listens
	s.chains.close()
	s.workers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, m := range s.mirrors {
		errs = append(errs, m.vanish())
	}
	if s.kernel != nil {
		errs = append(errs, s.kernel.close())
	}
	s.stop, s.events, s.chains, s.kernel = nil, nil, nil, nil
	return errors.Join(errs...)
}

// event is what a listener hands to the loop: what to do about it.
type event func(*Syncer) error

// listen hands on what comes in on a socket until it is closed.
func (s *Syncer) listen(ctx context.Context, l *listener, decode func([]netlink.Message) []event, overrun event) {
	for {
		messages, err := l.receive()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errOverrun):
			s.hand(ctx, overrun)
		case err != nil:
			s.hand(ctx, func(*Syncer) error { return fmt.Errorf("listen to the kernel: %w", err) })
			return
		}
		if events := decode(messages); len(events) > 0 {
			s.hand(ctx, func(s *Syncer) error { return s.takeIn(events) })
		}
	}
}

// routeEvents makes events of what came in at once: they are handed on together, so that
// the loop is woken once for all of them. Entries that follow each other are one event.
func routeEvents(messages []netlink.Message) (events []event) {
	var heard []neigh
	now := time.Now()
	for i, m := range messages {
		n, e := neighOrEvent(m)
		if e == nil && n.bridge != 0 {
			if heard == nil {
				heard = make([]neigh, 0, len(messages)-i)
			}
			n.heard = now
			heard = append(heard, n)
			continue
		}
		if e != nil {
			events = append(appendNeighs(events, heard), e)
			heard = nil
		}
	}
	return appendNeighs(events, heard)
}

func appendNeighs(events []event, heard []neigh) []event {
	if len(heard) == 0 {
		return events
	}
	return append(events, func(s *Syncer) error { return s.neighs(heard) })
}

func (s *Syncer) takeIn(events []event) error {
	for _, e := range events {
		if err := e(s); err != nil {
			return err
		}
	}
	return nil
}

func (s *Syncer) hand(ctx context.Context, e event) {
	select {
	case s.inbox <- e:
	case <-ctx.Done():
	}
}

// neighOrEvent turns a message into the entry that it tells of, or what the loop shall do
// about it; neither for what is no matter.
func neighOrEvent(m netlink.Message) (neigh, event) {
	if m.Header.Type != unix.RTM_NEWNEIGH && m.Header.Type != unix.RTM_DELNEIGH {
		return neigh{}, routeEvent(m)
	}
	n, err := decodeNeigh(m.Data)
	switch {
	case errors.Is(err, errNotOurs):
		return neigh{}, nil
	case err != nil:
		return neigh{}, func(s *Syncer) error { s.skip(err); return nil }
	}
	n.isGone = m.Header.Type == unix.RTM_DELNEIGH
	return n, nil
}

// routeEvent turns a message that is not about an entry into what the loop shall do about
// it.
func routeEvent(m netlink.Message) event {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return linkEvent(m)
	case unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_NEWQDISC, unix.RTM_DELQDISC:
		ifindex := indexAt4(m.Data)
		return func(s *Syncer) error { s.changed.tc[ifindex] = struct{}{}; return nil }
	case unix.RTM_NEWVLAN, unix.RTM_DELVLAN:
		ifindex := indexAt4(m.Data)
		return func(s *Syncer) error { s.changed.links[ifindex] = struct{}{}; return nil }
	}
	return nil
}

// linkEvent makes a link message of whatever family mean: ask how the link is
// now. A deletion of the device is more: what comes to bear its number may be
// another. (In family AF_BRIDGE it says that a port left the bridge.)
func linkEvent(m netlink.Message) event {
	ifindex, err := linkIndex(m.Data)
	if err != nil {
		return func(s *Syncer) error { s.skip(err); return nil }
	}
	isGone := m.Header.Type == unix.RTM_DELLINK && m.Data[0] == unix.AF_UNSPEC
	return func(s *Syncer) error {
		s.changed.links[ifindex] = struct{}{}
		if isGone {
			return s.linkGone(ifindex)
		}
		return nil
	}
}

// lostEvents shuts the gates at once; everything is read anew when the events
// that did come were taken in.
func lostEvents(s *Syncer) error {
	s.changed.overrun = true
	s.meters.eventsLost()
	s.beginResync()
	return s.each((*mirror).distrust)
}

// firewallEvents mean: read the firewall again.
func firewallEvents([]netlink.Message) []event { return []event{firewallChanged} }

func firewallChanged(s *Syncer) error {
	s.changed.firewall = true
	return nil
}

// skip takes in that a message could not be read. One is worth a line; the
// others are counted.
func (s *Syncer) skip(err error) {
	s.skipped++
	s.meters.messageSkipped()
	if s.skipped == 1 {
		s.logger.Warn("skipped a message of the kernel that cannot be read; others will be counted only", "error", err)
	}
}

// tickInterval is how often that is looked at of which the kernel says nothing:
// promiscuity through the unicast list, tcx attachments, revocations by the
// programs.
const tickInterval = 500 * time.Millisecond

// secondLook is how long after a change everything is looked at once more: an
// event may come before the program in the kernel that counts the change.
const secondLook = 20 * time.Millisecond

// reconcileInterval is how often the tables are compared whole.
const reconcileInterval = 30 * time.Second

// loop is the one place where the tables change. It renews the lease too, so
// that a loop that hangs loses it.
func (s *Syncer) loop(ctx context.Context) {
	renew := time.NewTicker(s.renewInterval())
	defer renew.Stop()
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	reconcile := time.NewTicker(reconcileInterval)
	defer reconcile.Stop()
	grace := time.NewTimer(0)
	defer grace.Stop()
	again := time.NewTimer(secondLook)
	defer again.Stop()
	for {
		s.turns.Add(1)
		var err error
		select {
		case <-ctx.Done():
			return
		case e := <-s.inbox:
			err = s.locked(func() error { return s.handle(e) })
		case <-renew.C:
			err = s.locked(s.renew)
		case <-tick.C:
			err = s.locked(s.beginRound)
		case <-reconcile.C:
			err = s.locked(s.reconcile)
		case <-again.C:
			err = s.locked(s.lookAgain)
		case <-grace.C:
		}
		if err == nil {
			err = s.goOn(grace, again)
		}
		if err != nil {
			s.giveUp(err)
			return
		}
	}
}

// Beats are the turns of the loop, of which every tick makes one.
func (s *Syncer) Beats() uint64 { return s.turns.Load() }

// renewInterval is short enough for a lease to be renewed four times.
func (s *Syncer) renewInterval() time.Duration {
	if s.lease == 0 {
		return safeLease / 4
	}
	return s.lease / 4
}

func (s *Syncer) locked(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}

// giveUp is where an error ends that nobody asked for. It cannot be told any
// more what holds: the gates are shut, the lease ends, and the daemon stops.
func (s *Syncer) giveUp(err error) {
	s.mu.Lock()
	for _, m := range s.mirrors {
		if m.present {
			err = errors.Join(err, m.distrust())
		}
	}
	s.mu.Unlock()
	s.fail(fmt.Errorf("mirror the bridges: %w", err))
}

// maxEvents bounds how many events, each of up to eventsAtOnce messages, are taken in
// before the bridges are settled.
const maxEvents = 16

// handle takes in one event and those that wait behind it, and then looks once
// at what they said has changed.
func (s *Syncer) handle(e event) error {
	for n := 1; e != nil; n++ {
		if err := e(s); err != nil {
			return err
		}
		e = nil
		if n < maxEvents { // what is taken out of the inbox must be taken in
			e = s.nextEvent()
		}
	}
	return s.catchUp()
}

// nextEvent returns an event that waits, or nil.
func (s *Syncer) nextEvent() event {
	select {
	case e := <-s.inbox:
		return e
	default:
		return nil
	}
}

// catchUp asks how everything is now that has changed.
func (s *Syncer) catchUp() error {
	changed := s.changed
	if !changed.any() {
		return nil
	}
	s.changed = newChanges()
	s.lookDue = true
	if changed.overrun {
		return s.resync()
	}
	for ifindex := range changed.links {
		if err := s.refresh(ifindex); err != nil {
			return err
		}
	}
	for ifindex := range changed.tc {
		s.tcChanged(ifindex)
	}
	return s.settle(changed.firewall)
}

// lookAgain looks at what the kernel's programs say has changed since it was
// asked for, and tries again what could not be done.
func (s *Syncer) lookAgain() error {
	s.looking = false
	if s.changed.overrun { // the list of links did not hold still
		return s.catchUp()
	}
	settled := !s.unsettled
	s.unsettled = false
	for _, m := range s.mirrors {
		for _, ifindex := range m.outdated() {
			settled = false
			if err := s.refresh(ifindex); err != nil {
				return err
			}
		}
	}
	if settled {
		return nil
	}
	s.lookDue = true
	return s.settle(false)
}

// goOn moves the stations of every bridge on and sets the timers: for the next
// time, and for a second look at what changed.
func (s *Syncer) goOn(grace, again *time.Timer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	next, err := s.advance(now)
	if err != nil {
		return err
	}
	if err := s.lookOn(); err != nil {
		return err
	}
	if len(s.round) > 0 {
		next = now
	}
	if !next.IsZero() {
		grace.Reset(max(next.Sub(now), 0))
	}
	if s.lookDue && !s.looking { // events without end do not put it off
		s.lookDue, s.looking = false, true
		again.Reset(secondLook)
	}
	return nil
}

// advance moves the stations of every bridge on and says when to do so again.
func (s *Syncer) advance(now time.Time) (next time.Time, err error) {
	err = s.each(func(m *mirror) error {
		wasSynced := m.synced
		at, err := m.advance(now)
		if err == nil && m.synced && !wasSynced {
			m.chronicle.isVerified(len(m.table.rows))
			err = m.settle(s.links, s.fw, s.fwErr)
			m.chronicle.isDone()
		}
		if err == nil && !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		return err
	})
	if err != nil {
		return next, err
	}
	s.endResync()
	if !slices.ContainsFunc(s.mirrors, s.isAwaited) {
		s.announceReady()
	}
	return next, nil
}

// isAwaited says whether the start waits for the bridge: it was there at the
// start, still is, and was not mirrored yet.
func (s *Syncer) isAwaited(m *mirror) bool {
	if m.awaited = m.awaited && !m.synced; !m.awaited {
		return false
	}
	_, exists := s.bridgeNamed(m.name)
	return exists
}

// each does something with every bridge that is present.
func (s *Syncer) each(do func(*mirror) error) error {
	for _, m := range s.mirrors {
		if !m.present {
			continue
		}
		if err := s.excuse(m, do(m)); err != nil {
			return err
		}
	}
	return nil
}

// excuse lets an error pass that is about something that is gone by now, whose
// event is on the way: bridges and ports come and go at any moment. The bridge is
// closed, and begins anew if it is still there.
func (s *Syncer) excuse(m *mirror, err error) error {
	if err == nil || !isAboutAbsent(err) && !s.isGone(m.link.ifindex) {
		return err
	}
	m.logger.InfoContext(m.chronicle.leaves(accel.Syncing), "something is gone by now: the bridge begins anew if it is still there", "error", err)
	s.unsettled, s.lookDue = true, true
	if err := s.refresh(m.link.ifindex); err != nil {
		return err
	}
	if err := m.vanish(); err != nil && !isAboutAbsent(err) && !s.isGone(m.link.ifindex) {
		return err
	}
	return nil
}

// isGone says whether a device was deleted, which makes any question about it an
// error.
func (s *Syncer) isGone(ifindex int) bool {
	_, exists, err := s.kernel.link(ifindex)
	return err == nil && !exists
}

func (s *Syncer) announceReady() {
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// refresh asks for a link's present state, and for that of the ports of a bridge
// whose options changed: whether VLANs count hangs on them.
func (s *Syncer) refresh(ifindex int) error {
	before := s.links[ifindex].bridge
	if err := look(s.plane, s.kernel, s.links, ifindex); err != nil {
		return err
	}
	if s.links[ifindex].bridge == before {
		return nil
	}
	for port, l := range s.links {
		if l.port.isPort && l.master == ifindex {
			if err := look(s.plane, s.kernel, s.links, port); err != nil {
				return err
			}
		}
	}
	return nil
}

// linkGone takes in that a device is gone, deleted or moved to another
// namespace, whatever bears its number now.
func (s *Syncer) linkGone(ifindex int) error {
	delete(s.links, ifindex)
	return s.each(func(m *mirror) error {
		if m.link.ifindex == ifindex {
			return m.disappear()
		}
		return m.forgetPort(ifindex)
	})
}

// neighs takes in what was told of entries, in its order.
func (s *Syncer) neighs(heard []neigh) error {
	for _, m := range s.mirrors {
		for _, n := range heard {
			switch {
			case !m.present || m.link.ifindex != n.bridge:
				continue
			case n.isGone:
				m.delNeigh(n.station.StationKey)
			default:
				m.newNeigh(n.station)
			}
			m.heard = n.heard
		}
	}
	return s.each((*mirror).revokeDoubtful)
}

func (s *Syncer) tcChanged(ifindex int) {
	for _, m := range s.mirrors {
		if p := m.ports[ifindex]; m.present && p != nil && p.attached {
			m.lookAtPort(p)
		}
	}
}

func (s *Syncer) readFirewall() {
	fw, err := s.firewall()
	if err != nil && s.fwErr == nil {
		s.logger.Error("cannot read the firewall, so every bridge takes the slow path", "error", err)
	}
	s.fw, s.fwErr = fw, err
}

// settle brings every bridge to where it should be: it appears, vanishes or
// changes. All shut before one opens, so that a port can change from one to
// another.
func (s *Syncer) settle(filtersToo bool) error {
	if err := s.closeGone(); err != nil {
		return err
	}
	if s.all {
		s.takeAll()
	}
	fresh, err := s.appear()
	if err != nil {
		return err
	}
	if filtersToo || len(fresh) > 0 || s.filtersMayDiffer() {
		s.readFirewall()
	}
	if err := s.each(func(m *mirror) error {
		m.link = s.links[m.link.ifindex]
		return m.shut(s.links, s.fw, s.fwErr)
	}); err != nil {
		return err
	}
	if err := s.each(func(m *mirror) error { return m.open(s.links, s.fw, s.fwErr) }); err != nil {
		return err
	}
	// Ports first: a station behind one that carries no program is not taken.
	return s.each(func(m *mirror) error {
		if !slices.Contains(fresh, m) {
			return nil
		}
		return m.read()
	})
}

// closeGone closes the bridges that are gone, bear another number or another
// name.
func (s *Syncer) closeGone() error {
	return s.each(func(m *mirror) error {
		if s.isStill(m) {
			return nil
		}
		return m.disappear()
	})
}

// takeAll gives every bridge of the namespace a mirror, and takes it from those
// that are gone and were not named.
func (s *Syncer) takeAll() {
	s.mirrors = slices.DeleteFunc(s.mirrors, func(m *mirror) bool {
		_, exists := s.bridgeNamed(m.name)
		return !m.named && !exists
	})
	for _, l := range s.links {
		if l.kind != "bridge" {
			continue
		}
		if _, err := s.find(l.name); err != nil {
			s.mirrors = append(s.mirrors, s.newMirror(l.name))
		}
	}
	slices.SortFunc(s.mirrors, func(a, b *mirror) int { return strings.Compare(a.name, b.name) })
}

// appear opens the bridges that have come, and asks for them again, now that
// programs watch them: what was known of them may be older than their version.
func (s *Syncer) appear() (fresh []*mirror, err error) {
	for _, m := range s.mirrors {
		l, exists := s.bridgeNamed(m.name)
		if m.present || !exists {
			continue
		}
		m.logger.Info("the bridge is here", "ifindex", l.ifindex)
		if err := m.appear(s.current(), l); err != nil {
			if err := s.excuse(m, err); err != nil {
				return nil, err
			}
			continue
		}
		if err := s.refresh(l.ifindex); err != nil {
			return nil, err
		}
		fresh = append(fresh, m)
	}
	return fresh, s.closeGone()
}

// filtersMayDiffer says whether a version differs from the one before: versions
// stand for netfilter's hooks too, the bridge's for its own and a port's for those
// of its device. What is read of the firewall now is younger than they are.
func (s *Syncer) filtersMayDiffer() bool {
	return slices.ContainsFunc(s.mirrors, func(m *mirror) bool {
		return m.present && (s.links[m.link.ifindex].seen != m.link.seen || m.portsDiffer(s.links))
	})
}

func (s *Syncer) bridgeNamed(name string) (link, bool) {
	for _, l := range s.links {
		if l.name == name && l.kind == "bridge" {
			return l, true
		}
	}
	return link{}, false
}

// resync reads everything anew, since the kernel had to drop events. A new
// socket is open for those that come from now on.
func (s *Syncer) resync() error {
	ctx := trace.ContextWithSpan(context.Background(), s.resyncing)
	s.logger.WarnContext(ctx, "the kernel dropped events: the tables are read again, on the slow path meanwhile")
	err := s.readLinks()
	if errors.Is(err, errChanging) {
		s.changed.overrun = true // the gates stay shut, and it is tried again
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.each(func(m *mirror) error { m.lookAround(); return nil }); err != nil {
		return err
	}
	if err := s.compareAll((*mirror).read); err != nil {
		return err
	}
	s.meters.resynced(ctx, causeOverrun)
	return s.settle(true)
}

// beginResync begins the trace of a resync, to which belongs what happens to the
// bridges until they are verified.
func (s *Syncer) beginResync() {
	if s.resyncing != nil || s.tracer == nil {
		return
	}
	ctx, span := s.tracer.Start(context.Background(), "resync", trace.WithAttributes(keyCause.String(causeOverrun)))
	s.resyncing = span
	for _, m := range s.mirrors {
		if m.present && m.chronicle.within == nil {
			m.chronicle.within = ctx
		}
	}
}

// endResync ends it when every bridge is verified.
func (s *Syncer) endResync() {
	if s.resyncing == nil || s.changed.overrun {
		return
	}
	entries := 0
	for _, m := range s.mirrors {
		if !m.present {
			continue
		}
		if !m.synced {
			return
		}
		entries += len(m.table.rows)
	}
	s.resyncing.SetAttributes(keyEntries.Int(entries))
	endSpans(&s.resyncing)
}

// current is the trace of the start while that lasts, and else none.
func (s *Syncer) current() context.Context {
	if s.within == nil {
		return context.Background()
	}
	return s.within
}

// compareAll begins to read the tables and compares them with the data plane's.
func (s *Syncer) compareAll(read func(*mirror) error) error {
	return s.each(func(m *mirror) error {
		if !s.isStill(m) {
			return nil
		}
		return errors.Join(read(m), m.compare())
	})
}

// isStill says whether the bridge is the one that was mirrored.
func (s *Syncer) isStill(m *mirror) bool {
	l, exists := s.bridgeNamed(m.name)
	return exists && l.ifindex == m.link.ifindex
}

func (s *Syncer) readLinks() error {
	links, err := lookAtAll(s.plane, s.kernel, s.links)
	if err == nil {
		s.links = links
	}
	return err
}

func (s *Syncer) renew() error { return s.each((*mirror).renew) }

// beginRound begins to look at what comes without an event, unless the last look lasts
// still. There may be a thousand ports, so lookOn does it a piece at a time, and events
// are taken in between: the versions first, then the firewall, which is true for those,
// and then what has changed counts.
func (s *Syncer) beginRound() error {
	if len(s.round) > 0 {
		return nil
	}
	for _, m := range s.mirrors {
		if !m.present {
			continue
		}
		s.round = append(s.round, s.about(m, func() error { return s.refresh(m.link.ifindex) }))
		for ifindex := range m.ports {
			s.round = append(s.round, s.about(m, func() error { return s.lookAtPort(m, ifindex) }))
		}
		s.round = append(s.round, s.about(m, m.sweep))
	}
	s.round = append(s.round, s.lookAtFirewall, s.endRound)
	return nil
}

// about is a piece that is about a bridge, if that is still there.
func (s *Syncer) about(m *mirror, do func() error) func() error {
	return func() error {
		if !m.present {
			return nil
		}
		return s.excuse(m, do())
	}
}

// lookOn does the next piece.
func (s *Syncer) lookOn() error {
	if len(s.round) == 0 {
		return nil
	}
	piece := s.round[0]
	s.round = s.round[1:]
	return piece()
}

func (s *Syncer) lookAtPort(m *mirror, ifindex int) error {
	if err := s.refresh(ifindex); err != nil {
		return err
	}
	if p := m.ports[ifindex]; p != nil && p.attached {
		m.lookAtPort(p)
	}
	return nil
}

func (s *Syncer) lookAtFirewall() error {
	s.readFirewall()
	return nil
}

// endRound brings everything to where it should be by what was seen.
func (s *Syncer) endRound() error {
	for _, m := range s.mirrors {
		m.retryPorts = true
	}
	err := s.settle(false)
	for _, m := range s.mirrors {
		m.retryPorts = false
	}
	return err
}

// reconcile compares everything with the kernel. Links that do not hold still
// are left for the next time: their events came anyway.
func (s *Syncer) reconcile() error {
	if err := s.readLinks(); err != nil && !errors.Is(err, errChanging) {
		return err
	}
	if err := s.compareAll((*mirror).readAgain); err != nil {
		return err
	}
	s.meters.resynced(context.Background(), causePeriodic)
	return s.settle(false)
}

// Bridges returns the configured bridges in the order of their names.
func (s *Syncer) Bridges() []accel.BridgeState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []accel.BridgeState
	for _, m := range s.mirrors {
		all = append(all, m.state())
	}
	return all
}

// FDB returns the mirrored stations of a bridge, by VLAN and address.
func (s *Syncer) FDB(bridge string) ([]accel.Station, error) {
	all, err := s.stationsOf(bridge)
	sortStations(all) // while events are taken in
	return all, err
}

// stationsOf returns them in any order.
func (s *Syncer) stationsOf(bridge string) ([]accel.Station, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.find(bridge)
	if err != nil || !m.present {
		return nil, err
	}
	return m.table.stations(), nil
}

// Switch turns the fast path of a bridge on or off; when it returns, the next
// frame obeys.
func (s *Syncer) Switch(ctx context.Context, bridge string, on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.find(bridge)
	if err != nil {
		return err
	}
	m.on = on
	if !m.present {
		return nil
	}
	defer m.chronicle.in(ctx)()
	return s.excuse(m, m.settle(s.links, s.fw, s.fwErr))
}

func (s *Syncer) find(bridge string) (*mirror, error) {
	for _, m := range s.mirrors {
		if m.name == bridge {
			return m, nil
		}
	}
	return nil, fmt.Errorf("this daemon does not have a bridge %s", bridge)
}
