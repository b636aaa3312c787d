package twin

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"

	"github.com/shunt-dev/shunt/accel"
)

// Mix says what a generated script is made of.
type Mix struct {
	Options
	Seed uint64
	// Changes and Frames are how many of each; Changes 0 is a script without a
	// change.
	Changes, Frames int
}

const (
	stationsPerHost = 3
	// mostUndone is how many disturbances may hold at a time. Most of them keep
	// a port or the whole bridge off the fast path, and a script in which
	// nothing is fast would prove nothing.
	mostUndone = 2
)

// generator makes a script. It knows roughly what it did: a step that makes no
// sense is done alike by both sides, and is one more case.
type generator struct {
	Mix
	*rand.Rand
	stations []source
	undo     []Step // what ends the disturbances that hold
	yield    func(Step) bool
	stopped  bool
}

// source is a station and the host from whose port it sends now.
type source struct {
	mac  accel.MAC
	host int
	tags []Tag // what its frames bear
}

// Generate makes a script. The same mix makes the same script.
func Generate(m Mix) iter.Seq[Step] {
	return func(yield func(Step) bool) {
		g := &generator{Mix: m, Rand: rand.New(rand.NewPCG(m.Seed, 0)), yield: yield}
		g.addStations()
		g.introduce()
		g.emit(Step{"settle"})
		rounds := max(m.Changes, 1)
		for n := 0; n < rounds && !g.stopped; n++ {
			g.round(m.Frames/rounds, m.Changes > 0)
		}
		for _, s := range g.undo {
			g.emit(s)
		}
	}
}

func (g *generator) emit(s Step) {
	g.stopped = g.stopped || !g.yield(s)
}

// addStations gives every host some. On a bridge that filters VLANs those with
// the same number are in the same VLAN.
func (g *generator) addStations() {
	for host := 1; host <= g.Hosts; host++ {
		for n := range stationsPerHost {
			s := source{mac: StationMAC(host, n), host: host}
			if g.VLANs && n > 0 {
				s.tags = []Tag{{0x8100, 0, uint16(n + 1)}}
			}
			g.stations = append(g.stations, s)
		}
	}
}

// introduce lets the bridge learn every station.
func (g *generator) introduce() {
	for _, s := range g.stations {
		g.emit(g.from(s, accel.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "raw", 60).Step())
	}
}

func (g *generator) from(s source, to accel.MAC, kind string, size int) Frame {
	return Frame{Host: s.host, Source: s.mac, Destination: to, Kind: kind, Size: size, Tags: s.tags}
}

// round is one change with frames right behind it, and frames when the daemon
// has caught up.
func (g *generator) round(frames int, change bool) {
	behind := 0
	if change {
		if g.chance(15) {
			g.move()
		}
		g.change()
		behind = frames * (10 + g.IntN(30)) / 100
		g.burst(behind)
	}
	if g.chance(60) { // after a flush nobody would be known for long
		g.introduce()
	}
	g.emit(Step{"settle"})
	g.burst(frames - behind)
}

func (g *generator) burst(frames int) {
	for range frames {
		g.emit(g.frame().Step())
	}
	g.emit(Step{"check"})
}

// chance is true in so many of a hundred cases.
func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

// frame makes any frame; most are from a known station to another.
func (g *generator) frame() Frame {
	from, to := g.pair()
	f := g.from(from, to.mac, g.kind(), g.size())
	switch n := g.IntN(100); {
	case n < 80: // known unicast
	case n < 86:
		f.Destination = g.group()
		f.Kind = pick(g, f.Kind, "arp", "rarp", "nd-solicit")
	case n < 87:
		f.Destination = accel.MAC{2, 0, 0, 9, 0, byte(g.IntN(8))} // unknown
	case n < 88:
		f.Source = accel.MAC{2, 0, 0, 8, byte(f.Host), byte(g.IntN(4))} // new
	case n < 90:
		f.Host = 1 + g.IntN(g.Hosts) // moved, or spoofed
	case n < 91:
		f.Source = accel.MAC{}
	case n < 92:
		f.Source = accel.MAC{3, 0, 0, 0, 0, 1}
	case n < 93:
		f.Source = PortMAC(g.IntN(g.Hosts + 1)) // the bridge's own
	case n < 94:
		f.Destination = PortMAC(g.IntN(g.Hosts + 1))
	case n < 96:
		f.Destination = g.behind(from.host)
	default:
		f.Tags = g.tags()
	}
	return f
}

// pair is two stations that may speak to each other.
func (g *generator) pair() (from, to source) {
	from = pick(g, g.stations...)
	for {
		to = pick(g, g.stations...)
		if to.host != from.host && slices.Equal(to.tags, from.tags) {
			break
		}
	}
	if len(from.tags) > 0 && g.chance(20) { // the priority changes nothing
		from.tags = slices.Clone(from.tags)
		from.tags[0].PCP = uint8(g.IntN(8))
	}
	return from, to
}

