package twin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// kernel changes a namespace's links, bridges and tables by messages of this
// process's own: a command for each of thousands of changes would take longer
// than the frames.
type kernel struct {
	conn *netlink.Conn
}

func dialKernel(ns *lab.Namespace) (k kernel, err error) {
	err = ns.Do(func() (err error) {
		k, err = openKernel()
		return err
	})
	return k, err
}

// openKernel is dialKernel for the namespace that this thread is in.
func openKernel() (k kernel, err error) {
	k.conn, err = netlink.Dial(unix.NETLINK_ROUTE, nil)
	return k, err
}

func (k kernel) do(kind netlink.HeaderType, flags netlink.HeaderFlags, header []byte, attributes func(*netlink.AttributeEncoder)) error {
	e := netlink.NewAttributeEncoder()
	attributes(e)
	b, err := e.Encode()
	if err != nil {
		return err
	}
	m := netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(header, b...),
	}
	_, err = k.conn.Execute(m)
	return err
}

// ifinfo is a struct ifinfomsg.
func ifinfo(family byte, ifindex int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

func (k kernel) setFlag(ifindex int, flag uint32, on bool) error {
	value := uint32(0)
	if on {
		value = flag
	}
	return k.do(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, ifindex, value, flag), func(*netlink.AttributeEncoder) {})
}

func (k kernel) setLink(ifindex int, attribute uint16, value uint32) error {
	return k.do(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, ifindex, 0, 0), func(e *netlink.AttributeEncoder) {
		e.Uint32(attribute, value)
	})
}

// option is an attribute with the size of its value in bytes; size 0 is a flag.
type option struct {
	attribute uint16
	size      int
}

func (o option) encode(e *netlink.AttributeEncoder, value uint32) {
	switch o.size {
	case 0:
		e.Bytes(o.attribute, nil)
	case 1:
		e.Uint8(o.attribute, uint8(value))
	case 2:
		e.Uint16(o.attribute, uint16(value))
	default:
		e.Uint32(o.attribute, value)
	}
}

// portOptions are what `bridge link set` changes.
var portOptions = map[string]option{
	"state":          {unix.IFLA_BRPORT_STATE, 1},
	"priority":       {unix.IFLA_BRPORT_PRIORITY, 2},
	"cost":           {unix.IFLA_BRPORT_COST, 4},
	"hairpin":        {unix.IFLA_BRPORT_MODE, 1},
	"guard":          {unix.IFLA_BRPORT_GUARD, 1},
	"fastleave":      {unix.IFLA_BRPORT_FAST_LEAVE, 1},
	"learning":       {unix.IFLA_BRPORT_LEARNING, 1},
	"flood":          {unix.IFLA_BRPORT_UNICAST_FLOOD, 1},
	"mcast_flood":    {unix.IFLA_BRPORT_MCAST_FLOOD, 1},
	"bcast_flood":    {unix.IFLA_BRPORT_BCAST_FLOOD, 1},
	"proxy_arp":      {unix.IFLA_BRPORT_PROXYARP, 1},
	"proxy_arp_wifi": {unix.IFLA_BRPORT_PROXYARP_WIFI, 1},
	"neigh_suppress": {unix.IFLA_BRPORT_NEIGH_SUPPRESS, 1},
	"isolated":       {unix.IFLA_BRPORT_ISOLATED, 1},
	"locked":         {unix.IFLA_BRPORT_LOCKED, 1},
	"mab":            {unix.IFLA_BRPORT_MAB, 1},
	"vlan_tunnel":    {unix.IFLA_BRPORT_VLAN_TUNNEL, 1},
	"group_fwd_mask": {unix.IFLA_BRPORT_GROUP_FWD_MASK, 2},
	"backup":         {unix.IFLA_BRPORT_BACKUP_PORT, 4},
	"flush":          {unix.IFLA_BRPORT_FLUSH, 0},
}

func (k kernel) setPort(ifindex int, o option, value uint32) error {
	return k.do(unix.RTM_SETLINK, 0, ifinfo(unix.AF_BRIDGE, ifindex, 0, 0), func(e *netlink.AttributeEncoder) {
		e.Nested(unix.IFLA_PROTINFO, func(e *netlink.AttributeEncoder) error {
			o.encode(e, value)
			return nil
		})
	})
}

