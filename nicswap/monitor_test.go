package nicswap

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// last returns the newest swap.
func (d *life) last(t *testing.T) SwapV1 {
	t.Helper()
	past := d.Swaps()
	if len(past) == 0 {
		t.Fatal("there was no swap")
	}
	return past[0]
}

func TestLossOfTheActiveMember(t *testing.T) {
	for name, lose := range map[string]func(*kernel){
		"its carrier":    func(k *kernel) { k.unplug("nic1") },
		"set down":       func(k *kernel) { k.set("nic1", func(n *fakeLink) { n.Up = false }) },
		"its device":     func(k *kernel) { k.remove("nic1") },
		"its name":       func(k *kernel) { k.set("nic1", func(n *fakeLink) { n.Name = "renamed" }) },
		"events flooded": func(k *kernel) { k.loseEvent("nic1") },
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				d := l.start()
				station := accel.Station{Port: 50, Active: true}
				l.k.table = []accel.Station{station}
				began := time.Now()
				lose(l.k)
				synctest.Wait()
				if active, _, _ := l.k.wire("uplink"); active != "nic2" || time.Since(began) != 0 {
					t.Errorf("after %v the wire is on %q", time.Since(began), active)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				v := d.last(t)
				if v.Cause != "loss" || v.Result != "done" || v.From != "nic1" || v.To != "nic2" || v.Why == "" || v.FlipNS == 0 || v.Announced != 1 {
					t.Errorf("the swap is %+v", v)
				}
				l.wantActive(d, "nic2")
				l.wantNoJournal(d)
				if g := d.group(t, "uplink"); g.State != "degraded" {
					t.Errorf("the group is %+v", g)
				}
			})
		})
	}
}

// TestALossThatTheKernelDoesNotTell of, or late.
func TestALossThatTheKernelDoesNotTell(t *testing.T) {
	for name, readable := range map[string]bool{"asked as ethtool does": false, "read by a program": true} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				l.k.readable = readable
				d := l.start()
				l.k.mu.Lock()
				l.k.find("nic1").unplugged = true
				l.k.settle()
				l.k.mu.Unlock()
				time.Sleep(carrierInterval)
				synctest.Wait()
				if g := d.group(t, "uplink"); g.Active != "nic2" {
					t.Errorf("the group is %+v", g)
				}
			})
		})
	}
}

// TestACarrierThatIsBackBeforeTheKernelTells: it tells of neither.
func TestACarrierThatIsBackBeforeTheKernelTells(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.readable = true
		d := l.start()
		for _, unplugged := range []bool{true, false} {
			l.k.mu.Lock()
			l.k.find("nic1").unplugged = unplugged
			l.k.settle()
			l.k.mu.Unlock()
			time.Sleep(carrierInterval)
			synctest.Wait()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if g := d.group(t, "uplink"); g.Active != "nic2" || g.State != "ready" {
			t.Errorf("the group is %+v", g)
		}
	})
}

// TestAMacvlanIsLostWithTheDeviceBelow it, before it has heard.
func TestAMacvlanIsLostWithTheDeviceBelow(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.readable = true
		below := l.k.add(links.Link{Name: "below", Up: true, MTU: 1500})
		l.k.set("nic1", func(n *fakeLink) { n.Kind, n.MacvlanMode, n.Lower = "macvlan", "passthru", below })
		d := l.start()
		l.k.mu.Lock()
		l.k.links[below].unplugged = true
		l.k.links[below].Carrier = false
		l.k.mu.Unlock()
		time.Sleep(carrierInterval)
		synctest.Wait()
		if g := d.group(t, "uplink"); g.Active != "nic2" {
			t.Errorf("the group is %+v", g)
		}
	})
}

// loseEvent unplugs a device, and instead of that the kernel tells only that
// events were lost.
func (k *kernel) loseEvent(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.find(name).unplugged = true
	k.settle()
	for w := range k.watchers {
		w <- links.Event{All: true}
	}
}

