package twin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// Options say what labs to build.
type Options struct {
	// Hosts is the number of hosts, each behind a port of its own. The last
	// one's port is the anchor: it stays in the bridge and up.
	Hosts int
	// VLANs makes a bridge that filters VLANs, with VLANs 1 to 4 on every port.
	VLANs bool
}

// Side is one of the two labs: a bridge br0 with ports p1, p2 ... in a
// namespace, and the far ends of the ports, h1, h2 ..., in another. Nothing but
// the script sends a frame in it: there are no addresses. Its devices have the
// same indexes and addresses as those of the other side.
type Side struct {
	Name   string
	Bridge *lab.Namespace
	hosts  *lab.Namespace
	near   kernel // the bridge's namespace
	far    kernel
	handle *netlink.Handle    // as near, for what has many parts
	filter map[string]*filter // by device and direction
	ports  []port
	own    receiver // the bridge device itself
}

// port is a port of the bridge and the host behind it.
type port struct {
	name    string
	ifindex int
	far     int // the ifindex of the host's end
	host    receiver
}

const (
	bridgeIndex = 10
	portIndex   = 10 // plus the port's number
	bridgeName  = lab.BridgeName
	// hostMTU is beyond every port's, so that only those matter.
	hostMTU = 16000
	// VLANs that every port has at first where VLANs are filtered.
	firstVID, lastVID = 1, 4
)

// StationMAC is the address of a station, by host and number.
func StationMAC(host, station int) accel.MAC { return accel.MAC{2, 0, 0, 0, byte(host), byte(station)} }

// PortMAC is the address of a port itself, and that of the bridge with 0.
func PortMAC(port int) accel.MAC { return accel.MAC{2, 0, 0, 1, 0, byte(port)} }

// NewSide builds a lab. When it returns, every port forwards.
func NewSide(name string, o Options) (*Side, error) {
	s := &Side{Name: name, filter: make(map[string]*filter)}
	if err := s.build(o); err != nil {
		return nil, fmt.Errorf("build the lab %s: %w", name, errors.Join(err, s.Close()))
	}
	return s, nil
}

func (s *Side) build(o Options) (err error) {
	for _, ns := range []**lab.Namespace{&s.Bridge, &s.hosts} {
		if *ns, err = lab.NewNamespace(); err != nil {
			return err
		}
	}
	if s.near, err = dialKernel(s.Bridge); err != nil {
		return err
	}
	if s.far, err = dialKernel(s.hosts); err != nil {
		return err
	}
	if err := s.Bridge.Do(func() error { return s.addDevices(o) }); err != nil {
		return err
	}
	for n := range s.ports {
		if err := s.addHost(n); err != nil {
			return err
		}
	}
	err = s.Bridge.Do(func() (err error) {
		s.own, err = newReceiver(bridgeIndex)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range s.ports {
		if err := s.awaitUp(p); err != nil {
			return err
		}
	}
	return s.addVLANs(o)
}

// addDevices makes the bridge and its ports. They have a clsact qdisc from the
// start: to add one later would lose frames (net/sched/sch_api.c: qdisc_graft).
func (s *Side) addDevices(o Options) (err error) {
	if s.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	br.Name, br.Index, br.HardwareAddr = bridgeName, bridgeIndex, hardware(PortMAC(0))
	snooping := false // the bridge itself would send reports
	br.MulticastSnooping = &snooping
	if o.VLANs {
		br.VlanFiltering = &o.VLANs
	}
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return err
	}
	for n := 1; n <= o.Hosts; n++ {
		if err := s.addPort(n); err != nil {
			return fmt.Errorf("make port %d: %w", n, err)
		}
	}
	return s.addNeighbours()
}

func (s *Side) addPort(n int) error {
	pair := netlink.NewVeth(netlink.NewLinkAttrs())
	pair.Name, pair.Index, pair.HardwareAddr = fmt.Sprintf("p%d", n), portIndex+n, hardware(PortMAC(n))
	pair.PeerName, pair.PeerHardwareAddr = fmt.Sprintf("h%d", n), hardware(StationMAC(n, 0))
	far, err := unix.Open(s.hosts.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(far)
	pair.PeerNamespace = netlink.NsFd(far)
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	clsact := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: pair.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	if err := netlink.QdiscAdd(clsact); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	s.ports = append(s.ports, port{name: pair.Name, ifindex: pair.Index})
	if err := s.near.setLink(pair.Index, unix.IFLA_MASTER, bridgeIndex); err != nil {
		return err
	}
	return s.near.setFlag(pair.Index, unix.IFF_UP, true)
}

// addNeighbours tells the bridge device the hosts' addresses, so that ports with
// neigh_suppress have something to answer.
func (s *Side) addNeighbours() error {
	for n := range s.ports {
		mac := StationMAC(n+1, 0)
		err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: bridgeIndex, State: unix.NUD_PERMANENT, HardwareAddr: hardware(mac), IP: ip4Of(mac[:]),
		})
		if err != nil {
			return fmt.Errorf("add a neighbour: %w", err)
		}
	}
	return nil
}

