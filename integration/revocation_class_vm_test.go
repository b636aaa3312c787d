//go:build vm

package integration

import (
	"testing"

	"github.com/shunt-dev/shunt/integration/lab"
)

// The class on a bridge that filters VLANs. Every port is a member of 10 and 11,
// tagged, and of 1, untagged; flows are in VLAN 10. Those that are flooded come
// first: what comes later changes how others see the flood.
func TestRevocationClassOfVLANsWhileStopped(t *testing.T) {
	x := wired(t, lab.Options{Hosts: firstPair - 1 + 2*len(vlanPortChanges), VLANs: &lab.VLANs{DefaultPVID: 1}})
	x.eachPort("bridge vlan add dev %s vid 10-11")
	testClass(x, vlanStationChanges, vlanPortChanges,
		flow{from: untouchedFrom, to: untouchedTo, tag: vlan10, out: vlan10})
}

var (
	plain10, plain11 = lab.Tag{Protocol: lab.Dot1Q, VID: 10}, lab.Tag{Protocol: lab.Dot1Q, VID: 11}

	static10 = []string{"bridge fdb add DST dev OUT master static vlan 10"}
	extern10 = []string{"bridge fdb add DST dev OUT master dynamic extern_learn vlan 10"}
)

var vlanStationChanges = []change{
	{name: "deleted", do: []string{"bridge fdb del DST dev OUT master vlan 10"}, tag: vlan10, out: vlan10, fate: flooded},
	{name: "deleted in another VLAN", before: []string{"bridge fdb add DST dev OUT master static vlan 11"},
		do: []string{"bridge fdb del DST dev OUT master vlan 11"}, tag: vlan10, out: vlan10, fate: same},
	{name: "replaced elsewhere", do: []string{"bridge fdb replace DST dev OTHER master dynamic vlan 10"}, tag: vlan10, out: vlan10, fate: moved},
	{name: "replaced elsewhere in every VLAN", do: []string{"bridge fdb replace DST dev OTHER master static"}, tag: vlan10, out: vlan10, fate: moved},
	{name: "static, deleted", before: static10, do: []string{"bridge fdb del DST dev OUT master vlan 10"}, tag: vlan10, out: vlan10, fate: flooded},
	{name: "extern_learn, deleted", before: extern10, do: []string{"bridge fdb del DST dev OUT master dynamic extern_learn vlan 10"}, tag: vlan10, out: vlan10, fate: flooded},
	{name: "extern_learn elsewhere", do: []string{"bridge fdb replace DST dev OTHER master dynamic extern_learn vlan 10"}, tag: vlan10, out: vlan10, fate: moved},
}

var vlanPortChanges = []change{
	{name: "another ingress PVID", before: []string{"bridge vlan add dev IN vid 10 pvid"},
		do: []string{"bridge vlan add dev IN vid 11 pvid"}, out: plain10, becomes: &plain11, fate: flooded},
	{name: "static, another ingress PVID", before: append([]string{"bridge vlan add dev IN vid 10 pvid"}, static10...),
		do: []string{"bridge vlan add dev IN vid 11 pvid"}, out: plain10, becomes: &plain11, fate: flooded},
	{name: "flushed", do: []string{"bridge fdb flush dev br0 brport OUT vlan 10"}, tag: vlan10, out: vlan10, fate: flooded},
	{name: "removed at egress", do: []string{"bridge vlan del dev OUT vid 10"}, tag: vlan10, out: vlan10, fate: flooded, dead: "OUT"},
	{name: "removed in a range", do: []string{"bridge vlan del dev OUT vid 9-11"}, tag: vlan10, out: vlan10, fate: flooded, dead: "OUT"},
	{name: "leaves", do: []string{"ip link set dev OUT nomaster"}, tag: vlan10, out: vlan10, fate: flooded, dead: "OUT"},
	{name: "removed at ingress", do: []string{"bridge vlan del dev IN vid 10"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "static, removed at egress", before: static10, do: []string{"bridge vlan del dev OUT vid 10"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "extern_learn, removed at egress", before: extern10, do: []string{"bridge vlan del dev OUT vid 10"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "static, removed in a range", before: static10, do: []string{"bridge vlan del dev OUT vid 2-20"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "no ingress PVID", before: []string{"bridge vlan add dev IN vid 10 pvid"}, do: []string{"bridge vlan add dev IN vid 10"}, out: plain10, fate: lost},
	{name: "untagged at egress", do: []string{"bridge vlan add dev OUT vid 10 untagged"}, tag: vlan10, out: vlan10, becomes: &lab.Tag{}, fate: same},
	{name: "static, untagged at egress", before: static10, do: []string{"bridge vlan add dev OUT vid 10 untagged"}, tag: vlan10, out: vlan10, becomes: &lab.Tag{}, fate: same},
	{name: "extern_learn, untagged at egress", before: extern10, do: []string{"bridge vlan add dev OUT vid 10 untagged"}, tag: vlan10, out: vlan10, becomes: &lab.Tag{}, fate: same},
	{name: "static, PVID and untagged at egress", before: static10, do: []string{"bridge vlan add dev OUT vid 10 pvid untagged"}, tag: vlan10, out: vlan10, becomes: &lab.Tag{}, fate: same},
	{name: "tagged at egress", before: []string{"bridge vlan add dev OUT vid 10 pvid untagged"}, do: []string{"bridge vlan add dev OUT vid 10"}, tag: vlan10, becomes: &vlan10, fate: same},
	{name: "VLAN's state at egress", do: []string{"bridge vlan set dev OUT vid 10 state 4"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "VLAN's state at ingress", do: []string{"bridge vlan set dev IN vid 10 state 4"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "extern_learn, VLAN's state at egress", before: extern10, do: []string{"bridge vlan set dev OUT vid 10 state 4"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "VLAN device at ingress", do: []string{"ip link add link IN name IN.10 type vlan id 10"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "port state", do: []string{"bridge link set dev OUT state 1"}, tag: vlan10, out: vlan10, fate: lost},
	{name: "isolated", before: []string{"bridge link set dev IN isolated on"}, do: []string{"bridge link set dev OUT isolated on"}, tag: vlan10, out: vlan10, fate: lost},
}