// TestFailoverWaitsForNoJournal: the disk hangs, and the traffic moves.
func TestFailoverWaitsForNoJournal(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		hang := make(chan struct{})
		l.k.on("write", func() { <-hang })
		swapped := make(chan SwapV1)
		go func() { swapped <- d.swap(t, "nic2") }()
		synctest.Wait() // the swap waits for the disk
		l.k.table = []accel.Station{{Port: 50, Active: true}}
		l.k.unplug("nic1")
		synctest.Wait()
		if active, _, _ := l.k.wire("uplink"); active != "nic2" || len(l.k.sent) != 1 {
			t.Errorf("the wire is on %s, and announced was %v", active, l.k.sent)
		}
		close(hang)
		if v := <-swapped; v.Result != "failed" {
			t.Errorf("the swap is %+v", v)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic2")
		if v := d.last(t); v.Cause != "loss" || v.Result != "done" {
			t.Errorf("the failover is %+v", v)
		}
	})
}

func TestFailoverFollowsThePreference(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic3")
		l.config.Groups[0].Members = []string{"nic1", "nic2", "nic3"}
		d := l.start()
		release, err := d.Reserve("uplink", "nic2")
		if err != nil {
			t.Fatal(err)
		}
		l.k.unplug("nic1")
		synctest.Wait()
		if active, _, _ := l.k.wire("uplink"); active != "nic3" {
			t.Errorf("while nic2 is away the wire is on %s", active)
		}
		time.Sleep(time.Second)
		release()
		l.k.plug("nic1")
		synctest.Wait()
		l.wantActive(d, "nic3") // nothing moves back by itself
		l.k.unplug("nic3")
		synctest.Wait()
		if active, _, _ := l.k.wire("uplink"); active != "nic1" {
			t.Errorf("the wire is on %s", active)
		}
	})
}

func TestNoMemberIsLeft(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.unplug("nic2")
		l.k.unplug("nic1")
		synctest.Wait()
		g := d.group(t, "uplink")
		if g.State != "down" || g.Active != "" || l.k.link("uplink").Carrier {
			t.Errorf("without members the group is %+v, carrier %v", g, l.k.link("uplink").Carrier)
		}
		if l.k.link("uplink").Master == 0 {
			t.Error("the port has left the bridge")
		}
		l.k.plug("nic2")
		synctest.Wait()
		if active, _, _ := l.k.wire("uplink"); active != "nic2" || !l.k.link("uplink").Carrier {
			t.Errorf("the wire is on %q", active)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if v := d.last(t); v.From != "" || v.To != "nic2" || v.Cause != "loss" || v.Result != "done" {
			t.Errorf("the swap is %+v", v)
		}
		if g := d.group(t, "uplink"); g.State != "degraded" {
			t.Errorf("the group is %+v", g)
		}
	})
}

func TestTheSourceIsLostInPrewarm(t *testing.T) {
	t.Run("with another standby", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			l.k.nic("nic9")
			l.k.unplug("nic9")
			l.share("nic9")
			d := l.start()
			swapped := make(chan SwapV1)
			go func() { swapped <- d.swap(t, "nic9") }()
			synctest.Wait()
			l.k.unplug("nic1")
			v := <-swapped
			if v.Result != "failed" || !strings.Contains(v.Error, "uplink is on nic2 now") || v.Phase != "prewarm" {
				t.Errorf("the swap is %+v", v)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			l.wantActive(d, "nic2")
			if l.k.link("nic9").Up {
				t.Error("the target was not put back")
			}
		})
	})
	t.Run("with none", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			l.k.unplug("nic2")
			l.k.nic("nic9")
			l.k.unplug("nic9")
			l.share("nic9")
			d := l.start()
			swapped := make(chan SwapV1)
			go func() { swapped <- d.swap(t, "nic9") }()
			synctest.Wait()
			l.k.unplug("nic1")
			synctest.Wait()
			if g := d.group(t, "uplink"); g.State != "down" {
				t.Errorf("the group is %+v", g)
			}
			l.k.plug("nic9")
			if v := <-swapped; v.Result != "done" {
				t.Errorf("the swap is %+v", v)
			}
			synctest.Wait()
			l.wantActive(d, "nic9")
			if !l.k.link("uplink").Carrier {
				t.Error("the port has no carrier")
			}
		})
	})
}

