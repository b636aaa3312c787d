package fdbsync

import (
	"strings"
	"testing"
)

// seeds adds the recorded messages whose name begins so.
func seeds(f *testing.F, prefix string) {
	for name, data := range messages(f) {
		if strings.HasPrefix(name, prefix) {
			f.Add(data)
		}
	}
}

// FuzzDecodeLink holds that a link counts as known only if it says all that is
// asked of it, and that no time is negative.
func FuzzDecodeLink(f *testing.F) {
	seeds(f, "link-")
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := decodeLink(data)
		if err != nil && l != (link{}) {
			t.Errorf("an error, and %+v", l)
		}
		if l.known && l.name == "" {
			t.Errorf("known without a name: %+v", l)
		}
		if l.bridge.ageing < 0 || l.bridge.forwardDelay < 0 || keepaliveOf(l.bridge) < 0 {
			t.Errorf("a negative time: %+v", l.bridge)
		}
		// Whatever it is, there is a verdict.
		if p := portOf(l, surroundings{}); p.In.Text() == "" || p.Out.Text() == "" || bridgeReason(l).Text() == "" {
			t.Errorf("a verdict without a text: %+v", p)
		}
	})
}

// FuzzDecodeNeigh holds that whatever counts as an entry has a bridge, and that
// one that is not local has a port.
func FuzzDecodeNeigh(f *testing.F) {
	seeds(f, "fdb-")
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decodeNeigh(data)
		if err != nil && n != (neigh{}) {
			t.Errorf("an error, and %+v", n)
		}
		if err == nil && (n.bridge == 0 || n.station.Port == n.bridge || n.station.Active) {
			t.Errorf("an entry that cannot be: %+v", n)
		}
	})
}

// FuzzDecodeChain holds that a hook never goes unseen: whatever has one makes
// the firewall count.
func FuzzDecodeChain(f *testing.F) {
	seeds(f, "chain-")
	f.Fuzz(func(t *testing.T, data []byte) {
		w := firewall{devices: make(map[string]bool)}
		w.addChain(data)
		hooked := false
		if len(data) >= sizeofNfGenMsg {
			attributes(data[sizeofNfGenMsg:], func(n uint16, _ []byte) { hooked = hooked || n == nftaChainHook })
		}
		if seen := w.bridge || w.ip || len(w.devices) > 0; seen != hooked {
			t.Errorf("hooked %v, seen %v: %+v", hooked, seen, w)
		}
	})
}

// FuzzDecodeVLANs holds that whatever counts as known has VLANs that can be, each
// once and in order, and a PVID that is one of them.
func FuzzDecodeVLANs(f *testing.F) {
	usual := vlanEntryOf(vlanInfo(1, vlanInfoPVID|vlanInfoUntagged), vlanState(brStateForwarding))
	ranged := vlanEntryOf(vlanInfo(10, 0), vlanRange(20), vlanState(4))
	f.Add(vlanMessage(4, usual))
	f.Add(vlanMessage(4, usual, ranged))
	f.Add(vlanMessage(4, ranged, usual))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := decodeVLANs(indexAt4(data), [][]byte{data})
		if !got.known && got != (portVLANs{}) {
			t.Errorf("unknown, and %+v", got)
		}
		before, hasPVID := uint16(0), false
		for v := range got.members.All() {
			if v.VID <= before || v.VID > lastVID {
				t.Errorf("VLAN %d comes behind %d", v.VID, before)
			}
			before, hasPVID = v.VID, hasPVID || v.VID == got.pvid
		}
		if got.pvid != 0 && !hasPVID {
			t.Errorf("the PVID %d is none of its VLANs", got.pvid)
		}
	})
}
