package fdbsync

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// messages returns the recorded messages by name.
func messages(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
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

// attribute encodes one attribute.
func attribute(number uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, number), value...)
	return append(b, make([]byte, align4(len(value))-len(value))...)
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// without returns the attributes but those of that number.
func without(data []byte, number uint16) []byte {
	var rest []byte
	attributes(data, func(n uint16, v []byte) {
		if n != number {
			rest = append(rest, attribute(n, v...)...)
		}
	})
	return rest
}

// inner returns the value of an attribute.
func inner(t testing.TB, data []byte, number uint16) []byte {
	t.Helper()
	var found []byte
	attributes(data, func(n uint16, v []byte) {
		if n == number {
			found = v
		}
	})
	if found == nil {
		t.Fatalf("attribute %d is not there", number)
	}
	return found
}

// linkDetails returns IFLA_INFO_DATA or IFLA_INFO_SLAVE_DATA of a recording.
func linkDetails(t testing.TB, name string, number uint16) []byte {
	t.Helper()
	return inner(t, inner(t, message(t, name)[sizeofIfInfoMsg:], unix.IFLA_LINKINFO), number)
}

func TestDecodeLink(t *testing.T) {
	const up = unix.IFF_UP | unix.IFF_BROADCAST | unix.IFF_MULTICAST | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	plain := portOptions{isPort: true, known: true, state: brStateForwarding, flags: accel.FlagLearning}
	odd := portOptions{
		isPort: true, known: true, state: brStateForwarding, backup: true,
		flags: accel.FlagIsolated | accel.FlagHairpin | accel.FlagVLANTunnel | accel.FlagNeighSuppress,
	}
	for name, want := range map[string]link{
		"link-loopback": {ifindex: 1, name: "lo", mtu: 65536, flags: unix.IFF_LOOPBACK, known: true},
		"link-bridge": {
			ifindex: 2, name: "br0", kind: "bridge", ethernet: true, flags: up, mtu: 1500, known: true,
			bridge: bridgeOptions{known: true, ageing: 300 * time.Second, forwardDelay: 15 * time.Second},
		},
		"link-bridge-odd": {
			ifindex: 2, name: "br0", kind: "bridge", ethernet: true, flags: up | unix.IFF_PROMISC, mtu: 1400,
			promiscuity: 1, known: true,
			bridge: bridgeOptions{known: true, ageing: 123 * time.Second, forwardDelay: 7 * time.Second, stp: true},
		},
		"link-port": {
			ifindex: 4, name: "p1", kind: "veth", ethernet: true, flags: up, mtu: 1500, known: true,
			master: 2, lower: 3, promiscuity: 1, port: plain,
		},
		"link-port-odd": {
			ifindex: 6, name: "p2", kind: "veth", ethernet: true, flags: up, mtu: 1400, known: true,
			master: 2, lower: 5, promiscuity: 2, port: odd,
		},
	} {
		got, err := decodeLink(message(t, name))
		got.flags &= up | unix.IFF_PROMISC | unix.IFF_LOOPBACK
		if err != nil || got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v (%v)", name, got, want, err)
		}
	}
}

func TestDecodeLinkInHardwareAndElsewhere(t *testing.T) {
	port := message(t, "link-port")
	l, err := decodeLink(slices.Concat(port, attribute(unix.IFLA_PHYS_SWITCH_ID, 1, 2)))
	if err != nil || !l.inSwitch {
		t.Errorf("a switch's port is %+v (%v)", l, err)
	}
	// veth's other end, or a VLAN device's port, may have that number there.
	l, err = decodeLink(slices.Concat(attributesOnly(port, attribute(unix.IFLA_LINK_NETNSID, u32(0)...))))
	if err != nil || l.lower != 0 {
		t.Errorf("a number of another namespace is taken: %+v (%v)", l, err)
	}
}

// attributesOnly puts an attribute before all others.
func attributesOnly(data, first []byte) []byte {
	return slices.Concat(data[:sizeofIfInfoMsg], first, data[sizeofIfInfoMsg:])
}