func TestTheTargetIsLostInTheDrain(t *testing.T) {
	for name, lose := range map[string]func(*kernel){
		"its carrier": func(k *kernel) { k.unplug("nic2") },
		"its device":  func(k *kernel) { k.remove("nic2") },
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				d := l.start()
				l.k.table = []accel.Station{{Port: 50, Active: true}}
				swapped := make(chan SwapV1)
				go func() { swapped <- d.swap(t, "nic2") }()
				synctest.Wait()
				lose(l.k)
				synctest.Wait()
				if active, _, _ := l.k.wire("uplink"); active != "nic1" {
					t.Errorf("the wire is on %s", active)
				}
				v := <-swapped
				if v.Result != "rolled_back" || v.Phase != "drain" || !strings.Contains(v.Error, "nic2") {
					t.Errorf("the swap is %+v", v)
				}
				if last := v.Phases[len(v.Phases)-1]; last.Phase != "roll_back" || last.Error != "" {
					t.Errorf("the last phase is %+v", last)
				}
				if len(l.k.sent) != 2 || l.k.sent[1].device != "nic1" {
					t.Errorf("announced was %+v", l.k.sent)
				}
				synctest.Wait()
				l.wantActive(d, "nic1")
				l.wantNoJournal(d)
			})
		})
	}
}

func TestSourceAndTargetAreLostInTheDrain(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic3")
		l.config.Groups[0].Members = []string{"nic1", "nic2", "nic3"}
		d := l.start()
		swapped := make(chan SwapV1)
		go func() { swapped <- d.swap(t, "nic2") }()
		synctest.Wait()
		l.k.unplug("nic1")
		synctest.Wait()
		l.k.unplug("nic2")
		if v := <-swapped; v.Result != "failed" || v.Phase != "drain" || !strings.Contains(v.Error, "is on nic3 now") {
			t.Errorf("the swap is %+v", v)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if v := d.last(t); v.Cause != "loss" || v.From != "nic2" || v.To != "nic3" || v.Result != "done" {
			t.Errorf("the failover is %+v", v)
		}
		l.wantActive(d, "nic3")
	})
}

func TestEverythingIsLostInTheDrain(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		swapped := make(chan SwapV1)
		go func() { swapped <- d.swap(t, "nic2") }()
		synctest.Wait()
		l.k.unplug("nic1")
		l.k.unplug("nic2")
		if v := <-swapped; v.Result != "failed" || !strings.Contains(v.Error, "no other member is usable") {
			t.Errorf("the swap is %+v", v)
		}
		synctest.Wait()
		if g := d.group(t, "uplink"); g.State != "down" {
			t.Errorf("the group is %+v", g)
		}
		l.k.plug("nic1")
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic1")
	})
}

func TestADrainEndsWithItsSource(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.config.Groups[0].Drain = time.Hour
		d := l.start()
		began := time.Now()
		swapped := make(chan SwapV1)
		go func() { swapped <- d.swap(t, "nic2") }()
		synctest.Wait()
		l.k.remove("nic1")
		if v := <-swapped; v.Result != "done" || time.Since(began) != 0 {
			t.Errorf("after %v the swap is %+v", time.Since(began), v)
		}
		l.wantActive(d, "nic2")
	})
}

func TestTheSecondLossFollowsTheFirst(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic3")
		l.config.Groups[0].Members = []string{"nic1", "nic2", "nic3"}
		d := l.start()
		l.k.remove("nic1")
		synctest.Wait()
		l.k.unplug("nic2")
		synctest.Wait()
		if active, _, _ := l.k.wire("uplink"); active != "nic3" {
			t.Errorf("the wire is on %s", active)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic3")
		if past := d.Swaps(); len(past) != 2 || past[0].Result != "done" || past[1].Result != "failed" {
			t.Errorf("the swaps are %+v", past)
		}
	})
}

