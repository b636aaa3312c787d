package nicswap

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// adoption is what adopt found, so that release can put it back. While State is
// not "adopted" a daemon is at work, or has ended in the middle: the next one puts
// Member into the bridge.
type adoption struct {
	State     string             `json:"state"`
	Member    string             `json:"member"`
	Settings  links.PortSettings `json:"settings"`
	Addresses []links.Address    `json:"addresses,omitempty"`
	Before    device             `json:"before"`
}

// The states of an adoption.
const (
	adopting  = "adopting"
	adopted   = "adopted"
	releasing = "releasing"
)

// maxName is the longest name of a network device, and so of a stable port.
const maxName = 15

// stableSuffix makes the name of a stable port of that of the port it is made of.
const stableSuffix = ".s"

// Adopt makes a stable port of a bridge port, whose device becomes its first
// member and keeps its name. A failure puts the port back. 404 where there is no
// such port, 409 where it cannot be adopted, or one of its members cannot be used.
func (e *Engine) Adopt(_ context.Context, r AdoptRequestV1) (ChangeV1, error) {
	if err := e.enter(); err != nil {
		return ChangeV1{}, err
	}
	defer e.workers.Done()
	e.changing.Lock()
	defer e.changing.Unlock()
	g, bridge, err := e.planAdoption(r)
	if err != nil {
		return ChangeV1{}, err
	}
	result := e.describeAdoption(g, bridge)
	if r.DryRun {
		return result, nil
	}
	if err := e.adopt(g); err != nil {
		return ChangeV1{}, errors.Join(fmt.Errorf("%s is not adopted: %w", r.Port, err), e.putBack(g))
	}
	e.join(g)
	result.Done, result.Ifindex = true, e.portOf(g)
	e.logger.Info("adopted", "group", g.Name, "bridge", g.Bridge, "port", g.Port, "member", r.Port)
	return result, nil
}

// planAdoption finds out what there is, and changes nothing. The group's record
// has it.
func (e *Engine) planAdoption(r AdoptRequestV1) (*group, accel.BridgeState, error) {
	definition := accel.DefaultGroup()
	definition.Name = orElse(r.Group, r.Port[:min(len(r.Port), maxName-len(stableSuffix))]+stableSuffix)
	definition.Port = definition.Name
	definition.Members = append([]string{r.Port}, r.Members...)
	if err := e.firstNames(definition.Members); err != nil {
		return nil, accel.BridgeState{}, err
	}
	if err := e.checkNames(definition); err != nil {
		return nil, accel.BridgeState{}, err
	}
	l, err := e.devices.ByName(r.Port)
	if errors.Is(err, links.ErrGone) {
		return nil, accel.BridgeState{}, accel.Statusf(404, "there is no device %s", r.Port)
	} else if err != nil {
		return nil, accel.BridgeState{}, err
	}
	bridge, err := e.bridgeOf(l)
	if err != nil {
		return nil, bridge, err
	}
	definition.Bridge = bridge.Name
	g := newGroup(definition)
	if err := e.checkAdoptable(g, l); err != nil {
		return nil, bridge, accel.Statusf(409, "%v", err)
	}
	g.port.MTU = l.MTU // the stable port is made with it
	for _, member := range g.Members[1:] {
		if _, err := e.check(g, member); err != nil {
			return nil, bridge, accel.Statusf(409, "nothing was changed: %v; or adopt %s without %s", err, l.Name, member)
		}
	}
	g.record.Adoption, err = e.findSettings(l)
	return g, bridge, err
}

// firstNames puts the first name of a device in the place of an alternative one: the
// kernel tells of devices by that. A device that is not there has the name that it is
// given.
func (e *Engine) firstNames(names []string) error {
	for i, name := range names {
		l, err := e.devices.ByName(name)
		if errors.Is(err, links.ErrGone) {
			continue
		} else if err != nil {
			return err
		}
		names[i] = l.Name
	}
	return nil
}

