package fdbsync

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// link is what a network interface's RTM_NEWLINK (family AF_UNSPEC) says of it.
type link struct {
	ifindex     int
	name        string
	kind        string // IFLA_INFO_KIND: bridge, veth, vlan ...; "" for hardware
	ethernet    bool
	flags       uint32 // IFF_*
	mtu         int    // bytes
	master      int    // ifindex; 0: none
	lower       int    // IFLA_LINK in this namespace; 0: none
	promiscuity int
	inSwitch    bool // has IFLA_PHYS_SWITCH_ID
	bridge      bridgeOptions
	port        portOptions
}

// bridgeOptions are IFLA_INFO_DATA of a bridge (IFLA_BR_*).
type bridgeOptions struct {
	vlanFiltering bool
	vlanStats     bool
	mst           bool
	stp           bool
	ageing        time.Duration
	forwardDelay  time.Duration
}

// portOptions are IFLA_INFO_SLAVE_DATA of a bridge port (IFLA_BRPORT_*).
type portOptions struct {
	isPort      bool
	state       uint8
	learning    bool
	locked      bool
	isolated    bool
	hairpin     bool
	vlanTunnel  bool
	proxiesNeig bool // proxy ARP, or suppression of neighbour discovery
	backup      bool
}

// Attribute numbers that golang.org/x/sys/unix lacks; include/uapi/linux/if_link.h.
const (
	iflaBrForwardDelay  = 1
	iflaBrAgeingTime    = 4
	iflaBrStpState      = 5
	iflaBrVlanFiltering = 7
	iflaBrVlanStats     = 41
	iflaBrVlanStatsPort = 45
	iflaBrMultiBoolopt  = 46

	iflaBrportState            = 1
	iflaBrportMode             = 4 // hairpin
	iflaBrportLearning         = 8
	iflaBrportProxyARP         = 10
	iflaBrportProxyARPWifi     = 11
	iflaBrportVlanTunnel       = 29
	iflaBrportNeighSuppress    = 32
	iflaBrportIsolated         = 33
	iflaBrportBackupPort       = 34
	iflaBrportLocked           = 39
	iflaBrportNeighVlanSupress = 44
	iflaBrportBackupNhid       = 45

	brBooloptMST = 1 << 2 // BR_BOOLOPT_MST_ENABLE

	ndaFlagsExt       = 15 // NDA_FLAGS_EXT
	ntfExtLocked      = 2  // NTF_EXT_LOCKED
	userHZ            = 100
	sizeofIfInfoMsg   = unix.SizeofIfInfomsg
	sizeofNdMsg       = unix.SizeofNdMsg
	attributeMask     = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	brStateForwarding = 3
)

// attributes calls f for each attribute that is whole, and says how many bytes
// at the end were not: one broken attribute does not cost the others.
func attributes(data []byte, f func(number uint16, value []byte)) (broken int) {
	for len(data) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return len(data)
		}
		f(binary.NativeEndian.Uint16(data[2:])&attributeMask, data[unix.SizeofRtAttr:size])
		data = data[min(align4(size), len(data)):]
	}
	return len(data)
}

func align4(n int) int { return (n + 3) &^ 3 }

// number reads a little integer of 1, 2, 4 or 8 bytes; 0 for any other size.
func number(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	case 8:
		return binary.NativeEndian.Uint64(b)
	}
	return 0
}

func flag(b []byte) bool { return number(b) != 0 }

// clock reads a time in clock_t, hundredths of a second.
func clock(b []byte) time.Duration { return time.Duration(number(b)) * time.Second / userHZ }

// linkIndex returns the ifindex that a link message of any family is about.
func linkIndex(data []byte) (int, error) {
	if len(data) < sizeofIfInfoMsg {
		return 0, fmt.Errorf("a link message of %d bytes", len(data))
	}
	return int(int32(binary.NativeEndian.Uint32(data[4:]))), nil
}

// decodeLink reads a whole RTM_NEWLINK of family AF_UNSPEC, as RTM_GETLINK
// answers it.
func decodeLink(data []byte) (link, error) {
	ifindex, err := linkIndex(data)
	if err != nil {
		return link{}, err
	}
	l := link{
		ifindex:  ifindex,
		ethernet: binary.NativeEndian.Uint16(data[2:]) == unix.ARPHRD_ETHER,
		flags:    binary.NativeEndian.Uint32(data[8:]),
	}
	elsewhere := false
	attributes(data[sizeofIfInfoMsg:], func(n uint16, v []byte) {
		switch n {
		case unix.IFLA_IFNAME:
			l.name = nlenc.String(v)
		case unix.IFLA_MTU:
			l.mtu = int(number(v))
		case unix.IFLA_MASTER:
			l.master = int(number(v))
		case unix.IFLA_LINK:
			l.lower = int(number(v))
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_PROMISCUITY:
			l.promiscuity = int(number(v))
		case unix.IFLA_PHYS_SWITCH_ID:
			l.inSwitch = len(v) > 0
		case unix.IFLA_LINKINFO:
			decodeLinkInfo(v, &l)
		}
	})
	if elsewhere {
		l.lower = 0 // the number is of another namespace
	}
	return l, nil
}

