package accel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	maxDrain        = time.Minute
	maxAnnounceRate = 100_000
	defaultHold     = 10 * time.Second
	minHold         = 100 * time.Millisecond
	maxHold         = time.Hour
)

// groupKeys has the reader of every key of a group.
var groupKeys = map[string]func(*Group, *yaml.Node) error{
	"name":          (*Group).readName,
	"bridge":        (*Group).readBridge,
	"port":          (*Group).readPort,
	"members":       (*Group).readMembers,
	"drain":         (*Group).readDrain,
	"announce":      (*Group).readAnnounce,
	"announce_rate": (*Group).readAnnounceRate,
	"probe":         (*Group).readProbe,
	"policy":        (*Group).readPolicy,
}

// policyKeys has the reader of every key of a policy.
var policyKeys = map[string]func(*GroupPolicy, *yaml.Node) error{
	"above_packets": rate("above_packets", func(p *GroupPolicy) *uint64 { return &p.AbovePackets }),
	"below_packets": rate("below_packets", func(p *GroupPolicy) *uint64 { return &p.BelowPackets }),
	"above_bits":    rate("above_bits", func(p *GroupPolicy) *uint64 { return &p.AboveBits }),
	"below_bits":    rate("below_bits", func(p *GroupPolicy) *uint64 { return &p.BelowBits }),
	"hold":          (*GroupPolicy).readHold,
}

func (c *Config) readGroups(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return at(n, "groups must be a list, each with name, bridge and members")
	}
	for _, item := range n.Content {
		g, err := readGroup(item)
		if err != nil {
			return err
		}
		c.Groups = append(c.Groups, g)
	}
	return nil
}

// readGroup reads a group as far as it can be judged by itself.
func readGroup(n *yaml.Node) (Group, error) {
	g := DefaultGroup()
	if n.Kind != yaml.MappingNode {
		return g, at(n, "a group must have keys with values, such as name: uplink")
	}
	if err := readKeys(n, groupKeys, &g); err != nil {
		return g, err
	}
	switch {
	case g.Name == "":
		return g, at(n, "a group needs a name, such as name: uplink")
	case g.Bridge == "":
		return g, at(n, "group %s needs a bridge, such as bridge: br0", g.Name)
	case len(g.Members) == 0:
		return g, at(n, "group %s needs members, such as members: [eth0, eth1]", g.Name)
	}
	if g.Port == "" {
		g.Port = g.Name
	}
	return g, nil
}

func (g *Group) readName(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return at(n, "name must be a name such as uplink, not %s; quote it if that is the name", describe(n))
	}
	if err := CheckGroupName(n.Value); err != nil {
		return at(n, "%s", err)
	}
	g.Name = n.Value
	return nil
}

func (g *Group) readBridge(n *yaml.Node) (err error) {
	g.Bridge, err = readBridgeName(n)
	return err
}

func (g *Group) readPort(n *yaml.Node) (err error) {
	g.Port, err = readInterface(n, "port")
	return err
}

func (g *Group) readMembers(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return at(n, "members must be a list of interfaces, such as [eth0, eth1]")
	}
	for _, item := range n.Content {
		member, err := readInterface(item, "a member")
		if err != nil {
			return err
		}
		if slices.Contains(g.Members, member) {
			return at(item, "member %s is listed twice", member)
		}
		g.Members = append(g.Members, member)
	}
	return nil
}

func readInterface(n *yaml.Node, what string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return "", at(n, "%s must be the name of an interface such as eth0, not %s; quote it if that is the name", what, describe(n))
	}
	if err := CheckInterfaceName(n.Value); err != nil {
		return "", at(n, "%s", err)
	}
	return n.Value, nil
}

func (g *Group) readDrain(n *yaml.Node) error {
	return readDuration(n, "drain", 0, maxDrain, &g.Drain)
}

func (g *Group) readAnnounce(n *yaml.Node) error { return readBool(n, "announce", &g.Announce) }

func (g *Group) readAnnounceRate(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&g.AnnounceRate) != nil ||
		g.AnnounceRate < 1 || g.AnnounceRate > maxAnnounceRate {
		return at(n, "announce_rate must be a number from 1 to %d, in frames/s, not %s", maxAnnounceRate, describe(n))
	}
	return nil
}

// readProbe takes what can answer over any member: one address, of one host, whose
// interface is not said.
func (g *Group) readProbe(n *yaml.Node) error {
	addr, err := netip.ParseAddr(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || addr.Zone() != "" || addr.Is4In6() ||
		addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() {
		return at(n, "probe must be the IP address of a host, such as 192.0.2.1, not %s", describe(n))
	}
	g.Probe = addr
	return nil
}

func (g *Group) readPolicy(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return at(n, "policy must have keys with values, such as above_bits: 500M and below_bits: 300M")
	}
	p := GroupPolicy{Hold: defaultHold}
	if err := readKeys(n, policyKeys, &p); err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return at(n, "%s", err)
	}
	g.Policy = &p
	return nil
}

