package lab

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Options say what bridge to build.
type Options struct {
	// Hosts is the number of hosts, each behind a veth port of its own.
	Hosts int
	// First is the number of the first host; 0 means 1.
	First int
	// Ageing is the bridge's ageing_time; 0 leaves the kernel's 300 s.
	Ageing time.Duration
	// VLANs makes the bridge filter VLANs; not every kernel can.
	VLANs *VLANs
	// Here puts the bridge into this process's own network namespace, in which it
	// stays: for machines that are made for a test.
	Here bool
}

// VLANs say how a bridge filters VLANs.
type VLANs struct {
	Protocol    string // of its tags, as ip(8) writes it; 802.1Q if empty
	DefaultPVID int    // of the ports that it gets; 0 is none
}

// Lab is a bridge br0 in a namespace and hosts behind its ports p1, p2 ...
type Lab struct {
	Bridge *Namespace
	Hosts  []*Host
	Taps   []*Tap

	settler *settler
}

// Host is a namespace with one interface eth0, whose other end is a port of the
// bridge.
type Host struct {
	*Namespace
	Port string // the name of its port in the bridge's namespace
	MAC  net.HardwareAddr
	IP   net.IP
}

// BridgeName is the name of the lab's bridge.
const BridgeName = "br0"

// New builds a lab. When it returns, every port is forwarding.
func New(o Options) (*Lab, error) {
	l := &Lab{}
	if err := l.build(o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(o Options) (err error) {
	if o.Here {
		l.Bridge, err = thisNamespace()
	} else {
		l.Bridge, err = NewNamespace()
	}
	if err != nil {
		return err
	}
	if l.settler, err = newSettler(l.Bridge); err != nil {
		return err
	}
	if err := l.Bridge.Do(func() error { return addBridge(o) }); err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	if o.VLANs != nil {
		if err := l.Bridge.Run(o.VLANs.command()); err != nil {
			return err
		}
	}
	first := max(o.First, 1)
	for n := first; n < first+o.Hosts; n++ {
		if err := l.addHost(n); err != nil {
			return fmt.Errorf("make host %d: %w", n, err)
		}
	}
	return l.AwaitForwarding()
}

func (v VLANs) command() string {
	return fmt.Sprintf("ip link set dev %s type bridge vlan_filtering 1 vlan_protocol %s vlan_default_pvid %d",
		BridgeName, cmp.Or(v.Protocol, "802.1Q"), v.DefaultPVID)
}

func addBridge(o Options) error {
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	br.Name = BridgeName
	snooping := false // the bridge itself would send IGMP reports
	br.MulticastSnooping = &snooping
	if o.Ageing != 0 {
		hundredths := uint32(o.Ageing / (10 * time.Millisecond))
		br.AgeingTime = &hundredths
	}
	if err := netlink.LinkAdd(br); err != nil {
		return err
	}
	return netlink.LinkSetUp(br)
}

// MACOf is the address of host n, counted from 1.
func MACOf(n int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func (l *Lab) addHost(n int) (err error) {
	h := &Host{Port: fmt.Sprintf("p%d", n), MAC: MACOf(n), IP: net.IPv4(10, 99, 0, byte(n)).To4()}
	if h.Namespace, err = NewNamespace(); err != nil {
		return err
	}
	l.Hosts = append(l.Hosts, h)
	if err := l.Bridge.Do(func() error { return addPort(h) }); err != nil {
		return err
	}
	return h.Do(func() error { return setUpHost(h) })
}

// addPort makes the veth pair, one end in the host.
func addPort(h *Host) error {
	pair := netlink.NewVeth(netlink.NewLinkAttrs())
	pair.Name = h.Port
	pair.PeerName = "eth0"
	pair.PeerHardwareAddr = h.MAC
	pair.PeerNamespace = netlink.NsFd(h.file.Fd())
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	return enslave(h.Port)
}

func enslave(name string) error {
	port, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	br, err := netlink.LinkByName(BridgeName)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(port, br); err != nil {
		return err
	}
	return netlink.LinkSetUp(port)
}

func setUpHost(h *Host) error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: h.IP, Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(eth0, address); err != nil {
		return err
	}
	return netlink.LinkSetUp(eth0)
}

// awaitTimeout bounds every wait for the kernel.
const awaitTimeout = 10 * time.Second

// AwaitForwarding waits until every port of the bridge forwards.
func (l *Lab) AwaitForwarding() error {
	return l.AwaitLinks("every port forwards", allForwarding)
}

// allForwarding looks at the carrier: without STP a port that has one forwards
// from the same moment on (net/bridge/br_if.c: br_port_carrier_check).
func allForwarding() (bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return false, err
	}
	br, err := netlink.LinkByName(BridgeName)
	if err != nil {
		return false, err
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == br.Attrs().Index && !hasCarrier(l) {
			return false, nil
		}
	}
	return true, nil
}

// A tap's operational state stays unknown.
func hasCarrier(l netlink.Link) bool {
	state := l.Attrs().OperState
	return state == netlink.OperUp || state == netlink.OperUnknown && l.Type() == "tuntap"
}

// AwaitLinks waits until condition holds in the bridge's namespace. It looks
// again at every event of a link.
func (l *Lab) AwaitLinks(what string, condition func() (bool, error)) error {
	return l.Bridge.Do(func() error {
		updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
		defer close(done)
		if err := netlink.LinkSubscribe(updates, done); err != nil {
			return err
		}
		late := time.After(awaitTimeout)
		for {
			if holds, err := condition(); holds || err != nil {
				return err
			}
			select {
			case <-updates:
			case <-late:
				return fmt.Errorf("waited %v in vain until %s", awaitTimeout, what)
			}
		}
	})
}

// PortCounters are what the kernel counted at a port.
type PortCounters struct {
	RxPackets, TxPackets, RxDropped, TxDropped uint64
	RxBytes, TxBytes                           uint64
}

// Counters returns the kernel's counters of a port.
func (l *Lab) Counters(port string) (PortCounters, error) { return l.Bridge.Counters(port) }

// Counters returns the kernel's counters of a device.
func (n *Namespace) Counters(device string) (c PortCounters, err error) {
	err = n.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		s := link.Attrs().Statistics
		c = PortCounters{s.RxPackets, s.TxPackets, s.RxDropped, s.TxDropped, s.RxBytes, s.TxBytes}
		return nil
	})
	return c, err
}

