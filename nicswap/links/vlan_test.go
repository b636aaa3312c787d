package links

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// vlanEntry is a BRIDGE_VLANDB_ENTRY as RTM_GETVLAN answers it; last 0 for none.
func vlanEntry(first, last, flags uint16) []byte {
	info := binary.NativeEndian.AppendUint16(nil, flags)
	e := netlink.NewAttributeEncoder()
	e.Bytes(vlanDBEntryInfo, binary.NativeEndian.AppendUint16(info, first))
	e.Uint8(3, 3) // BRIDGE_VLANDB_ENTRY_STATE, which is not read
	if last != 0 {
		e.Uint16(vlanDBEntryRange, last)
	}
	b, err := e.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func vlanMessage(port uint32, entries ...[]byte) []byte {
	b := make([]byte, sizeofBrVlanMsg)
	b[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(b[4:], port)
	e := netlink.NewAttributeEncoder()
	for _, entry := range entries {
		e.Bytes(netlink.Nested|vlanDBEntry, entry)
	}
	attrs, err := e.Encode()
	if err != nil {
		panic(err)
	}
	return append(b, attrs...)
}

func decodeVLANs(port int, messages ...[]byte) []VLANs {
	var m memberships
	for _, data := range messages {
		m.decode(port, data)
	}
	return m.ranges()
}

func TestDecodeVLANs(t *testing.T) {
	pvid := vlanEntry(1, 0, vlanInfoPVID|vlanInfoUntagged)
	want := []VLANs{{First: 1, Last: 1, PVID: true, Untagged: true}, {First: 2, Last: 2, Untagged: true}, {First: 10, Last: 20}, {First: 4094, Last: 4094}}
	for name, got := range map[string][]VLANs{
		"one message": decodeVLANs(4, vlanMessage(4, pvid, vlanEntry(2, 0, vlanInfoUntagged), vlanEntry(10, 20, 0), vlanEntry(4094, 0, 0))),
		"two messages": decodeVLANs(4, vlanMessage(4, pvid, vlanEntry(2, 0, vlanInfoUntagged), vlanEntry(10, 15, 0)),
			vlanMessage(4, vlanEntry(16, 20, 0), vlanEntry(4094, 0, 0))),
		"another port's among them": decodeVLANs(4, vlanMessage(5, vlanEntry(7, 0, 0)),
			vlanMessage(4, pvid, vlanEntry(2, 0, vlanInfoUntagged), vlanEntry(10, 20, 0), vlanEntry(4094, 0, 0))),
		"those that cannot be among them": decodeVLANs(4, vlanMessage(4, vlanEntry(0, 0, 0), pvid, vlanEntry(2, 0, vlanInfoUntagged),
			vlanEntry(10, 20, 0), vlanEntry(4094, 4095, 0))),
		"a cut one behind them": decodeVLANs(4, append(vlanMessage(4, pvid, vlanEntry(2, 0, vlanInfoUntagged), vlanEntry(10, 20, 0), vlanEntry(4094, 0, 0)), 40, 0, 1, 0)),
	} {
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := decodeVLANs(4); got == nil || len(got) > 0 {
		t.Errorf("a port that is in no VLAN has %#v: it must not be taken for a kernel without VLANs", got)
	}
}

// TestEncodeVLANs: the bytes are those that bridge(8) sends for
// "vlan add vid 1 pvid untagged" and "vlan add vid 10-20".
func TestEncodeVLANs(t *testing.T) {
	e := netlink.NewAttributeEncoder()
	encodeVLANs(e, []VLANs{{First: 1, Last: 1, PVID: true, Untagged: true}, {First: 10, Last: 20}})
	got, err := e.Encode()
	must(t, err)
	const want = "0800020006000100" + "0800020008000a00" + "0800020010001400"
	if hex.EncodeToString(got) != want {
		t.Errorf("%x, want %s", got, want)
	}
}

// TestVLANsToSet: what is added comes with the flags that it is to have, what is
// the same is left alone.
func TestVLANsToSet(t *testing.T) {
	usual := VLANs{First: 1, Last: 1, PVID: true, Untagged: true}
	for name, c := range map[string]struct{ have, want, add, remove []VLANs }{
		"the same":        {[]VLANs{usual}, []VLANs{usual}, nil, nil},
		"none":            {[]VLANs{usual}, []VLANs{}, nil, []VLANs{{First: 1, Last: 1}}},
		"a PVID moves":    {[]VLANs{usual}, []VLANs{{First: 1, Last: 1}, {First: 5, Last: 5, PVID: true}}, []VLANs{{First: 1, Last: 1}, {First: 5, Last: 5, PVID: true}}, nil},
		"a range shrinks": {[]VLANs{{First: 10, Last: 20}}, []VLANs{{First: 12, Last: 18}}, nil, []VLANs{{First: 10, Last: 11}, {First: 19, Last: 20}}},
		"a range grows":   {[]VLANs{{First: 10, Last: 20}}, []VLANs{{First: 9, Last: 22}}, []VLANs{{First: 9, Last: 9}, {First: 21, Last: 22}}, nil},
		"a tag comes off": {[]VLANs{{First: 10, Last: 20}}, []VLANs{{First: 10, Last: 14}, {First: 15, Last: 15, Untagged: true}, {First: 16, Last: 20}}, []VLANs{{First: 15, Last: 15, Untagged: true}}, nil},
	} {
		have, want := membershipsOf(c.have), membershipsOf(c.want)
		if add := want.less(have); !slices.Equal(add, c.add) {
			t.Errorf("%s: adds %v", name, add)
		}
		if remove := have.outside(want); !slices.Equal(remove, c.remove) {
			t.Errorf("%s: removes %v", name, remove)
		}
		if wrong := vlanDifferences(c.have, c.want); len(wrong) != len(c.add)+len(c.remove) {
			t.Errorf("%s: names %v", name, wrong)
		}
	}
	if wrong := vlanDifferences([]VLANs{usual}, nil); wrong != nil {
		t.Errorf("no wish, and yet %v", wrong)
	}
}
