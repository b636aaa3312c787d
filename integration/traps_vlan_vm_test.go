//go:build vm

package integration

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// What is here needs a bridge that filters VLANs, and devices that only a kernel
// with all its modules has.

// vlan10 is a tag with a priority, which must not get lost.
var vlan10 = lab.Tag{Protocol: lab.Dot1Q, VID: 10, PCP: 5}

// tagged10 is a flow in VLAN 10, which is tagged on every port of newVLANTrap.
var tagged10 = flow{from: 1, to: 2, tag: vlan10, out: vlan10}

// newVLANTrap is a trap whose bridge filters VLANs: 10 and 11 tagged, 1 untagged,
// on every port.
func newVLANTrap(t *testing.T, hosts int) *trap {
	t.Helper()
	x := wired(t, lab.Options{Hosts: hosts, VLANs: &lab.VLANs{DefaultPVID: 1}})
	for _, h := range x.l.Hosts {
		x.run("bridge vlan add dev " + h.Port + " vid 10-11")
	}
	x.d = startDaemon(t, x.l)
	return x
}

// Multiple spanning trees replace a port's state by one of each VLAN, which is
// set without a message.
func TestTrap07_VLANStateOfMST(t *testing.T) {
	x := wired(t, lab.Options{Hosts: 3, VLANs: &lab.VLANs{}})
	x.eachPort("bridge vlan add dev %s vid 10")
	x.d = startDaemon(t, x.l)
	x.warm(tagged10)
	x.eachPort("bridge vlan del dev %s vid 10") // the kernel wants it so
	x.setMST(true)
	x.eachPort("bridge vlan add dev %s vid 10")
	x.joinTree(10)
	for _, h := range x.l.Hosts {
		x.setMSTState(h.Port, 3)
	}
	x.send(tagged10)
	x.send(tagged10.back())
	x.awaitBridge(accel.MST)
	x.expect(tagged10, 2)
	x.setMSTState("p2", 4)
	x.expect(tagged10)
	x.setMSTState("p2", 3)
	x.setMSTState("p1", 4)
	x.expect(tagged10)
	x.setMSTState("p1", 3)
	x.expect(tagged10, 2)

	x.eachPort("bridge vlan del dev %s vid 10")
	x.setMST(false)
	x.eachPort("bridge vlan add dev %s vid 10")
	x.warm(tagged10)
}

// eachPort runs a command line for each host's port.
func (x *trap) eachPort(format string) {
	x.t.Helper()
	for _, h := range x.l.Hosts {
		x.run(fmt.Sprintf(format, h.Port))
	}
}

// setMST sets an option that ip(8) has not had for long enough
// (include/uapi/linux/if_link.h: IFLA_BR_MULTI_BOOLOPT).
func (x *trap) setMST(on bool) {
	x.t.Helper()
	const multiBoolopt, mstEnable = 46, 1 << 2
	value := make([]byte, 8) // struct br_boolopt_multi
	nl.NativeEndian().PutUint32(value[4:], mstEnable)
	if on {
		nl.NativeEndian().PutUint32(value, mstEnable)
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(multiBoolopt, value)
	x.setLink(unix.RTM_NEWLINK, unix.AF_UNSPEC, lab.BridgeName, info)
}

// tree is the number of the only spanning tree that has a VLAN.
const tree = 1

// joinTree puts a VLAN into the tree (include/uapi/linux/if_bridge.h:
// BRIDGE_VLANDB_GLOBAL_OPTIONS).
func (x *trap) joinTree(vid uint16) {
	x.t.Helper()
	const globalOptions, optionID, optionTree = 2, 1, 18
	options := nl.NewRtAttr(globalOptions|unix.NLA_F_NESTED, nil)
	options.AddRtAttr(optionID, nl.Uint16Attr(vid))
	options.AddRtAttr(optionTree, nl.Uint16Attr(tree))
	x.request(unix.RTM_NEWVLAN, lab.BridgeName, func(ifindex int) nl.NetlinkRequestData {
		return &vlanMessage{unix.AF_BRIDGE, uint32(ifindex)}
	}, options)
}

// vlanMessage is struct br_vlan_msg.
type vlanMessage struct {
	family  uint8
	ifindex uint32
}

func (*vlanMessage) Len() int { return 8 }

func (m *vlanMessage) Serialize() []byte {
	b := make([]byte, m.Len())
	b[0] = m.family
	nl.NativeEndian().PutUint32(b[4:], m.ifindex)
	return b
}

// setMSTState sets a port's state in the tree (include/uapi/linux/if_bridge.h:
// IFLA_BRIDGE_MST).
func (x *trap) setMSTState(port string, state uint8) {
	x.t.Helper()
	const mst, mstEntry, entryTree, entryState = 6, 1, 1, 2
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	entry := spec.AddRtAttr(mst|unix.NLA_F_NESTED, nil).AddRtAttr(mstEntry|unix.NLA_F_NESTED, nil)
	entry.AddRtAttr(entryTree, nl.Uint16Attr(tree))
	entry.AddRtAttr(entryState, nl.Uint8Attr(state))
	x.setLink(unix.RTM_SETLINK, unix.AF_BRIDGE, port, spec)
}

func (x *trap) setLink(kind, family int, device string, attribute *nl.RtAttr) {
	x.t.Helper()
	x.request(kind, device, func(ifindex int) nl.NetlinkRequestData {
		message := nl.NewIfInfomsg(family)
		message.Index = int32(ifindex)
		return message
	}, attribute)
}

// request sends a netlink message about a device.
func (x *trap) request(kind int, device string, header func(ifindex int) nl.NetlinkRequestData, attribute *nl.RtAttr) {
	x.t.Helper()
	err := x.l.Bridge.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		request := nl.NewNetlinkRequest(kind, unix.NLM_F_ACK)
		request.AddData(header(link.Attrs().Index))
		request.AddData(attribute)
		_, err = request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		x.t.Fatalf("netlink message %d about %s: %v", kind, device, err)
	}
}