func TestAMemberComesBack(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.remove("nic2")
		synctest.Wait()
		if g := d.group(t, "uplink"); g.Members[1].State != "missing" || g.State != "degraded" || g.Why != "nic2 is not there" {
			t.Errorf("the group is %+v", g)
		}
		l.k.veth("nic2")
		synctest.Wait()
		nic := l.k.link("nic2")
		_, _, members := l.k.wire("uplink")
		if g := d.group(t, "uplink"); g.State != "ready" || g.Members[1].Ifindex != nic.Ifindex || !nic.Promisc || !slices.Contains(members, "nic2") {
			t.Errorf("the group is %+v, the device %+v", g, nic)
		}
	})
}

func TestMembersAppearLater(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.remove("nic1")
		l.k.remove("nic2")
		d := l.start()
		if g := d.group(t, "uplink"); g.State != "down" || l.k.link("uplink").Carrier {
			t.Errorf("the group is %+v", g)
		}
		l.k.nic("nic2")
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic2")
		if !l.k.link("uplink").Carrier {
			t.Error("the port has no carrier")
		}
	})
}

func TestTheBridgeAppearsLater(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.remove("br0")
		d := l.start()
		if g := d.group(t, "uplink"); g.State != "down" || g.Why != "bridge br0 is not there" {
			t.Errorf("the group is %+v", g)
		}
		if l.k.link("uplink").Ifindex != 0 {
			t.Error("a port is made for a bridge that is not there")
		}
		l.k.add(links.Link{Name: "br0", Kind: "bridge", Up: true})
		synctest.Wait()
		if g := d.group(t, "uplink"); g.State != "ready" || l.k.link("uplink").Master != l.k.link("br0").Ifindex {
			t.Errorf("the group is %+v", g)
		}
		if r, err := d.store.read("uplink"); err != nil || r == nil {
			t.Errorf("the group is not written down: %v", err)
		}
	})
}

func TestTheStablePortIsDeleted(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.remove("uplink")
		synctest.Wait()
		port := l.k.link("uplink")
		if port.Master == 0 || !port.Carrier {
			t.Errorf("the port is %+v", port)
		}
		l.wantActive(d, "nic1")
	})
}

func TestTheStablePortIsDeletedInASwap(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		go d.Swap(context.Background(), Request{Group: "uplink", To: "nic2"})
		synctest.Wait()
		l.k.remove("uplink")
		time.Sleep(time.Second)
		synctest.Wait()
		if g := d.group(t, "uplink"); g.State != "ready" || g.Active == "" {
			t.Errorf("the group is %+v", g)
		}
		l.wantActive(d, d.group(t, "uplink").Active)
		l.wantNoJournal(d)
		if past := d.Swaps(); slices.ContainsFunc(past, func(v SwapV1) bool { return v.Cause == "recovery" }) {
			t.Errorf("the swaps are %+v", past)
		}
	})
}

func TestAnOperatorsPortStaysDown(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.set("uplink", func(port *fakeLink) { port.Up = false })
		l.k.remove("nic2")
		l.k.veth("nic2")
		synctest.Wait()
		l.end(d)
		l.start()
		if l.k.link("uplink").Up {
			t.Error("the stable port was set up again")
		}
	})
}

// TestADownGroupTakesASharedMember that nobody uses.
func TestADownGroupTakesASharedMember(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic9")
		l.share("nic9")
		d := l.start()
		l.k.unplug("nic1")
		l.k.unplug("nic2")
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic9")
		if v := d.last(t); v.Cause != "loss" || v.Result != "done" || v.To != "nic9" || !l.k.link("uplink").Carrier {
			t.Errorf("the swap is %+v", v)
		}
		l.k.unplug("nic3") // the other group has nothing left
		time.Sleep(time.Second)
		synctest.Wait()
		if g := d.group(t, "other"); g.State != "down" {
			t.Errorf("the other group is %+v", g)
		}
		l.k.plug("nic1")
		synctest.Wait()
		d.swap(t, "nic1")
		time.Sleep(tendAgain + time.Second)
		synctest.Wait()
		if g := d.group(t, "other"); g.Active != "nic9" {
			t.Errorf("the other group is %+v", g)
		}
	})
}

