package nicswap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// tendAgain is how long a group with something wrong waits before it is looked at
// again: not everything that may be mended makes an event.
const tendAgain = 5 * time.Second

// keep tends a group until ctx ends: whenever something about it changes, what is
// missing is made.
func (e *Engine) keep(ctx context.Context, g *group) {
	defer close(g.ended)
	for {
		again := make(<-chan time.Time)
		wasThere := e.portOf(g) != 0
		if !e.tendTo(g) {
			again = time.After(tendAgain)
		}
		if !wasThere {
			e.writeDown(g)
		}
		select {
		case <-g.kick:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// begin starts to keep a group that was set up.
func (e *Engine) begin(g *group) {
	ctx, end := context.WithCancel(e.working)
	g.end = end
	e.workers.Go(func() { e.keep(ctx, g) })
	e.workers.Go(func() { e.pulse(ctx, carrierInterval, func() { e.feel(g) }, e.lateWatch) })
	e.workers.Go(func() { e.feelBack(ctx, g) })
}

// tendTo makes what is missing of a group: the stable port, its wire, members on
// it, an active one, the place in the bridge, the carrier. What is there stays as
// it is: a daemon that starts moves no traffic. It says whether all is well.
func (e *Engine) tendTo(g *group) bool {
	err := e.tendPort(g)
	if err == nil {
		e.tendStrays(g)
		e.tendMembers(g)
		e.tendActive(g)
		err = errors.Join(e.tendMTU(g), e.tendBridge(g), e.tendCarrier(g))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	trouble := ""
	if err != nil {
		trouble = err.Error()
	}
	if trouble != "" && trouble != g.trouble {
		e.logger.Warn("a group is not as it should be", "group", g.Name, "why", trouble)
	}
	g.trouble = trouble
	e.told(g)
	e.rescue(g)
	return err == nil && !g.stuck && g.active != 0 && !slices.ContainsFunc(g.members, func(m *member) bool { return m.unfit != "" })
}

// rescue moves a group that is down to a member that other groups have too, if
// none of them uses it. That takes longer than a failover: it is cold. The group is
// locked.
func (e *Engine) rescue(g *group) {
	if g.active != 0 || g.port.Ifindex == 0 || g.running != nil || g.closed {
		return
	}
	m := e.rescuer(g)
	if m == nil {
		return
	}
	m.tried = time.Now()
	s := e.newSwap(g, Request{Group: g.Name, To: m.name, Cause: causeLoss, Why: "no other member is usable"})
	e.workers.Go(func() {
		ctx := s.begin(context.WithoutCancel(e.working))
		if err := s.phase(ctx, phaseResolve, s.resolve); err != nil {
			s.refused(err)
			return
		}
		s.run(ctx)
	})
}

// rescuer is the member to try: the one that was not tried for the longest, and not a
// moment ago, since the end of a swap that failed is a reason to look again.
func (e *Engine) rescuer(g *group) (next *member) {
	for _, m := range g.members {
		if !m.shared || m.away || m.link.Ifindex == 0 || e.claimedElsewhere(g, m) != "" {
			continue
		}
		if time.Since(m.tried) >= tendAgain && (next == nil || m.tried.Before(next.tried)) {
			next = m
		}
	}
	return next
}

// tendPort makes the stable port, or takes the one that is there, and its wire.
func (e *Engine) tendPort(g *group) error {
	g.mu.Lock()
	isThere := g.port.Ifindex != 0
	g.mu.Unlock()
	if isThere {
		return nil
	}
	port, stub, err := e.findPort(g)
	if errors.Is(err, links.ErrGone) {
		// A mistyped bridge must not leave a port behind.
		if _, err := e.devices.ByName(g.Bridge); errors.Is(err, links.ErrGone) {
			return errNoBridge(g)
		}
		port, stub, err = e.makePort(g)
	}
	if err != nil {
		return err
	}
	if err := e.closeLost(g, port.Ifindex); err != nil {
		return err
	}
	state, err := e.openPort(port, stub)
	if err != nil {
		return err
	}
	e.takeWire(g, port, stub, state)
	e.recover(g)
	return nil
}

// closeLost closes the wire of a stable port that the group had and that is not the
// given one: it outlives its port, and as long as it is open its members can be on no
// other.
func (e *Engine) closeLost(g *group, port int) error {
	g.mu.Lock()
	lost := cmp.Or(g.port.Ifindex, g.lost)
	g.mu.Unlock()
	if lost != 0 && lost != port && e.isWired(lost) {
		if err := e.wires.CloseWire(lost); err != nil {
			return fmt.Errorf("close the wire of a port %s that is gone: %w", g.Port, err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost = 0
	return nil
}

// isWired says whether a port's wire is open.
func (e *Engine) isWired(port int) bool {
	_, err := e.wires.WireState(port)
	return err == nil
}

func errNoBridge(g *group) error { return fmt.Errorf("bridge %s is not there", g.Bridge) }

// findPort returns the stable port that is there; ErrGone if there is none.
func (e *Engine) findPort(g *group) (port, stub links.Link, err error) {
	port, stub, err = e.stablePort(g.Port)
	if errors.Is(err, errNotStable) {
		return port, stub, fmt.Errorf("there is a device %s already, and %w: rename it, or give the group another port", g.Port, err)
	} else if err != nil {
		return port, stub, err
	}
	return port, stub, e.checkMaster(g, port)
}

// errNotStable is about a device that has the name of a stable port.
var errNotStable = errors.New("it is no stable port")

// stablePort returns a stable port and its stub; ErrGone if nothing has that name.
func (e *Engine) stablePort(name string) (port, stub links.Link, err error) {
	if port, err = e.devices.ByName(name); err != nil {
		return port, stub, err
	}
	stub, err = e.devices.ByName(links.StubName(name))
	if err != nil && !errors.Is(err, links.ErrGone) {
		return port, stub, err
	}
	if err != nil || port.Kind != "veth" || stub.Kind != "veth" || port.Lower != stub.Ifindex {
		return port, stub, errNotStable
	}
	return port, stub, nil
}

// checkMaster refuses a port that somebody put elsewhere.
func (e *Engine) checkMaster(g *group, port links.Link) error {
	if port.Master == 0 {
		return nil
	}
	if name := e.nameOf(port.Master); name != g.Bridge {
		return fmt.Errorf("%s belongs to %s and not to %s: take it out there, or change the group", g.Port, name, g.Bridge)
	}
	return nil
}

// defaultMTU is that of a stable port about whose bridge and members nothing is
// known.
const defaultMTU = 1500

// makePort makes the stable port with an MTU that the bridge and all members have
// at least.
func (e *Engine) makePort(g *group) (port, stub links.Link, err error) {
	mtu := 0
	for _, name := range append([]string{g.Bridge}, g.Members...) {
		l, err := e.devices.ByName(name)
		if err == nil && (mtu == 0 || l.MTU < mtu) {
			mtu = l.MTU
		}
	}
	if mtu == 0 {
		mtu = defaultMTU
	}
	var mac accel.MAC
	g.recording.Lock()
	if a := g.record.Adoption; a != nil { // the bridge may have its address
		mac, mtu = a.Before.MAC, a.Before.MTU
	}
	g.recording.Unlock()
	if port, stub, err = e.devices.CreatePort(g.Port, mac, mtu); err != nil {
		return port, stub, fmt.Errorf("make %s: %w", g.Port, err)
	}
	return port, stub, nil
}

// openPort makes both ends silent, and wires the port. It is not in its bridge
// yet, or it is wired already.
func (e *Engine) openPort(port, stub links.Link) (accel.WireState, error) {
	for _, end := range []links.Link{port, stub} {
		if err := e.devices.QuietIPv6(end.Name); err != nil {
			return accel.WireState{}, fmt.Errorf("quiet IPv6 on %s: %w", end.Name, err)
		}
	}
	state, err := e.wires.OpenWire(port.Ifindex)
	if err != nil {
		return state, fmt.Errorf("wire %s: %w", port.Name, err)
	}
	return state, nil
}

// takeWire takes a wire over as it is: it is the truth about what is active.
func (e *Engine) takeWire(g *group, port, stub links.Link, state accel.WireState) {
	for _, ifindex := range e.takeMembers(g, port, stub, state) {
		if err := e.wires.RemoveMember(port.Ifindex, ifindex); err != nil {
			e.logger.Warn("a device that is no member any more cannot be freed", "group", g.Name, "ifindex", ifindex, "error", err)
		}
	}
}

// takeMembers returns the devices on the wire that are no members any more, and
// not in use.
func (e *Engine) takeMembers(g *group, port, stub links.Link, state accel.WireState) (strays []int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.port, g.stub = port, stub
	g.active, g.draining = state.Active, state.Draining
	g.on = g.at(state.Active)
	g.stranger = g.active != 0 && g.on == nil
	for _, ifindex := range state.Members {
		m := g.at(ifindex)
		switch {
		case m != nil:
			m.warm = true
			if m.shared {
				e.takeClaim(g, m)
			}
		case ifindex != state.Active && ifindex != state.Draining:
			strays = append(strays, ifindex)
		}
	}
	return strays
}

// takeClaim claims what is on the wire anyway.
func (e *Engine) takeClaim(g *group, m *member) {
	if err := e.claim(g, m); err != nil {
		e.logger.Error("two groups are wired to one member", "group", g.Name, "error", err)
	}
}

// tendStrays takes off the wire what does not belong there any more: devices that
// are gone, but perhaps only into another network namespace, where they would stay
// deaf, and members that were given to a bridge, which would hear nothing of them. A
// swap that is running may have put its target there; its end is a reason to look
// again.
func (e *Engine) tendStrays(g *group) {
	port := e.portOf(g)
	state, err := e.wires.WireState(port)
	if err != nil {
		e.logger.Warn("a wire cannot be looked at", "group", g.Name, "error", err)
		return
	}
	for _, ifindex := range e.strays(g, state.Members) {
		if err := e.wires.RemoveMember(port, ifindex); err != nil {
			e.logger.Warn("a device that is no member any more cannot be freed", "group", g.Name, "ifindex", ifindex, "error", err)
		}
	}
}

// strays are those of the devices on the wire that do not belong there.
func (e *Engine) strays(g *group, onWire []int) (strays []int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.follow(g)
	defer e.told(g)
	if g.running != nil {
		return nil
	}
	for _, ifindex := range onWire {
		m := g.at(ifindex)
		if ifindex == g.active || ifindex == g.draining || m != nil && !m.taken() {
			continue
		}
		if m != nil {
			m.warm = false
		}
		strays = append(strays, ifindex)
	}
	return strays
}

// tendMembers makes every member that is there a warm standby, but those that
// other groups have too: they are made ready when they are needed.
func (e *Engine) tendMembers(g *group) {
	for _, m := range g.members {
		if !e.occupy(g, m) {
			continue
		}
		err := e.warmUp(g, m)
		g.mu.Lock()
		was := m.unfit
		m.busy, m.unfit = false, ""
		if err != nil {
			m.unfit = err.Error()
		}
		if m.unfit != "" && m.unfit != was {
			e.logger.Warn("a member cannot be used", "group", g.Name, "why", m.unfit)
		}
		e.told(g)
		g.mu.Unlock()
	}
}

// occupy takes a member that is to be made ready, if it is.
func (e *Engine) occupy(g *group, m *member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.link.Ifindex == 0 || m.warm || m.busy || m.shared || m.away || g.closed || g.running != nil && g.running.to == m {
		return false
	}
	m.busy = true
	return true
}

// warmUp makes a member ready and puts it on the wire.
func (e *Engine) warmUp(g *group, m *member) error {
	l, err := e.check(g, m.name)
	if err != nil {
		return err
	}
	g.mu.Lock()
	port := g.port
	g.mu.Unlock()
	if err := e.ready(l, port.MTU); err != nil {
		return err
	}
	if err := e.wires.AddMember(port.Ifindex, l.Ifindex); err != nil {
		return fmt.Errorf("put the programs on %s: %w", m.name, err)
	}
	g.mu.Lock()
	m.warm = m.link.Ifindex == l.Ifindex && g.port.Ifindex == port.Ifindex
	g.mu.Unlock()
	e.look(l.Ifindex, l.Name) // and at once, if it is needed
	return nil
}

// tendMTU gives the members the MTU of the stable port where it was raised: what is
// larger than a member takes is dropped in silence. The active one is the last, since
// drivers start the device anew for that. Members of a swap are looked at when it ends.
func (e *Engine) tendMTU(g *group) error {
	var errs []error
	for _, l := range g.narrow() {
		if err := e.devices.SetMTU(l.Ifindex, g.portMTU()); err != nil && !errors.Is(err, links.ErrGone) {
			errs = append(errs, fmt.Errorf("set the MTU of %s: %w", l.Name, err))
		}
	}
	return errors.Join(errs...)
}

// narrow are the members whose MTU is less than that of the port.
func (g *group) narrow() (narrow []links.Link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running != nil {
		return nil
	}
	for _, m := range g.members {
		if m.warm && !m.away && m.link.MTU < g.port.MTU {
			narrow = append(narrow, m.link)
		}
	}
	slices.SortStableFunc(narrow, func(a, b links.Link) int {
		switch {
		case a.Ifindex == g.active:
			return 1
		case b.Ifindex == g.active:
			return -1
		}
		return 0
	})
	return narrow
}

func (g *group) portMTU() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.port.MTU
}

// tendActive makes the first usable member active where the group is set up for
// the first time. Later that is a swap: see judge.
func (e *Engine) tendActive(g *group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.settled && g.active == 0 {
		if to := g.refuge(); to != nil {
			if err := e.firstFlip(g, to); err != nil {
				e.logger.Error("no member can be made active", "group", g.Name, "error", err)
			}
		}
	}
	g.settled = true
	e.judge(g)
}

// firstFlip makes a member active that takes over from none. The group is locked.
func (e *Engine) firstFlip(g *group, to *member) error {
	if err := e.wires.PrepareFlip(g.port.Ifindex); err != nil {
		return fmt.Errorf("prepare the flip: %w", err)
	}
	if err := e.flip(g, to, nil); err != nil {
		return fmt.Errorf("make %s active: %w", to.name, err)
	}
	return e.wires.EndDrain(g.port.Ifindex, g.active)
}

// tendBridge puts the stable port into its bridge.
func (e *Engine) tendBridge(g *group) error {
	bridge, err := e.devices.ByName(g.Bridge)
	if errors.Is(err, links.ErrGone) {
		return errNoBridge(g)
	} else if err != nil {
		return fmt.Errorf("look at bridge %s: %w", g.Bridge, err)
	}
	if bridge.Kind != "bridge" {
		return fmt.Errorf("%s is no bridge", g.Bridge)
	}
	port, err := e.devices.ByIndex(e.portOf(g))
	if err != nil {
		return fmt.Errorf("look at %s: %w", g.Port, err)
	}
	if err := e.checkMaster(g, port); err != nil || port.Master != 0 {
		return err
	}
	// Later it is the operator's to set it down.
	if err := e.devices.SetUp(port.Ifindex, true); err != nil {
		return fmt.Errorf("set %s up: %w", g.Port, err)
	}
	if err := e.devices.SetMaster(port.Ifindex, bridge.Ifindex); err != nil {
		return fmt.Errorf("put %s into %s: %w", g.Port, g.Bridge, err)
	}
	return e.giveBack(g, port)
}

// giveBack gives a stable port that was made anew what an adopted one had.
func (e *Engine) giveBack(g *group, port links.Link) error {
	g.recording.Lock()
	a := g.record.Adoption
	g.recording.Unlock()
	if a == nil {
		return nil
	}
	if err := e.devices.ApplyPortSettings(port.Ifindex, a.Settings); err != nil {
		return fmt.Errorf("give %s the settings of %s: %w", port.Name, a.Before.Name, err)
	}
	for _, address := range a.Addresses {
		if err := e.devices.AddAddress(port.Ifindex, address); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("give %s the addresses of %s: %w", port.Name, a.Before.Name, err)
		}
	}
	return nil
}

func (e *Engine) portOf(g *group) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.port.Ifindex
}

// tendCarrier gives the stable port its carrier while a member carries traffic,
// and takes it away while none does, so that the bridge's STP may find another
// way.
func (e *Engine) tendCarrier(g *group) error {
	g.mu.Lock()
	port, stub, wanted := g.port, g.stub, g.active != 0
	g.mu.Unlock()
	if stub.Up == wanted {
		return nil
	}
	if err := e.devices.SetUp(stub.Ifindex, wanted); err != nil {
		return fmt.Errorf("give %s its carrier: %w", port.Name, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stub.Up = wanted
	return nil
}