func decodeLinkInfo(data []byte, l *link) {
	var slaveKind string
	var info, slave []byte
	attributes(data, func(n uint16, v []byte) {
		switch n {
		case unix.IFLA_INFO_KIND:
			l.kind = nlenc.String(v)
		case unix.IFLA_INFO_DATA:
			info = v
		case unix.IFLA_INFO_SLAVE_KIND:
			slaveKind = nlenc.String(v)
		case unix.IFLA_INFO_SLAVE_DATA:
			slave = v
		}
	})
	if l.kind == "bridge" {
		l.bridge = decodeBridge(info)
	}
	if slaveKind == "bridge" {
		l.port = decodePort(slave)
	}
}

func decodeBridge(data []byte) (o bridgeOptions) {
	attributes(data, func(n uint16, v []byte) {
		switch n {
		case iflaBrForwardDelay:
			o.forwardDelay = clock(v)
		case iflaBrAgeingTime:
			o.ageing = clock(v)
		case iflaBrStpState:
			o.stp = flag(v)
		case iflaBrVlanFiltering:
			o.vlanFiltering = flag(v)
		case iflaBrVlanStats, iflaBrVlanStatsPort:
			o.vlanStats = o.vlanStats || flag(v)
		case iflaBrMultiBoolopt: // struct br_boolopt_multi: optval, optmask
			o.mst = len(v) >= 4 && binary.NativeEndian.Uint32(v)&brBooloptMST != 0
		}
	})
	return o
}

func decodePort(data []byte) (o portOptions) {
	o.isPort = true
	attributes(data, func(n uint16, v []byte) {
		switch n {
		case iflaBrportState:
			o.state = uint8(number(v))
		case iflaBrportMode:
			o.hairpin = flag(v)
		case iflaBrportLearning:
			o.learning = flag(v)
		case iflaBrportProxyARP, iflaBrportProxyARPWifi, iflaBrportNeighSuppress, iflaBrportNeighVlanSupress:
			o.proxiesNeig = o.proxiesNeig || flag(v)
		case iflaBrportVlanTunnel:
			o.vlanTunnel = flag(v)
		case iflaBrportIsolated:
			o.isolated = flag(v)
		case iflaBrportLocked:
			o.locked = flag(v)
		case iflaBrportBackupPort, iflaBrportBackupNhid:
			o.backup = o.backup || flag(v)
		}
	})
	return o
}

// neigh is a bridge's FDB entry as a message tells it.
type neigh struct {
	bridge  int // ifindex
	station accel.Station
}

// decodeNeigh reads RTM_NEWNEIGH or RTM_DELNEIGH. It returns false for what is
// not an entry of a bridge's own table: other families, rows of the device
// itself (NTF_SELF) and of VXLAN share the messages.
func decodeNeigh(data []byte) (neigh, bool) {
	if len(data) < sizeofNdMsg || data[0] != unix.AF_BRIDGE {
		return neigh{}, false
	}
	port := int(int32(binary.NativeEndian.Uint32(data[4:])))
	state, flags := binary.NativeEndian.Uint16(data[8:]), data[10]
	if flags&unix.NTF_SELF != 0 {
		return neigh{}, false
	}
	var n neigh
	haveMAC := false
	attributes(data[sizeofNdMsg:], func(number16 uint16, v []byte) {
		switch number16 {
		case unix.NDA_LLADDR:
			haveMAC = len(v) == len(n.station.MAC)
			copy(n.station.MAC[:], v)
		case unix.NDA_MASTER:
			n.bridge = int(number(v))
		case unix.NDA_VLAN:
			n.station.VID = uint16(number(v))
		case ndaFlagsExt:
			n.station.NoSource = number(v)&ntfExtLocked != 0
		}
	})
	if !haveMAC || n.bridge == 0 {
		return neigh{}, false
	}
	if port == n.bridge || state&unix.NUD_PERMANENT != 0 {
		n.station.Local = true
	}
	if port != n.bridge {
		n.station.Port = port
	}
	return n, true
}

// encodeNeighRequest is RTM_GETNEIGH for one entry of a bridge
// (net/core/rtnetlink.c: rtnl_fdb_get).
func encodeNeighRequest(bridge int, k accel.StationKey) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.NDA_LLADDR, k.MAC[:])
	e.Uint32(unix.NDA_MASTER, uint32(bridge))
	if k.VID != 0 {
		e.Uint16(unix.NDA_VLAN, k.VID)
	}
	attrs, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return append(ndMsg(), attrs...), nil
}

func ndMsg() []byte {
	b := make([]byte, sizeofNdMsg)
	b[0] = unix.AF_BRIDGE
	return b
}

// encodeLinkRequest is RTM_GETLINK for one interface; 0 for a dump of all.
func encodeLinkRequest(ifindex int) []byte {
	b := make([]byte, sizeofIfInfoMsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	return b
}

// tcIndex returns the ifindex of a tc message (struct tcmsg).
func tcIndex(data []byte) int {
	if len(data) < 8 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(data[4:])))
}