func TestPortsThatAreNotOurs(t *testing.T) {
	for name, c := range map[string]struct {
		change func(k *kernel)
		says   string
	}{
		"another device": {func(k *kernel) { k.nic("uplink") }, "it is no stable port"},
		"another veth":   {func(k *kernel) { k.veth("uplink") }, "it is no stable port"},
		"another bridge": {func(k *kernel) {
			h := &hand{k: k, plain: make(map[int]bool)}
			port, _, _ := h.CreatePort("uplink", accel.MAC{}, 1500)
			h.SetMaster(port.Ifindex, k.add(links.Link{Name: "br1", Kind: "bridge"}))
		}, "belongs to br1 and not to br0"},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				c.change(l.k)
				d := l.start()
				if g := d.group(t, "uplink"); g.State != "down" || !strings.Contains(g.Why, c.says) {
					t.Errorf("the group is %+v", g)
				}
				_, err := d.Swap(context.Background(), Request{Group: "uplink", To: "nic2"})
				var status *accel.StatusError
				if !errors.As(err, &status) || status.Status != 409 {
					t.Errorf("a swap without a port: %v", err)
				}
			})
		})
	}
}

func TestSharedMembers(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic9")
		l.share("nic9")
		d := l.start()
		states := func() (a, b string) {
			return d.group(t, "uplink").Members[2].State, d.group(t, "other").Members[1].State
		}
		if a, b := states(); a != "cold" || b != "cold" {
			t.Errorf("before, it is %s and %s", a, b)
		}
		if v := d.swap(t, "nic9"); v.Result != "done" {
			t.Fatalf("the swap is %+v", v)
		}
		if a, b := states(); a != "active" || b != "cold" {
			t.Errorf("claimed, it is %s and %s", a, b)
		}
		v, err := d.Swap(context.Background(), Request{Group: "other", To: "nic9"})
		if err != nil || v.Result != "failed" || !strings.Contains(v.Error, "nic9 is used by group uplink now") {
			t.Errorf("the second claim: %+v, %v", v, err)
		}
		if v := d.swap(t, "nic1"); v.Result != "done" {
			t.Fatalf("the swap is %+v", v)
		}
		if a, b := states(); a != "cold" || b != "cold" || l.k.link("nic9").Promisc {
			t.Errorf("released, it is %s and %s", a, b)
		}
		if v, err := d.Swap(context.Background(), Request{Group: "other", To: "physical"}); err == nil {
			t.Errorf("nic3 is physical, but %+v", v)
		}
		if v, err := d.Swap(context.Background(), Request{Group: "other", To: "nic9"}); err != nil || v.Result != "done" {
			t.Errorf("the claim after the release: %+v, %v", v, err)
		}
		l.k.unplug("nic9") // the shared member fails: it is released too
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		l.k.plug("nic9")
		synctest.Wait()
		if v := d.swap(t, "nic9"); v.Result != "done" {
			t.Errorf("the claim after the loss: %+v", v)
		}
	})
}

func TestTwoGroupsClaimAtOnce(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic9")
		l.share("nic9")
		d := l.start()
		var done, failed int
		var mu sync.Mutex
		var all sync.WaitGroup
		for _, group := range []string{"uplink", "other"} {
			all.Go(func() {
				v, err := d.Swap(context.Background(), Request{Group: group, To: "nic9"})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && v.Result == "done":
					done++
				case err == nil && v.Result == "failed":
					failed++
				}
			})
		}
		all.Wait()
		if done != 1 || failed != 1 {
			t.Errorf("%d were done and %d failed", done, failed)
		}
	})
}