func (s *Side) addHost(n int) error {
	p := &s.ports[n]
	return s.hosts.Do(func() error {
		far, err := netlink.LinkByName(fmt.Sprintf("h%d", n+1))
		if err != nil {
			return err
		}
		p.far = far.Attrs().Index
		if err := netlink.LinkSetMTU(far, hostMTU); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(far); err != nil {
			return err
		}
		p.host, err = newReceiver(p.far)
		return err
	})
}

func (s *Side) addVLANs(o Options) error {
	if !o.VLANs {
		return nil
	}
	for _, p := range s.ports {
		for vid := uint16(firstVID + 1); vid <= lastVID; vid++ {
			if err := s.near.vlan(unix.RTM_SETLINK, p.ifindex, vid, 0); err != nil {
				return fmt.Errorf("add VLAN %d to %s: %w", vid, p.name, err)
			}
		}
	}
	return nil
}

// Close removes the lab.
func (s *Side) Close() error {
	for _, p := range s.ports {
		p.host.close()
	}
	s.own.close()
	for _, f := range s.filter {
		f.program.Close()
	}
	if s.handle != nil {
		s.handle.Close()
	}
	for _, k := range []kernel{s.near, s.far} {
		if k.conn != nil {
			k.conn.Close()
		}
	}
	return errors.Join(s.Bridge.Close(), s.hosts.Close())
}

// index is the ifindex of a port, or of the bridge.
func (s *Side) index(name string) (int, error) {
	if name == bridgeName {
		return bridgeIndex, nil
	}
	p, err := s.port(name)
	return p.ifindex, err
}

func (s *Side) port(name string) (port, error) {
	for _, p := range s.ports {
		if p.name == name {
			return p, nil
		}
	}
	return port{}, fmt.Errorf("there is no port %s", name)
}

// verb is a change that a step can make.
type verb struct {
	words       string // what a step of it looks like
	least, most int    // words behind the verb
	do          func(s *Side, args []string) error
}

// verbs are the changes. What the kernel refuses is no mistake: both kernels
// must refuse it alike.
var verbs map[string]verb

func init() {
	verbs = map[string]verb{
		"port":   {"port PORT OPTION VALUE", 3, 3, (*Side).changePort},
		"bridge": {"bridge OPTION VALUE", 2, 2, (*Side).changeBridge},
		"link":   {"link PORT|br0 up|down", 2, 2, (*Side).changeLink},
		"promisc": {"promisc on|off", 1, 1, func(s *Side, args []string) error {
			return s.near.setFlag(bridgeIndex, unix.IFF_PROMISC, args[0] == "on")
		}},
		"mtu":     {"mtu PORT BYTES", 2, 2, (*Side).changeMTU},
		"leave":   {"leave PORT", 1, 1, func(s *Side, args []string) error { return s.setMaster(args[0], 0) }},
		"join":    {"join PORT", 1, 1, func(s *Side, args []string) error { return s.setMaster(args[0], bridgeIndex) }},
		"fdb":     {"fdb add|replace|del MAC PORT KIND [VID]", 4, 5, (*Side).changeEntry},
		"flush":   {"flush PORT|br0", 1, 1, (*Side).flush},
		"vlan":    {"vlan add|del|state PORT VID [pvid|untagged|STATE]...", 3, 5, (*Side).changeVLAN},
		"vlandev": {"vlandev PORT VID on|off", 3, 3, (*Side).changeVLANDevice},
		"nft":     {"nft RULES PORT on|off", 3, 3, (*Side).changeRules},
		"tc":      {"tc PORT ingress|egress drop|pass|off", 3, 3, (*Side).changeFilter},
	}
}

// change makes the step's change.
func (s *Side) change(step Step) error { return verbs[step[0]].do(s, step[1:]) }

func (s *Side) changePort(args []string) error {
	p, err := s.port(args[0])
	if err != nil {
		return err
	}
	o, ok := portOptions[args[1]]
	if !ok {
		return fmt.Errorf("ports have no option %q", args[1])
	}
	if args[1] == "backup" && args[2] != "off" {
		backup, err := s.index(args[2])
		if err != nil {
			return err
		}
		return s.near.setPort(p.ifindex, o, uint32(backup))
	}
	value, err := number(args[2])
	if err != nil {
		return err
	}
	return s.near.setPort(p.ifindex, o, value)
}

