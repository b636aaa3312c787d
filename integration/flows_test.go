package integration

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

var (
	mostFlows  = flag.Int("flows", 1000, "send to so `many` stations in turn at most")
	flowRounds = flag.Int("flows.rounds", 3, "how `often` to measure each way")
)

// A flow that is not in the processor's caches, or has lost its place among shunt's,
// costs time that no count of instructions shows. What it takes is told and not held to
// anything: it is the machine's.
func TestTimeOfManyFlows(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	from, err := l.Hosts[0].SendingWire()
	if err != nil {
		t.Fatal(err)
	}
	to, err := l.Hosts[1].SendingWire()
	if err != nil {
		t.Fatal(err)
	}
	introduce(t, from, l.Hosts[0].MAC, to, l.Hosts[1].MAC)
	for n := range *mostFlows {
		write(t, to, lab.Frame{Source: flowMAC(n), Destination: l.Hosts[0].MAC})
	}
	if err := errors.Join(to.Close(), from.Close()); err != nil { // nobody reads on
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "shunt.yaml")
	if err := os.WriteFile(config, []byte("max_stations: 262144\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, l, "--config", config)
	awaitWithin(t, 5*time.Minute, "all stations are mirrored", func() bool {
		b := d.bridge()
		return b.Stations >= *mostFlows && b.Pending == 0
	})
	for _, flows := range []int{1, 1000, 100000} {
		if flows <= *mostFlows {
			compareFlows(t, l, d, flows)
		}
	}
}

func flowMAC(n int) net.HardwareAddr {
	return net.HardwareAddr{2, 1, 0, byte(n >> 16), byte(n >> 8), byte(n)}
}

func write(t *testing.T, w lab.Wire, f lab.Frame) {
	t.Helper()
	if _, err := w.Write(f.Bytes()); err != nil {
		t.Fatal(err)
	}
}

// compareFlows sends in turn without and with the fast path.
func compareFlows(t *testing.T, l *lab.Lab, d *daemon, flows int) {
	t.Helper()
	took := map[string][]float64{}
	for range *flowRounds {
		for _, way := range []string{"off", "on"} {
			d.shunt(way)
			took[way] = append(took[way], timeOfFlows(t, l, flows))
		}
	}
	off, on := median(took["off"]), median(took["on"])
	t.Logf("%6d flows: %5.0f ns/frame over the bridge, %5.0f with shunt: %.2f", flows, off, on, on/off)
}

// timeOfFlows returns the time for a frame, in nanoseconds.
func timeOfFlows(t *testing.T, l *lab.Lab, flows int) float64 {
	t.Helper()
	const frames = 100_000
	w, err := l.Hosts[0].SendingWire()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var all [][]byte
	for n := range flows {
		all = append(all, lab.Frame{Source: l.Hosts[0].MAC, Destination: flowMAC(n)}.Bytes())
	}
	var took time.Duration
	err = lab.OnCPU(0, func() error {
		begin := time.Now()
		for n := range frames {
			if _, err := w.Write(all[n%flows]); err != nil {
				return fmt.Errorf("send frame %d: %w", n, err)
			}
		}
		took = time.Since(begin)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return float64(took.Nanoseconds()) / frames
}
