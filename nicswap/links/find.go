package links

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ByName returns the device of that name, which may be one of its alternative
// names; Link.Name is always the first. The error is [ErrGone] where there is none.
func (l *Links) ByName(name string) (Link, error) {
	attribute := uint16(unix.IFLA_IFNAME)
	if len(name) >= unix.IFNAMSIZ {
		attribute = unix.IFLA_ALT_IFNAME // only those may be longer
	}
	data, err := l.askLink(0, rtextFilterSkipStats, func(e *netlink.AttributeEncoder) { e.String(attribute, name) })
	if err == nil && name == "" {
		err = unix.ENODEV
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		return Link{}, fmt.Errorf("find %q: %w", name, ErrGone)
	case err != nil:
		return Link{}, fmt.Errorf("find %q: %w", name, err)
	}
	return l.whole(data)
}

// ByIndex returns the device with that ifindex. The error is [ErrGone] where there
// is none.
func (l *Links) ByIndex(ifindex int) (Link, error) {
	data, err := l.byIndex(ifindex, rtextFilterSkipStats)
	if err != nil {
		return Link{}, err
	}
	return l.whole(data)
}

// All returns every device of the namespace.
func (l *Links) All() ([]Link, error) {
	found, err := l.all()
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i].Driver = l.driver(found[i].Name)
	}
	return found, nil
}

// Uppers returns the devices on top of another: VLAN devices, macvlans and the
// like, but neither a master nor a veth's other end. Those that were moved into
// other network namespaces are not seen.
func (l *Links) Uppers(ifindex int) ([]Link, error) {
	all, err := l.All()
	if err != nil {
		return nil, err
	}
	var uppers []Link
	for _, other := range all {
		if other.Lower == ifindex && other.Ifindex != ifindex && !isPair(other.Kind) {
			uppers = append(uppers, other)
		}
	}
	return uppers, nil
}

// isPair says whether IFLA_LINK of such a device is its other end.
func isPair(kind string) bool { return kind == "veth" || kind == "netkit" }

// HasAddresses says whether the device has an IPv4 address, or an IPv6 address
// that is not link-local.
func (l *Links) HasAddresses(ifindex int) (bool, error) {
	addresses, err := l.Addresses(ifindex)
	if err != nil {
		return false, err
	}
	for _, a := range addresses {
		if ip := a.Prefix.Addr(); ip.Is4() || !ip.IsLinkLocalUnicast() {
			return true, nil
		}
	}
	return false, nil
}

// Counters returns the device's counters, as ip -s link shows them.
func (l *Links) Counters(ifindex int) (Counters, error) {
	data, err := l.byIndex(ifindex, 0)
	if err != nil {
		return Counters{}, err
	}
	m, err := parseLinkMessage(data)
	if err != nil {
		return Counters{}, err
	}
	return decodeCounters(find(m.attributes, unix.IFLA_STATS64))
}

// all returns every device, without its driver.
func (l *Links) all() ([]Link, error) {
	request, err := encodeLinkMessage(unix.AF_UNSPEC, 0, 0, 0, func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.IFLA_EXT_MASK, rtextFilterSkipStats)
	})
	if err != nil {
		return nil, err
	}
	messages, err := l.list(unix.RTM_GETLINK, request)
	if err != nil {
		return nil, fmt.Errorf("list the network devices: %w", err)
	}
	found := make([]Link, len(messages))
	for i, m := range messages {
		if found[i], err = decodeLink(m.Data); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// byIndex returns the message about a device.
func (l *Links) byIndex(ifindex int, mask uint32) ([]byte, error) {
	if ifindex <= 0 {
		return nil, failed(ErrGone, "ask for device", ifindex)
	}
	data, err := l.askLink(ifindex, mask, func(*netlink.AttributeEncoder) {})
	return data, failed(err, "ask for device", ifindex)
}

// askLink asks for one device. Some drivers ask their hardware for the
// statistics, which the mask leaves out.
func (l *Links) askLink(ifindex int, mask uint32, fill func(*netlink.AttributeEncoder)) ([]byte, error) {
	request, err := encodeLinkMessage(unix.AF_UNSPEC, ifindex, 0, 0, func(e *netlink.AttributeEncoder) {
		fill(e)
		e.Uint32(unix.IFLA_EXT_MASK, mask)
	})
	if err != nil {
		return nil, err
	}
	messages, err := l.ask(unix.RTM_GETLINK, 0, request)
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%d answers", len(messages))
	}
	return messages[0].Data, nil
}

// whole reads a message and asks for what it does not say.
func (l *Links) whole(data []byte) (Link, error) {
	link, err := decodeLink(data)
	if err != nil {
		return Link{}, err
	}
	link.Driver = l.driver(link.Name)
	return link, nil
}
