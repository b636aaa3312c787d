package nicswap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-dev/shunt/accel"
)

func init() {
	accel.Register(accel.Plugin{
		Name:     "nicswap",
		After:    []string{"telemetry", "tcprog"},
		New:      func() accel.Component { return newEngine() },
		Commands: commands,
	})
}

var (
	_ accel.Component = (*Engine)(nil)
	_ accel.Keeper    = (*Engine)(nil)
	_ accel.Router    = (*Engine)(nil)

	_ accel.GroupSource = (*Engine)(nil)
)

func newEngine() *Engine {
	e := &Engine{open: openHost, write: writeFile, pulse: realtime, floodTime: floodTime, claims: make(map[string]string)}
	e.upgrades = newUpgrader(e, e.events.tell)
	return e
}

// Provision finds the data plane and the bridges.
func (e *Engine) Provision(_ context.Context, h *accel.Host) (err error) {
	e.logger, e.tracer, e.config, e.namespace = h.Logger, h.Tracer, h.Config, h.Namespace
	e.meters = accel.UseAll[Meters](h)
	if e.wires, err = accel.Use[Wires](h); err != nil {
		return err
	}
	e.bridges, err = accel.Use[Bridges](h)
	return err
}

// Start sets every group up, or takes it over as an earlier daemon left it. A
// group with something wrong does not keep the daemon from starting: shunt groups
// says what it is.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.start(ctx); err != nil {
		return errors.Join(err, e.Stop(ctx))
	}
	return nil
}

func (e *Engine) start(ctx context.Context) (err error) {
	if e.devices, e.sender, err = e.open(); err != nil {
		return fmt.Errorf("open the devices: %w", err)
	}
	e.store = newStore(e.config.StateDir, e.namespace.Inode, e.write)
	e.working, e.stop = context.WithCancelCause(context.Background()) // a later swap is no part of the start's trace
	if err := e.load(); err != nil {
		return err
	}
	if err := e.listen(); err != nil {
		return err
	}
	e.lookAtAll()
	for _, g := range e.all() {
		e.tendTo(g)
		e.writeDown(g)
		e.begin(g)
	}
	e.upgrades.start(newJournals(e.config.StateDir, e.namespace.Inode, e.write), e.logger)
	policy := newPolicy(e, e.devices, e.upgrades.upgrading, e.config.Groups, e.logger)
	e.workers.Go(func() { policy.run(e.working) })
	return nil
}

// load makes the groups: those of the configuration, and those of which the state
// directory knows.
func (e *Engine) load() error {
	var groups []*group
	for _, definition := range e.config.Groups {
		g := newGroup(definition)
		g.configured = true
		groups = append(groups, g)
	}
	names, err := e.store.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		r, err := e.store.read(name)
		if err != nil {
			e.logger.Error("a group's file is passed over", "error", err)
			continue
		}
		if r == nil {
			continue
		}
		i := slices.IndexFunc(groups, func(g *group) bool { return g.Name == name })
		if i < 0 && !e.works(r.Group.Bridge) {
			e.logger.Info("a group of another bridge is left alone", "group", name, "bridge", r.Group.Bridge)
			continue
		}
		if i < 0 {
			groups = append(groups, newGroup(r.Group))
			i = len(groups) - 1
		}
		groups[i].record, groups[i].adopted = *r, r.Adoption != nil
	}
	groups = slices.DeleteFunc(groups, func(g *group) bool { return !e.settleRecord(g) })
	share(groups)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.groups = groups
	return nil
}

// works says whether the bridge is one of this daemon's: another daemon may work on the
// others in this network namespace, with the same directory.
func (e *Engine) works(bridge string) bool {
	return e.config.AllBridges || slices.Contains(e.config.Bridges, bridge)
}

// Stop ends what runs and leaves every wire, port and member in place: guests keep
// their uplink without the daemon. A swap that has not flipped is undone; one that
// has is retired at once, and what was not announced is at the next start.
func (e *Engine) Stop(context.Context) error {
	if e.stop == nil {
		return nil
	}
	e.mu.Lock()
	e.stop(errStopping)
	e.mu.Unlock()
	for _, g := range e.all() {
		g.mu.Lock()
		if g.running != nil {
			g.running.stop(errStopping)
		}
		g.mu.Unlock()
	}
	e.upgrades.stop()
	e.workers.Wait()
	e.events.end()
	err := e.devices.Close()
	e.stop = nil
	return err
}

// Kept says which groups stay wired when the daemon ends.
func (e *Engine) Kept() []string {
	kept := []string{}
	for _, g := range e.all() {
		g.mu.Lock()
		if g.port.Ifindex != 0 {
			kept = append(kept, fmt.Sprintf("%s, the stable port of group %s in %s; with a daemon, \"shunt release %s\" removes it", g.Port, g.Name, g.Bridge, g.Name))
		}
		g.mu.Unlock()
	}
	return kept
}