// bridgeOptions are what `ip link set type bridge` changes.
var bridgeOptions = map[string]option{
	"ageing_time":        {unix.IFLA_BR_AGEING_TIME, 4},
	"priority":           {unix.IFLA_BR_PRIORITY, 2},
	"vlan_filtering":     {unix.IFLA_BR_VLAN_FILTERING, 1},
	"vlan_protocol":      {unix.IFLA_BR_VLAN_PROTOCOL, 2},
	"vlan_default_pvid":  {unix.IFLA_BR_VLAN_DEFAULT_PVID, 2},
	"vlan_stats_enabled": {unix.IFLA_BR_VLAN_STATS_ENABLED, 1},
	"group_fwd_mask":     {unix.IFLA_BR_GROUP_FWD_MASK, 2},
	"nf_call_iptables":   {unix.IFLA_BR_NF_CALL_IPTABLES, 1},
	"nf_call_ip6tables":  {unix.IFLA_BR_NF_CALL_IP6TABLES, 1},
	"nf_call_arptables":  {unix.IFLA_BR_NF_CALL_ARPTABLES, 1},
	"mcast_snooping":     {unix.IFLA_BR_MCAST_SNOOPING, 1},
	"fdb_flush":          {unix.IFLA_BR_FDB_FLUSH, 0},
}

func (k kernel) setBridge(ifindex int, name string, value uint32) error {
	o := bridgeOptions[name]
	if name == "vlan_protocol" { // the only one in network order
		value = uint32(uint16(value)<<8 | uint16(value)>>8)
	}
	return k.do(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, ifindex, 0, 0), func(e *netlink.AttributeEncoder) {
		e.Nested(unix.IFLA_LINKINFO, func(e *netlink.AttributeEncoder) error {
			e.String(unix.IFLA_INFO_KIND, "bridge")
			e.Nested(unix.IFLA_INFO_DATA, func(e *netlink.AttributeEncoder) error {
				o.encode(e, value)
				return nil
			})
			return nil
		})
	})
}

// From linux/if_bridge.h; package unix has none of them.
const (
	bridgeVLANInfo     = 2 // IFLA_BRIDGE_VLAN_INFO
	vlanPVID           = 2
	vlanUntagged       = 4
	vlanOnlyOptions    = 64 // BRIDGE_VLAN_INFO_ONLY_OPTS
	vlanEntry          = 1  // BRIDGE_VLANDB_ENTRY
	vlanEntryInfo      = 1
	vlanEntryState     = 3
	rtmNewVLAN         = 112
	sizeofBridgeVLAN   = 8 // struct br_vlan_msg
	offsetVLANIfindex  = 4
	neighExtendedFlags = 15 // NDA_FLAGS_EXT
	ntfSticky          = 0x40
)

func vlanInfo(vid, flags uint16) []byte {
	return binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, flags), vid)
}

// vlan adds the port to a VLAN, or removes it (kind RTM_DELLINK).
func (k kernel) vlan(kind netlink.HeaderType, ifindex int, vid, flags uint16) error {
	return k.do(kind, 0, ifinfo(unix.AF_BRIDGE, ifindex, 0, 0), func(e *netlink.AttributeEncoder) {
		e.Nested(unix.IFLA_AF_SPEC, func(e *netlink.AttributeEncoder) error {
			e.Bytes(bridgeVLANInfo, vlanInfo(vid, flags))
			return nil
		})
	})
}

// vlanState sets the state of one VLAN of a port.
func (k kernel) vlanState(ifindex int, vid uint16, state uint8) error {
	header := make([]byte, sizeofBridgeVLAN)
	header[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(header[offsetVLANIfindex:], uint32(ifindex))
	return k.do(rtmNewVLAN, 0, header, func(e *netlink.AttributeEncoder) {
		e.Nested(vlanEntry, func(e *netlink.AttributeEncoder) error {
			e.Bytes(vlanEntryInfo, vlanInfo(vid, vlanOnlyOptions))
			e.Uint8(vlanEntryState, state)
			return nil
		})
	})
}

// ndmsg is a struct ndmsg.
func ndmsg(ifindex int, state uint16, flags byte) []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	binary.NativeEndian.PutUint16(b[8:], state)
	b[10] = flags
	return b
}

// entryKinds are the kinds of entries that `bridge fdb` adds.
var entryKinds = map[string]struct {
	state uint16
	flags byte
}{
	"dynamic": {unix.NUD_REACHABLE, unix.NTF_MASTER},
	"static":  {unix.NUD_NOARP, unix.NTF_MASTER},
	"local":   {unix.NUD_PERMANENT, unix.NTF_MASTER},
	"sticky":  {unix.NUD_NOARP, unix.NTF_MASTER | ntfSticky},
	"extern":  {unix.NUD_REACHABLE, unix.NTF_MASTER | unix.NTF_EXT_LEARNED},
	"used":    {unix.NUD_REACHABLE, unix.NTF_MASTER | unix.NTF_USE},
}

// How an entry is to be added (NLM_F_*).
const (
	netlinkReplace netlink.HeaderFlags = 0x100
	netlinkExcl    netlink.HeaderFlags = 0x200
	netlinkCreate  netlink.HeaderFlags = 0x400
)

func (k kernel) addEntry(flags netlink.HeaderFlags, ifindex int, mac accel.MAC, kind string, vid uint16) error {
	e := entryKinds[kind]
	return k.do(unix.RTM_NEWNEIGH, flags, ndmsg(ifindex, e.state, e.flags), entry(mac, vid))
}