func TestDecodeBridgeOptions(t *testing.T) {
	whole := linkDetails(t, "link-bridge", unix.IFLA_INFO_DATA)
	for _, c := range []struct {
		name   string
		number uint16
		value  []byte
		want   bridgeOptions // what differs from the recording
	}{
		{"forward delay", iflaBrForwardDelay, u32(100), bridgeOptions{forwardDelay: time.Second}},
		{"ageing time", iflaBrAgeingTime, u32(50), bridgeOptions{ageing: 500 * time.Millisecond}},
		{"the longest", iflaBrAgeingTime, u32(1<<32 - 1), bridgeOptions{ageing: (1<<32 - 1) * 10 * time.Millisecond}},
		{"stp", iflaBrStpState, u32(1), bridgeOptions{stp: true}},
		{"stp in user space", iflaBrStpState, u32(2), bridgeOptions{stp: true}},
		{"vlan filtering", iflaBrVlanFiltering, []byte{1}, bridgeOptions{vlanFiltering: true}},
		{"802.1Q", iflaBrVlanProtocol, []byte{0x81, 0x00}, bridgeOptions{vlanProtocol: 0x8100}},
		{"802.1ad", iflaBrVlanProtocol, []byte{0x88, 0xa8}, bridgeOptions{vlanProtocol: 0x88a8}},
		{"vlan stats", iflaBrVlanStats, []byte{1}, bridgeOptions{vlanStats: true}},
		{"vlan stats per port", iflaBrVlanStatsPort, []byte{1}, bridgeOptions{vlanStats: true}},
		{"mst", iflaBrMultiBoolopt, append(u32(1<<2), u32(7)...), bridgeOptions{mst: true}},
		{"other options", iflaBrMultiBoolopt, append(u32(3), u32(7)...), bridgeOptions{}},
	} {
		want := c.want
		want.known = true
		want.ageing = max(want.ageing, decodeBridge(whole).ageing)
		if c.number == iflaBrAgeingTime {
			want.ageing = c.want.ageing
		}
		if c.number != iflaBrForwardDelay {
			want.forwardDelay = 15 * time.Second
		}
		got := decodeBridge(append(without(whole, c.number), attribute(c.number, c.value...)...))
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, want)
		}
	}
}

func TestDecodePortOptions(t *testing.T) {
	whole := linkDetails(t, "link-port", unix.IFLA_INFO_SLAVE_DATA)
	plain := decodePort(whole)
	for _, c := range []struct {
		name   string
		number uint16
		value  []byte
		change func(*portOptions)
	}{
		{"state", iflaBrportState, []byte{4}, func(o *portOptions) { o.state = 4 }},
		{"hairpin", iflaBrportMode, []byte{1}, func(o *portOptions) { o.flags |= accel.FlagHairpin }},
		{"no learning", iflaBrportLearning, []byte{0}, func(o *portOptions) { o.flags &^= accel.FlagLearning }},
		{"proxy ARP", iflaBrportProxyARP, []byte{1}, func(o *portOptions) { o.flags |= accel.FlagProxyARP }},
		{"proxy ARP on wireless", iflaBrportProxyARPWifi, []byte{1}, func(o *portOptions) { o.flags |= accel.FlagProxyARPWifi }},
		{"suppression", iflaBrportNeighSuppress, []byte{1}, func(o *portOptions) { o.flags |= accel.FlagNeighSuppress }},
		{"suppression per VLAN", iflaBrportNeighVlanSuppress, []byte{1}, func(o *portOptions) { o.flags |= accel.FlagNeighVLANSuppress }},
		{"vlan tunnel", iflaBrportVlanTunnel, []byte{1}, func(o *portOptions) { o.flags |= accel.FlagVLANTunnel }},
		{"isolated", iflaBrportIsolated, []byte{1}, func(o *portOptions) { o.flags |= accel.FlagIsolated }},
		{"locked", iflaBrportLocked, []byte{1}, func(o *portOptions) { o.flags |= accel.FlagLocked }},
		{"backup port", iflaBrportBackupPort, u32(8), func(o *portOptions) { o.backup = true }},
		{"backup nexthop", iflaBrportBackupNhid, u32(8), func(o *portOptions) { o.backup = true }},
		{"no backup nexthop", iflaBrportBackupNhid, u32(0), func(*portOptions) {}},
	} {
		want := plain
		c.change(&want)
		got := decodePort(append(without(whole, c.number), attribute(c.number, c.value...)...))
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, want)
		}
	}
}