// checkNames refuses what could not be told apart.
func (e *Engine) checkNames(g accel.Group) error {
	for i, name := range g.Members {
		if err := accel.CheckInterfaceName(name); err != nil {
			return accel.Statusf(400, "%v", err)
		}
		if slices.Contains(g.Members[:i], name) {
			return accel.Statusf(400, "%s is named twice", name)
		}
	}
	if err := accel.CheckGroupName(g.Name); err != nil {
		return accel.Statusf(400, "%v", err)
	}
	for _, other := range e.all() {
		if other.Name == g.Name {
			return accel.Statusf(409, "there is a group %s already: choose another name", g.Name)
		}
		for _, name := range g.Members {
			switch {
			case other.Port == name:
				return accel.Statusf(409, "%s is a stable port already, that of group %s", name, other.Name)
			case slices.Contains(other.Members, name):
				return accel.Statusf(409, "%s is a member of group %s", name, other.Name)
			}
		}
	}
	if err := e.checkVacant(g.Port); err != nil {
		return accel.Statusf(409, "%v: choose another name for the group", err)
	}
	return nil
}

// bridgeOf returns the bridge that a device is a port of.
func (e *Engine) bridgeOf(l links.Link) (accel.BridgeState, error) {
	if l.Master == 0 {
		return accel.BridgeState{}, accel.Statusf(409, "%s is no port of a bridge", l.Name)
	}
	name := e.nameOf(l.Master)
	for _, b := range e.bridges.Bridges() {
		if b.Name == name && b.Present {
			return b, nil
		}
	}
	return accel.BridgeState{}, accel.Statusf(409, "%s belongs to %s, which is not among this daemon's bridges", l.Name, name)
}

// checkAdoptable is check for a port of the bridge, whose addresses go along.
func (e *Engine) checkAdoptable(g *group, l links.Link) error {
	if err := checkKind(g, l); err != nil {
		return err
	}
	if other := e.holder(g, l.Ifindex); other != "" {
		return fmt.Errorf("%s is used by group %s", l.Name, other)
	}
	if err := e.checkBackup(l); err != nil {
		return err
	}
	if err := e.checkHairpin(l); err != nil {
		return err
	}
	return e.checkAlone(l)
}

// checkBackup refuses what other ports fall back to: that a port leaves its bridge makes
// the kernel forget it, and nothing gives it back.
func (e *Engine) checkBackup(port links.Link) error {
	all, err := e.devices.All()
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.Master != port.Master || l.Master == 0 || l.Ifindex == port.Ifindex {
			continue
		}
		s, err := e.devices.PortSettings(l.Ifindex)
		if errors.Is(err, links.ErrGone) || errors.Is(err, links.ErrNoPort) {
			continue
		} else if err != nil {
			return fmt.Errorf("read the settings of port %s: %w", l.Name, err)
		}
		if s.BackupPort == port.Name {
			return fmt.Errorf("%s is the backup port of %s, which would have none any more: take it away first (bridge link set dev %s nobackup_port)", port.Name, l.Name, l.Name)
		}
	}
	return nil
}

// findSettings reads all that release puts back.
func (e *Engine) findSettings(l links.Link) (*adoption, error) {
	a := &adoption{State: adopting, Member: l.Name, Before: device{Link: l}}
	var err error
	if a.Settings, err = e.devices.PortSettings(l.Ifindex); err != nil {
		return nil, fmt.Errorf("read the settings of port %s: %w", l.Name, err)
	}
	if a.Addresses, err = e.devices.Addresses(l.Ifindex); err != nil {
		return nil, fmt.Errorf("read the addresses of %s: %w", l.Name, err)
	}
	if a.Before.IPv6, err = e.devices.IPv6(l.Name); err != nil {
		return nil, fmt.Errorf("read the IPv6 settings of %s: %w", l.Name, err)
	}
	return a, nil
}

