package nicswap

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// guards are the names of the active member and its standby, as the programs know them.
func (k *kernel) guards(port string) (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.wires[k.find(port).Ifindex].guards {
		if m.Member != 0 {
			names = append(names, k.links[m.Member].Name)
		}
	}
	return names
}

// TestTheDataPlaneFailsOver and the daemon goes on from there, though nobody told it
// of a loss, and the carrier is back.
func TestTheDataPlaneFailsOver(t *testing.T) {
	for name, readable := range map[string]bool{"whose carriers are asked for": false, "whose carriers are read": true} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				l.k.readable = readable
				l.k.table = []accel.Station{{Port: 50, Active: true}}
				d := l.start()
				began := time.Now()
				if !l.k.failOver("uplink") {
					t.Fatal("the programs know no standby")
				}
				time.Sleep(carrierInterval)
				synctest.Wait()
				if g := d.group(t, "uplink"); g.Active != "nic2" || g.State != groupSwapping {
					t.Errorf("the group is %+v", g)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				v := d.last(t)
				if v.Cause != causeLoss || v.Result != resultDone || v.From != "nic1" || v.To != "nic2" ||
					v.Why != "nic1 has lost its carrier" || !v.Began.Equal(began) || v.Announced != 1 {
					t.Errorf("the swap is %+v", v)
				}
				if active, draining, _ := l.k.wire("uplink"); active != "nic2" || draining != "" {
					t.Errorf("the wire is on %q, and %q drains", active, draining)
				}
				if g := d.group(t, "uplink"); g.State != groupReady {
					t.Errorf("the carrier is back, and the group is %+v", g)
				}
				l.wantNoJournal(d)
			})
		})
	}
}

// TestTheDataPlaneFailsOverInASwap that has not flipped: it is over.
func TestTheDataPlaneFailsOverInASwap(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic3")
		l.config.Groups[0].Members = []string{"nic1", "nic2", "nic3"}
		d := l.start()
		l.k.on("PrepareFlip", func() { l.k.failOver("uplink") })
		v := d.swap(t, "nic3")
		if v.Result != resultFailed {
			t.Errorf("the swap is %+v", v)
		}
		time.Sleep(time.Second)
		l.wantActive(d, "nic2")
	})
}

// TestProgramsKnowWhomToTrust: what judge would choose, and nobody where it would not.
func TestProgramsKnowWhomToTrust(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		want := func(when string, names ...string) {
			t.Helper()
			synctest.Wait()
			if got := l.k.guards("uplink"); !slices.Equal(got, names) {
				t.Errorf("%s the programs know %v, want %v", when, got, names)
			}
		}
		want("at rest", "nic1", "nic2")
		release, err := d.Reserve("uplink", "nic2")
		if err != nil {
			t.Fatal(err)
		}
		want("while nic2 is upgraded")
		release()
		want("afterwards", "nic1", "nic2")
		l.k.unplug("nic2")
		want("while nic2 has no carrier")
		l.k.plug("nic2")
		d.swap(t, "nic2")
		want("behind a swap", "nic2", "nic1")
		l.k.remove("nic1")
		want("without nic1")
	})
}

// TestProgramsLookBelowAMacvlan.
func TestProgramsLookBelowAMacvlan(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		below := l.k.add(links.Link{Name: "below", Up: true})
		l.k.set("nic1", func(n *fakeLink) { n.Kind, n.MacvlanMode, n.Lower = "macvlan", "passthru", below })
		l.start()
		l.k.mu.Lock()
		defer l.k.mu.Unlock()
		if got := l.k.wires[l.k.find("uplink").Ifindex].guards[0]; got.Below != below {
			t.Errorf("the programs look at %+v, want the device below, %d", got, below)
		}
	})
}
