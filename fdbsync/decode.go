package fdbsync

import (
	"encoding/binary"
	"errors"
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
	known       bool // every attribute that the judgement needs was there, and whole
	bridge      bridgeOptions
	port        portOptions
	vlans       portVLANs // asked for only where the port's bridge filters VLANs
	// seen is the data plane's Version of the link from before it was asked for.
	seen uint64
}

// bridgeOptions are IFLA_INFO_DATA of a bridge (IFLA_BR_*).
type bridgeOptions struct {
	known         bool // all that a bridge must say of itself was there
	vlanFiltering bool
	vlanProtocol  uint16 // EtherType of the tags; kernels without VLANs send none
	vlanStats     bool
	mst           bool
	stp           bool
	ageing        time.Duration
	forwardDelay  time.Duration
}

// portOptions are IFLA_INFO_SLAVE_DATA of a bridge port (IFLA_BRPORT_*).
type portOptions struct {
	isPort bool
	known  bool // all that a port must say of itself was there
	state  uint8
	flags  accel.PortFlags
	backup bool
}

// portVLANs are the VLANs of a bridge port as RTM_GETVLAN answers
// (BRIDGE_VLANDB_*). Whether neighbour discovery is suppressed in one of them is
// not read: it counts only beside the port's own flag, FlagNeighVLANSuppress
// (net/bridge/br_arp_nd_proxy.c: br_is_neigh_suppress_enabled).
type portVLANs struct {
	known   bool // they were asked for, and all of the answer could be read
	pvid    uint16
	members accel.VLANs
}

// The attributes that are read; include/uapi/linux/if_link.h.
const (
	iflaBrForwardDelay  = unix.IFLA_BR_FORWARD_DELAY
	iflaBrAgeingTime    = unix.IFLA_BR_AGEING_TIME
	iflaBrStpState      = unix.IFLA_BR_STP_STATE
	iflaBrVlanFiltering = unix.IFLA_BR_VLAN_FILTERING
	iflaBrVlanProtocol  = unix.IFLA_BR_VLAN_PROTOCOL
	iflaBrVlanStats     = unix.IFLA_BR_VLAN_STATS_ENABLED
	iflaBrVlanStatsPort = unix.IFLA_BR_VLAN_STATS_PER_PORT
	iflaBrMultiBoolopt  = unix.IFLA_BR_MULTI_BOOLOPT

	iflaBrportState             = unix.IFLA_BRPORT_STATE
	iflaBrportMode              = unix.IFLA_BRPORT_MODE // hairpin
	iflaBrportLearning          = unix.IFLA_BRPORT_LEARNING
	iflaBrportProxyARP          = unix.IFLA_BRPORT_PROXYARP
	iflaBrportProxyARPWifi      = unix.IFLA_BRPORT_PROXYARP_WIFI
	iflaBrportVlanTunnel        = unix.IFLA_BRPORT_VLAN_TUNNEL
	iflaBrportNeighSuppress     = unix.IFLA_BRPORT_NEIGH_SUPPRESS
	iflaBrportIsolated          = unix.IFLA_BRPORT_ISOLATED
	iflaBrportBackupPort        = unix.IFLA_BRPORT_BACKUP_PORT
	iflaBrportLocked            = unix.IFLA_BRPORT_LOCKED
	iflaBrportNeighVlanSuppress = unix.IFLA_BRPORT_NEIGH_VLAN_SUPPRESS
	iflaBrportBackupNhid        = unix.IFLA_BRPORT_BACKUP_NHID

	sizeofIfInfoMsg = unix.SizeofIfInfomsg
	sizeofNdMsg     = unix.SizeofNdMsg
)

// What golang.org/x/sys/unix lacks, each with its header.
const (
	ntfSticky            = 1 << 6 // NTF_STICKY; neighbour.h
	ndaFlagsExt          = 15     // NDA_FLAGS_EXT; neighbour.h
	brBooloptMST         = 1 << 2 // BR_BOOLOPT_MST_ENABLE; if_bridge.h
	brStateForwarding    = 3      // BR_STATE_FORWARDING; if_bridge.h
	ntfExtLocked         = 1 << 1 // NTF_EXT_LOCKED; neighbour.h
	rtextFilterSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS; rtnetlink.h
	attributeMask        = 0x3fff // NLA_TYPE_MASK; netlink.h
	userHZ               = 100    // of clock_t
)

