package links

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// VLANs are memberships of a bridge port in VLANs that are alike.
type VLANs struct {
	// First and Last are VIDs; they are equal for a single VLAN.
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
	// PVID: frames without a tag belong to this VLAN, which is a single one.
	PVID bool `json:"pvid,omitempty"`
	// Untagged: the tag is taken off at egress.
	Untagged bool `json:"untagged,omitempty"`
}

// Numbers of the bridge's VLANs; include/uapi/linux/if_bridge.h.
const (
	iflaBridgeVlanInfo = 2 // IFLA_BRIDGE_VLAN_INFO: struct bridge_vlan_info

	vlanDBEntry      = 1 // BRIDGE_VLANDB_ENTRY
	vlanDBEntryInfo  = 1 // BRIDGE_VLANDB_ENTRY_INFO: struct bridge_vlan_info
	vlanDBEntryRange = 2 // BRIDGE_VLANDB_ENTRY_RANGE

	vlanInfoPVID       = 1 << 1 // BRIDGE_VLAN_INFO_PVID
	vlanInfoUntagged   = 1 << 2 // BRIDGE_VLAN_INFO_UNTAGGED
	vlanInfoRangeBegin = 1 << 3 // BRIDGE_VLAN_INFO_RANGE_BEGIN
	vlanInfoRangeEnd   = 1 << 4 // BRIDGE_VLAN_INFO_RANGE_END

	sizeofBrVlanMsg  = 8 // struct br_vlan_msg
	sizeofBrVlanInfo = 4
	lastVID          = 4094 // VLAN_VID_MASK - 1
)