// Entry is a row of the bridge's forwarding table.
type Entry struct {
	MAC   string
	Port  string
	VLAN  int
	State int // NUD_*
	Flags int // NTF_*
}

// FDB returns the rows of the bridge's own table.
func (l *Lab) FDB() (rows []Entry, err error) {
	err = l.Bridge.Do(func() error {
		neighs, err := netlink.NeighList(0, unix.AF_BRIDGE)
		if err != nil {
			return err
		}
		for _, n := range neighs {
			if n.MasterIndex == 0 || n.Flags&netlink.NTF_SELF != 0 {
				continue
			}
			link, err := netlink.LinkByIndex(n.LinkIndex)
			if err != nil {
				return err
			}
			rows = append(rows, Entry{n.HardwareAddr.String(), link.Attrs().Name, n.Vlan, n.State, n.Flags})
		}
		return nil
	})
	return rows, err
}

// Close removes everything.
func (l *Lab) Close() error {
	errs := []error{l.settler.Close()}
	for _, t := range l.Taps {
		errs = append(errs, t.Close())
	}
	for _, h := range l.Hosts {
		errs = append(errs, h.Close())
	}
	return errors.Join(append(errs, l.Bridge.Close())...)
}

// DeleteBridge deletes the bridge; its ports stay.
func (l *Lab) DeleteBridge() error {
	return l.Bridge.Do(func() error {
		br, err := netlink.LinkByName(BridgeName)
		if err != nil {
			return err
		}
		return netlink.LinkDel(br)
	})
}

// RestoreBridge makes the bridge again, with the hosts' ports.
func (l *Lab) RestoreBridge() error {
	err := l.Bridge.Do(func() error {
		if err := addBridge(Options{}); err != nil {
			return err
		}
		for _, h := range l.Hosts {
			if err := enslave(h.Port); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, l.AwaitForwarding())
}