func TestReserve(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		for _, c := range []struct {
			group, member string
			status        int
		}{{"none", "nic2", 404}, {"uplink", "nic7", 404}, {"uplink", "nic1", 409}} {
			_, err := d.Reserve(c.group, c.member)
			var status *accel.StatusError
			if !errors.As(err, &status) || status.Status != c.status {
				t.Errorf("%+v gives %v", c, err)
			}
		}
		release, err := d.Reserve("uplink", "nic2")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Reserve("uplink", "nic2"); err == nil {
			t.Error("a member is reserved twice")
		}
		if g := d.group(t, "uplink"); g.State != "upgrading" || g.Members[1].State != "away" {
			t.Errorf("the group is %+v", g)
		}
		l.k.remove("nic2")
		l.k.veth("nic2")
		synctest.Wait()
		if l.k.link("nic2").Up {
			t.Error("a member that is away was touched")
		}
		release()
		release()
		synctest.Wait()
		if g := d.group(t, "uplink"); g.State != "ready" {
			t.Errorf("after the release the group is %+v", g)
		}
	})
}

func TestFollow(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		events, leave := d.Follow()
		slow, _ := d.Follow()
		d.swap(t, "nic2")
		leave()
		var phases []string
		var ended *SwapV1
		for event := range events {
			switch event.Event {
			case "phase":
				phases = append(phases, event.Phase)
			case "swap":
				ended = event.Swap
			}
		}
		if !slices.Equal(phases, []string{"check", "prewarm", "flip", "announce", "drain", "retire"}) || ended == nil || ended.Result != "done" {
			t.Errorf("followed were %v, %+v", phases, ended)
		}
		for range followerRoom {
			d.events.tell(EventV1{Event: "group"})
		}
		for range 10 {
			<-slow
		}
		d.events.tell(EventV1{Event: "last"})
		var told []string
		for len(slow) > 0 {
			event := <-slow
			told = append(told, event.Event)
			if event.Event == "lost" && !strings.Contains(event.Text, "events were lost") {
				t.Errorf("told was %q", event.Text)
			}
		}
		if n := len(told); told[n-2] != "lost" || told[n-1] != "last" {
			t.Errorf("a slow follower was told %v", told[n-5:])
		}
	})
}

func TestAFailoverThatTheDataPlaneRefuses(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.refuse("Flip nic2", syscall.EIO)
		l.k.unplug("nic1")
		synctest.Wait()
		l.k.refuse("Flip nic2", nil)
		l.k.set("nic2", func(n *fakeLink) { n.MTU = 1500 }) // any event
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic2")
	})
}

// TestTheTargetIsLostAtTheFlip, when it has been prewarmed already.
func TestTheTargetIsLostAtTheFlip(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.on("PrepareFlip", func() {
			l.k.unplug("nic2")
			synctest.Wait()
		})
		if v := d.swap(t, "nic2"); v.Result != "failed" || v.Phase != "flip" || v.Error != "nic2 has lost its carrier" {
			t.Errorf("the swap is %+v", v)
		}
		l.wantActive(d, "nic1")
	})
}

// TestSourceFirst: who is left in the drain is better than who stands first.
func TestSourceFirst(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic3")
		l.config.Groups[0].Members = []string{"nic1", "nic2", "nic3"}
		d := l.start()
		d.swap(t, "nic2")
		swapped := make(chan SwapV1)
		go func() { swapped <- d.swap(t, "nic3") }()
		synctest.Wait()
		l.k.unplug("nic3")
		if v := <-swapped; v.Result != "rolled_back" {
			t.Errorf("the swap is %+v", v)
		}
		synctest.Wait()
		l.wantActive(d, "nic2")
	})
}

func TestACarrierThatTheKernelHasNotActedOn(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.hold("nic2")
		l.k.unplug("nic1")
		synctest.Wait()
		if g := d.group(t, "uplink"); g.Active != "" {
			t.Errorf("the group is %+v", g)
		}
		l.k.release("nic2")
		synctest.Wait()
		if g := d.group(t, "uplink"); g.Active != "nic2" {
			t.Errorf("the group is %+v", g)
		}
	})
}

// TestTheDiskHangs while a failover announces.
func TestTheDiskHangs(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.table = []accel.Station{{Port: 50, Active: true}}
		hang := make(chan struct{})
		l.k.on("write", func() { <-hang })
		l.k.unplug("nic1")
		synctest.Wait()
		if len(l.k.sent) != 1 {
			t.Errorf("announced was %v", l.k.sent)
		}
		close(hang)
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic2")
	})
}

