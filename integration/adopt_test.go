package integration

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/integration/swaplab"
)

// A port in use becomes a stable one, its NIC is exchanged and exchanged back, and
// the port is given back with every setting that it had. What adopt and release
// cost is reported; a swap between them costs nothing.
func TestAdoptAndReleaseKeepTheSettings(t *testing.T) {
	x := newSwapLab(t, rigOptions{})
	x.addMember(1, swaplab.Veth)
	x.addMember(2, swaplab.Veth)
	for _, line := range []string{
		"ip link set m1 mtu 1450", "ip link set m1 master br0", "ip address add 192.0.2.9/24 dev m1",
		"bridge link set dev m1 cost 7 priority 12 guard on learning on mcast_flood off isolated off",
	} {
		x.must(x.l.Host.Bridge.Run(line))
	}
	x.must(x.l.Host.AwaitForwarding())
	x.start()
	traffic := x.traffic()
	before := x.settings("m1")

	x.change("adopt", map[string]any{"port": "m1", "group": uplink, "members": []string{"m2"}})
	x.awaitReady()
	lost := x.lost(traffic)
	t.Logf("adopt cost %d frames", lost)
	if adopted := x.settings(uplink); !strings.Contains(adopted["addresses"], "192.0.2.9") || !strings.Contains(adopted["port"], `"cost":7`) {
		t.Errorf("the stable port has not what the port had: %v", adopted)
	}
	x.swap("m2")
	x.swap("m1")
	if now := x.lost(traffic); now != lost {
		t.Errorf("two swaps cost %d frames", now-lost)
	}
	x.change("release", map[string]any{"group": uplink})
	now := x.lost(traffic)
	t.Logf("release cost %d frames", now-lost)
	if groups := x.allGroups(); len(groups) > 0 {
		t.Errorf("after the release there is %+v", groups)
	}
	if diff := cmp.Diff(before, x.settings("m1")); diff != "" {
		t.Errorf("the port's settings are others after the release (-before +after):\n%s", diff)
	}
	if got := x.stopTraffic(traffic); got.Out.Returned+got.In.Returned > 0 {
		t.Error("frames went out and came back")
	}
}

// change asks for a change and wants it done.
func (x *swapRig) change(what string, request map[string]any) {
	x.t.Helper()
	var answer struct {
		Done         bool
		Steps, Costs []string
	}
	x.must(x.d.ask(x.t.Context(), http.MethodPost, what, request, &answer))
	x.t.Logf("%s: %q, %q", what, answer.Steps, answer.Costs)
	if !answer.Done {
		x.t.Fatalf("%s was not done", what)
	}
}

// lost returns how many frames were lost since the traffic began.
func (x *swapRig) lost(traffic *swaplab.Traffic) uint64 {
	x.t.Helper()
	out, in, err := traffic.Lost()
	x.must(err)
	return out + in
}

// settings are what the tools show of a port, but for what changes by itself.
func (x *swapRig) settings(device string) map[string]string {
	x.t.Helper()
	return map[string]string{
		"link":      x.show("ip -d -j link show dev " + device),
		"port":      x.show("bridge -d -j link show dev " + device),
		"addresses": x.show("ip -j address show dev " + device),
	}
}

// volatile are keys of the tools' answers that say how things are at the moment.
var volatile = []string{
	"promiscuity", "hold_timer", "message_age_timer", "forward_delay_timer", "config_pending", "topology_change_ack",
}

func (x *swapRig) show(line string) string {
	x.t.Helper()
	words := strings.Fields(line)
	cmd := exec.Command(words[0], words[1:]...)
	var out bytes.Buffer
	cmd.Stdout = &out
	x.must(x.l.Host.Bridge.Start(cmd))
	x.must(cmd.Wait())
	var rows []map[string]any
	x.must(json.Unmarshal(out.Bytes(), &rows))
	for _, row := range rows {
		forget(row)
	}
	text, err := json.Marshal(rows)
	x.must(err)
	return string(text)
}

// forget takes what is volatile out of an object and those in it.
func forget(object map[string]any) {
	for _, key := range volatile {
		delete(object, key)
	}
	for _, value := range object {
		if inner, ok := value.(map[string]any); ok {
			forget(inner)
		}
	}
}