// TestWhatIsBrokenIsNotOff: an attribute that the judgement needs and that is
// missing, too short or cut off leaves the link unknown; the others still count.
func TestWhatIsBrokenIsNotOff(t *testing.T) {
	bridge := linkDetails(t, "link-bridge-odd", unix.IFLA_INFO_DATA)
	for _, n := range []uint16{iflaBrForwardDelay, iflaBrAgeingTime, iflaBrStpState, iflaBrVlanFiltering, iflaBrMultiBoolopt} {
		rest := without(bridge, n)
		for name, data := range brokenForms(rest, n) {
			o := decodeBridge(data)
			if o.known {
				t.Errorf("bridge attribute %d %s, and the bridge counts as known", n, name)
			}
			if n != iflaBrStpState && !o.stp {
				t.Errorf("bridge attribute %d %s costs another", n, name)
			}
		}
	}
	port := linkDetails(t, "link-port-odd", unix.IFLA_INFO_SLAVE_DATA)
	for _, n := range []uint16{iflaBrportState, iflaBrportMode, iflaBrportLearning, iflaBrportProxyARP, iflaBrportProxyARPWifi,
		iflaBrportNeighSuppress, iflaBrportVlanTunnel, iflaBrportIsolated, iflaBrportLocked} {
		for name, data := range brokenForms(without(port, n), n) {
			o := decodePort(data)
			if o.known || !o.isPort {
				t.Errorf("port attribute %d %s, and the port is %+v", n, name, o)
			}
			if !o.backup {
				t.Errorf("port attribute %d %s costs another", n, name)
			}
		}
	}
}

func brokenForms(rest []byte, n uint16) map[string][]byte {
	cut := attribute(n, 1, 0, 0, 0, 0, 0, 0, 0)[:9]
	return map[string][]byte{
		"is missing":                  rest,
		"has no size":                 slices.Concat(rest, attribute(n)),
		"is odd":                      slices.Concat(rest, attribute(n, 1, 2, 3)),
		"is cut off":                  slices.Concat(rest, cut),
		"claims less than its header": slices.Concat(rest, []byte{1, 0, byte(n), 0}),
	}
}

func TestBrokenLinkIsUnknown(t *testing.T) {
	data := message(t, "link-bridge")
	for _, n := range []uint16{unix.IFLA_MTU, unix.IFLA_PROMISCUITY, unix.IFLA_IFNAME} {
		l, err := decodeLink(append(slices.Clone(data[:sizeofIfInfoMsg]), without(data[sizeofIfInfoMsg:], n)...))
		if err != nil || l.known {
			t.Errorf("without attribute %d the link is %+v (%v)", n, l, err)
		}
	}
	if _, err := decodeLink(data[:sizeofIfInfoMsg-1]); err == nil {
		t.Error("half a header is taken")
	}
	l, err := decodeLink(data[:len(data)-6])
	if err != nil || l.known {
		t.Errorf("a message that was cut off is %+v (%v)", l, err)
	}
}

