package links

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// Address is an IP address of a device, with what ip address add says of it. The
// routes that go with it are not carried: the kernel makes the one to its network
// anew, and any other that leaves through the device is whoever set it's to set
// again.
type Address struct {
	// Prefix is the address and the length of its network's prefix.
	Prefix netip.Prefix `json:"prefix"`
	// Peer is the other end of a point-to-point address, and the prefix is its.
	Peer      netip.Addr `json:"peer,omitzero"`
	Broadcast netip.Addr `json:"broadcast,omitzero"`
	// Label is empty where it is the device's name.
	Label string `json:"label,omitempty"`
	// Scope is a number of /etc/iproute2/rt_scopes: 0 global, 253 link, 254 host.
	Scope uint8 `json:"scope"`
	// Flags are those of IFA_F_* that can be set, such as noprefixroute.
	Flags uint32 `json:"flags"`
	// Valid and Preferred are lifetimes in seconds from when it was read;
	// [Forever] for no end.
	Valid     uint32 `json:"valid"`
	Preferred uint32 `json:"preferred"`
	// Metric is that of the route to its network; 0 for the kernel's choice.
	Metric uint32 `json:"metric,omitempty"`
}

// Forever is a lifetime without an end.
const Forever = 0xffffffff

// settableFlags of an address are its owner's; the others the kernel sets.
const settableFlags = unix.IFA_F_NODAD | unix.IFA_F_OPTIMISTIC | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR |
	unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

// ifaRtPriority is IFA_RT_PRIORITY of if_addr.h.
const ifaRtPriority = 9

// Addresses returns the device's addresses in the order in which they are to be
// added elsewhere: of IPv4's in one network the first is the primary, and of IPv6's
// the kernel lists, and prefers, the last. Those that the kernel made itself,
// link-local and temporary ones, are among them.
func (l *Links) Addresses(ifindex int) ([]Address, error) {
	link, err := l.byIndex(ifindex, rtextFilterSkipStats)
	if err != nil {
		return nil, err
	}
	device, err := decodeLink(link)
	if err != nil {
		return nil, err
	}
	messages, err := l.list(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, failed(err, "list the addresses of device", ifindex)
	}
	var ipv4, ipv6 []Address
	for _, m := range messages {
		owner, a, err := decodeAddress(m.Data)
		if err != nil || owner != ifindex {
			continue // of another family or device
		}
		if a.Label == device.Name {
			a.Label = ""
		}
		if a.Prefix.Addr().Is4() {
			ipv4 = append(ipv4, a)
		} else {
			ipv6 = append(ipv6, a)
		}
	}
	slices.Reverse(ipv6)
	return slices.Concat(ipv4, ipv6), nil
}

// AddAddress gives a device an address. If it is there already it gets the
// lifetimes and flags.
func (l *Links) AddAddress(ifindex int, a Address) error {
	request, err := encodeAddress(ifindex, a)
	if err == nil {
		err = l.tell(unix.RTM_NEWADDR, netlink.Create|netlink.Replace, request)
	}
	return failed(err, fmt.Sprintf("add %s to device", a.Prefix), ifindex)
}

// DeleteAddress takes an address from a device; one that is not there is no
// error. With an IPv4 address go those of the same network behind it, unless
// net.ipv4.conf.*.promote_secondaries is set.
func (l *Links) DeleteAddress(ifindex int, a Address) error {
	request, err := encodeAddress(ifindex, Address{Prefix: a.Prefix, Peer: a.Peer, Valid: Forever, Preferred: Forever})
	if err == nil {
		err = l.tell(unix.RTM_DELADDR, 0, request)
	}
	if isAbout(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return failed(err, fmt.Sprintf("delete %s from device", a.Prefix), ifindex)
}

// decodeAddress reads RTM_NEWADDR, which net/ipv4/devinet.c: inet_fill_ifaddr or
// net/ipv6/addrconf.c: inet6_fill_ifaddr wrote.
func decodeAddress(data []byte) (ifindex int, a Address, err error) {
	if len(data) < unix.SizeofIfAddrmsg {
		return 0, Address{}, fmt.Errorf("an address message of %d bytes", len(data))
	}
	bits, flags := int(data[1]), uint32(data[2])
	a.Scope = data[3]
	a.Valid, a.Preferred = Forever, Forever
	var local, other netip.Addr
	attributes(data[unix.SizeofIfAddrmsg:], func(n uint16, v []byte) {
		switch n {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			other, _ = netip.AddrFromSlice(v)
		case unix.IFA_BROADCAST:
			a.Broadcast, _ = netip.AddrFromSlice(v)
		case unix.IFA_LABEL:
			a.Label = nlenc.String(v)
		case unix.IFA_FLAGS:
			flags = uint32(number(v))
		case ifaRtPriority:
			a.Metric = uint32(number(v))
		case unix.IFA_CACHEINFO:
			if len(v) >= 8 { // struct ifa_cacheinfo
				a.Preferred, a.Valid = binary.NativeEndian.Uint32(v), binary.NativeEndian.Uint32(v[4:])
			}
		}
	})
	a.Flags = flags & settableFlags
	switch {
	case !local.IsValid(): // IPv6 without a peer
		local = other
	case other.IsValid() && other != local:
		a.Peer = other
	}
	if a.Prefix = netip.PrefixFrom(local, bits); !a.Prefix.IsValid() {
		return 0, Address{}, fmt.Errorf("an address message without an address")
	}
	return int(int32(binary.NativeEndian.Uint32(data[4:]))), a, nil
}

func encodeAddress(ifindex int, a Address) ([]byte, error) {
	if !a.Prefix.IsValid() {
		return nil, fmt.Errorf("%q is no address", a.Prefix)
	}
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1], b[3] = unix.AF_INET6, uint8(a.Prefix.Bits()), a.Scope
	if a.Prefix.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	other := a.Prefix.Addr()
	if a.Peer.IsValid() {
		other = a.Peer
	}
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.IFA_LOCAL, a.Prefix.Addr().AsSlice())
	e.Bytes(unix.IFA_ADDRESS, other.AsSlice())
	if a.Broadcast.IsValid() {
		e.Bytes(unix.IFA_BROADCAST, a.Broadcast.AsSlice())
	}
	if a.Label != "" {
		e.String(unix.IFA_LABEL, a.Label)
	}
	e.Uint32(unix.IFA_FLAGS, a.Flags&settableFlags)
	if a.Metric != 0 {
		e.Uint32(ifaRtPriority, a.Metric)
	}
	if a.Valid != Forever || a.Preferred != Forever {
		cache := binary.NativeEndian.AppendUint32(nil, a.Preferred)
		cache = binary.NativeEndian.AppendUint32(cache, a.Valid)
		e.Bytes(unix.IFA_CACHEINFO, append(cache, make([]byte, 8)...)) // when it was made and changed
	}
	attrs, err := e.Encode()
	return append(b, attrs...), err
}