// vlanChange is a change of VLANs, and what becomes of a flow.
type vlanChange struct {
	name string
	flow flow
	do   string // a command line
	want map[int]lab.Tag
	undo string
}

var (
	untagged1  = flow{from: 1, to: 2}
	nowhere    = map[int]lab.Tag{}
	vlanFilter = "ip link set dev br0 type bridge vlan_filtering "
)

// A VLAN that is removed, or a bridge that filters no more, counts at once.
func TestTrap08_VLANRemovedOrFilteringToggled(t *testing.T) {
	for _, c := range []vlanChange{
		{"removed at egress", tagged10, "bridge vlan del dev p2 vid 10", map[int]lab.Tag{3: vlan10}, ""},
		{"removed at ingress", tagged10, "bridge vlan del dev p1 vid 10", nowhere, ""},
		{"removed in a range", tagged10, "bridge vlan del dev p2 vid 9-12", map[int]lab.Tag{3: vlan10}, ""},
		{"no PVID", untagged1, "bridge vlan del dev p1 vid 1", nowhere, ""},
		{"another PVID", untagged1, "bridge vlan add dev p1 vid 10 pvid", map[int]lab.Tag{
			2: {Protocol: lab.Dot1Q, VID: 10}, 3: {Protocol: lab.Dot1Q, VID: 10}}, ""},
		{"state at egress", tagged10, "bridge vlan set dev p2 vid 10 state 4", nowhere, "bridge vlan set dev p2 vid 10 state 3"},
		{"state at ingress", tagged10, "bridge vlan set dev p1 vid 10 state 4", nowhere, "bridge vlan set dev p1 vid 10 state 3"},
		{"filtering off", tagged10, vlanFilter + "0", map[int]lab.Tag{2: vlan10, 3: vlan10}, vlanFilter + "1"},
		{"filtering off, untagged", untagged1, vlanFilter + "0", map[int]lab.Tag{2: {}, 3: {}}, vlanFilter + "1"},
		{"another protocol", tagged10, "ip link set dev br0 type bridge vlan_protocol 802.1ad",
			map[int]lab.Tag{2: vlan10, 3: vlan10}, "ip link set dev br0 type bridge vlan_protocol 802.1Q"},
		{"another default PVID", untagged1, "ip link set dev br0 type bridge vlan_default_pvid 20",
			map[int]lab.Tag{2: {}, 3: {}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newVLANTrap(t, 3)
			x.warm(c.flow)
			x.stopped(func() {
				x.run(c.do)
				x.expectAs(c.flow, c.want)
			})
			x.expectAs(c.flow, c.want)
			if c.undo != "" {
				x.run(c.undo)
				x.expect(c.flow, 2)
				x.awaitFast(c.flow)
			}
		})
	}
}

// Filtering that is switched on puts frames without a tag into the PVID's VLAN,
// where the stations are not known.
func TestTrap08_VLANFilteringOn(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	x.warm(untagged1)
	x.stopped(func() {
		x.run(vlanFilter + "1")
		x.expect(untagged1, 2, 3)
	})
	x.warm(untagged1)
	x.stopped(func() {
		x.run(vlanFilter + "0")
		x.expect(untagged1, 2) // by the entries of before
	})
}

