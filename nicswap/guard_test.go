package nicswap

import (
	"errors"
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

// TestTheWireIsTheTruth: what becomes of it before the daemon looks is found.
func TestTheWireIsTheTruth(t *testing.T) {
	for name, change := range map[string]func(*kernel){
		"the standby is gone": func(k *kernel) { k.failOver("uplink"); k.move("nic2") },
		"the standby has another name": func(k *kernel) {
			k.failOver("uplink")
			k.set("nic2", func(n *fakeLink) { n.Name = "renamed" })
		},
		"there and back":   func(k *kernel) { k.failOver("uplink"); k.failOver("uplink") },
		"nobody is active": func(k *kernel) { k.flip("uplink", "") },
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				d := l.start()
				change(l.k)
				time.Sleep(time.Second)
				synctest.Wait()
				active, draining, _ := l.k.wire("uplink")
				if active != "nic1" || draining != "" {
					t.Errorf("the wire is on %q, and %q drains", active, draining)
				}
				if v := d.last(t); v.Cause != causeLoss || v.To != "nic1" || time.Since(v.Began) > time.Minute {
					t.Errorf("the swap is %+v", v)
				}
			})
		})
	}
}

// TestWhoCarriesIsNotUpgraded, though the daemon has not heard of it yet: before it was
// asked, and while programs settle.
func TestWhoCarriesIsNotUpgraded(t *testing.T) {
	for name, prepare := range map[string]func(*kernel){
		"before":    func(k *kernel) { k.failOver("uplink") },
		"meanwhile": func(k *kernel) { k.on("Settle", func() { k.flip("uplink", "nic2") }) },
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				d := l.start()
				prepare(l.k)
				if _, err := d.Reserve("uplink", "nic2"); err == nil {
					t.Error("the active member is set aside for an upgrade")
				}
				time.Sleep(time.Second)
				l.wantActive(d, "nic2")
			})
		})
	}
}

// TestProgramsKnowNobodyWhereOneIsGone: the pair of before holds one that is set aside.
func TestProgramsKnowNobodyWhereOneIsGone(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic3")
		l.config.Groups[0].Members = []string{"nic1", "nic2", "nic3"}
		d := l.start()
		l.k.mu.Lock()
		delete(l.k.links, l.k.find("nic3").Ifindex) // of which nobody was told
		l.k.mu.Unlock()
		if _, err := d.Reserve("uplink", "nic2"); err != nil {
			t.Fatal(err)
		}
		if l.k.failOver("uplink") {
			t.Error("the programs flip to a member that is being upgraded, or gone")
		}
	})
}

// TestASharedMemberThatIsActiveAgain at the end of its drain stays promiscuous and
// claimed.
func TestASharedMemberThatIsActiveAgain(t *testing.T) {
	for _, when := range []string{"EndDrain", "RemoveMember nic9"} {
		t.Run(when, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				l.k.nic("nic9")
				l.share("nic9")
				d := l.start()
				d.swap(t, "nic9")
				l.k.on(when, func() { l.k.flip("uplink", "nic9") })
				d.swap(t, "nic1")
				time.Sleep(time.Second)
				synctest.Wait()
				l.wantActive(d, "nic9")
				d.claiming.Lock()
				defer d.claiming.Unlock()
				if holder := d.claims["nic9"]; holder != "uplink" || !l.k.link("nic9").Promisc {
					t.Errorf("%+v is claimed by %q", l.k.link("nic9"), holder)
				}
			})
		})
	}
}

// TestTheDrainOfAFailoverIsWhole, also where a swap just ends its own.
func TestTheDrainOfAFailoverIsWhole(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.on("EndDrain", func() { l.k.failOver("uplink") })
		d.swap(t, "nic2")
		time.Sleep(carrierInterval)
		synctest.Wait()
		if active, draining, _ := l.k.wire("uplink"); active != "nic1" || draining != "nic2" {
			t.Errorf("the wire is on %q, and %q drains", active, draining)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if _, draining, _ := l.k.wire("uplink"); draining != "" {
			t.Errorf("%q drains for ever", draining)
		}
	})
}

// TestAReleaseFollowsTheDataPlane: the port gets the member that carries the traffic.
func TestAReleaseFollowsTheDataPlane(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.withPort()
		d := l.adopted(t)
		g := d.Groups()[0]
		if !l.k.failOver(g.Port) {
			t.Fatal("the programs know no standby")
		}
		_, err := d.Release(t.Context(), ReleaseRequestV1{Group: g.Group})
		var status *accel.StatusError
		if !errors.As(err, &status) || status.Status != 409 {
			t.Errorf("in the swap that follows a loss the group is released: %v", err)
		}
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
