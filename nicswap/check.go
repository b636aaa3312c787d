package nicswap

import (
	"errors"
	"fmt"

	"github.com/shunt-dev/shunt/nicswap/links"
)

// check says, in a sentence, why a device cannot be a member of the group: nothing
// that arrives on a member reaches this host's own stack any more.
func (e *Engine) check(g *group, name string) (links.Link, error) {
	l, err := e.devices.ByName(name)
	if errors.Is(err, links.ErrGone) {
		return l, fmt.Errorf("%s is not there", name)
	} else if err != nil {
		return l, fmt.Errorf("look at %s: %w", name, err)
	}
	if l.Master != 0 {
		return l, fmt.Errorf("%s belongs to %s: take it out first", name, e.nameOf(l.Master))
	}
	return l, e.checkApart(g, l)
}

// checkApart is check without the question whether the device belongs to a bridge.
func (e *Engine) checkApart(g *group, l links.Link) error {
	if err := checkKind(g, l); err != nil {
		return err
	}
	g.mu.Lock()
	mtu := g.port.MTU
	g.mu.Unlock()
	if mtu != 0 && (mtu < l.MinMTU || l.MaxMTU != 0 && mtu > l.MaxMTU) {
		return fmt.Errorf("%s takes an MTU from %d to %d, but %s has %d", l.Name, l.MinMTU, l.MaxMTU, g.Port, mtu)
	}
	if other := e.holder(g, l.Ifindex); other != "" {
		return fmt.Errorf("%s is used by group %s now", l.Name, other)
	}
	return e.checkUse(l)
}

// checkKind looks at what the device is.
func checkKind(g *group, l links.Link) error {
	switch {
	case l.Loopback, !l.Ethernet:
		return fmt.Errorf("%s is not an Ethernet device", l.Name)
	case l.Name == g.Port, l.Name == links.StubName(g.Port), l.Name == g.Bridge:
		return fmt.Errorf("%s cannot be a member of its own group", l.Name)
	case (l.Kind == "macvlan" || l.Kind == "macvtap") && l.MacvlanMode != "passthru":
		return fmt.Errorf("%s is a %s in mode %s, which receives frames to its own address only: only mode passthru gets those of the stations", l.Name, l.Kind, l.MacvlanMode)
	}
	return nil
}

// checkUse looks at who else uses the device.
func (e *Engine) checkUse(l links.Link) error {
	has, err := e.devices.HasAddresses(l.Ifindex)
	if err != nil {
		return fmt.Errorf("look at the addresses of %s: %w", l.Name, err)
	} else if has {
		return fmt.Errorf("%s has addresses of this host, which would answer no more: remove them", l.Name)
	}
	return e.checkAlone(l)
}

// checkAlone looks for devices and programs on top of the device.
func (e *Engine) checkAlone(l links.Link) error {
	uppers, err := e.devices.Uppers(l.Ifindex)
	if err != nil {
		return fmt.Errorf("look for devices on top of %s: %w", l.Name, err)
	} else if len(uppers) > 0 {
		return fmt.Errorf("%s is on top of %s and would receive nothing any more: remove it", uppers[0].Name, l.Name)
	}
	foreign, err := e.wires.Foreign(l.Ifindex)
	if err != nil {
		return fmt.Errorf("look for tc programs on %s: %w", l.Name, err)
	} else if foreign {
		return fmt.Errorf("somebody else's tc programs or filters are on %s: remove them", l.Name)
	}
	return nil
}

// checkHairpin refuses a port that sends what comes from it back to it. In a swap the
// programs would take that for what is flooded back, and drop what follows between
// two stations outside.
func (e *Engine) checkHairpin(port links.Link) error {
	s, err := e.devices.PortSettings(port.Ifindex)
	if errors.Is(err, links.ErrGone) || errors.Is(err, links.ErrNoPort) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read the settings of port %s: %w", port.Name, err)
	}
	if s.Options["hairpin"] != 0 {
		return fmt.Errorf("%s has hairpin on, and frames that the bridge sends back where they came from would be lost in a swap: switch it off (bridge link set dev %s hairpin off)", port.Name, port.Name)
	}
	return nil
}

// holder names the other group whose wire has the device; "" if none does.
func (e *Engine) holder(g *group, ifindex int) string {
	for _, other := range e.all() {
		if other == g {
			continue
		}
		other.mu.Lock()
		m := other.at(ifindex)
		held := m != nil && m.warm || other.port.Ifindex == ifindex || other.stub.Ifindex == ifindex
		other.mu.Unlock()
		if held {
			return other.Name
		}
	}
	return ""
}

// nameOf names a device that may be gone.
func (e *Engine) nameOf(ifindex int) string {
	l, err := e.devices.ByIndex(ifindex)
	if err != nil {
		return fmt.Sprintf("device %d", ifindex)
	}
	return l.Name
}

// checkVacant refuses a name that a device has.
func (e *Engine) checkVacant(name string) error {
	_, err := e.devices.ByName(name)
	switch {
	case err == nil:
		return fmt.Errorf("there is a device %s already", name)
	case errors.Is(err, links.ErrGone):
		return nil
	}
	return fmt.Errorf("look for %s: %w", name, err)
}
