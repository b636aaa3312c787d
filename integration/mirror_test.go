package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

func TestTenThousandEntriesAreMirroredAtStart(t *testing.T) {
	const entries = 10_000
	l := newLab(t, lab.Options{Hosts: 3})
	inBridge(t, l, func(f *fdb) {
		for n := range entries {
			f.replace(n, n%3, static)
		}
	})
	begin := time.Now()
	d := startDaemon(t, l)
	t.Logf("ready %v after the start of the process", time.Since(begin).Round(time.Millisecond))
	expectMirrored(t, l, d)
	if b := d.bridge(); b.Stations < entries {
		t.Errorf("%d stations at READY, want %d", b.Stations, entries)
	}
}

// Dumps of a table that changes miss rows and repeat others: the mirror must be
// right all the same.
func TestMirrorIsRightAfterChurn(t *testing.T) {
	const stable, churning, perSecond, duration = 5000, 2000, 3000, 30 * time.Second
	l := newLab(t, lab.Options{Hosts: 3})
	inBridge(t, l, func(f *fdb) {
		for n := range stable {
			f.replace(n, n%3, static)
		}
	})
	d := startDaemon(t, l)
	changes := 0
	inBridge(t, l, func(f *fdb) {
		random := rand.New(rand.NewPCG(1, 2))
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for begin := time.Now(); time.Since(begin) < duration; <-pace.C {
			for range perSecond / 100 {
				n := stable + random.IntN(churning)
				if random.IntN(3) == 0 {
					f.remove(n)
				} else {
					f.replace(n, random.IntN(3), dynamic)
				}
				changes++
			}
		}
	})
	t.Logf("%d changes in %v", changes, duration)
	expectMirrored(t, l, d)
}

// The kinds of entries that an operator can add.
const (
	static  = unix.NUD_NOARP
	dynamic = unix.NUD_REACHABLE
)

// fdb changes the bridge's table from within its namespace.
type fdb struct {
	handle *netlink.Handle
	ports  []int // ifindexes of p1, p2 ...
	err    error
}

// inBridge runs f in the bridge's namespace.
func inBridge(t *testing.T, l *lab.Lab, f func(*fdb)) {
	t.Helper()
	err := l.Bridge.Do(func() error {
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer handle.Close()
		table := &fdb{handle: handle}
		for _, h := range l.Hosts {
			link, err := handle.LinkByName(h.Port)
			if err != nil {
				return err
			}
			table.ports = append(table.ports, link.Attrs().Index)
		}
		f(table)
		return table.err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fdb) row(n, port, state int) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    f.ports[port],
		Family:       unix.AF_BRIDGE,
		State:        state,
		Flags:        netlink.NTF_MASTER,
		HardwareAddr: net.HardwareAddr{6, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)},
	}
}

func (f *fdb) replace(n, port, state int) {
	if err := f.handle.NeighSet(f.row(n, port, state)); err != nil && f.err == nil {
		f.err = fmt.Errorf("replace entry %d: %w", n, err)
	}
}

// remove deletes the entry wherever it is, if it is.
func (f *fdb) remove(n int) {
	for port := range f.ports {
		if f.handle.NeighDel(f.row(n, port, dynamic)) == nil {
			return
		}
	}
}

// expectMirrored waits until the mirror equals the kernel's table: none
// missing, none stale, every entry verified.
func expectMirrored(t *testing.T, l *lab.Lab, d *daemon) {
	t.Helper()
	rows, err := l.FDB()
	if err != nil {
		t.Fatal(err)
	}
	kernel := make(map[string]string)
	for _, r := range rows {
		kernel[r.MAC] = r.Port
	}
	var mirror map[string]string
	equal := func() bool {
		mirror = make(map[string]string)
		for _, row := range d.fdb() {
			if row.Active {
				mirror[row.MAC.String()] = row.Port
			}
		}
		return maps.Equal(mirror, kernel)
	}
	begin := time.Now()
	for time.Since(begin) < 10*time.Second && !equal() {
	}
	if !maps.Equal(mirror, kernel) {
		t.Errorf("the mirror has %d entries and the kernel %d; %s", len(mirror), len(kernel), difference(mirror, kernel))
	}
}

func difference(mirror, kernel map[string]string) string {
	missing, stale, wrong := 0, 0, 0
	for mac, port := range kernel {
		switch got, ok := mirror[mac]; {
		case !ok:
			missing++
		case got != port:
			wrong++
		}
	}
	for mac := range mirror {
		if _, ok := kernel[mac]; !ok {
			stale++
		}
	}
	return fmt.Sprintf("%d missing, %d stale, %d behind another port", missing, stale, wrong)
}
