package fdbsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

func init() {
	accel.Register(accel.Plugin{
		Name:  "fdbsync",
		After: []string{"telemetry", "tcprog"},
		New:   func() accel.Component { return newSyncer() },
	})
}

// Syncer keeps the data plane's tables equal to the kernel's. One goroutine
// works; it and the readers of its state share mu.
type Syncer struct {
	logger *slog.Logger
	plane  Dataplane
	lease  time.Duration
	names  []string
	fail   func(error)

	mu      sync.Mutex
	kernel  *kernel
	links   map[int]link
	fw      firewall
	fwErr   error
	mirrors []*mirror

	events  *netlink.Conn
	chains  *netlink.Conn // nil where there is no nf_tables
	inbox   chan event
	stop    context.CancelFunc
	workers sync.WaitGroup
	ready   chan struct{} // closed when every bridge was mirrored once
}

var (
	_ accel.Component    = (*Syncer)(nil)
	_ accel.BridgeSource = (*Syncer)(nil)
)

func newSyncer() *Syncer { return &Syncer{} }

// Provision finds the data plane.
func (s *Syncer) Provision(_ context.Context, h *accel.Host) (err error) {
	s.logger = h.Logger
	s.lease = h.Config.Lease
	s.names = h.Config.Bridges
	s.fail = h.Fail
	s.plane, err = accel.Use[Dataplane](h)
	return err
}

// Start returns when every bridge was mirrored. An error says what the operator
// must change: a name that is no bridge, a privilege that is missing.
func (s *Syncer) Start(ctx context.Context) error {
	if err := s.open(); err != nil {
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
func (s *Syncer) open() (err error) {
	if s.events, err = listenRoute(eventBuffer); err != nil {
		return err
	}
	if s.chains, err = listenFirewall(); err != nil {
		return err
	}
	if s.kernel, err = dialKernel(); err != nil {
		return err
	}
	if s.links, err = s.kernel.links(); err != nil {
		return err
	}
	s.readFirewall()
	for _, name := range s.names {
		if _, err := checkKind(name, s.links); err != nil {
			return err
		}
		s.mirrors = append(s.mirrors, &mirror{
			name: name, on: true, plane: s.plane, kernel: s.kernel, logger: s.logger.With("bridge", name),
		})
	}
	return s.settle()
}

// work starts the goroutines: one for each socket, and the loop.
func (s *Syncer) work() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.inbox = make(chan event, 1024)
	s.ready = make(chan struct{})
	s.workers.Go(func() { s.listen(ctx, s.events, routeEvent) })
	if s.chains != nil {
		s.workers.Go(func() { s.listen(ctx, s.chains, firewallEvent) })
	}
	s.workers.Go(func() { s.loop(ctx) })
}

// Stop ends the goroutines and closes every bridge in the data plane.
func (s *Syncer) Stop(context.Context) error {
	if s.stop != nil {
		s.stop()
	}
	for _, c := range []*netlink.Conn{s.events, s.chains} {
		if c != nil {
			c.Close() // ends its listener
		}
	}
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

// event is what a listener hands to the loop.
type event struct {
	apply   func(*Syncer) error
	overrun bool // the kernel had to drop events
	err     error
}

// listen hands on what comes in on a socket until it is closed.
func (s *Syncer) listen(ctx context.Context, c *netlink.Conn, decode func(netlink.Message) func(*Syncer) error) {
	for {
		messages, err := c.Receive()
		if ctx.Err() != nil {
			return
		}
		switch {
		case errors.Is(err, unix.ENOBUFS):
			s.hand(ctx, event{overrun: true})
		case err != nil:
			s.hand(ctx, event{err: fmt.Errorf("listen to the kernel: %w", err)})
			return
		}
		for _, m := range messages {
			if apply := decode(m); apply != nil {
				s.hand(ctx, event{apply: apply})
			}
		}
	}
}

func (s *Syncer) hand(ctx context.Context, e event) {
	select {
	case s.inbox <- e:
	case <-ctx.Done():
	}
}

// routeEvent turns a message into what the loop shall do about it. A link
// message of whatever family means: ask how the link is now.
func routeEvent(m netlink.Message) func(*Syncer) error {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		ifindex, err := linkIndex(m.Data)
		if err != nil {
			return nil
		}
		return func(s *Syncer) error { return s.refresh(ifindex) }
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok := decodeNeigh(m.Data)
		if !ok {
			return nil
		}
		isNew := m.Header.Type == unix.RTM_NEWNEIGH
		return func(s *Syncer) error { return s.neigh(n, isNew) }
	case unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_NEWQDISC, unix.RTM_DELQDISC:
		ifindex := tcIndex(m.Data)
		return func(s *Syncer) error { s.tcChanged(ifindex); return nil }
	}
	return nil
}

// firewallEvent means: read the firewall again.
func firewallEvent(netlink.Message) func(*Syncer) error {
	return func(s *Syncer) error { s.readFirewall(); return nil }
}

// tickInterval is how often that is looked at of which the kernel says nothing:
// promiscuity through the unicast list, tcx attachments, revocations by the
// programs.
const tickInterval = 500 * time.Millisecond

// reconcileInterval is how often the tables are compared whole.
const reconcileInterval = 30 * time.Second

// loop is the one place where the tables change. It renews the lease too, so
// that a loop that hangs loses it.
func (s *Syncer) loop(ctx context.Context) {
	renew := time.NewTicker(s.lease / 4)
	defer renew.Stop()
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	reconcile := time.NewTicker(reconcileInterval)
	defer reconcile.Stop()
	grace := time.NewTimer(0)
	defer grace.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case e := <-s.inbox:
			err = s.handle(e)
		case <-renew.C:
			err = s.locked(s.renew)
		case <-tick.C:
			err = s.locked(s.tick)
		case <-reconcile.C:
			err = s.locked(s.reconcile)
		case <-grace.C:
		}
		if err == nil {
			err = s.advance(grace)
		}
		if err != nil {
			s.trouble(err)
		}
	}
}

