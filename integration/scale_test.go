package integration

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

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
	probe := newProbe(t, l)
	begin := time.Now()
	changes := churn(t, table, *scaleRate, *scaleFor, probe)
	probe.finish()
	t.Logf("%d events in %v", changes, time.Since(begin).Round(time.Millisecond))
	t.Logf("event to map:    %v", probe.admitted)
	t.Logf("event to active: %v", probe.activated)
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
// adds one more by itself when the probe is idle. It returns how many changes it made.
func churn(t *testing.T, table *lab.Table, rate int, last time.Duration, probe *probe) (changes int) {
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
		if probe.isIdle() {
			must(t, errors.Join(table.Set(crowdMAC(next), 0, lab.Dynamic), table.Flush()))
			probe.look(crowdMAC(next))
			next++
			changes++
		}
	}
	return changes
}

// probe looks into the data plane's map from outside.
type probe struct {
	stations            *ebpf.Map
	sent                chan sentEntry
	idle                atomic.Bool
	done                chan struct{}
	admitted, activated latencies
}

type sentEntry struct {
	mac accel.MAC
	at  time.Time
}

func newProbe(t *testing.T, l *lab.Lab) *probe {
	t.Helper()
	p := &probe{sent: make(chan sentEntry, 1), done: make(chan struct{})}
	path := stationsPin(t, l)
	var err error
	p.stations, err = ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	must(t, err)
	t.Cleanup(func() { p.stations.Close() })
	p.idle.Store(true)
	go p.run()
	return p
}

// stationsPin is where the daemon's map of stations is.
func stationsPin(t *testing.T, l *lab.Lab) string {
	t.Helper()
	inode, err := l.Bridge.Inode()
	must(t, err)
	found, err := filepath.Glob(fmt.Sprintf("/sys/fs/bpf/shunt/net-%d/bridge-*/*/stations", inode))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("there are %d maps of stations: %v", len(found), found)
	}
	return found[0]
}

// isIdle says whether the probe found the entry before.
func (p *probe) isIdle() bool { return p.idle.Load() }

// look lets the probe look for an entry that the kernel has since a moment ago.
func (p *probe) look(mac accel.MAC) {
	p.idle.Store(false)
	p.sent <- sentEntry{mac, time.Now()}
}

func (p *probe) finish() {
	close(p.sent)
	<-p.done
}

// impatience is how long the probe looks without a pause: longer would take the CPU from
// who is measured.
const impatience = 150 * time.Microsecond

// run looks for one entry after the other.
func (p *probe) run() {
	defer close(p.done)
	runtime.LockOSThread() // and not unlocked: the thread ends with its exact timer
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	pause := unix.NsecToTimespec(10_000)
	for s := range p.sent {
		for !p.holds(s.mac, 0) {
			if time.Since(s.at) > impatience {
				unix.Nanosleep(&pause, nil)
			}
		}
		p.admitted = append(p.admitted, time.Since(s.at))
		for !p.holds(s.mac, 1) {
			unix.Nanosleep(&pause, nil)
		}
		p.activated = append(p.activated, time.Since(s.at))
		p.idle.Store(true)
	}
}

// holds says whether the map has the station with these flags (bpf/maps.h: struct
// station).
func (p *probe) holds(mac accel.MAC, flags uint32) bool {
	var key [8]byte
	var record struct {
		Slot, Flags uint32
		Seen        uint64
	}
	copy(key[:], mac[:])
	return p.stations.Lookup(key, &record) == nil && record.Flags&flags == flags
}

// latencies are how long something took, each time.
type latencies []time.Duration

func (l latencies) String() string {
	if len(l) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(l))
	at := func(share float64) time.Duration {
		return sorted[int(share*float64(len(sorted)-1))].Round(time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, most %v, of %d", at(0.5), at(0.99), at(1), len(sorted))
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