// check holds the thresholds against each other.
func (p *GroupPolicy) check() error {
	if p.AbovePackets|p.BelowPackets|p.AboveBits|p.BelowBits == 0 {
		return errors.New("a policy needs above_packets and below_packets, or above_bits and below_bits")
	}
	return errors.Join(checkPair("packets", p.AbovePackets, p.BelowPackets), checkPair("bits", p.AboveBits, p.BelowBits))
}

func checkPair(unit string, above, below uint64) error {
	switch {
	case above == 0 && below != 0:
		return fmt.Errorf("below_%s needs above_%s", unit, unit)
	case above != 0 && below == 0:
		return fmt.Errorf("above_%s needs below_%s", unit, unit)
	case above != 0 && below >= above:
		return fmt.Errorf("below_%s must be less than above_%s, or the group would go to and fro", unit, unit)
	}
	return nil
}

func (p *GroupPolicy) readHold(n *yaml.Node) error {
	return readDuration(n, "hold", minHold, maxHold, &p.Hold)
}

func readDuration(n *yaml.Node, key string, least, most time.Duration, value *time.Duration) error {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d < least || d > most {
		return at(n, "%s must be a duration from %v to %v, not %s", key, least, most, describe(n))
	}
	*value = d
	return nil
}

// rate makes the reader of a number per second.
func rate(key string, field func(*GroupPolicy) *uint64) func(*GroupPolicy, *yaml.Node) error {
	return func(p *GroupPolicy, n *yaml.Node) error {
		value, ok := parseRate(n.Value)
		if n.Kind != yaml.ScalarNode || !ok || value == 0 {
			return at(n, "%s must be a number per second such as 100000, 500M or 2.5G, not %s", key, describe(n))
		}
		*field(p) = value
		return nil
	}
}

// parseRate reads a number with k, M, G or T behind it, which are powers of 1000.
// Nothing is rounded.
func parseRate(text string) (uint64, bool) {
	zeros := 0
	if i := strings.IndexAny(text, "kMGT"); i >= 0 && i == len(text)-1 {
		zeros = 3 * (1 + strings.IndexByte("kMGT", text[i]))
		text = text[:i]
	}
	whole, fraction, point := strings.Cut(text, ".")
	if whole == "" || point && fraction == "" || len(fraction) > zeros {
		return 0, false
	}
	value, err := strconv.ParseUint(whole+fraction+strings.Repeat("0", zeros-len(fraction)), 10, 64)
	return value, err == nil
}

// checkGroups holds the groups of a file against each other and against its
// bridges.
func (c *Config) checkGroups(list *yaml.Node) error {
	for i, g := range c.Groups {
		n := list.Content[i]
		if j := slices.IndexFunc(c.Groups[:i], func(other Group) bool { return other.Name == g.Name }); j >= 0 {
			return at(n, "group %s is listed twice, first on line %d", g.Name, list.Content[j].Line)
		}
		if j := slices.IndexFunc(c.Groups[:i], func(other Group) bool { return other.Port == g.Port }); j >= 0 {
			return at(n, "port %s of group %s is that of group %s already", g.Port, g.Name, c.Groups[j].Name)
		}
		if j := slices.IndexFunc(c.Groups, func(other Group) bool { return slices.Contains(other.Members, g.Port) }); j >= 0 {
			return at(n, "port %s of group %s is a member of group %s: shunt makes the port, so give it a name of its own", g.Port, g.Name, c.Groups[j].Name)
		}
		for _, name := range append([]string{g.Port}, g.Members...) {
			if name == g.Bridge || slices.Contains(c.Bridges, name) {
				return at(n, "%s in group %s is a bridge: a bridge is neither port nor member", name, g.Name)
			}
		}
		// Without bridges in the file, the command line names them.
		if len(c.Bridges) > 0 && !c.accelerates(g.Bridge) {
			return at(valueOf(n, "bridge"), "bridge %s of group %s is not among bridges; add it there", g.Bridge, g.Name)
		}
	}
	return nil
}

// accelerates says whether a bridge is among the chosen.
func (c *Config) accelerates(bridge string) bool {
	return c.AllBridges || slices.Contains(c.Bridges, bridge)
}

// strayGroup finds a group whose bridge is not accelerated.
func (c *Config) strayGroup() (Group, bool) {
	for _, g := range c.Groups {
		if !c.accelerates(g.Bridge) {
			return g, true
		}
	}
	return Group{}, false
}

// CheckGroupName says whether a group can have that name, which is also that of its
// stable port unless told otherwise, and of a file.
func CheckGroupName(name string) error {
	if err := CheckInterfaceName(name); err != nil {
		return err
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !letterOrDigit(r) && !strings.ContainsRune("-_.", r) }) || !letterOrDigit(rune(name[0])) {
		return fmt.Errorf("%q cannot be the name of a group: it must begin with a letter or digit, and have only those, -, _ and . in it", name)
	}
	return nil
}

func letterOrDigit(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