// The attributes of RTM_GETVLAN's answer; include/uapi/linux/if_bridge.h.
const (
	vlanDBEntry      = 1 // BRIDGE_VLANDB_ENTRY
	vlanDBEntryInfo  = 1 // BRIDGE_VLANDB_ENTRY_INFO: struct bridge_vlan_info
	vlanDBEntryRange = 2 // BRIDGE_VLANDB_ENTRY_RANGE
	vlanDBEntryState = 3 // BRIDGE_VLANDB_ENTRY_STATE

	vlanInfoPVID     = 1 << 1 // BRIDGE_VLAN_INFO_PVID
	vlanInfoUntagged = 1 << 2 // BRIDGE_VLAN_INFO_UNTAGGED

	sizeofBrVlanMsg = 8    // struct br_vlan_msg
	lastVID         = 4094 // VLAN_VID_MASK - 1
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

// reader reads integers of known sizes and keeps account of what it could not
// read. An attribute that is broken is as good as absent: it must never be read
// as "off".
type reader struct {
	got    uint64 // a bit for each attribute number that was read
	broken int    // attributes of a size that they cannot have
}

func (r *reader) read(n uint16, v []byte, size int) bool {
	if len(v) != size {
		r.broken++
		return false
	}
	if n < 64 {
		r.got |= 1 << n
	}
	return true
}

func (r *reader) uint8(n uint16, v []byte) uint8 {
	if !r.read(n, v, 1) {
		return 0
	}
	return v[0]
}

func (r *reader) uint16(n uint16, v []byte) uint16 {
	if !r.read(n, v, 2) {
		return 0
	}
	return binary.NativeEndian.Uint16(v)
}

func (r *reader) bigEndian16(n uint16, v []byte) uint16 {
	if !r.read(n, v, 2) {
		return 0
	}
	return binary.BigEndian.Uint16(v)
}

func (r *reader) uint32(n uint16, v []byte) uint32 {
	if !r.read(n, v, 4) {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

func (r *reader) flag(n uint16, v []byte) bool { return r.uint8(n, v) != 0 }

// clock reads a time in clock_t, hundredths of a second, which the bridge sends
// in 32 bits.
func (r *reader) clock(n uint16, v []byte) time.Duration {
	return time.Duration(r.uint32(n, v)) * (time.Second / userHZ)
}

// has says whether all of these were read, and nothing was broken.
func (r *reader) has(numbers ...uint16) bool {
	for _, n := range numbers {
		if r.got&(1<<n) == 0 {
			return false
		}
	}
	return r.broken == 0
}

// linkIndex returns the ifindex that a link message of any family is about.
func linkIndex(data []byte) (int, error) {
	if len(data) < sizeofIfInfoMsg {
		return 0, fmt.Errorf("a link message of %d bytes", len(data))
	}
	return int(int32(binary.NativeEndian.Uint32(data[4:]))), nil
}

// decodeLink reads a whole RTM_NEWLINK of family AF_UNSPEC, as RTM_GETLINK
// answers it. An event is never read so: it may say only what has changed.
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
	var r reader
	elsewhere := false
	r.broken += attributes(data[sizeofIfInfoMsg:], func(n uint16, v []byte) {
		switch n {
		case unix.IFLA_IFNAME:
			l.name = nlenc.String(v)
		case unix.IFLA_MTU:
			l.mtu = int(r.uint32(n, v))
		case unix.IFLA_MASTER:
			l.master = int(r.uint32(n, v))
		case unix.IFLA_LINK:
			l.lower = int(r.uint32(n, v))
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_PROMISCUITY:
			l.promiscuity = int(r.uint32(n, v))
		case unix.IFLA_PHYS_SWITCH_ID:
			l.inSwitch = len(v) > 0
		case unix.IFLA_LINKINFO:
			r.broken += decodeLinkInfo(v, &l)
		}
	})
	l.known = r.has(unix.IFLA_MTU, unix.IFLA_PROMISCUITY) && l.name != ""
	if elsewhere {
		l.lower = 0 // the number is of another namespace
	}
	return l, nil
}

func decodeLinkInfo(data []byte, l *link) (broken int) {
	var slaveKind string
	var info, slave []byte
	broken = attributes(data, func(n uint16, v []byte) {
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
	return broken
}

// decodeBridge reads what net/bridge/br_netlink.c: br_fill_info wrote. What is
// asked for at the end every kernel since 6.1 sends; the rest is sent only by
// kernels that have it.
func decodeBridge(data []byte) (o bridgeOptions) {
	var r reader
	r.broken += attributes(data, func(n uint16, v []byte) {
		switch n {
		case iflaBrForwardDelay:
			o.forwardDelay = r.clock(n, v)
		case iflaBrAgeingTime:
			o.ageing = r.clock(n, v)
		case iflaBrStpState:
			o.stp = r.uint32(n, v) != 0
		case iflaBrVlanFiltering:
			o.vlanFiltering = r.flag(n, v)
		case iflaBrVlanProtocol:
			o.vlanProtocol = r.bigEndian16(n, v)
		case iflaBrVlanStats, iflaBrVlanStatsPort:
			o.vlanStats = r.flag(n, v) || o.vlanStats
		case iflaBrMultiBoolopt: // struct br_boolopt_multi: optval, optmask
			o.mst = r.read(n, v, 8) && binary.NativeEndian.Uint32(v)&brBooloptMST != 0
		}
	})
	o.known = r.has(iflaBrForwardDelay, iflaBrAgeingTime, iflaBrStpState, iflaBrVlanFiltering, iflaBrMultiBoolopt)
	return o
}

// flagAttributes are the port attributes that are flags: most of them every
// kernel since 6.1 sends.
var flagAttributes = map[uint16]accel.PortFlags{
	iflaBrportMode:              accel.FlagHairpin,
	iflaBrportLearning:          accel.FlagLearning,
	iflaBrportProxyARP:          accel.FlagProxyARP,
	iflaBrportProxyARPWifi:      accel.FlagProxyARPWifi,
	iflaBrportVlanTunnel:        accel.FlagVLANTunnel,
	iflaBrportNeighSuppress:     accel.FlagNeighSuppress,
	iflaBrportIsolated:          accel.FlagIsolated,
	iflaBrportLocked:            accel.FlagLocked,
	iflaBrportNeighVlanSuppress: accel.FlagNeighVLANSuppress,
}

// decodePort reads what net/bridge/br_netlink.c: br_port_fill_attrs wrote.
func decodePort(data []byte) (o portOptions) {
	o.isPort = true
	var r reader
	r.broken += attributes(data, func(n uint16, v []byte) {
		flag, isFlag := flagAttributes[n]
		switch {
		case isFlag && r.flag(n, v):
			o.flags |= flag
		case n == iflaBrportState:
			o.state = r.uint8(n, v)
		case n == iflaBrportBackupPort, n == iflaBrportBackupNhid: // sent only where there is one
			o.backup = r.uint32(n, v) != 0 || o.backup
		}
	})
	o.known = r.has(iflaBrportState, iflaBrportMode, iflaBrportLearning, iflaBrportProxyARP, iflaBrportProxyARPWifi,
		iflaBrportNeighSuppress, iflaBrportVlanTunnel, iflaBrportIsolated, iflaBrportLocked)
	return o
}

// decodeVLANs reads the messages of one port that net/bridge/br_vlan.c:
// br_vlan_dump_dev wrote. VLANs that are not in order come from a list that
// changed meanwhile: then nothing of it is known.
func decodeVLANs(port int, messages [][]byte) portVLANs {
	var pvid uint16
	var members []accel.VLAN
	isWhole := true
	take := func(number uint16, value []byte) {
		if number != vlanDBEntry {
			return
		}
		e, ok := decodeVLANEntry(value)
		if isWhole = isWhole && ok && e.follows(members) && !(e.isPVID && pvid != 0); !isWhole {
			return
		}
		members = e.appendTo(members)
		if e.isPVID {
			pvid = e.first
		}
	}
	for _, data := range messages {
		if len(data) < sizeofBrVlanMsg || indexAt4(data) != port || attributes(data[sizeofBrVlanMsg:], take) > 0 || !isWhole {
			return portVLANs{}
		}
	}
	return portVLANs{known: true, pvid: pvid, members: accel.NewVLANs(members)}
}

// vlanEntry is a range of VLANs that are alike.
type vlanEntry struct {
	first, last uint16
	isPVID      bool // the first is
	untagged    bool
	forwarding  bool
}

// decodeVLANEntry reads what net/bridge/br_vlan.c: br_vlan_fill_vids wrote.
func decodeVLANEntry(data []byte) (e vlanEntry, ok bool) {
	var r reader
	r.broken += attributes(data, func(n uint16, v []byte) {
		switch n {
		case vlanDBEntryInfo:
			if r.read(n, v, 4) {
				flags := binary.NativeEndian.Uint16(v)
				e.first = binary.NativeEndian.Uint16(v[2:])
				e.isPVID, e.untagged = flags&vlanInfoPVID != 0, flags&vlanInfoUntagged != 0
			}
		case vlanDBEntryRange: // absent for a single VLAN
			e.last = r.uint16(n, v)
		case vlanDBEntryState:
			e.forwarding = r.uint8(n, v) == brStateForwarding
		}
	})
	if e.last == 0 {
		e.last = e.first
	}
	return e, r.has(vlanDBEntryInfo, vlanDBEntryState) && 0 < e.first && e.first <= e.last && e.last <= lastVID
}

// follows says whether the entry comes behind all of the members.
func (e vlanEntry) follows(members []accel.VLAN) bool {
	return len(members) == 0 || members[len(members)-1].VID < e.first
}

func (e vlanEntry) appendTo(members []accel.VLAN) []accel.VLAN {
	for vid := e.first; vid <= e.last; vid++ {
		members = append(members, accel.VLAN{VID: vid, Untagged: e.untagged, Forwarding: e.forwarding})
	}
	return members
}

// encodeVLANRequest is RTM_GETVLAN for one port.
func encodeVLANRequest(port int) []byte {
	b := make([]byte, sizeofBrVlanMsg)
	b[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(b[4:], uint32(port))
	return b
}

// neigh is a bridge's FDB entry as a message tells it.
type neigh struct {
	bridge  int // ifindex
	station accel.Station
	heard   time.Time // when its event came in; not set for an answer
	isGone  bool      // the event says that it was removed
}

// errNotOurs marks a message that is no entry of a bridge's own table: other
// families, rows of the device itself (NTF_SELF) and of VXLAN share the type.
var errNotOurs = errors.New("not an entry of a bridge")

// decodeNeigh reads RTM_NEWNEIGH or RTM_DELNEIGH, which
// net/bridge/br_fdb.c: fdb_fill_info wrote.
func decodeNeigh(data []byte) (neigh, error) {
	if len(data) < sizeofNdMsg {
		return neigh{}, fmt.Errorf("an FDB message of %d bytes", len(data))
	}
	port := int(int32(binary.NativeEndian.Uint32(data[4:])))
	state, flags := binary.NativeEndian.Uint16(data[8:]), data[10]
	if data[0] != unix.AF_BRIDGE || flags&unix.NTF_SELF != 0 {
		return neigh{}, errNotOurs
	}
	var n neigh
	var r reader
	r.broken += attributes(data[sizeofNdMsg:], func(number uint16, v []byte) {
		switch number {
		case unix.NDA_LLADDR:
			if r.read(number, v, len(n.station.MAC)) {
				copy(n.station.MAC[:], v)
			}
		case unix.NDA_MASTER:
			n.bridge = int(r.uint32(number, v))
		case unix.NDA_VLAN: // absent for VLAN 0
			n.station.VID = r.uint16(number, v)
		case ndaFlagsExt: // newer kernels only
			n.station.NoSource = r.uint32(number, v)&ntfExtLocked != 0
		}
	})
	if r.broken > 0 {
		return neigh{}, errors.New("an FDB message with a broken attribute")
	}
	if n.bridge == 0 || !r.has(unix.NDA_LLADDR) {
		return neigh{}, errNotOurs
	}
	if port != n.bridge {
		n.station.Port = port
	}
	n.station.Sticky = flags&ntfSticky != 0
	n.station.Local = port == n.bridge || state&unix.NUD_PERMANENT != 0
	return n, nil
}

// appendNeighRequest appends RTM_GETNEIGH for one entry of a bridge
// (net/core/rtnetlink.c: rtnl_fdb_get): there are thousands a second.
func appendNeighRequest(b []byte, bridge int, k accel.StationKey, sequence uint32) []byte {
	begin := len(b)
	b = append(b, 0, 0, 0, 0) // the length
	b = binary.NativeEndian.AppendUint16(b, unix.RTM_GETNEIGH)
	b = binary.NativeEndian.AppendUint16(b, uint16(netlink.Request))
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = append(b, 0, 0, 0, 0) // from whom: the kernel knows
	b = append(b, unix.AF_BRIDGE)
	b = append(b, make([]byte, sizeofNdMsg-1)...)
	b = append(appendAttribute(b, unix.NDA_LLADDR, len(k.MAC)), k.MAC[0], k.MAC[1], k.MAC[2], k.MAC[3], k.MAC[4], k.MAC[5], 0, 0)
	b = binary.NativeEndian.AppendUint32(appendAttribute(b, unix.NDA_MASTER, 4), uint32(bridge))
	if k.VID != 0 {
		b = append(binary.NativeEndian.AppendUint16(appendAttribute(b, unix.NDA_VLAN, 2), k.VID), 0, 0)
	}
	binary.NativeEndian.PutUint32(b[begin:], uint32(len(b)-begin))
	return b
}

// appendAttribute appends the head of an attribute of so many bytes.
func appendAttribute(b []byte, number uint16, size int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+size))
	return binary.NativeEndian.AppendUint16(b, number)
}

func ndMsg() []byte {
	b := make([]byte, sizeofNdMsg)
	b[0] = unix.AF_BRIDGE
	return b
}

// encodeLinkRequest is RTM_GETLINK for one interface; 0 for a dump of all. The
// statistics are left out: some drivers ask their hardware for them.
func encodeLinkRequest(ifindex int) ([]byte, error) {
	b := make([]byte, sizeofIfInfoMsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.IFLA_EXT_MASK, rtextFilterSkipStats)
	attrs, err := e.Encode()
	return append(b, attrs...), err
}

// indexAt4 returns the ifindex behind the first four bytes, where a tc message
// (struct tcmsg) and a VLAN's (struct br_vlan_msg) have it; 0 if it is not there.
func indexAt4(data []byte) int {
	if len(data) < 8 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(data[4:])))
}