func TestDecodeNeigh(t *testing.T) {
	station := func(number byte, port int) accel.Station { return at(number, port) }
	local := func(mac accel.MAC, port int) accel.Station {
		return accel.Station{StationKey: accel.StationKey{MAC: mac}, Port: port, Local: true}
	}
	sticky := func(s accel.Station) accel.Station { s.Sticky = true; return s }
	for name, want := range map[string]accel.Station{
		"fdb-learned":      station(1, 4),
		"fdb-static":       station(2, 6),
		"fdb-extern-learn": station(4, 8),
		"fdb-sticky":       sticky(station(3, 8)),
		"fdb-behind-vxlan": station(7, 9),
		"fdb-port-local":   local(macIn(message(t, "fdb-port-local")), 4),
		"fdb-bridge-local": local(accel.MAC{2, 0, 0, 0, 0, 5}, 0),
	} {
		n, err := decodeNeigh(message(t, name))
		if err != nil || n.bridge != 2 || n.station != want {
			t.Errorf("%s is %+v (%v), want %+v", name, n, err, want)
		}
	}
}

// macIn is NDA_LLADDR, which comes first.
func macIn(data []byte) accel.MAC {
	return accel.MAC(data[sizeofNdMsg+unix.SizeofRtAttr:][:6])
}

func TestDecodeNeighAttributes(t *testing.T) {
	data := message(t, "fdb-learned")
	whole := without(data[sizeofNdMsg:], ndaFlagsExt)
	header := data[:sizeofNdMsg]
	for _, c := range []struct {
		name  string
		extra []byte
		want  accel.Station
	}{
		{"vlan", attribute(unix.NDA_VLAN, 7, 0), accel.Station{StationKey: accel.StationKey{MAC: at(1, 0).MAC, VID: 7}, Port: 4}},
		{"locked", attribute(ndaFlagsExt, u32(ntfExtLocked)...), accel.Station{StationKey: at(1, 0).StationKey, Port: 4, NoSource: true}},
		{"another flag", attribute(ndaFlagsExt, u32(1)...), at(1, 4)},
		{"an attribute of later", attribute(99, 1, 2, 3), at(1, 4)},
	} {
		n, err := decodeNeigh(slices.Concat(header, whole, c.extra))
		if err != nil || n.station != c.want {
			t.Errorf("%s: %+v (%v), want %+v", c.name, n.station, err, c.want)
		}
	}
}

func TestDecodeNeighOfOthers(t *testing.T) {
	learned := message(t, "fdb-learned")
	arp := slices.Clone(learned)
	arp[0] = unix.AF_INET
	ownFlag := slices.Clone(learned)
	ownFlag[10] |= unix.NTF_SELF
	noMaster := slices.Concat(learned[:sizeofNdMsg], without(learned[sizeofNdMsg:], unix.NDA_MASTER))
	noAddress := slices.Concat(learned[:sizeofNdMsg], without(learned[sizeofNdMsg:], unix.NDA_LLADDR))
	for name, data := range map[string][]byte{
		"VXLAN's own row": message(t, "fdb-vxlan-self"),
		"a device's own":  message(t, "fdb-self"),
		"self":            ownFlag,
		"ARP":             arp,
		"no bridge":       noMaster,
		"no address":      noAddress,
	} {
		if n, err := decodeNeigh(data); !errors.Is(err, errNotOurs) {
			t.Errorf("%s is taken for %+v (%v)", name, n, err)
		}
	}
}

func TestDecodeBrokenNeigh(t *testing.T) {
	learned := message(t, "fdb-learned")
	for name, data := range map[string][]byte{
		"nothing":         {},
		"half a header":   learned[:sizeofNdMsg-1],
		"cut off":         learned[:len(learned)-2],
		"long address":    slices.Concat(learned, attribute(unix.NDA_LLADDR, 1, 2, 3, 4, 5, 6, 7, 8)),
		"short VLAN":      slices.Concat(learned, attribute(unix.NDA_VLAN, 7)),
		"long VLAN":       slices.Concat(learned, attribute(unix.NDA_VLAN, 7, 0, 0, 0)),
		"short flags":     slices.Concat(learned, attribute(ndaFlagsExt, 2)),
		"short master":    slices.Concat(learned, attribute(unix.NDA_MASTER, 2)),
		"attribute of 0":  slices.Concat(learned, []byte{0, 0, 0, 0}),
		"attribute of 1G": slices.Concat(learned, []byte{255, 255, 1, 0}),
	} {
		if n, err := decodeNeigh(data); err == nil || errors.Is(err, errNotOurs) {
			t.Errorf("%s is taken for %+v (%v)", name, n, err)
		}
	}
}