func (s *Side) changeBridge(args []string) error {
	if _, ok := bridgeOptions[args[0]]; !ok {
		return fmt.Errorf("bridges have no option %q", args[0])
	}
	value, err := number(args[1])
	if err != nil {
		return err
	}
	if err := s.near.setBridge(bridgeIndex, args[0], value); err != nil {
		return err
	}
	if args[0] == "ageing_time" && value == 0 {
		return s.awaitAged()
	}
	return nil
}

func (s *Side) changeLink(args []string) error {
	ifindex, err := s.index(args[0])
	if err != nil {
		return err
	}
	before, err := s.near.linkState(ifindex)
	if err != nil {
		return err
	}
	up := args[1] == "up"
	if err := s.near.setFlag(ifindex, unix.IFF_UP, up); err != nil || before.up || !up || ifindex == bridgeIndex {
		return err
	}
	p, err := s.port(args[0])
	if err != nil {
		return err
	}
	return s.awaitUp(p)
}

func (s *Side) changeMTU(args []string) error {
	ifindex, err := s.index(args[0])
	if err != nil {
		return err
	}
	mtu, err := number(args[1])
	if err != nil {
		return err
	}
	return s.near.setLink(ifindex, unix.IFLA_MTU, mtu)
}

func (s *Side) setMaster(name string, master uint32) error {
	p, err := s.port(name)
	if err != nil {
		return err
	}
	before, err := s.near.linkState(p.ifindex)
	if err != nil {
		return err
	}
	if err := s.near.setLink(p.ifindex, unix.IFLA_MASTER, master); err != nil || before.master == int(master) {
		return err
	}
	return s.awaitUp(p)
}

func (s *Side) changeEntry(args []string) error {
	mac, err := accel.ParseMAC(args[1])
	if err != nil {
		return err
	}
	ifindex, err := s.index(args[2])
	if err != nil {
		return err
	}
	vid := uint32(0)
	if len(args) > 4 {
		if vid, err = number(args[4]); err != nil {
			return err
		}
	}
	switch args[0] {
	case "add":
		return s.near.addEntry(netlinkCreate|netlinkExcl, ifindex, mac, args[3], uint16(vid))
	case "replace":
		return s.near.addEntry(netlinkCreate|netlinkReplace, ifindex, mac, args[3], uint16(vid))
	case "del":
		return s.near.deleteEntry(ifindex, mac, uint16(vid))
	}
	return fmt.Errorf("entries cannot be told to %q", args[0])
}

func (s *Side) flush(args []string) error {
	ifindex, err := s.index(args[0])
	if err != nil {
		return err
	}
	if ifindex == bridgeIndex {
		return s.near.flushBulk(ifindex, unix.NTF_SELF)
	}
	return s.near.setPort(ifindex, portOptions["flush"], 0)
}

func (s *Side) changeVLAN(args []string) error {
	p, err := s.port(args[1])
	if err != nil {
		return err
	}
	vid, err := number(args[2])
	if err != nil {
		return err
	}
	switch args[0] {
	case "del":
		return s.near.vlan(unix.RTM_DELLINK, p.ifindex, uint16(vid), 0)
	case "state":
		state, err := number(args[len(args)-1])
		if err != nil {
			return err
		}
		return s.near.vlanState(p.ifindex, uint16(vid), uint8(state))
	case "add":
		flags := uint16(0)
		for _, word := range args[3:] {
			flags |= map[string]uint16{"pvid": vlanPVID, "untagged": vlanUntagged}[word]
		}
		return s.near.vlan(unix.RTM_SETLINK, p.ifindex, uint16(vid), flags)
	}
	return fmt.Errorf("VLANs cannot be told to %q", args[0])
}

// changeVLANDevice puts a VLAN device on a port, which takes the frames of its
// VLAN before the bridge does.
func (s *Side) changeVLANDevice(args []string) error {
	p, err := s.port(args[0])
	if err != nil {
		return err
	}
	vid, err := number(args[1])
	if err != nil {
		return err
	}
	dev := &netlink.Vlan{LinkAttrs: netlink.NewLinkAttrs(), VlanId: int(vid)}
	dev.Name, dev.ParentIndex = args[0]+"."+args[1], p.ifindex
	if args[2] == "on" {
		if err := s.handle.LinkAdd(dev); err != nil {
			return err
		}
		return s.handle.LinkSetUp(dev)
	}
	on, err := s.handle.LinkByName(dev.Name)
	if err != nil {
		return err
	}
	return s.handle.LinkDel(on)
}