// adopt does it. The stable port is in the bridge before the device leaves it,
// with the same address, so that the bridge's own address stays; nothing passes it
// until the flip. Only from when the device leaves until the flip nothing is
// forwarded.
func (e *Engine) adopt(g *group) error {
	a := g.record.Adoption
	if err := e.change(g, func(*record) {}); err != nil {
		return err
	}
	port, stub, err := e.devices.CreatePort(g.Port, a.Before.MAC, a.Before.MTU)
	if err != nil {
		return fmt.Errorf("make %s: %w", g.Port, err)
	}
	if _, err := e.openPort(port, stub); err != nil {
		return err
	}
	g.port, g.stub = port, stub
	nic := a.Before.Link
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"set the stub up", func() error { return e.devices.SetUp(stub.Ifindex, true) }},
		{"set the stable port up", func() error { return e.devices.SetUp(port.Ifindex, true) }},
		{"put the stable port into the bridge", func() error { return e.devices.SetMaster(port.Ifindex, nic.Master) }},
		{"give the stable port the settings", func() error { return e.devices.ApplyPortSettings(port.Ifindex, a.Settings) }},
		{"move the addresses", func() error { return e.moveAddresses(a.Addresses, nic.Ifindex, port.Ifindex) }},
		{"take the device out of the bridge", func() error { return e.devices.SetMaster(nic.Ifindex, 0) }},
		{"make the device ready", func() error { return e.ready(nic, port.MTU) }},
		{"put the programs on the device", func() error { return e.wires.AddMember(port.Ifindex, nic.Ifindex) }},
		{"make the device active", func() error { return e.adoptFlip(g, nic) }},
		{"write it down", func() error { return e.setState(g, adopted) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// adoptFlip makes the adopted device active.
func (e *Engine) adoptFlip(g *group, nic links.Link) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[0]
	m.link, m.warm = nic, true
	return e.firstFlip(g, m)
}

// setState writes down how far adopt or release is.
func (e *Engine) setState(g *group, state string) error {
	return e.change(g, func(r *record) {
		a := *r.Adoption
		a.State = state
		r.Adoption = &a
	})
}

// moveAddresses gives a device the addresses of another. What is there already
// stays, what is not is no error: it may be the second try. The kernel's own
// link-local ones stay where they are.
func (e *Engine) moveAddresses(addresses []links.Address, from, to int) error {
	for _, a := range addresses {
		if isKernels(a) {
			continue
		}
		there, err := e.devices.Addresses(to)
		if err != nil {
			return err
		}
		if !hasAddress(there, a) {
			if err := e.devices.AddAddress(to, a); err != nil {
				return err
			}
		}
		here, err := e.devices.Addresses(from)
		if errors.Is(err, links.ErrGone) {
			continue
		} else if err != nil {
			return err
		}
		if hasAddress(here, a) {
			if err := e.devices.DeleteAddress(from, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// isKernels says whether an address is one that the kernel makes of the device's own.
func isKernels(a links.Address) bool {
	return a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast()
}

func hasAddress(there []links.Address, a links.Address) bool {
	return slices.ContainsFunc(there, func(b links.Address) bool { return b.Prefix == a.Prefix && b.Peer == a.Peer })
}

// join makes an adopted group one of the daemon's.
func (e *Engine) join(g *group) {
	g.adopted = true
	e.mu.Lock()
	e.groups = append(e.groups, g)
	share(e.groups)
	e.mu.Unlock()
	e.lookAtAll()
	e.tendTo(g)
	e.begin(g)
}

// describeAdoption says what is done, and what it costs.
func (e *Engine) describeAdoption(g *group, bridge accel.BridgeState) ChangeV1 {
	a := g.record.Adoption
	c := ChangeV1{Group: g.Name, Bridge: g.Bridge, Port: g.Port, Member: a.Member}
	c.Steps = []string{
		fmt.Sprintf("make the stable port %s with the address, MTU %d and settings of %s, and put it into %s", g.Port, a.Before.MTU, a.Member, g.Bridge),
		fmt.Sprintf("take %s out of %s; it becomes the first member (%s) and keeps its name", a.Member, g.Bridge, kindName(a.Before.Link)),
	}
	for _, member := range g.Members[1:] {
		c.Steps = append(c.Steps, "further member "+member)
	}
	c.Costs = []string{
		fmt.Sprintf("what is behind %s is learned anew: the entries of %s behind it (%s) go with the port, and until then the bridge floods", a.Member, g.Bridge, e.countBehind(bridge.Name, a.Before.Ifindex)),
		fmt.Sprintf("frames are lost from when %s leaves %s until it is wired, and with STP until %s forwards", a.Member, g.Bridge, g.Port),
	}
	if n := len(slices.DeleteFunc(slices.Clone(a.Addresses), isKernels)); n > 0 {
		c.Costs = append(c.Costs, fmt.Sprintf("addresses of %s (%d) move to %s; routes over it do not", a.Member, n, g.Port))
	}
	return c
}

// countBehind says how many entries of the bridge's table are behind a port.
func (e *Engine) countBehind(bridge string, port int) string {
	table, err := e.bridges.FDB(bridge)
	if err != nil {
		return "unknown now"
	}
	n := 0
	for _, s := range table {
		if s.Port == port && !s.Local {
			n++
		}
	}
	return fmt.Sprint(n)
}

// Release puts a group's active member into the bridge in the place of the stable
// port, which is removed. A failure leaves the group as it was. 404 where there is
// no such group, 409 where it cannot be released now.
func (e *Engine) Release(_ context.Context, r ReleaseRequestV1) (ChangeV1, error) {
	if err := e.enter(); err != nil {
		return ChangeV1{}, err
	}
	defer e.workers.Done()
	e.changing.Lock()
	defer e.changing.Unlock()
	g, err := e.find(r.Group)
	if err != nil {
		return ChangeV1{}, err
	}
	result, err := e.planRelease(g)
	if err != nil || r.DryRun {
		return result, err
	}
	if err := e.close(g); err != nil {
		return ChangeV1{}, err
	}
	result = g.describeRelease() // another member may have become active until then
	if err := e.release(g, result.Member); err != nil {
		return ChangeV1{}, errors.Join(fmt.Errorf("%s is not released: %w", g.Name, err), e.reopen(g))
	}
	e.part(g)
	result.Done = true
	e.logger.Info("released", "group", g.Name, "bridge", g.Bridge, "member", result.Member)
	return result, nil
}

// planRelease says what would be done. It changes nothing.
func (e *Engine) planRelease(g *group) (ChangeV1, error) {
	if port, err := e.devices.ByIndex(e.portOf(g)); err == nil {
		if err := e.checkBackup(port); err != nil {
			return ChangeV1{}, accel.Statusf(409, "%v", err)
		}
	}
	if g.configured {
		return ChangeV1{}, accel.Statusf(409, "%s is in the configuration: remove it there and start the daemon again; it stays wired until it is released then", g.Name)
	}
	return g.describeRelease(), nil
}

func (g *group) describeRelease() ChangeV1 {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := ChangeV1{Group: g.Name, Bridge: g.Bridge, Port: g.Port, Ifindex: g.port.Ifindex}
	if g.on != nil && g.active != 0 {
		c.Member = g.on.name
		c.Steps = []string{fmt.Sprintf("take %s off the wire and put it into %s with the settings of %s", c.Member, g.Bridge, g.Port)}
	} else {
		c.Steps = []string{fmt.Sprintf("put no member into %s, since none is active: ip link set dev NAME master %s does that", g.Bridge, g.Bridge)}
	}
	c.Steps = append(c.Steps, fmt.Sprintf("remove the stable port %s", g.Port))
	c.Costs = []string{
		fmt.Sprintf("what is behind %s is learned anew, and until then the bridge floods", g.Port),
		fmt.Sprintf("frames are lost from when the wire is closed until the port that follows %s forwards", g.Port),
	}
	return c
}

// close lets nothing begin in a group any more, and waits for who tends it.
func (e *Engine) close(g *group) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.follow(g)
	if g.running != nil {
		return accel.Statusf(409, "a swap of %s is running", g.Name)
	}
	for _, m := range g.members {
		if m.away {
			return accel.Statusf(409, "%s is being upgraded", m.name)
		}
	}
	g.closed = true
	e.guard(g)
	g.end()
	return nil
}

// release writes down what is done before it is: a daemon that ends in the middle
// leaves it to the next one to finish.
func (e *Engine) release(g *group, member string) error {
	<-g.ended
	settings, err := e.devices.PortSettings(e.portOf(g))
	if err != nil && !errors.Is(err, links.ErrNoPort) && !errors.Is(err, links.ErrGone) {
		return fmt.Errorf("read the settings of %s: %w", g.Port, err)
	}
	addresses, err := e.devices.Addresses(e.portOf(g))
	if err != nil && !errors.Is(err, links.ErrGone) {
		return fmt.Errorf("read the addresses of %s: %w", g.Port, err)
	}
	err = e.change(g, func(r *record) {
		a := adoption{Settings: settings}
		if r.Adoption != nil {
			a = *r.Adoption
		}
		if settings.Options != nil { // they may have been changed since it was adopted
			a.Settings, a.Addresses = settings, addresses
		}
		a.State, a.Member = releasing, member
		r.Adoption = &a
	})
	if err != nil {
		return err
	}
	return e.putBack(g)
}

// putBack puts the record's member into the bridge and removes the stable port.
// Every step may have been done already: so it is what an adoption that failed
// needs, and a daemon that ended in the middle.
func (e *Engine) putBack(g *group) error {
	port, _, err := e.stablePort(g.Port)
	switch {
	case errors.Is(err, links.ErrGone), errors.Is(err, errNotStable):
		port = links.Link{}
		if err := e.closeLost(g, 0); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("look at %s: %w", g.Port, err)
	default:
		if err := e.closeWire(port.Ifindex); err != nil {
			return fmt.Errorf("close the wire of %s: %w", g.Port, err)
		}
	}
	e.calm(g) // before what it had itself is given back
	if err := e.putMember(g.Bridge, g.record.Adoption, port.Ifindex); err != nil {
		return err
	}
	if port.Ifindex != 0 {
		if err := e.devices.Delete(port.Ifindex); err != nil && !errors.Is(err, links.ErrGone) {
			return fmt.Errorf("remove %s: %w", g.Port, err)
		}
	}
	if err := e.store.remove(g.Name); err != nil {
		return fmt.Errorf("forget %s: %w", g.Name, err)
	}
	return nil
}

// closeWire closes a wire whether this daemon has it open or not. A member must
// never be in the bridge while it is wired to it: that is a loop.
func (e *Engine) closeWire(port int) error {
	if _, err := e.wires.OpenWire(port); err != nil {
		return err
	}
	return e.wires.CloseWire(port)
}

// putMember makes a device a port of the bridge, as it was before.
func (e *Engine) putMember(bridgeName string, a *adoption, port int) error {
	l, err := e.devices.ByName(a.Member)
	if a.Member == "" || errors.Is(err, links.ErrGone) {
		return nil // there is none to put back
	} else if err != nil {
		return err
	}
	bridge, err := e.devices.ByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find the bridge: %w", err)
	}
	if l.Name == a.Before.Name {
		if err := e.restoreSettings(device{Link: atIndex(a.Before.Link, l.Ifindex), IPv6: a.Before.IPv6}); err != nil {
			return err
		}
	}
	if l.Master != bridge.Ifindex {
		if err := e.devices.SetMaster(l.Ifindex, bridge.Ifindex); err != nil {
			return fmt.Errorf("put %s into %s: %w", l.Name, bridgeName, err)
		}
	}
	if err := e.devices.ApplyPortSettings(l.Ifindex, a.Settings); err != nil {
		return fmt.Errorf("give %s the settings: %w", l.Name, err)
	}
	if err := e.moveAddresses(a.Addresses, port, l.Ifindex); err != nil {
		return fmt.Errorf("move the addresses to %s: %w", l.Name, err)
	}
	return nil
}

// atIndex is a device's description under the number that it has now.
func atIndex(l links.Link, ifindex int) links.Link {
	l.Ifindex = ifindex
	return l
}

// calm makes members that are on no wire any more ordinary devices again.
func (e *Engine) calm(g *group) {
	g.mu.Lock()
	var warm []links.Link
	for _, m := range g.members {
		if m.warm && m.link.Ifindex != 0 {
			warm = append(warm, m.link)
		}
		m.warm = false
	}
	g.mu.Unlock()
	for _, l := range warm {
		if err := e.devices.SetPromisc(l.Ifindex, false); err != nil && !errors.Is(err, links.ErrGone) {
			e.logger.Warn("a device stays promiscuous", "device", l.Name, "error", err)
		}
	}
}

// reopen builds a group anew whose release failed.
func (e *Engine) reopen(g *group) error {
	errs := []error{e.takeOut(g.record.Adoption)}
	// A port that was in the bridge without its wire is no stable port any more. One
	// that has its wire still carries the traffic.
	if port, _, err := e.stablePort(g.Port); err == nil && !e.isWired(port.Ifindex) {
		errs = append(errs, e.devices.Delete(port.Ifindex))
	}
	if a := g.record.Adoption; a != nil && a.State == releasing { // else nothing was written down
		errs = append(errs, e.change(g, func(r *record) {
			if g.adopted {
				a := *r.Adoption
				a.State = adopted
				r.Adoption = &a
			} else {
				r.Adoption = nil
			}
		}))
	}
	g.mu.Lock()
	g.closed, g.ended = false, make(chan struct{})
	g.losePort()
	g.mu.Unlock()
	e.lookAtAll()
	e.tendTo(g)
	e.begin(g)
	return errors.Join(errs...)
}

// takeOut takes a member out of the bridge again, without the addresses that it
// may have got already: the stable port gets them back.
func (e *Engine) takeOut(a *adoption) error {
	if a == nil {
		return nil
	}
	l, err := e.devices.ByName(a.Member)
	if err != nil || l.Master == 0 {
		return nil // it was not put there
	}
	if err := e.devices.SetMaster(l.Ifindex, 0); err != nil {
		return err
	}
	there, err := e.devices.Addresses(l.Ifindex)
	if err != nil {
		return err
	}
	for _, address := range a.Addresses {
		if hasAddress(there, address) {
			if err := e.devices.DeleteAddress(l.Ifindex, address); err != nil {
				return err
			}
		}
	}
	return nil
}

// part takes a released group off the list.
func (e *Engine) part(g *group) {
	for _, m := range g.members {
		if m.shared {
			e.unclaim(g, m)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.groups = slices.DeleteFunc(e.groups, func(other *group) bool { return other == g })
	share(e.groups)
}

// settleRecord deals with what the state directory says of a group at start. It
// says whether there is a group at all.
func (e *Engine) settleRecord(g *group) bool {
	a := g.record.Adoption
	if a != nil && a.State != adopted {
		e.logger.Warn("an earlier daemon ended in the middle: the port is put back", "group", g.Name, "state", a.State, "member", a.Member)
		if err := e.putBack(g); err != nil {
			e.logger.Error("a port cannot be put back", "group", g.Name, "error", err)
		}
		g.record, g.adopted = record{}, false
		return g.configured
	}
	if g.configured {
		return true
	}
	if _, err := e.devices.ByName(g.Port); !errors.Is(err, links.ErrGone) {
		return true
	}
	// After a reboot the host has made its bridge as it was configured to.
	e.logger.Warn("a group is forgotten: its stable port is gone", "group", g.Name, "port", g.Port)
	if err := e.store.remove(g.Name); err != nil {
		e.logger.Error("a group cannot be forgotten", "group", g.Name, "error", err)
	}
	return false
}

// writeDown makes sure that a group is known when the configuration does not name
// it any more: it stays wired until it is released.
func (e *Engine) writeDown(g *group) {
	g.recording.Lock()
	isKnown := reflect.DeepEqual(g.record.Group, g.Group)
	g.recording.Unlock()
	if isKnown || e.portOf(g) == 0 {
		return
	}
	if err := e.change(g, func(*record) {}); err != nil {
		e.logger.Warn("a group is not written down", "group", g.Name, "error", err)
	}
}
