package swaplab

import (
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// Watch follows what the kernel tells of a bridge: its entries, its ports and
// itself.
type Watch struct {
	ns     *lab.Namespace
	socket *nl.NetlinkSocket
	bridge int // ifindex
	links  map[linkKey]linkState
	marks  int
}

// linkKey names what is told of a link: as a device, or as a port of a bridge.
type linkKey struct {
	family uint8
	index  int
}

// linkState is what was last told of it.
type linkState struct {
	name, settings string
}

// Change is a change of the bridge that the kernel told.
type Change struct {
	// MAC is the entry's; nil for a change of a port or the bridge itself.
	MAC net.HardwareAddr
	// Device is the entry's port, or what has changed.
	Device string
	// Gone: the entry or the device's place in the bridge is.
	Gone bool
	// Settings are those of a link now.
	Settings string
}

func (c Change) String() string {
	what := "the link " + c.Device + " with " + c.Settings
	if c.MAC != nil {
		what = fmt.Sprintf("the entry %v on %s", c.MAC, c.Device)
	}
	if c.Gone {
		return what + " went"
	}
	return what + " is told"
}

// WatchBridge follows the lab's bridge from now on.
func WatchBridge(l *lab.Lab) (*Watch, error) {
	w := &Watch{ns: l.Bridge, links: make(map[linkKey]linkState)}
	err := l.Bridge.Do(func() error {
		if err := w.open(); err != nil {
			return err
		}
		for _, family := range []int{unix.AF_UNSPEC, unix.AF_BRIDGE} {
			if err := w.readLinks(family); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("watch the bridge: %w", err)
	}
	return w, nil
}

func (w *Watch) open() (err error) {
	w.socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH)
	if err != nil {
		return err
	}
	const room = 64 << 20 // ten thousands of entries may change before anybody looks
	return w.socket.SetReceiveBufferSize(room, true)
}

// readLinks learns how everything is before the first change.
func (w *Watch) readLinks(family int) error {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(family))
	rows, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return err
	}
	for _, row := range rows {
		l, err := parseLink(row)
		if err != nil {
			return err
		}
		w.links[l.key] = l.linkState
		if l.name == lab.BridgeName {
			w.bridge = l.key.index
		}
	}
	return nil
}

// Changes returns what has changed since the last question, all of it: a change
// that the kernel told before the call is in it.
func (w *Watch) Changes() (changes []Change, err error) {
	// The kernel keeps the order of its messages, so that one about a device that is
	// no part of the bridge marks the end.
	w.marks++
	mark := fmt.Sprintf("mark %d", w.marks)
	err = w.ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetAlias(lo, mark)
	})
	if err != nil {
		return nil, err
	}
	const timeout = 10 * time.Second
	for late := time.Now().Add(timeout); time.Now().Before(late); {
		messages, err := w.receive(time.Until(late))
		if err != nil {
			return changes, err
		}
		for _, m := range messages {
			if m.link != nil && m.link.alias == mark {
				return changes, nil
			}
			if c, ok := w.change(m); ok {
				changes = append(changes, c)
			}
		}
	}
	return changes, fmt.Errorf("the kernel did not tell of %q", mark)
}

// Next waits for the next messages and returns their changes, which may be none;
// it returns after the time at the latest.
func (w *Watch) Next(wait time.Duration) (changes []Change, err error) {
	messages, err := w.receive(wait)
	for _, m := range messages {
		if c, ok := w.change(m); ok {
			changes = append(changes, c)
		}
	}
	return changes, err
}

// message is one of the kernel's, decoded: about a link or an entry.
type message struct {
	gone  bool
	link  *link
	neigh *netlink.Neigh
}

// link is what a message says of a link.
type link struct {
	key linkKey
	linkState
	alias  string
	master int
}

func (w *Watch) receive(wait time.Duration) (messages []message, err error) {
	timeout := unix.NsecToTimeval(max(wait, time.Millisecond).Nanoseconds())
	if err := w.socket.SetReceiveTimeout(&timeout); err != nil {
		return nil, err
	}
	raw, _, err := w.socket.Receive()
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil, nil
	}
	for _, r := range raw {
		m := message{gone: r.Header.Type == unix.RTM_DELLINK || r.Header.Type == unix.RTM_DELNEIGH}
		switch r.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			m.link, err = parseLink(r.Data)
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			m.neigh, err = netlink.NeighDeserialize(r.Data)
		}
		if err != nil {
			return messages, err
		}
		messages = append(messages, m)
	}
	return messages, err
}

func parseLink(data []byte) (*link, error) {
	header := nl.DeserializeIfInfomsg(data)
	attributes, err := nl.ParseRouteAttr(data[header.Len():])
	if err != nil {
		return nil, err
	}
	l := &link{key: linkKey{header.Family, int(header.Index)}}
	l.settings = fmt.Sprintf("flags %#x", header.Flags)
	for _, a := range attributes {
		switch kind := a.Attr.Type &^ unix.NLA_F_NESTED; kind {
		case unix.IFLA_IFNAME:
			l.name = nl.BytesToString(a.Value)
		case unix.IFLA_IFALIAS:
			l.alias = nl.BytesToString(a.Value)
		case unix.IFLA_MASTER:
			l.master = int(nl.NativeEndian().Uint32(a.Value))
		case unix.IFLA_MTU, unix.IFLA_OPERSTATE, unix.IFLA_CARRIER, unix.IFLA_PROMISCUITY, unix.IFLA_ADDRESS:
			l.settings += fmt.Sprintf(", attribute %d %x", kind, a.Value)
		case unix.IFLA_PROTINFO:
			l.settings += ", port" + portSettings(a.Value)
		}
	}
	return l, nil
}

// portSettings are what is told of a port but its timers, which change by
// themselves: each port is told again when its forward delay is over, which is
// nothing without STP (net/bridge/br_stp_timer.c).
func portSettings(value []byte) (text string) {
	timers := map[uint16]bool{
		nl.IFLA_BRPORT_MESSAGE_AGE_TIMER: true, nl.IFLA_BRPORT_FORWARD_DELAY_TIMER: true, nl.IFLA_BRPORT_HOLD_TIMER: true,
	}
	attributes, err := nl.ParseRouteAttr(value)
	if err != nil {
		return err.Error()
	}
	for _, a := range attributes {
		if !timers[a.Attr.Type] {
			text += fmt.Sprintf(" %d %x", a.Attr.Type, a.Value)
		}
	}
	return text
}

// change is what a message changes in the bridge; false if nothing.
func (w *Watch) change(m message) (Change, bool) {
	switch {
	case m.link != nil:
		l := m.link
		before := w.links[l.key]
		w.links[l.key] = l.linkState
		ours := l.master == w.bridge || l.key.index == w.bridge
		return Change{Device: l.name, Gone: m.gone, Settings: l.settings}, ours && (m.gone || before != l.linkState)
	case m.neigh != nil:
		ours := m.neigh.Family == unix.AF_BRIDGE && m.neigh.MasterIndex == w.bridge && m.neigh.Flags&netlink.NTF_SELF == 0
		port := w.links[linkKey{unix.AF_UNSPEC, m.neigh.LinkIndex}].name
		return Change{MAC: m.neigh.HardwareAddr, Device: port, Gone: m.gone}, ours
	}
	return Change{}, false
}

// Close ends the watch.
func (w *Watch) Close() { w.socket.Close() }