// vlans returns the memberships of a bridge port; nil where the kernel has no VLAN
// filtering, and not nil where the port is in no VLAN.
func (l *Links) vlans(ifindex int) ([]VLANs, error) {
	request := make([]byte, sizeofBrVlanMsg)
	request[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(request[4:], uint32(ifindex))
	messages, err := l.list(unix.RTM_GETVLAN, request)
	switch {
	case isAbout(err, unix.EOPNOTSUPP):
		return nil, nil
	case isAbout(err, unix.EINVAL):
		return nil, ErrNoPort
	case err != nil:
		return nil, fmt.Errorf("list the VLANs: %w", err)
	}
	var m memberships
	for _, message := range messages {
		m.decode(ifindex, message.Data)
	}
	return m.ranges(), nil
}

// setVLANs adds first and removes then, so that a PVID moves at once.
func (l *Links) setVLANs(ifindex int, have, want []VLANs) error {
	if want == nil || slices.Equal(have, want) {
		return nil
	}
	now, then := membershipsOf(have), membershipsOf(want)
	if err := l.sendVLANs(unix.RTM_SETLINK, ifindex, then.less(now)); err != nil {
		return fmt.Errorf("add VLANs: %w", err)
	}
	if err := l.sendVLANs(unix.RTM_DELLINK, ifindex, now.outside(then)); err != nil {
		return fmt.Errorf("remove VLANs: %w", err)
	}
	return nil
}

func (l *Links) sendVLANs(kind netlink.HeaderType, ifindex int, vlans []VLANs) error {
	if len(vlans) == 0 {
		return nil
	}
	request, err := encodeLinkMessage(unix.AF_BRIDGE, ifindex, 0, 0, func(e *netlink.AttributeEncoder) {
		e.Nested(unix.IFLA_AF_SPEC, func(e *netlink.AttributeEncoder) error {
			encodeVLANs(e, vlans)
			return nil
		})
	})
	if err != nil {
		return err
	}
	return l.tell(kind, 0, request)
}

func encodeVLANs(e *netlink.AttributeEncoder, vlans []VLANs) {
	add := func(vid, flags uint16) {
		info := binary.NativeEndian.AppendUint16(nil, flags)
		e.Bytes(iflaBridgeVlanInfo, binary.NativeEndian.AppendUint16(info, vid))
	}
	for _, v := range vlans {
		if v.First == v.Last {
			add(v.First, v.flags())
			continue
		}
		add(v.First, v.flags()|vlanInfoRangeBegin)
		add(v.Last, v.flags()|vlanInfoRangeEnd)
	}
}

func (v VLANs) flags() (flags uint16) {
	if v.PVID {
		flags |= vlanInfoPVID
	}
	if v.Untagged {
		flags |= vlanInfoUntagged
	}
	return flags
}

// memberships has what a port is in each VLAN: 0 for no member, else isMember and
// BRIDGE_VLAN_INFO_*.
type memberships [lastVID + 1]uint16

const isMember = 1 // BRIDGE_VLAN_INFO_MASTER, which no port's VLAN has

func membershipsOf(vlans []VLANs) *memberships {
	var m memberships
	for _, v := range vlans {
		m.add(v)
	}
	return &m
}

// add leaves out VIDs that cannot be.
func (m *memberships) add(v VLANs) {
	for vid := max(int(v.First), 1); vid <= min(int(v.Last), lastVID); vid++ {
		m[vid] = isMember | v.flags()
	}
}

// decode reads a message that net/bridge/br_vlan.c: br_vlan_dump_dev wrote.
func (m *memberships) decode(port int, data []byte) {
	if len(data) < sizeofBrVlanMsg || int(binary.NativeEndian.Uint32(data[4:])) != port {
		return
	}
	attributes(data[sizeofBrVlanMsg:], func(n uint16, entry []byte) {
		info := find(entry, vlanDBEntryInfo)
		if n != vlanDBEntry || len(info) != sizeofBrVlanInfo {
			return
		}
		flags, first := binary.NativeEndian.Uint16(info), binary.NativeEndian.Uint16(info[2:])
		last := uint16(number(find(entry, vlanDBEntryRange)))
		m.add(VLANs{
			First: first, Last: max(first, last), // absent for a single VLAN
			PVID: flags&vlanInfoPVID != 0, Untagged: flags&vlanInfoUntagged != 0,
		})
	})
}

// ranges returns the memberships in the order of VIDs. A PVID stands alone, as
// the kernel has it.
func (m *memberships) ranges() []VLANs {
	ranges := []VLANs{}
	for vid, flags := range m {
		if flags == 0 {
			continue
		}
		last := len(ranges) - 1
		if vid > 1 && m[vid-1] == flags && flags&vlanInfoPVID == 0 {
			ranges[last].Last = uint16(vid)
			continue
		}
		ranges = append(ranges, VLANs{
			First: uint16(vid), Last: uint16(vid),
			PVID: flags&vlanInfoPVID != 0, Untagged: flags&vlanInfoUntagged != 0,
		})
	}
	return ranges
}

// less are the memberships that other does not have, or has otherwise.
func (m *memberships) less(other *memberships) []VLANs {
	var rest memberships
	for vid, flags := range m {
		if flags != other[vid] {
			rest[vid] = flags
		}
	}
	return rest.ranges()
}

// outside are the VLANs that other has no membership in.
func (m *memberships) outside(other *memberships) []VLANs {
	var rest memberships
	for vid, flags := range m {
		if flags != 0 && other[vid] == 0 {
			rest[vid] = isMember // flags do not matter for what is removed
		}
	}
	return rest.ranges()
}

// vlanDifferences says which VLANs a port has otherwise than it should, a clause
// each.
func vlanDifferences(have, want []VLANs) (wrong []string) {
	if want == nil {
		return nil
	}
	now, then := membershipsOf(have), membershipsOf(want)
	for _, v := range then.less(now) {
		wrong = append(wrong, fmt.Sprintf("it is not as it should be in %v", v))
	}
	for _, v := range now.outside(then) {
		wrong = append(wrong, fmt.Sprintf("it should not be in %v", v))
	}
	return wrong
}

func (v VLANs) String() string {
	text := fmt.Sprintf("VLAN %d", v.First)
	if v.First != v.Last {
		text = fmt.Sprintf("VLANs %d-%d", v.First, v.Last)
	}
	if v.PVID {
		text += " PVID"
	}
	if v.Untagged {
		text += " untagged"
	}
	return text
}
