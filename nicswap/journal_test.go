package nicswap

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// killedAt starts a swap and kills the daemon instead of its n-th operation. It
// says whether the swap had so many.
func (l *lab) killedAt(d *life, n int, during func()) bool {
	d.lockedDo(func() { d.killAt = d.count + n })
	during()
	killed := d.killed()
	l.crash(d)
	return killed
}

func (h *hand) lockedDo(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// TestDaemonKilledAnywhereInASwap: instead of each operation of a swap in turn the
// daemon is killed. The traffic goes on over a working member, and the next daemon
// leaves nothing half done.
func TestDaemonKilledAnywhereInASwap(t *testing.T) {
	for _, target := range []string{"nic2", "nic9"} { // warm, cold
		phases := make(map[string]bool)
		for n, killed := 1, true; killed; n++ {
			inLab(t, func(t *testing.T, l *lab) {
				l.k.nic("nic9")
				l.share("nic9")
				d := l.start()
				cold := l.k.link("nic9")
				killed = l.killedAt(d, n, func() { d.swap(t, target) })
				active, _, _ := l.k.wire("uplink")
				if active != "nic1" && active != target {
					t.Errorf("%s, killed at %d: the wire is on %q", target, n, active)
				}
				if r, err := d.store.read("uplink"); err != nil {
					t.Errorf("%s, killed at %d: %v", target, n, err)
				} else if r != nil && r.Swap != nil {
					phases[r.Swap.Phase] = true
				}
				d = l.start()
				time.Sleep(time.Second)
				synctest.Wait()
				l.wantActive(d, active)
				l.wantNoJournal(d)
				l.wantNothingHalf(d, n, active, cold)
				l.end(d)
			})
		}
		for _, phase := range []string{"prewarm", "flip", "announce", "drain", "retire"} {
			if !phases[phase] {
				t.Errorf("%s: no daemon was killed in phase %s", target, phase)
			}
		}
	}
}

// wantNothingHalf holds a cold member to be as it was unless it is active, and the
// group to work.
func (l *lab) wantNothingHalf(d *life, n int, active string, cold fakeLink) {
	l.t.Helper()
	_, _, members := l.k.wire("uplink")
	if on := slices.Contains(members, "nic9"); on != (active == "nic9") {
		l.t.Errorf("killed at %d: nic9 is on the wire: %v", n, on)
	}
	if now := l.k.link("nic9"); active != "nic9" && (now.Promisc || now.Up != cold.Up || now.MTU != cold.MTU) {
		l.t.Errorf("killed at %d: nic9 was %+v and is %+v", n, cold.Link, now.Link)
	}
	if g := d.group(l.t, "uplink"); g.State != "ready" || !l.k.link("uplink").Carrier {
		l.t.Errorf("killed at %d: the group is %+v", n, g)
	}
	next := "nic2"
	if active == "nic2" {
		next = "nic9"
	}
	if v := d.swap(l.t, next); v.Result != "done" {
		l.t.Errorf("killed at %d: the next swap is %+v", n, v)
	}
}

// TestDaemonKilledAnywhereInAFailover, with and without another loss while it is
// away.
func TestDaemonKilledAnywhereInAFailover(t *testing.T) {
	for n, killed := 1, true; killed; n++ {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			killed = l.killedAt(d, n, func() {
				l.k.unplug("nic1")
				synctest.Wait()
				time.Sleep(time.Second)
				synctest.Wait()
			})
			d = l.start()
			time.Sleep(time.Second)
			synctest.Wait()
			l.wantActive(d, "nic2")
			l.wantNoJournal(d)
		})
	}
}

func TestDaemonKilledAnywhereOnTheWayBack(t *testing.T) {
	for n, killed := 1, true; killed; n++ {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			swapped := make(chan SwapV1, 1)
			go func() { swapped <- d.swap(t, "nic2") }()
			synctest.Wait()
			killed = l.killedAt(d, n, func() {
				l.k.unplug("nic2")
				synctest.Wait()
			})
			d = l.start()
			time.Sleep(time.Second)
			synctest.Wait()
			l.wantActive(d, "nic1")
			l.wantNoJournal(d)
		})
	}
}

// TestDaemonKilledAnywhereAtStart: what is there already is taken over.
func TestDaemonKilledAnywhereAtStart(t *testing.T) {
	for n, killed := 1, true; killed; n++ {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.make()
			killed = l.killedAt(d, n, func() {
				if err := d.Start(context.Background()); err != nil {
					t.Errorf("killed at %d the daemon does not start: %v", n, err)
				}
				synctest.Wait()
			})
			d = l.start()
			l.wantActive(d, "nic1")
			if g := d.group(t, "uplink"); g.State != "ready" || l.k.link("uplink").Master == 0 {
				t.Errorf("killed at %d: the group is %+v", n, g)
			}
		})
	}
}

