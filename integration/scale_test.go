package integration

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/telemetry/otlptest"
)

var (
	scaleEntries = flag.Int("scale.entries", 20_000, "entries in the table in TestScaleStart")
	scaleRounds  = flag.Int("scale.rounds", 3, "how often TestScaleStart starts the daemon")
	scalePorts   = flag.Int("scale.ports", 3, "ports of the bridge in TestScaleStart")
	scaleRate    = flag.Int("scale.rate", 2000, "events a second in TestScaleEvents")
	scaleFor     = flag.Duration("scale.for", time.Second, "how long TestScaleEvents lasts")
	scaleMeters  = flag.Bool("scale.meters", false, "TestScaleEvents shows what shunt itself measured too")
)

// TestScaleStart starts the daemon beside a large table, and dumps the same table bare
// before each start: what it costs anybody to read it.
func TestScaleStart(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: *scalePorts, Ageing: 24 * time.Hour})
	table := openTable(t, l)
	fill(t, table, *scaleEntries)
	config := stationsConfig(t, *scaleEntries+100)
	var ratios []float64
	for range *scaleRounds {
		dumped, size, err := table.Dump()
		must(t, err)
		begin := time.Now()
		d := launch(t, l.Bridge, "--config", config)
		d.awaitReady()
		mirrored := time.Since(begin)
		ratios = append(ratios, mirrored.Seconds()/dumped.Seconds())
		t.Logf("bare dump %v (%d MB), start to mirrored %v: %.2f times; the daemon: %v",
			dumped.Round(time.Millisecond), size>>20, mirrored.Round(time.Millisecond), ratios[len(ratios)-1], d.figures())
		if b := d.bridge(); b.Stations < *scaleEntries || !b.Eligible {
			t.Errorf("%d stations are mirrored, of %d, and the bridge is %v", b.Stations, *scaleEntries, b.Reason)
		}
		d.stop()
	}
	slices.Sort(ratios)
	t.Logf("the median of %d: %.2f times a bare dump", len(ratios), ratios[len(ratios)/2])
}

// openTable opens the bridge's table until the test ends.
func openTable(t *testing.T, l *lab.Lab) *lab.Table {
	t.Helper()
	table, err := l.OpenTable()
	must(t, err)
	t.Cleanup(func() { table.Close() })
	return table
}

// crowdMAC is the address of entry n of a large table.
func crowdMAC(n int) accel.MAC { return accel.MAC{6, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

// fill gives the table n entries, behind all ports in turn: every other one is static,
// and the rest as if they were learned.
func fill(t *testing.T, table *lab.Table, n int) {
	t.Helper()
	begin := time.Now()
	for i := range n {
		kind := uint16(lab.Static)
		if i%2 != 0 {
			kind = lab.Dynamic
		}
		must(t, table.Set(crowdMAC(i), i%table.Ports(), kind))
	}
	must(t, table.Flush())
	t.Logf("%d entries were made in %v", n, time.Since(begin).Round(time.Millisecond))
}

// stationsConfig is the file of a daemon for br0 that takes so many stations.
func stationsConfig(t *testing.T, stations int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shunt.yaml")
	must(t, os.WriteFile(path, fmt.Appendf(nil, "bridges: [br0]\nmax_stations: %d\n", stations), 0o600))
	return path
}

// TestScaleEvents changes the table at a rate and looks from outside how long it takes
// for an entry to be in the data plane's map, and until that is active, which it is
// only after the grace period. Those that the kernel removes it revokes itself.
func TestScaleEvents(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Ageing: 24 * time.Hour})
	table := openTable(t, l)
	var r *otlptest.Receiver
	if *scaleMeters {
		r = backend(t, l.Bridge)
	}
	d := launch(t, l.Bridge, "--config", stationsConfig(t, 2*churning))
	d.awaitReady()
	watch := newStopwatch(t, l)
	begin := time.Now()
	changes := churn(t, table, *scaleRate, *scaleFor, watch)
	t.Logf("%d events in %v", changes, time.Since(begin).Round(time.Millisecond))
	t.Logf("event to map:    %v", watch.admitted)
	t.Logf("event to active: %v", watch.activated)
	t.Logf("the daemon: %v", d.figures())
	if lost := strings.Count(d.log.String(), "dropped events"); lost != 0 {
		t.Errorf("the kernel dropped events %d times", lost)
	}
	expectMirrored(t, l, d)
	if *scaleMeters {
		d.stop() // which exports all of it
		for _, p := range r.Received().Of("shunt.fdb.apply.duration") {
			t.Logf("as shunt has it, %s: p50 %s, p99 %s, of %d", p.Attributes["shunt.change"], quantile(p, 0.5), quantile(p, 0.99), p.Count)
		}
	}
}

// quantile is within which bound of a histogram a share of it was.
func quantile(p otlptest.Point, share float64) string {
	sum := uint64(0)
	for i, bound := range p.Bounds {
		if sum += p.Buckets[i]; float64(sum) >= share*float64(p.Count) {
			return fmt.Sprintf("at most %v", time.Duration(bound*float64(time.Second)))
		}
	}
	return "more than the last bound"
}

// churning is how many entries churn changes, of which about half are there.
const churning = 20_000

// churn adds, moves and removes entries at a rate, a millisecond's worth in one call, and
// adds one more by itself when the watch is idle. It returns how many changes it made.
func churn(t *testing.T, table *lab.Table, rate int, last time.Duration, watch *stopwatch) (changes int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	where := make([]int, churning) // port of the entry, counted from 1; 0: it is not there
	change := func() {
		n := random.IntN(churning)
		if where[n] != 0 && random.IntN(2) == 0 {
			must(t, table.Remove(crowdMAC(n), where[n]-1))
			where[n] = 0
		} else {
			where[n] = 1 + (where[n]+random.IntN(2))%table.Ports()
			must(t, table.Set(crowdMAC(n), where[n]-1, lab.Dynamic))
		}
		changes++
	}
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for begin, next := time.Now(), churning; time.Since(begin) < last; <-pace.C {
		for due := int(time.Since(begin).Seconds() * float64(rate)); changes < due; {
			change()
		}
		must(t, table.Flush())
		if watch.isIdle(t) {
			watch.start(t, crowdMAC(next))
			must(t, errors.Join(table.Set(crowdMAC(next), 0, lab.Dynamic), table.Flush()))
			next++
			changes++
		}
	}
	return changes
}

// TestMemoryOfTheStartIsGivenBack: at rest a small bridge takes far less than its start.
func TestMemoryOfTheStartIsGivenBack(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3})
	d := startDaemon(t, l)
	var f figures
	await(t, "a quarter of the memory at least is given back", func() bool {
		f = d.figures()
		return f.rss < f.peak*3/4
	})
	t.Logf("at rest: %v", f)
}