func (g *generator) behind(host int) accel.MAC {
	for {
		if s := pick(g, g.stations...); s.host == host || g.chance(2) {
			return s.mac
		}
	}
}

// group is a multicast address or broadcast, link-local ones among them.
func (g *generator) group() accel.MAC {
	return pick(g,
		accel.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		accel.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		accel.MAC{1, 0, 0x5e, 0, 0, byte(g.IntN(3))},
		accel.MAC{0x33, 0x33, 0, 0, 0, 1},
		accel.MAC{0x01, 0x80, 0xc2, 0, 0, byte(g.IntN(18))},
		accel.MAC{3, 0, 0, 0, 0, 2})
}

func (g *generator) kind() string {
	switch n := g.IntN(100); {
	case n < 45:
		return "raw"
	case n < 65:
		return "ipv4"
	case n < 74:
		return "ipv6"
	case n < 80:
		return pick(g, "gso4", "gso4", "gso6")
	case n < 90:
		return pick(g, "ipv4-badsum", "ipv4-options", "ipv4-padded", "ipv4-cut", "ipv4-v5",
			"ipv6-options", "ipv6-padded", "ipv6-cut", "pppoe", "eapol")
	}
	return pick(g, "arp", "arp-reply", "rarp", "llc", "cfm", "mrp", "lldp", "nd-solicit", "nd-advert")
}

// size is the length of a frame: around all limits that there are.
func (g *generator) size() int {
	switch n := g.IntN(100); {
	case n < 60:
		return 60 + g.IntN(200)
	case n < 65:
		return 14 + g.IntN(46)
	case n < 75:
		return 1000 + 14 + g.IntN(9) // the MTU of 1000, with and without tag
	case n < 90:
		return 1500 + 14 + g.IntN(9)
	case n < 95:
		return 2000 + g.IntN(40)
	}
	return 60 + g.IntN(4000)
}

// tags are odd ones.
func (g *generator) tags() []Tag {
	vid := pick(g, 0, 1, 2, 3, 5, 4095)
	tag := func() Tag {
		return Tag{pick[uint16](g, 0x8100, 0x8100, 0x8100, 0x88a8), uint8(g.IntN(8)), uint16(vid)}
	}
	if g.chance(25) {
		return []Tag{tag(), tag()}
	}
	return []Tag{tag()}
}

// change makes one: it ends a disturbance, begins one, or changes something that
// needs no end.
func (g *generator) change() {
	switch n := len(g.undo); {
	case n > 0 && g.chance(40+15*n) || n >= mostUndone:
		i := g.IntN(n)
		s := g.undo[i]
		g.undo = slices.Delete(g.undo, i, i+1)
		g.emit(s)
	case g.chance(40):
		g.emit(g.entryChange())
	default:
		g.disturb()
	}
}

// movable is a port other than the anchor.
func (g *generator) movable() string { return fmt.Sprintf("p%d", 1+g.IntN(g.Hosts-1)) }

func (g *generator) anyPort() string { return fmt.Sprintf("p%d", 1+g.IntN(g.Hosts)) }

// move lets a station move to another port. The bridge learns that from its
// first frame there.
func (g *generator) move() {
	s := &g.stations[g.IntN(len(g.stations))]
	s.host = 1 + g.IntN(g.Hosts)
	g.emit(g.from(*s, pick(g, g.group(), pick(g, g.stations...).mac), "raw", 60).Step())
}

// entryChange changes the forwarding table.
func (g *generator) entryChange() Step {
	s := pick(g, g.stations...)
	vid := ""
	if g.VLANs && g.chance(85) {
		vid = "1"
		if len(s.tags) > 0 {
			vid = fmt.Sprint(s.tags[0].VID)
		}
	}
	at := fmt.Sprintf("p%d", s.host)
	switch n := g.IntN(100); {
	case n < 30:
		return line("fdb replace %v p%d %s %s", s.mac, 1+g.IntN(g.Hosts),
			pick(g, "dynamic", "dynamic", "dynamic", "static", "extern", "sticky"), vid)
	case n < 50:
		return line("fdb replace %v %s %s %s", s.mac, at, pick(g, "dynamic", "static", "extern", "sticky", "used"), vid)
	case n < 55:
		return line("fdb add %v %s %s %s", s.mac, at, pick(g, "dynamic", "static", "local"), vid)
	case n < 80:
		return line("fdb del %v %s dynamic %s", s.mac, at, vid)
	case n < 90:
		return line("flush %s", g.anyPort())
	case n < 95:
		return line("flush br0")
	}
	return line("bridge fdb_flush 0")
}

