package links

import (
	"encoding/hex"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// messages returns the recorded messages by name.
func messages(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/messages.txt")
	must(t, err)
	all := make(map[string][]byte)
	for line := range strings.Lines(string(text)) {
		name, digits, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		if all[name], err = hex.DecodeString(digits); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return all
}

func message(t testing.TB, name string) []byte {
	t.Helper()
	data, ok := messages(t)[name]
	if !ok {
		t.Fatalf("there is no message %s", name)
	}
	return data
}

// question is one that nobody takes the answer of.
func question(t *testing.T) netlink.Message {
	t.Helper()
	data, err := encodeLinkMessage(unix.AF_UNSPEC, 1, 0, 0, func(*netlink.AttributeEncoder) {})
	must(t, err)
	return netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: data}
}

// send sends datagrams to an address.
func send(t *testing.T, to string, n int) {
	t.Helper()
	c, err := net.ListenPacket("udp", to) // so that nobody answers that it is not there
	must(t, err)
	defer c.Close()
	for range n {
		_, err := c.WriteTo([]byte("a datagram"), c.LocalAddr())
		must(t, err)
	}
}

// FuzzDecodeLink holds that whatever comes is read to its end, and that what is
// taken for a mode of a macvlan is one.
func FuzzDecodeLink(f *testing.F) {
	seeds(f, "link-")
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := decodeLink(data)
		if err != nil && l != (Link{}) {
			t.Errorf("an error, and %+v", l)
		}
		if l.MacvlanMode != "" && !strings.HasPrefix(l.Kind, "macv") {
			t.Errorf("a mode of what is no macvlan: %+v", l)
		}
		if l.MTU < 0 || l.Lower < 0 || l.Master < 0 {
			t.Errorf("a number below 0: %+v", l)
		}
		decodeIPv6(data)
		decodeEvent(netlink.Message{Data: data})
		if _, err := decodeCounters(data); err == nil && len(data) < 64 {
			t.Error("counters of nothing")
		}
	})
}

// FuzzDecodePort holds that what is read of a port can be set so.
func FuzzDecodePort(f *testing.F) {
	seeds(f, "link-port")
	f.Fuzz(func(t *testing.T, data []byte) {
		options, backup, err := decodePort(data)
		if err != nil {
			if options != nil || backup != 0 {
				t.Errorf("an error, and %v %d", options, backup)
			}
			return
		}
		e := netlink.NewAttributeEncoder()
		for _, o := range portOptions {
			if value, ok := options[o.name]; ok {
				o.encode(e, value)
			}
		}
		again, err := e.Encode()
		must(t, err)
		for _, o := range portOptions {
			value, ok := options[o.name]
			v := find(again, o.number)
			if (v != nil) != ok || uint32(number(v)) != value {
				t.Errorf("%s is %d and would be set to %x", o.name, value, v)
			}
		}
	})
}

// FuzzDecodeVLANs holds that VLANs can be, are in order, and come back from what
// would be sent to set them.
func FuzzDecodeVLANs(f *testing.F) {
	f.Add(vlanMessage(4, vlanEntry(1, 0, vlanInfoPVID|vlanInfoUntagged), vlanEntry(10, 20, 0)))
	f.Add(vlanMessage(4, vlanEntry(20, 10, vlanInfoUntagged), vlanEntry(4095, 0, 0)))
	f.Add(vlanMessage(4, vlanEntry(1, 3, vlanInfoPVID)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m memberships
		m.decode(4, data)
		before := uint16(0)
		for _, v := range m.ranges() {
			if v.First <= before || v.Last < v.First || v.Last > lastVID || v.PVID && v.First != v.Last {
				t.Errorf("%v comes behind %d", v, before)
			}
			before = v.Last
		}
		if again := membershipsOf(m.ranges()); *again != m {
			t.Errorf("of %v comes %v", m.ranges(), again.ranges())
		}
	})
}

// FuzzDecodeAddress holds that what counts as an address can be added so.
func FuzzDecodeAddress(f *testing.F) {
	seeds(f, "address-")
	f.Fuzz(func(t *testing.T, data []byte) {
		ifindex, a, err := decodeAddress(data)
		if err != nil {
			return
		}
		encoded, err := encodeAddress(ifindex, a)
		must(t, err)
		if again, b, err := decodeAddress(encoded); err != nil || again != ifindex || b != a {
			t.Errorf("of %+v comes %+v (%v)", a, b, err)
		}
	})
}

// seeds adds the recorded messages whose name begins so.
func seeds(f *testing.F, prefix string) {
	for name, data := range messages(f) {
		if strings.HasPrefix(name, prefix) {
			f.Add(data)
			f.Add(data[:len(data)/2])
		}
	}
}