func TestDecodeChains(t *testing.T) {
	for name, want := range map[string]firewall{
		"chain-bridge":         {bridge: true},
		"chain-ip":             {ip: true},
		"chain-ip-regular":     {},
		"chain-inet":           {ip: true},
		"chain-inet-ingress":   {devices: map[string]bool{"p1": true}},
		"chain-netdev-ingress": {devices: map[string]bool{"p1": true, "p2": true}},
		"chain-netdev-egress":  {devices: map[string]bool{"p3": true}},
	} {
		got := firewall{devices: make(map[string]bool)}
		got.addChain(message(t, name))
		if got.bridge != want.bridge || got.ip != want.ip || !maps.Equal(got.devices, want.devices) {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
}

// chainAt is a base chain with that hook.
func chainAt(family byte, hook ...[]byte) []byte {
	return slices.Concat([]byte{family, 0, 0, 0}, attribute(nftaChainHook, slices.Concat(hook...)...))
}

func TestChainsOfDoubtfulDevices(t *testing.T) {
	devices := func(names ...[]byte) []byte { return attribute(nftaHookDevs, slices.Concat(names...)...) }
	for name, hook := range map[string][]byte{
		"no device":            attribute(nftaHookNumber, 0, 0, 0, 0),
		"a pattern":            attribute(nftaHookDev, 'p', '*', 0),
		"a pattern in a list":  devices(attribute(nftaDeviceName, 'e', 0), attribute(nftaDeviceName, 'p', '*', 0)),
		"another kind of name": devices(attribute(nftaDeviceName+1, 'p', 0)),
	} {
		f := firewall{devices: make(map[string]bool)}
		f.addChain(chainAt(unix.NFPROTO_NETDEV, hook))
		if !f.on("whatever") {
			t.Errorf("%s does not count for every device", name)
		}
	}
}

func TestMessagesOfOtherKindsHaveNoIndex(t *testing.T) {
	if indexAt4([]byte{0, 0, 0, 0, 1, 0}) != 0 {
		t.Error("half a tc message has an index")
	}
	if got := indexAt4(append(make([]byte, 4), u32(9)...)); got != 9 {
		t.Errorf("the index is %d, want 9", got)
	}
	if _, err := linkIndex(make([]byte, 4)); err == nil {
		t.Error("half a link message has an index")
	}
}

// vlanMessage is an answer to RTM_GETVLAN as net/bridge/br_vlan.c:
// br_vlan_dump_dev writes it.
func vlanMessage(port uint32, entries ...[]byte) []byte {
	header := slices.Concat([]byte{unix.AF_BRIDGE, 0, 0, 0}, u32(port))
	return slices.Concat(header, slices.Concat(entries...))
}

func vlanEntryOf(attributes ...[]byte) []byte {
	return attribute(vlanDBEntry|unix.NLA_F_NESTED, slices.Concat(attributes...)...)
}

// vlanInfo is struct bridge_vlan_info.
func vlanInfo(vid, flags uint16) []byte {
	value := binary.NativeEndian.AppendUint16(nil, flags)
	return attribute(vlanDBEntryInfo, binary.NativeEndian.AppendUint16(value, vid)...)
}

func vlanRange(last uint16) []byte {
	return attribute(vlanDBEntryRange, binary.NativeEndian.AppendUint16(nil, last)...)
}

func vlanState(state byte) []byte { return attribute(vlanDBEntryState, state) }

func TestDecodeVLANs(t *testing.T) {
	const untagged, pvid = vlanInfoUntagged, vlanInfoPVID
	forwarding, later := vlanState(brStateForwarding), attribute(99, 1, 2, 3)
	for name, c := range map[string]struct {
		messages [][]byte
		pvid     uint16
		members  []accel.VLAN
	}{
		"no answer": {nil, 0, nil},
		"none":      {[][]byte{vlanMessage(4)}, 0, nil},
		"the usual one": {
			[][]byte{vlanMessage(4, vlanEntryOf(vlanInfo(1, pvid|untagged), forwarding, later))},
			1, []accel.VLAN{{VID: 1, Untagged: true, Forwarding: true}},
		},
		"another that is no entry": {
			[][]byte{vlanMessage(4, attribute(2, vlanInfo(7, 0)...), vlanEntryOf(vlanInfo(9, 0), vlanState(4)))},
			0, []accel.VLAN{{VID: 9}},
		},
		"ranges, the first of which begins with the PVID": {
			[][]byte{vlanMessage(4, vlanEntryOf(vlanInfo(10, pvid), vlanRange(12), forwarding), vlanEntryOf(vlanInfo(13, untagged), vlanState(2)))},
			10, []accel.VLAN{{VID: 10, Forwarding: true}, {VID: 11, Forwarding: true}, {VID: 12, Forwarding: true}, {VID: 13, Untagged: true}},
		},
		"two messages": {
			[][]byte{vlanMessage(4, vlanEntryOf(vlanInfo(1, 0), forwarding)), vlanMessage(4, vlanEntryOf(vlanInfo(4094, pvid), forwarding))},
			4094, []accel.VLAN{{VID: 1, Forwarding: true}, {VID: 4094, Forwarding: true}},
		},
	} {
		want := portVLANs{known: true, pvid: c.pvid, members: accel.NewVLANs(c.members)}
		if got := decodeVLANs(4, c.messages); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// TestDoubtfulVLANsAreUnknown: half of the VLANs is worse than none.
func TestDoubtfulVLANsAreUnknown(t *testing.T) {
	forwarding := vlanState(brStateForwarding)
	good := vlanEntryOf(vlanInfo(10, vlanInfoPVID), forwarding)
	for name, message := range map[string][]byte{
		"half a header":           {unix.AF_BRIDGE, 0, 0, 0, 4, 0},
		"of another port":         vlanMessage(5, good),
		"cut off":                 vlanMessage(4, good)[:20],
		"no state":                vlanMessage(4, good, vlanEntryOf(vlanInfo(11, 0))),
		"no info":                 vlanMessage(4, good, vlanEntryOf(forwarding)),
		"half an info":            vlanMessage(4, good, vlanEntryOf(attribute(vlanDBEntryInfo, 0, 0), forwarding)),
		"a long state":            vlanMessage(4, good, vlanEntryOf(vlanInfo(11, 0), attribute(vlanDBEntryState, u32(3)...))),
		"a long range":            vlanMessage(4, good, vlanEntryOf(vlanInfo(11, 0), forwarding, attribute(vlanDBEntryRange, u32(12)...))),
		"cut off inside":          vlanMessage(4, good, vlanEntryOf(vlanInfo(11, 0), forwarding, []byte{9, 0, 3})),
		"backwards":               vlanMessage(4, good, vlanEntryOf(vlanInfo(9, 0), forwarding)),
		"twice":                   vlanMessage(4, good, vlanEntryOf(vlanInfo(10, 0), forwarding)),
		"two PVIDs":               vlanMessage(4, good, vlanEntryOf(vlanInfo(11, vlanInfoPVID), forwarding)),
		"VLAN 0":                  vlanMessage(4, vlanEntryOf(vlanInfo(0, 0), forwarding)),
		"VLAN 4095":               vlanMessage(4, good, vlanEntryOf(vlanInfo(4095, 0), forwarding)),
		"a range beyond":          vlanMessage(4, good, vlanEntryOf(vlanInfo(11, 0), vlanRange(4095), forwarding)),
		"a range that ends early": vlanMessage(4, good, vlanEntryOf(vlanInfo(12, 0), vlanRange(11), forwarding)),
	} {
		if got := decodeVLANs(4, [][]byte{message}); got != (portVLANs{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