// disturb begins something and notes what ends it.
func (g *generator) disturb() {
	p := g.movable()
	both := func(begin, end string) {
		g.emit(line("%s", begin))
		g.undo = append(g.undo, line("%s", end))
	}
	flag := func(port, name string) {
		both(fmt.Sprintf("port %s %s on", port, name), fmt.Sprintf("port %s %s off", port, name))
	}
	unflag := func(port, name string) {
		both(fmt.Sprintf("port %s %s off", port, name), fmt.Sprintf("port %s %s on", port, name))
	}
	option := func(name, begin, end string) {
		both(fmt.Sprintf("bridge %s %s", name, begin), fmt.Sprintf("bridge %s %s", name, end))
	}
	if g.VLANs && g.chance(45) {
		g.disturbVLANs(p)
		return
	}
	switch g.IntN(24) {
	case 0, 1:
		flag(p, "isolated")
		flag(g.anyPort(), "isolated")
	case 2:
		flag(p, "hairpin")
	case 3:
		unflag(p, "learning")
	case 4:
		flag(p, "locked")
	case 5:
		flag(p, "neigh_suppress")
	case 6:
		unflag(p, pick(g, "flood", "mcast_flood", "bcast_flood"))
	case 7:
		flag(p, pick(g, "proxy_arp", "proxy_arp_wifi", "vlan_tunnel", "guard", "fastleave"))
	case 8, 9:
		both(fmt.Sprintf("port %s state %d", p, pick(g, 0, 1, 2, 4)), fmt.Sprintf("port %s state 3", p))
	case 10:
		both(fmt.Sprintf("port %s backup %s", p, g.anyPort()), fmt.Sprintf("port %s backup off", p))
	case 11:
		both(fmt.Sprintf("port %s group_fwd_mask %#x", p, g.IntN(0x10000)&^7), fmt.Sprintf("port %s group_fwd_mask 0", p))
	case 12, 13:
		both(fmt.Sprintf("link %s down", p), fmt.Sprintf("link %s up", p))
	case 14, 15:
		both(fmt.Sprintf("leave %s", p), fmt.Sprintf("join %s", p))
	case 16, 17:
		both(fmt.Sprintf("mtu %s %d", g.anyPort(), pick(g, 1000, 1499, 1504, 2000, 9000)), fmt.Sprintf("mtu %s 1500", p))
	case 18:
		if g.chance(50) { // it keeps everything off the fast path
			both("promisc on", "promisc off")
		} else {
			flag(p, "hairpin")
		}
	case 19:
		option("ageing_time", pick(g, "0", "60000", "100000"), "30000")
	case 20:
		option("group_fwd_mask", fmt.Sprintf("%#x", g.IntN(0x10000)&^7), "0")
	case 21:
		option(pick(g, "nf_call_iptables", "nf_call_ip6tables", "nf_call_arptables"), "1", "0")
	case 22:
		g.disturbFilters(p, both)
	case 23:
		if g.chance(30) {
			both("link br0 down", "link br0 up")
		} else {
			both(fmt.Sprintf("port %s cost 7", p), fmt.Sprintf("port %s cost 2", p))
		}
	}
}

// disturbFilters adds a firewall's rules or somebody's tc filter.
func (g *generator) disturbFilters(p string, both func(begin, end string)) {
	if g.chance(50) {
		at := p + " " + pick(g, "ingress", "egress")
		both(fmt.Sprintf("tc %s %s", at, pick(g, "drop", "pass")), fmt.Sprintf("tc %s off", at))
		return
	}
	set := pick(g, ruleNames...)
	both(fmt.Sprintf("nft %s %s on", set, p), fmt.Sprintf("nft %s %s off", set, p))
}

// disturbVLANs changes what VLANs there are.
func (g *generator) disturbVLANs(p string) {
	vid := firstVID + g.IntN(lastVID)
	add, as := fmt.Sprintf("vlan add %s %d", p, vid), ""
	if vid == 1 {
		as = " pvid untagged"
	}
	both := func(begin, end string) {
		g.emit(line("%s", begin))
		g.undo = append(g.undo, line("%s", end))
	}
	switch g.IntN(13) {
	case 12:
		vid := g.IntN(5)
		both(fmt.Sprintf("vlandev %s %d on", p, vid), fmt.Sprintf("vlandev %s %d off", p, vid))
	case 0, 1, 2:
		both(fmt.Sprintf("vlan del %s %d", p, vid), add+as)
	case 3, 4:
		both(add+pick(g, "", " pvid", " untagged", " pvid untagged"), add+as)
		if vid != 1 {
			g.undo = append(g.undo, line("vlan add %s 1 pvid untagged", p))
		}
	case 5, 6:
		both(fmt.Sprintf("vlan state %s %d %d", p, vid, pick(g, 0, 1, 2, 4)), fmt.Sprintf("vlan state %s %d 3", p, vid))
	case 7, 8:
		both("bridge vlan_filtering 0", "bridge vlan_filtering 1")
	case 9:
		both("bridge vlan_protocol 0x88a8", "bridge vlan_protocol 0x8100")
	case 10:
		both(fmt.Sprintf("bridge vlan_default_pvid %d", pick(g, 0, 2, 7)), "bridge vlan_default_pvid 1")
	case 11:
		both("bridge vlan_stats_enabled 1", "bridge vlan_stats_enabled 0")
	}
}

// ruleNames are in an order, since the random choice must be.
var ruleNames = func() (names []string) {
	for name := range ruleSets {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}()