// ruleSets are nftables rules for a port; NAME is a table of their own, in the
// family that comes first.
var ruleSets = map[string]struct{ family, table string }{
	"bridge-forward":     {"bridge", `chain c { type filter hook forward priority 0; oifname "PORT" counter drop; }`},
	"bridge-prerouting":  {"bridge", `chain c { type filter hook prerouting priority 0; iifname "PORT" ether type 0x88b5 drop; }`},
	"bridge-postrouting": {"bridge", `chain c { type filter hook postrouting priority 0; oifname "PORT" ether type ip drop; }`},
	"bridge-count":       {"bridge", `chain c { type filter hook forward priority 0; counter; }`},
	"netdev-ingress":     {"netdev", `chain c { type filter hook ingress device "PORT" priority 0; ether type 0x88b5 drop; }`},
	"netdev-egress":      {"netdev", `chain c { type filter hook egress device "PORT" priority 0; ether type 0x88b5 drop; }`},
	"netdev-count":       {"netdev", `chain c { type filter hook ingress device "PORT" priority 0; counter; }`},
	"inet-forward":       {"inet", `chain c { type filter hook forward priority 0; udp dport 9 drop; }`},
	"ip-forward":         {"ip", `chain c { type filter hook forward priority 0; policy drop; }`},
	"ip6-forward":        {"ip6", `chain c { type filter hook forward priority 0; policy drop; }`},
	"ip-prerouting":      {"ip", `chain c { type filter hook prerouting priority 0; ip protocol tcp drop; }`},
}

func (s *Side) changeRules(args []string) error {
	set, ok := ruleSets[args[0]]
	if !ok {
		return fmt.Errorf("there are no rules %q", args[0])
	}
	table := fmt.Sprintf("%s %s-%s", set.family, args[0], args[1])
	rules := "delete table " + table + "\n"
	if args[2] == "on" {
		rules = fmt.Sprintf("table %s { %s }\n", table, strings.ReplaceAll(set.table, "PORT", args[1]))
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := s.Bridge.Start(cmd); err != nil {
		return fmt.Errorf("%w: %w (nft is in Debian's package nftables)", errOwn, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, &said)
	}
	return nil
}

// Reaches says whether the frame gets as far as the port's tc ingress, and the
// port is the bridge's, and no filter of the script is in the way.
func (s *Side) Reaches(f Frame) (bool, error) {
	p, err := s.port(f.Port())
	if err != nil {
		return false, err
	}
	l, err := s.near.linkState(p.ifindex)
	// include/linux/netdevice.h: __is_skb_forwardable, as a veth asks
	// (net/core/dev.c: __dev_forward_skb2).
	fits := len(f.bytes(0))-vnetLen <= l.mtu+ethLen+tagLen
	return l.up && l.master == bridgeIndex && fits && s.filter[p.name+" ingress"] == nil, err
}

// Entries returns the bridge's forwarding table.
func (s *Side) Entries() ([]Entry, error) { return s.near.entries(bridgeIndex) }

// AddBarrier adds an entry behind the anchor that no frame uses, in every VLAN,
// and RemoveBarrier removes it: a listener that has heard of it has heard of
// everything before.
func (s *Side) AddBarrier() error {
	return s.near.addEntry(netlinkCreate|netlinkExcl, s.anchor(), BarrierMAC, "static", 0)
}

// RemoveBarrier removes what AddBarrier added.
func (s *Side) RemoveBarrier() error { return s.near.deleteEntry(s.anchor(), BarrierMAC, 0) }

// BarrierMAC is the address of the barrier's entry.
var BarrierMAC = accel.MAC{2, 0, 0, 2, 0, 0}

func (s *Side) anchor() int { return s.ports[len(s.ports)-1].ifindex }

// nativeHeader splits what a receiver got: how it is to be segmented, and its tag
// if it has one.
func nativeHeader(b []byte) (vnet []byte, tag []byte, frame []byte) {
	return b[:vnetLen], b[vnetLen : vnetLen+tagBytes], b[vnetLen+tagBytes:]
}

const tagBytes = 5 // valid, EtherType, TCI

func putTag(b []byte, valid bool, protocol, tci uint16) {
	clear(b[:tagBytes])
	if valid {
		b[0] = 1
		binary.BigEndian.PutUint16(b[1:], protocol)
		binary.BigEndian.PutUint16(b[3:], tci)
	}
}
