package integration

import (
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

// top asks a running daemon, under traffic, for what it shows.
func TestTopShowsARunningDaemon(t *testing.T) {
	x := newSwapRig(t, rigOptions{kinds: []swaplab.Kind{swaplab.Veth, swaplab.Veth}})
	traffic := x.trafficAt(lab.Pace{PerSecond: 1000})
	x.swap("m2")
	out := x.d.shunt("top", "--once", "--interval", "500ms")
	t.Logf("\n%s", out)
	x.stopTraffic(traffic)
	for _, part := range []string{"br0  ", "  " + stable + "  ", "  m1  ", "  m2  ", "done  ", "prewarm "} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is not in it", part)
		}
	}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "br0" && fields[1] == "fast" && (fields[2] == "0" || fields[2] == "-") {
			t.Errorf("no frame takes the fast path: %s", line)
		}
	}
}