// TestADownGroupTriesEverySharedMember, and each no more often than it is looked at.
func TestADownGroupTriesEverySharedMember(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic8")
		l.k.nic("nic9")
		l.share("nic8")
		l.config.Groups[0].Members = append(l.config.Groups[0].Members, "nic9")
		l.config.Groups[1].Members = append(l.config.Groups[1].Members, "nic9")
		l.k.set("nic8", func(nic *fakeLink) { nic.addresses = []links.Address{{Prefix: netip.MustParsePrefix("192.0.2.1/24")}} })
		l.k.unplug("nic9")
		d := l.start()
		l.k.unplug("nic1")
		l.k.unplug("nic2")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(d.Swaps()); n < 4 || n > 14 {
			t.Errorf("%d swaps were tried in a minute", n)
		}
		l.k.plug("nic9")
		time.Sleep(time.Minute)
		synctest.Wait()
		l.wantActive(d, "nic9")
	})
}

// TestAMemberMovesElsewhere, into another network namespace, where the wire's program
// would keep it from hearing anything.
func TestAMemberMovesElsewhere(t *testing.T) {
	for _, member := range []string{"nic1", "nic2"} { // active, standby
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			l.k.move(member)
			time.Sleep(time.Second)
			synctest.Wait()
			_, _, members := l.k.wire("uplink")
			if len(members) != 1 || members[0] == member || members[0] == "" {
				t.Errorf("without %s there are %q on the wire", member, members)
			}
			l.wantActive(d, members[0])
		})
	}
}

// TestTheLastMemberMovesElsewhere: nothing is left, and nothing on it.
func TestTheLastMemberMovesElsewhere(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.config.Groups[0].Members = []string{"nic1"}
		l.start()
		l.k.move("nic1")
		time.Sleep(time.Second)
		synctest.Wait()
		if active, draining, members := l.k.wire("uplink"); active+draining != "" || len(members) != 0 {
			t.Errorf("the wire has %q, %q, %q", active, draining, members)
		}
	})
}

// TestAMemberIsGivenToABridge: one that is active is left, if there is another, and
// one that is not is let go, until it is taken out there.
func TestAMemberIsGivenToABridge(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		br1 := l.k.add(links.Link{Name: "br1", Kind: "bridge", Up: true})
		give := func(name string, master int) {
			l.k.set(name, func(nic *fakeLink) { nic.Master = master })
			time.Sleep(time.Second)
			synctest.Wait()
		}
		d := l.start()
		give("nic1", br1)
		l.wantActive(d, "nic2")
		if _, _, members := l.k.wire("uplink"); !slices.Equal(members, []string{"nic2"}) {
			t.Errorf("on the wire are %q", members)
		}
		if g := d.group(t, "uplink"); g.State != "degraded" || !strings.Contains(g.Why, "nic1 belongs to br1") {
			t.Errorf("the group is %+v", g)
		}
		give("nic2", br1) // there is no other
		l.wantActive(d, "nic2")
		if g := d.group(t, "uplink"); !strings.Contains(g.Why, "nic2 was given to another device") {
			t.Errorf("the group is %+v", g)
		}
		give("nic1", 0)
		l.wantActive(d, "nic1")
		give("nic2", 0)
		if g := d.group(t, "uplink"); g.State != "ready" {
			t.Errorf("the group is %+v", g)
		}
	})
}

// TestTheTargetIsGivenToABridge in the last moment.
func TestTheTargetIsGivenToABridge(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.on("PrepareFlip", func() {
			l.k.set("nic2", func(nic *fakeLink) { nic.Master = l.k.find("br0").Ifindex })
		})
		if v := d.swap(t, "nic2"); v.Result != "failed" || !strings.Contains(v.Error, "given to another device") {
			t.Errorf("the swap is %+v", v)
		}
		l.wantActive(d, "nic1")
	})
}

