package links

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// What golang.org/x/sys/unix lacks, each with its header.
const (
	rtextFilterSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS; rtnetlink.h
	attributeMask        = 0x3fff // NLA_TYPE_MASK; netlink.h
	vethInfoPeer         = 1      // VETH_INFO_PEER; veth.h
)

// attributes calls f for each attribute that is whole; what is behind a broken
// one cannot be found. Whoever reads them skips the numbers that it does not know.
func attributes(data []byte, f func(number uint16, value []byte)) {
	for len(data) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return
		}
		f(binary.NativeEndian.Uint16(data[2:])&attributeMask, data[unix.SizeofRtAttr:size])
		data = data[min((size+3)&^3, len(data)):]
	}
}

// find returns the value of the attribute with that number, nil if there is none.
func find(data []byte, number uint16) (found []byte) {
	attributes(data, func(n uint16, v []byte) {
		if n == number && found == nil {
			found = v
		}
	})
	return found
}

// number reads an unsigned integer of whatever size it has; 0 for what is none.
func number(v []byte) uint64 {
	switch len(v) {
	case 1:
		return uint64(v[0])
	case 2:
		return uint64(binary.NativeEndian.Uint16(v))
	case 4:
		return uint64(binary.NativeEndian.Uint32(v))
	case 8:
		return binary.NativeEndian.Uint64(v)
	}
	return 0
}

// linkMessage is struct ifinfomsg, and the attributes behind it.
type linkMessage struct {
	family     uint8
	deviceType uint16 // ARPHRD_*
	ifindex    int
	flags      uint32 // IFF_*
	attributes []byte
}

func parseLinkMessage(data []byte) (linkMessage, error) {
	if len(data) < unix.SizeofIfInfomsg {
		return linkMessage{}, fmt.Errorf("a link message of %d bytes", len(data))
	}
	return linkMessage{
		family:     data[0],
		deviceType: binary.NativeEndian.Uint16(data[2:]),
		ifindex:    int(int32(binary.NativeEndian.Uint32(data[4:]))),
		flags:      binary.NativeEndian.Uint32(data[8:]),
		attributes: data[unix.SizeofIfInfomsg:],
	}, nil
}

// encodeLinkMessage is a link message; change says which of the flags count.
func encodeLinkMessage(family uint8, ifindex int, flags, change uint32, fill func(*netlink.AttributeEncoder)) ([]byte, error) {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	e := netlink.NewAttributeEncoder()
	fill(e)
	attrs, err := e.Encode()
	return append(b, attrs...), err
}

// decodeLink reads a whole RTM_NEWLINK of family AF_UNSPEC, as RTM_GETLINK
// answers it. An event is never read so: it may say only what has changed.
func decodeLink(data []byte) (Link, error) {
	m, err := parseLinkMessage(data)
	if err != nil {
		return Link{}, err
	}
	l := Link{
		Ifindex:  m.ifindex,
		Up:       m.flags&unix.IFF_UP != 0,
		Carrier:  m.flags&unix.IFF_LOWER_UP != 0,
		Running:  m.flags&unix.IFF_RUNNING != 0,
		Promisc:  m.flags&unix.IFF_PROMISC != 0,
		Loopback: m.flags&unix.IFF_LOOPBACK != 0,
		Ethernet: m.deviceType == unix.ARPHRD_ETHER,
	}
	elsewhere := false
	attributes(m.attributes, func(n uint16, v []byte) {
		switch n {
		case unix.IFLA_IFNAME:
			l.Name = nlenc.String(v)
		case unix.IFLA_ADDRESS:
			if len(v) == len(l.MAC) {
				copy(l.MAC[:], v)
			}
		case unix.IFLA_MTU:
			l.MTU = int(number(v))
		case unix.IFLA_MIN_MTU:
			l.MinMTU = int(number(v))
		case unix.IFLA_MAX_MTU:
			l.MaxMTU = int(number(v))
		case unix.IFLA_MASTER:
			l.Master = int(number(v))
		case unix.IFLA_LINK:
			l.Lower = int(number(v))
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_PARENT_DEV_NAME:
			l.Physical = true
		case unix.IFLA_LINKINFO:
			decodeLinkInfo(v, &l)
		}
	})
	if elsewhere {
		l.Lower = 0 // the number is of another namespace
	}
	return l, nil
}

func decodeLinkInfo(data []byte, l *Link) {
	l.Kind = nlenc.String(find(data, unix.IFLA_INFO_KIND))
	if l.Kind == "macvlan" || l.Kind == "macvtap" {
		l.MacvlanMode = macvlanModes[number(find(find(data, unix.IFLA_INFO_DATA), unix.IFLA_MACVLAN_MODE))]
	}
}

// macvlanModes are enum macvlan_mode of if_link.h, as ip(8) calls them.
var macvlanModes = map[uint64]string{
	1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source",
}

// decodeCounters reads struct rtnl_link_stats64.
func decodeCounters(data []byte) (Counters, error) {
	const fields = 8
	if len(data) < 8*fields {
		return Counters{}, fmt.Errorf("statistics of %d bytes", len(data))
	}
	field := func(i int) uint64 { return binary.NativeEndian.Uint64(data[8*i:]) }
	return Counters{
		RxPackets: field(0), TxPackets: field(1), RxBytes: field(2), TxBytes: field(3),
		RxDropped: field(6), TxDropped: field(7),
	}, nil
}