// A VLAN device on a port takes the frames of its VLAN before the bridge does,
// in whatever namespace it is, up or down.
func TestTrap13_VLANDeviceOnAPort(t *testing.T) {
	x := newVLANTrap(t, 3)
	other := flow{from: 1, to: 2, tag: lab.Tag{Protocol: lab.Dot1Q, VID: 11}, out: lab.Tag{Protocol: lab.Dot1Q, VID: 11}}
	x.warm(tagged10)
	x.warm(other)
	x.stopped(func() {
		x.run("ip link add link p1 name p1.10 type vlan id 10")
		x.expect(tagged10) // down, it drops them
		x.expect(other, 2)
		x.run("ip link set dev p1.10 up")
		device := closing(t)(x.l.Bridge.WireOn("p1.10"))
		x.expect(tagged10)
		if taken, err := lab.Arrived(device); err != nil || len(taken) != shots {
			t.Errorf("the VLAN device took %d frames (%v), want %d", len(taken), err, shots)
		}
	})
	x.expect(tagged10)
	x.awaitFast(untagged1Known(x))
	x.stopped(func() {
		x.run("ip link del p1.10")
		x.expect(tagged10, 2)
		x.run("ip link add link p1 name p1.10 type vlan id 10",
			"ip link set dev p1.10 netns "+x.l.Hosts[2].Path())
		x.expect(tagged10)
	})
	x.d.bridge()
	x.expect(tagged10)
	x.inHost(3, "ip link del p1.10")
	x.awaitFast(tagged10)
}

func untagged1Known(x *trap) flow {
	x.t.Helper()
	x.learn(untagged1)
	return untagged1
}

// Entries that nobody learned survive the removal of their VLAN, and nothing
// tells of them then.
func TestTrap24_VLANOfAStaticEntry(t *testing.T) {
	mac := lab.MACOf(0x24)
	flow10, fromPVID := tagged10, flow{from: 1, to: 2, out: lab.Tag{Protocol: lab.Dot1Q, VID: 10}}
	flow10.dst, fromPVID.dst = mac, mac
	for kind, flags := range map[string]string{"static": "static", "extern_learn": "extern_learn dynamic"} {
		for _, c := range []vlanChange{
			{"removed at egress", flow10, "bridge vlan del dev p2 vid 10", nowhere, "bridge vlan add dev p2 vid 10"},
			{"removed in a range", flow10, "bridge vlan del dev p2 vid 10-11", nowhere, "bridge vlan add dev p2 vid 10-11"},
			{"removed at ingress", flow10, "bridge vlan del dev p1 vid 10", nowhere, ""},
			{"untagged", flow10, "bridge vlan add dev p2 vid 10 untagged", map[int]lab.Tag{2: {}}, "bridge vlan add dev p2 vid 10"},
			{"PVID and untagged", flow10, "bridge vlan add dev p2 vid 10 pvid untagged", map[int]lab.Tag{2: {}}, "bridge vlan add dev p2 vid 10"},
			{"state", flow10, "bridge vlan set dev p2 vid 10 state 4", nowhere, "bridge vlan set dev p2 vid 10 state 3"},
			{"ingress PVID", fromPVID, "bridge vlan add dev p1 vid 11 pvid", map[int]lab.Tag{
				2: {Protocol: lab.Dot1Q, VID: 11}, 3: {Protocol: lab.Dot1Q, VID: 11}}, "bridge vlan add dev p1 vid 10 pvid"},
			{"no ingress PVID", fromPVID, "bridge vlan add dev p1 vid 10", nowhere, "bridge vlan add dev p1 vid 10 pvid"},
		} {
			t.Run(kind+", "+c.name, func(t *testing.T) {
				x := newVLANTrap(t, 3)
				x.run("bridge fdb add " + mac.String() + " dev p2 master vlan 10 " + flags)
				if c.flow.tag.Protocol == 0 {
					x.run("bridge vlan add dev p1 vid 10 pvid")
				}
				x.send(c.flow)
				x.d.awaitActive(c.flow.source(), mac)
				x.awaitFast(c.flow)
				x.stopped(func() {
					x.run(c.do)
					x.expectAs(c.flow, c.want)
				})
				x.expectAs(c.flow, c.want)
				if c.undo != "" {
					x.stopped(func() {
						x.run(c.undo)
						x.expect(c.flow, 2)
					})
					x.awaitFast(c.flow)
				}
			})
		}
	}
}