func TestRecoveryIsASwap(t *testing.T) {
	t.Run("done", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			l.k.table = []accel.Station{{Port: 50, Active: true}}
			d := l.start()
			go d.Swap(context.Background(), Request{Group: "uplink", To: "nic2"})
			synctest.Wait() // it drains
			l.crash(d)
			l.k.sent = nil
			l.k.unsynced = true // as it is while the daemon starts
			d = l.start()
			if len(l.k.sent) != 0 {
				t.Error("stations were announced before the table was there")
			}
			l.k.mu.Lock()
			l.k.unsynced = false
			l.k.mu.Unlock()
			time.Sleep(time.Second)
			synctest.Wait()
			v := d.last(t)
			if v.Cause != "recovery" || v.Result != "done" || v.From != "nic1" || v.To != "nic2" || !strings.Contains(v.Why, "phase drain") || len(l.k.sent) != 1 {
				t.Errorf("the recovery is %+v", v)
			}
		})
	})
	t.Run("undone", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			l.k.on("Flip nic2", d.kill)
			d.swap(t, "nic2")
			l.crash(d)
			l.k.on("x", nil)
			active, _, _ := l.k.wire("uplink")
			d = l.start()
			time.Sleep(time.Second)
			v := d.last(t)
			if want := map[string]string{"nic1": "failed", "nic2": "done"}[active]; v.Cause != "recovery" || v.Result != want {
				t.Errorf("on %s the recovery is %+v", active, v)
			}
		})
	})
}

func TestAStartMovesNothing(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		d.swap(t, "nic2")
		l.end(d)
		before := len(l.k.done())
		d = l.start()
		l.wantActive(d, "nic2")
		for _, operation := range l.k.done()[before:] {
			if !slices.Contains([]string{"OpenWire uplink", "SetIPv6 uplink", "SetIPv6 uplink-stub", "EndDrain"}, operation) {
				t.Errorf("the start did %s", operation)
			}
		}
		if len(d.Swaps()) != 0 {
			t.Errorf("the start swapped: %+v", d.Swaps())
		}
	})
}

func TestTheActiveMemberWasLostWithoutADaemon(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.end(l.start())
		l.k.remove("nic1")
		d := l.start()
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic2")
	})
}

func TestFilesThatAreNotOurs(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		dir := filepath.Join(l.config.StateDir, "groups", "0")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{
			"uplink.json":    "this is no JSON",
			"elsewhere.json": `{"namespace": 77, "group": {"Name": "elsewhere", "Bridge": "br0", "Port": "elsewhere"}}`,
			"notes.txt":      "hello",
			"a.json":         `{"group": {"Name": "../../b", "Bridge": "br0", "Port": "a"}}`,
			"c d.json":       `{"group": {"Name": "c d", "Bridge": "br0", "Port": "c"}}`,
			"e.json":         `{"group": {"Name": "e", "Bridge": "br0", "Port": "../all"}}`,
			"f.json":         `{"group": {"Name": "f", "Bridge": "br0", "Port": "f", "Members": ["../all"]}}`,
			"g.json":         `{"group": {"Name": "g", "Bridge": "br0", "Port": "g"}, "swap": {"target": {"Name": "../all"}}}`,
			"other.json":     `{"group": {"Name": "other", "Bridge": "br1", "Port": "other"}}`,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"a", "c d", "e", "f", "g", "other"} {
			l.k.veth(name)
		}
		d := l.start()
		l.wantActive(d, "nic1")
		if groups := d.Groups(); len(groups) != 1 {
			t.Errorf("the groups are %+v", groups)
		}
		if _, err := os.Stat(filepath.Join(dir, "elsewhere.json")); err != nil {
			t.Errorf("another namespace's file was touched: %v", err)
		}
	})
}

func TestAFileIsReplacedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	if err := writeFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".new", 0o700); err != nil { // no room for the new one
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("new")); err == nil {
		t.Error("a write that cannot be done is done")
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "old" {
		t.Errorf("the file has %q, %v", content, err)
	}
}

// TestARebootInASwap: the number of the target is another device's by now.
func TestARebootInASwap(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic9")
		l.share("nic9")
		d := l.start()
		l.k.on("AddMember nic9", d.kill)
		d.swap(t, "nic9")
		l.crash(d)
		number := l.k.link("nic9").Ifindex
		l.k.set("nic9", func(nic *fakeLink) { nic.Name, nic.Up, nic.Promisc, nic.MTU = "lan", true, true, 9000 })
		d = l.start()
		if lan := l.k.link("lan"); lan.Ifindex != number || !lan.Up || !lan.Promisc || lan.MTU != 9000 {
			t.Errorf("another device was changed: %+v", lan.Link)
		}
		l.wantActive(d, "nic1")
	})
}

// TestTwoNamespacesHaveOneStateDirectory, and groups of one name.
func TestTwoNamespacesHaveOneStateDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, namespace := range []uint64{1, 2} {
		s := newStore(dir, namespace, writeFile)
		if err := s.save(record{Group: accel.Group{Name: "uplink", Bridge: fmt.Sprint("br", namespace), Port: "uplink"}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, namespace := range []uint64{1, 2} {
		s := newStore(dir, namespace, writeFile)
		r, err := s.read("uplink")
		if want := fmt.Sprint("br", namespace); err != nil || r == nil || r.Group.Bridge != want {
			t.Errorf("namespace %d reads %+v, %v", namespace, r, err)
		}
	}
}