func (k kernel) deleteEntry(ifindex int, mac accel.MAC, vid uint16) error {
	return k.do(unix.RTM_DELNEIGH, 0, ndmsg(ifindex, 0, unix.NTF_MASTER), entry(mac, vid))
}

func entry(mac accel.MAC, vid uint16) func(*netlink.AttributeEncoder) {
	return func(e *netlink.AttributeEncoder) {
		e.Bytes(unix.NDA_LLADDR, mac[:])
		if vid != 0 {
			e.Uint16(unix.NDA_VLAN, vid)
		}
	}
}

// flushBulk deletes every dynamic entry of a port, or of the bridge.
func (k kernel) flushBulk(ifindex int, flags byte) error {
	const bulk netlink.HeaderFlags = 0x200 // NLM_F_BULK
	return k.do(unix.RTM_DELNEIGH, bulk, ndmsg(ifindex, 0, flags), func(*netlink.AttributeEncoder) {})
}

// Entry is a row of a bridge's forwarding table without its times.
type Entry struct {
	MAC      accel.MAC
	VID      uint16
	Ifindex  int
	State    uint16 // NUD_*
	Flags    byte   // NTF_*
	Extended uint32 // NTF_EXT_*
}

func (k kernel) entries(bridge int) (all []Entry, err error) {
	rows, err := k.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request | netlink.Dump},
		Data:   ndmsg(0, 0, 0),
	})
	if err != nil {
		return nil, fmt.Errorf("read the forwarding table: %w", err)
	}
	for _, m := range rows {
		e, master, err := decodeEntry(m.Data)
		if err != nil {
			return nil, err
		}
		if master == bridge && e.Flags&unix.NTF_SELF == 0 {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.key(), b.key()) })
	return all, nil
}

func (e Entry) key() string { return fmt.Sprintf("%s %04d %03d", e.MAC, e.VID, e.Ifindex) }

func decodeEntry(b []byte) (e Entry, master int, err error) {
	if len(b) < unix.SizeofNdMsg {
		return e, 0, errors.New("a row of the forwarding table is cut off")
	}
	e.Ifindex = int(binary.NativeEndian.Uint32(b[4:]))
	e.State = binary.NativeEndian.Uint16(b[8:])
	e.Flags = b[10]
	d, err := netlink.NewAttributeDecoder(b[unix.SizeofNdMsg:])
	if err != nil {
		return e, 0, err
	}
	for d.Next() {
		switch d.Type() {
		case unix.NDA_LLADDR:
			copy(e.MAC[:], d.Bytes())
		case unix.NDA_VLAN:
			e.VID = d.Uint16()
		case unix.NDA_MASTER:
			master = int(d.Uint32())
		case neighExtendedFlags:
			e.Extended = d.Uint32()
		}
	}
	return e, master, d.Err()
}

// linkState is what a change of a link takes time to reach.
type linkState struct {
	up, carrier bool
	mtu, master int
	portState   uint8
}

func (k kernel) linkState(ifindex int) (s linkState, err error) {
	rows, err := k.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   ifinfo(unix.AF_UNSPEC, ifindex, 0, 0),
	})
	if err != nil || len(rows) != 1 {
		return s, errors.Join(err, fmt.Errorf("%d answers about link %d", len(rows), ifindex))
	}
	s.up = binary.NativeEndian.Uint32(rows[0].Data[8:])&unix.IFF_UP != 0
	d, err := netlink.NewAttributeDecoder(rows[0].Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return s, err
	}
	for d.Next() {
		switch d.Type() {
		case unix.IFLA_OPERSTATE:
			s.carrier = d.Uint8() == operUp
		case unix.IFLA_MASTER:
			s.master = int(d.Uint32())
		case unix.IFLA_MTU:
			s.mtu = int(d.Uint32())
		case unix.IFLA_LINKINFO:
			d.Nested(func(d *netlink.AttributeDecoder) error { return portData(d, &s) })
		}
	}
	return s, d.Err()
}

const operUp = 6 // IF_OPER_UP

func portData(d *netlink.AttributeDecoder, s *linkState) error {
	for d.Next() {
		if d.Type() == unix.IFLA_INFO_SLAVE_DATA {
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == unix.IFLA_BRPORT_STATE {
						s.portState = d.Uint8()
					}
				}
				return d.Err()
			})
		}
	}
	return d.Err()
}

// number reads a value of a script: decimal, hexadecimal with 0x, on or off.
func number(word string) (uint32, error) {
	switch word {
	case "on":
		return 1, nil
	case "off":
		return 0, nil
	}
	n, err := strconv.ParseUint(word, 0, 32)
	return uint32(n), err
}

// hardware is the address as package net has it.
func hardware(m accel.MAC) net.HardwareAddr { return m[:] }