func (s *Syncer) locked(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}

// trouble is where an error ends that nobody asked for. The fast path is shut
// by then or loses its lease; the daemon gives up, since it cannot tell any
// more what holds.
func (s *Syncer) trouble(err error) {
	s.fail(fmt.Errorf("mirror the bridges: %w", err))
}

// maxEvents bounds how many events are taken in before the bridges are settled.
const maxEvents = 4096

// handle takes in one event and those that wait behind it.
func (s *Syncer) handle(first event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	overrun := false
	for e, n := first, 0; ; n++ {
		switch {
		case e.err != nil:
			return e.err
		case e.overrun:
			overrun = true
		default:
			if err := e.apply(s); err != nil {
				return err
			}
		}
		if n == maxEvents {
			break
		}
		select {
		case e = <-s.inbox:
			continue
		default:
		}
		break
	}
	if overrun {
		if err := s.resync(); err != nil {
			return err
		}
	}
	return s.settle()
}

// advance moves the stations of every bridge on and sets the timer for the next
// time.
func (s *Syncer) advance(grace *time.Timer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var next time.Time
	allSynced := true
	for _, m := range s.mirrors {
		if !m.present {
			continue
		}
		wasSynced := m.synced
		at, err := m.advance(now)
		if err != nil && s.isGone(m) {
			continue // its event is on the way
		}
		if err != nil {
			return err
		}
		if m.synced && !wasSynced {
			if err := m.settle(s.links, s.fw, s.fwErr); err != nil {
				return err
			}
		}
		allSynced = allSynced && m.synced
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if !next.IsZero() {
		grace.Reset(max(next.Sub(now), 0))
	}
	if allSynced {
		s.announceReady()
	}
	return s.renew()
}

// isGone says whether the bridge was deleted, which makes any question about it
// an error.
func (s *Syncer) isGone(m *mirror) bool {
	_, exists, err := s.kernel.link(m.link.ifindex)
	return err == nil && !exists
}

func (s *Syncer) announceReady() {
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// refresh asks for a link's present state.
func (s *Syncer) refresh(ifindex int) error {
	l, exists, err := s.kernel.link(ifindex)
	if err != nil {
		return err
	}
	if exists {
		s.links[ifindex] = l
	} else {
		delete(s.links, ifindex)
	}
	return nil
}

// refreshAll asks for the bridge and its ports.
func (s *Syncer) refreshAll(m *mirror) error {
	errs := []error{s.refresh(m.link.ifindex)}
	for ifindex := range m.ports {
		errs = append(errs, s.refresh(ifindex))
	}
	return errors.Join(errs...)
}

func (s *Syncer) neigh(n neigh, isNew bool) error {
	for _, m := range s.mirrors {
		if !m.present || m.link.ifindex != n.bridge {
			continue
		}
		if isNew {
			return m.newNeigh(n.station)
		}
		return m.delNeigh(n.station.StationKey)
	}
	return nil
}

func (s *Syncer) tcChanged(ifindex int) {
	for _, m := range s.mirrors {
		if p := m.ports[ifindex]; m.present && p != nil && p.attached {
			m.lookAtPort(p)
		}
	}
}

func (s *Syncer) readFirewall() {
	fw, err := readFirewall()
	if err != nil && s.fwErr == nil {
		s.logger.Error("cannot read the firewall, so every bridge takes the slow path", "error", err)
	}
	s.fw, s.fwErr = fw, err
}

// settle brings every bridge to where it should be: it appears, vanishes or
// changes.
func (s *Syncer) settle() error {
	for _, m := range s.mirrors {
		if err := s.settleOne(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *Syncer) settleOne(m *mirror) error {
	l, exists := s.bridgeNamed(m.name)
	if m.present && (!exists || l.ifindex != m.link.ifindex) {
		m.logger.Info("the bridge is gone")
		if err := m.vanish(); err != nil {
			return err
		}
	}
	if !exists {
		return nil
	}
	if m.present {
		m.link = l
		return m.settle(s.links, s.fw, s.fwErr)
	}
	m.logger.Info("the bridge is here", "ifindex", l.ifindex)
	if err := m.appear(l); err != nil {
		return err
	}
	if err := m.settle(s.links, s.fw, s.fwErr); err != nil {
		return err
	}
	return m.read()
}

func (s *Syncer) bridgeNamed(name string) (link, bool) {
	for _, l := range s.links {
		if l.name == name && l.kind == "bridge" {
			return l, true
		}
	}
	return link{}, false
}

// resync reads everything anew, since the kernel had to drop events.
func (s *Syncer) resync() error {
	s.logger.Warn("the kernel dropped events: the tables are read again, on the slow path meanwhile")
	for _, m := range s.mirrors {
		if !m.present {
			continue
		}
		if err := m.resync(); err != nil {
			return err
		}
	}
	return s.readLinks()
}

func (s *Syncer) readLinks() error {
	links, err := s.kernel.links()
	if err == nil {
		s.links = links
	}
	return err
}

func (s *Syncer) renew() error {
	for _, m := range s.mirrors {
		if !m.present || m.gate.Reason != accel.Fast {
			continue
		}
		if err := m.plane.Renew(m.link.ifindex, s.lease); err != nil {
			return err
		}
	}
	return nil
}

// tick looks at what comes without an event.
func (s *Syncer) tick() error {
	s.readFirewall()
	for _, m := range s.mirrors {
		if !m.present {
			continue
		}
		if err := s.refreshAll(m); err != nil {
			return err
		}
		m.lookAround()
		m.retryPorts = true
		if err := m.sweep(); err != nil {
			return err
		}
	}
	err := s.settle()
	for _, m := range s.mirrors {
		m.retryPorts = false
	}
	return err
}

// reconcile compares everything with the kernel.
func (s *Syncer) reconcile() error {
	if err := s.readLinks(); err != nil {
		return err
	}
	for _, m := range s.mirrors {
		if !m.present {
			continue
		}
		if err := errors.Join(m.read(), m.compare()); err != nil {
			return err
		}
	}
	return s.settle()
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
func (s *Syncer) Switch(_ context.Context, bridge string, on bool) error {
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
	if err := m.settle(s.links, s.fw, s.fwErr); err != nil {
		return err
	}
	return s.renew()
}

func (s *Syncer) find(bridge string) (*mirror, error) {
	for _, m := range s.mirrors {
		if m.name == bridge {
			return m, nil
		}
	}
	return nil, fmt.Errorf("this daemon does not have a bridge %s", bridge)
}