// TestTheActiveDeviceIsNoMemberAnyMore, by a change of the configuration: it carries
// the traffic until a member can.
func TestTheActiveDeviceIsNoMemberAnyMore(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.end(l.start())
		l.config.Groups[0].Members = []string{"nic2"}
		l.k.unplug("nic2")
		d := l.start()
		if active, _, _ := l.k.wire("uplink"); active != "nic1" {
			t.Errorf("the wire is on %q", active)
		}
		if g := d.group(t, "uplink"); g.State != "degraded" || !strings.Contains(g.Why, "no member of the group any more") {
			t.Errorf("the group is %+v", g)
		}
		l.k.plug("nic2")
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic2")
		if _, _, members := l.k.wire("uplink"); !slices.Equal(members, []string{"nic2"}) {
			t.Errorf("on the wire are %q", members)
		}
	})
}

// TestTheActiveStrangerIsGone: the port has no carrier then.
func TestTheActiveStrangerIsGone(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.end(l.start())
		l.config.Groups[0].Members = []string{"nic2"}
		l.k.unplug("nic2")
		d := l.start()
		l.k.remove("nic1")
		time.Sleep(time.Second)
		synctest.Wait()
		if g := d.group(t, "uplink"); g.State != "down" || l.k.link("uplink").Carrier {
			t.Errorf("the group is %+v", g)
		}
	})
}

// TestTheStubIsSetDown by somebody who takes it for a device to be managed.
func TestTheStubIsSetDown(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.start()
		l.k.set(links.StubName("uplink"), func(stub *fakeLink) { stub.Up = false })
		synctest.Wait()
		if !l.k.link("uplink").Carrier {
			t.Error("the port has no carrier")
		}
	})
}

// TestThePortGetsALargerMTU: its members follow, the active one last.
func TestThePortGetsALargerMTU(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		before := len(l.k.done())
		l.k.set("uplink", func(port *fakeLink) { port.MTU = 9000 })
		synctest.Wait()
		if did := l.k.done()[before:]; !slices.Equal(did, []string{"SetMTU nic2", "SetMTU nic1"}) {
			t.Errorf("it did %q", did)
		}
		l.k.refuse("SetMTU nic2", errRefused)
		l.k.set("uplink", func(port *fakeLink) { port.MTU = 9100 })
		synctest.Wait()
		if g := d.group(t, "uplink"); g.State != "degraded" || !strings.Contains(g.Why, "set the MTU of nic2") {
			t.Errorf("the group is %+v", g)
		}
	})
}

// TestTheGroupIsTakenWhileATargetIsPutBack: who tends the group and the swap that gives
// the target up do not get into each other's way.
func TestTheGroupIsTakenWhileATargetIsPutBack(t *testing.T) {
	for name, plug := range map[string]bool{"before": false, "meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				l.config.Groups[0].Members = append(l.config.Groups[0].Members, "nic9")
				l.k.nic("nic9")
				l.k.set("nic2", func(nic *fakeLink) { nic.addresses = []links.Address{{Prefix: netip.MustParsePrefix("192.0.2.1/24")}} })
				l.k.unplug("nic2")
				d := l.start()
				l.k.set("nic2", func(nic *fakeLink) { nic.addresses = nil })
				l.k.on("RemoveMember nic2", func() {
					if plug {
						l.k.unplug("nic1")
					}
					time.Sleep(time.Second)
				})
				swapped := make(chan SwapV1)
				go func() { swapped <- d.swap(t, "nic2") }()
				synctest.Wait()
				if !plug {
					l.k.unplug("nic1")
				}
				if v := <-swapped; v.Result != "failed" {
					t.Errorf("the swap is %+v", v)
				}
				time.Sleep(tendAgain + time.Second)
				synctest.Wait()
				l.wantActive(d, "nic9")
				_, _, members := l.k.wire("uplink")
				if nic := l.k.link("nic2"); !slices.Contains(members, "nic2") || !nic.Up || !nic.Promisc {
					t.Errorf("nic2 is no standby: %+v, and on the wire are %q", nic.Link, members)
				}
			})
		})
	}
}
