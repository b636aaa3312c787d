//go:build vm

package integration

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

// On a bridge that filters VLANs a stable port has the memberships of the port that it
// was made from, frames of its PVID are carried by either member, and the port has them
// again after the release.
func TestAdoptOnABridgeThatFilters(t *testing.T) {
	x := newSwapLab(t, rigOptions{})
	x.addMember(1, swaplab.Veth)
	x.addMember(2, swaplab.Veth)
	for _, line := range []string{
		"ip link set br0 type bridge vlan_filtering 1 vlan_default_pvid 0", "ip link set m1 master br0",
		"bridge vlan add dev p1 vid 10 pvid untagged",
		"bridge vlan add dev m1 vid 10 pvid untagged", "bridge vlan add dev m1 vid 20-24", "bridge vlan add dev m1 vid 30 untagged",
	} {
		x.must(x.l.Host.Bridge.Run(line))
	}
	x.must(x.l.Host.AwaitForwarding())
	x.start()
	traffic := x.trafficAt(lab.Pace{PerSecond: 500, Gentle: true})
	before, vlans := x.settings("m1"), x.vlans("m1")

	x.change("adopt", map[string]any{"port": "m1", "group": uplink, "members": []string{"m2"}})
	x.awaitReady()
	if diff := cmp.Diff(vlans, x.vlans(uplink)); diff != "" {
		t.Errorf("the stable port's VLANs are not the port's (-port +stable port):\n%s", diff)
	}
	lost := x.lost(traffic)
	x.swap("m2")
	x.swap("m1")
	if now := x.lost(traffic); now != lost {
		t.Errorf("two swaps cost %d frames", now-lost)
	}
	x.change("release", map[string]any{"group": uplink})
	if diff := cmp.Diff(before, x.settings("m1")); diff != "" {
		t.Errorf("the port's settings are others after the release (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(vlans, x.vlans("m1")); diff != "" {
		t.Errorf("the port's VLANs are others after the release (-before +after):\n%s", diff)
	}
	x.stopTraffic(traffic)
}

// vlans are a port's memberships as bridge(8) shows them, without its name.
func (x *swapRig) vlans(device string) string {
	x.t.Helper()
	return strings.Replace(x.show("bridge -j vlan show dev "+device), `"`+device+`"`, "", 1)
}
