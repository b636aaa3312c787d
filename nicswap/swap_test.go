package nicswap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/announce"
	"github.com/shunt-dev/shunt/nicswap/links"
)

func TestSetUpMakesTheStablePort(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.set("nic1", func(nic *fakeLink) { nic.MTU = 9000 })
		l.k.set("nic2", func(nic *fakeLink) { nic.MTU = 9000 })
		l.k.set("br0", func(br *fakeLink) { br.MTU = 4000 })
		d := l.start()
		port := l.k.link("uplink")
		if port.Master != l.k.link("br0").Ifindex || !port.Carrier || port.MTU != 4000 {
			t.Errorf("the stable port is %+v", port.Link)
		}
		if !port.ipv6.Disabled || !l.k.link(links.StubName("uplink")).ipv6.Disabled {
			t.Error("the stable port, or its stub, may send something itself")
		}
		for _, name := range []string{"nic1", "nic2"} {
			if nic := l.k.link(name); !nic.Up || !nic.Promisc || nic.MTU != 4000 || nic.lro || !nic.ipv6.Disabled {
				t.Errorf("%s was not made ready: %+v", name, nic)
			}
		}
		l.wantActive(d, "nic1")
		g := d.group(t, "uplink")
		if g.State != "ready" || g.Why != "" || g.Members[1].State != "standby" {
			t.Errorf("the group is %+v", g)
		}
		if g.Members[0].Kind != "physical" || g.Members[0].Driver != "ixgbe" || g.Members[1].Kind != "virtual" || g.Members[1].LinkKind != "veth" {
			t.Errorf("the kinds of the members are wrong: %+v", g.Members)
		}
	})
}

func TestASwapTakesItsPhasesInOrder(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		began := time.Now()
		v := d.swap(t, "nic2")
		if v.Result != "done" || v.From != "nic1" || v.To != "nic2" || v.FromKind != "physical" || v.ToKind != "virtual" || v.FlipNS == 0 {
			t.Errorf("the swap is %+v", v)
		}
		var phases []string
		for _, p := range v.Phases {
			phases = append(phases, p.Phase)
		}
		if !slices.Equal(phases, []string{"resolve", "check", "prewarm", "flip", "announce", "drain", "retire"}) {
			t.Errorf("the phases are %v", phases)
		}
		if took := time.Since(began); took != 200*time.Millisecond {
			t.Errorf("the drain took %v", took)
		}
		l.wantActive(d, "nic2")
		l.wantNoJournal(d)
		if past := d.Swaps(); len(past) != 1 || past[0].ID != v.ID {
			t.Errorf("the past swaps are %+v", past)
		}
		if g := d.group(t, "uplink"); g.Members[0].State != "standby" || g.State != "ready" {
			t.Errorf("afterwards the group is %+v", g)
		}
	})
}

// TestFloodedFramesReturnBeforeTheFlip: the marks begin long enough before it.
func TestFloodedFramesReturnBeforeTheFlip(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.floodTime = floodTime
		d := l.start()
		var prepared, flipped time.Time
		l.k.on("PrepareFlip", func() { prepared = time.Now() })
		l.k.on("Flip nic2", func() { flipped = time.Now() })
		d.swap(t, "nic2")
		if gap := flipped.Sub(prepared); prepared.IsZero() || gap < 50*time.Millisecond {
			t.Errorf("the flip came %v after it was prepared", gap)
		}

		ctx, leave := context.WithCancel(t.Context())
		l.k.on("PrepareFlip", leave)
		v, err := d.Swap(ctx, Request{Group: "uplink", To: "nic1"})
		if err != nil || v.Result != "failed" {
			t.Errorf("without its caller the swap is %+v: %v", v, err)
		}
	})
}

// TestALossIsNotPrepared: marks that begin with the flip know nothing of what was
// sent before, so the table must count.
func TestALossIsNotPrepared(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.on("PrepareFlip", func() { t.Error("the flip was prepared") })
		l.k.unplug("nic1")
		time.Sleep(time.Second)
		synctest.Wait()
		l.wantActive(d, "nic2")
	})
}

// TestFailureBeforeTheFlip: whatever fails, the source stays active, and a target
// that was no warm member is as it was.
func TestFailureBeforeTheFlip(t *testing.T) {
	for _, operation := range []string{
		"SetIPv6 nic9", "SetMTU nic9", "DisableLRO nic9", "SetPromisc nic9", "SetUp nic9", "AddMember nic9",
		"PrepareFlip", "Probe nic9", "Flip nic9", "write",
	} {
		t.Run(operation, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				l.k.add(links.Link{Name: "nic9", Physical: true, MTU: 9000})
				l.share("nic9")
				l.config.Groups[0].Probe = netip.MustParseAddr("192.0.2.1")
				d := l.start()
				before := l.k.link("nic9")
				l.k.refuse(operation, errRefused)
				v := d.swap(t, "nic9")
				if v.Result != "failed" || !strings.Contains(v.Error, errRefused.Error()) {
					t.Errorf("the swap is %+v", v)
				}
				l.k.refuse(operation, nil)
				l.wantActive(d, "nic1")
				after := l.k.link("nic9")
				if after.Link != before.Link || after.ipv6 != before.ipv6 {
					t.Errorf("the target was %+v and is %+v", before, after)
				}
				if _, _, members := l.k.wire("uplink"); slices.Contains(members, "nic9") {
					t.Error("the target is still on the wire")
				}
				if v := d.swap(t, "nic9"); v.Result != "done" {
					t.Errorf("the next swap is %+v", v)
				}
			})
		})
	}
}

// share lets the group "other" have a member too, so that it is cold.
func (l *lab) share(member string) {
	l.config.Groups[0].Members = append(l.config.Groups[0].Members, member)
	other := uplink()
	other.Name, other.Port, other.Members = "other", "other", []string{"nic3", member}
	if l.k.find("nic3") == nil {
		l.k.nic("nic3")
	}
	l.config.Groups = append(l.config.Groups, other)
}

func TestAWarmMemberStaysOneWhenTheSwapFails(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.refuse("PrepareFlip", errRefused)
		if v := d.swap(t, "nic2"); v.Result != "failed" || v.Phase != "prewarm" {
			t.Errorf("the swap is %+v", v)
		}
		if g := d.group(t, "uplink"); g.Members[1].State != "standby" || !l.k.link("nic2").Up {
			t.Errorf("the target is %+v", g.Members[1])
		}
		if slices.Contains(l.k.done(), "RemoveMember nic2") {
			t.Error("the target was taken off the wire")
		}
	})
}

func TestCheckRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(l *lab)
		says   string
	}{
		"nothing there":      {func(l *lab) { l.k.remove("nic2") }, "is not there"},
		"a port of a bridge": {func(l *lab) { l.k.set("nic2", func(n *fakeLink) { n.Master = 1 }) }, "belongs to br0"},
		"loopback":           {func(l *lab) { l.k.set("nic2", func(n *fakeLink) { n.Loopback = true }) }, "not an Ethernet device"},
		"no Ethernet":        {func(l *lab) { l.k.set("nic2", func(n *fakeLink) { n.Ethernet = false }) }, "not an Ethernet device"},
		"addresses":          {func(l *lab) { l.k.set("nic2", func(n *fakeLink) { n.addresses = make([]links.Address, 1) }) }, "has addresses"},
		"a VLAN device":      {func(l *lab) { l.k.set("nic2", func(n *fakeLink) { n.uppers = []links.Link{{Name: "nic2.10"}} }) }, "nic2.10 is on top"},
		"a bridge macvlan": {func(l *lab) {
			l.k.set("nic2", func(n *fakeLink) { n.Kind, n.MacvlanMode = "macvlan", "bridge" })
		}, "only mode passthru"},
		"an MTU too large": {func(l *lab) { l.k.set("nic2", func(n *fakeLink) { n.MaxMTU = 1400 }) }, "takes an MTU"},
		"an MTU too small": {func(l *lab) { l.k.set("nic2", func(n *fakeLink) { n.MinMTU = 1600 }) }, "takes an MTU"},
		"foreign programs": {func(l *lab) { l.k.mu.Lock(); l.k.foreign["nic2"] = true; l.k.mu.Unlock() }, "somebody else's"},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				d := l.start()
				c.change(l)
				synctest.Wait()
				v := d.swap(t, "nic2")
				if v.Result != "failed" || v.Phase != "check" || !strings.Contains(v.Error, c.says) {
					t.Errorf("the swap is %+v", v)
				}
				l.wantActive(d, "nic1")
				plan, err := d.Swap(context.Background(), Request{Group: "uplink", To: "nic2", DryRun: true})
				if err != nil || plan.Result != "failed" || plan.Error != v.Error {
					t.Errorf("the plan is %+v, %v", plan, err)
				}
			})
			inLab(t, func(t *testing.T, l *lab) { // at start: the group is degraded and says why
				c.change(l)
				d := l.start()
				if g := d.group(t, "uplink"); g.State != "degraded" || !strings.Contains(g.Why, c.says) {
					t.Errorf("the group is %+v", g)
				}
				l.wantActive(d, "nic1")
			})
		})
	}
}

func TestPassthruMacvlanIsAMember(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.set("nic2", func(n *fakeLink) { n.Kind, n.MacvlanMode = "macvlan", "passthru" })
		if v := l.start().swap(t, "nic2"); v.Result != "done" {
			t.Errorf("the swap is %+v", v)
		}
	})
}

func TestRequestsThatAreRefused(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		release, err := d.Reserve("uplink", "nic2")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			r      Request
			status int
			says   string
		}{
			{Request{Group: "none", To: "nic2"}, 404, "there is uplink"},
			{Request{Group: "uplink", To: "nic7"}, 404, "it has nic1, nic2"},
			{Request{Group: "uplink", To: "nic1"}, 409, "on nic1 already"},
			{Request{Group: "uplink", To: "physical"}, 409, "on nic1 already, which is physical"},
			{Request{Group: "uplink", To: "nic2"}, 409, "is being upgraded"},
			{Request{Group: "uplink", To: "virtual"}, 409, "no virtual member"},
		} {
			_, err := d.Swap(context.Background(), c.r)
			var status *accel.StatusError
			if !errors.As(err, &status) || status.Status != c.status || !strings.Contains(status.Text, c.says) {
				t.Errorf("%+v gives %v", c.r, err)
			}
		}
		release()
		if v := d.swap(t, "virtual"); v.Result != "done" || v.To != "nic2" {
			t.Errorf("after the release the swap is %+v", v)
		}
		if past := d.Swaps(); len(past) != 1 {
			t.Errorf("refused requests count as swaps: %+v", past)
		}
	})
}

func TestTheSecondSwapIsRefused(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		first := make(chan SwapV1)
		go func() { first <- d.swap(t, "nic2") }()
		synctest.Wait() // it drains
		_, err := d.Swap(context.Background(), Request{Group: "uplink", To: "nic1"})
		var status *accel.StatusError
		if !errors.As(err, &status) || status.Status != 409 || !strings.Contains(err.Error(), "is running since") {
			t.Errorf("the second swap: %v", err)
		}
		if g := d.group(t, "uplink"); g.State != "swapping" || g.Members[0].State != "draining" {
			t.Errorf("meanwhile the group is %+v", g)
		}
		if v := <-first; v.Result != "done" {
			t.Errorf("the first swap: %+v", v)
		}
	})
}

func TestAPlanChangesNothing(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.set("nic2", func(n *fakeLink) { n.MTU = 9000 })
		synctest.Wait()
		before := l.k.done()
		v, err := d.Swap(context.Background(), Request{Group: "uplink", To: "virtual", DryRun: true})
		if err != nil || v.Result != "planned" || !strings.Contains(strings.Join(v.Plan, "\n"), "change its MTU from 9000 to 1500") {
			t.Errorf("the plan is %+v, %v", v, err)
		}
		if after := l.k.done(); len(after) != len(before) {
			t.Errorf("the plan did %v", after[len(before):])
		}
		if len(d.Swaps()) != 0 {
			t.Error("a plan counts as a swap")
		}
	})
}

func TestACallerThatGoesAway(t *testing.T) {
	t.Run("before the flip", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			l.k.nic("nic9")
			l.k.unplug("nic9")
			l.share("nic9")
			d := l.start()
			ctx, leave := context.WithCancel(context.Background())
			result := make(chan SwapV1)
			go func() {
				v, _ := d.Swap(ctx, Request{Group: "uplink", To: "nic9"})
				result <- v
			}()
			synctest.Wait() // it waits for the carrier
			leave()
			if v := <-result; v.Result != "failed" || !strings.Contains(v.Error, "went away") {
				t.Errorf("the swap is %+v", v)
			}
			l.wantActive(d, "nic1")
			if l.k.link("nic9").Up {
				t.Error("the target stays up")
			}
		})
	})
	t.Run("at the flip", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			ctx, leave := context.WithCancel(context.Background())
			l.k.on("PrepareFlip", leave)
			v, _ := d.Swap(ctx, Request{Group: "uplink", To: "nic2"})
			if v.Result != "failed" {
				t.Errorf("the swap is %+v", v)
			}
			l.wantActive(d, "nic1")
		})
	})
	t.Run("after the flip", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			ctx, leave := context.WithCancel(context.Background())
			l.k.on("Flip nic2", leave)
			began := time.Now()
			v, _ := d.Swap(ctx, Request{Group: "uplink", To: "nic2"})
			if v.Result != "done" || time.Since(began) != 200*time.Millisecond {
				t.Errorf("after %v the swap is %+v", time.Since(began), v)
			}
			l.wantActive(d, "nic2")
		})
	})
}

func TestCarrierIsAwaited(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.unplug("nic2")
		synctest.Wait()
		if g := d.group(t, "uplink"); g.State != "degraded" || g.Members[1].State != "no_carrier" {
			t.Errorf("the group is %+v", g)
		}
		began := time.Now()
		go func() {
			time.Sleep(3 * time.Second)
			l.k.plug("nic2")
		}()
		if v := d.swap(t, "nic2"); v.Result != "done" {
			t.Errorf("the swap is %+v", v)
		}
		if took := time.Since(began); took != 3200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		l.k.unplug("nic1")
		synctest.Wait()
		if v := d.swap(t, "nic1"); v.Result != "failed" || !strings.Contains(v.Error, "has no carrier after 10s") {
			t.Errorf("the swap to a dead NIC is %+v", v)
		}
		l.wantActive(d, "nic2")
	})
}

func TestProbe(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.config.Groups[0].Probe = netip.MustParseAddr("192.0.2.1")
		d := l.start()
		l.k.refuse("Probe nic2", errSilent)
		v := d.swap(t, "nic2")
		if v.Result != "failed" || v.Phase != "prewarm" || v.Error != "192.0.2.1 does not answer over nic2" {
			t.Errorf("the swap is %+v", v)
		}
		l.wantActive(d, "nic1")
		l.k.refuse("Probe nic2", nil)
		if v := d.swap(t, "nic2"); v.Result != "done" {
			t.Errorf("the swap is %+v", v)
		}
	})
}

func TestTheDiskIsFull(t *testing.T) {
	t.Run("before the flip", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			l.k.refuse("write", syscall.ENOSPC)
			v := d.swap(t, "nic2")
			if v.Result != "failed" || !strings.Contains(v.Error, "no space left") {
				t.Errorf("the swap is %+v", v)
			}
			l.wantActive(d, "nic1")
		})
	})
	t.Run("after the flip", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			l.k.on("Flip nic2", func() { l.k.refuse("write", syscall.ENOSPC) })
			if v := d.swap(t, "nic2"); v.Result != "done" {
				t.Errorf("the swap is %+v", v)
			}
			l.wantActive(d, "nic2")
		})
	})
}

func TestAnnounce(t *testing.T) {
	mac := func(n byte) accel.MAC { return accel.MAC{2, 1, 1, 1, 1, n} }
	at := func(n byte, vid uint16, port int) accel.Station {
		return accel.Station{StationKey: accel.StationKey{MAC: mac(n), VID: vid}, Port: port, Active: true}
	}
	t.Run("without VLANs", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			uplink := l.k.link("uplink").Ifindex
			local := at(3, 0, 0)
			local.Local = true
			locked := at(4, 0, 50)
			locked.NoSource = true
			l.k.table = []accel.Station{at(1, 0, 50), at(2, 0, uplink), local, locked}
			addr := netip.MustParseAddr("192.0.2.7")
			l.k.known[mac(1)] = []netip.Addr{addr}
			v := d.swap(t, "nic2")
			if v.Stations != 4 || v.Announced != 2 || l.k.reads != 1 {
				t.Errorf("the swap is %+v, and the table was read %d times", v, l.k.reads)
			}
			want := []sent{{"nic2", []announce.Station{{MAC: mac(1), Addrs: []netip.Addr{addr}}, {MAC: mac(3)}}}}
			if fmt.Sprint(l.k.sent) != fmt.Sprint(want) {
				t.Errorf("announced was %v", l.k.sent)
			}
		})
	})
	t.Run("with VLANs", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			l.k.protocol = 0x8100
			l.k.vlans["uplink"] = accel.NewVLANs([]accel.VLAN{{VID: 1, Untagged: true}, {VID: 10}})
			d := l.start()
			l.k.table = []accel.Station{at(1, 1, 50), at(2, 10, 50), at(3, 20, 50)}
			d.swap(t, "nic2")
			want := []sent{{"nic2", []announce.Station{{MAC: mac(1)}, {MAC: mac(2), Tag: 10, TagProtocol: 0x8100}}}}
			if fmt.Sprint(l.k.sent) != fmt.Sprint(want) {
				t.Errorf("announced was %v", l.k.sent)
			}
		})
	})
	t.Run("a failure moves nothing", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			d := l.start()
			l.k.table = []accel.Station{at(1, 0, 50)}
			l.k.refuse("Send nic2", errRefused)
			v := d.swap(t, "nic2")
			if v.Result != "done" || !strings.Contains(v.Phases[4].Error, errRefused.Error()) {
				t.Errorf("the swap is %+v", v)
			}
			l.wantActive(d, "nic2")
		})
	})
	t.Run("not asked for", func(t *testing.T) {
		inLab(t, func(t *testing.T, l *lab) {
			l.config.Groups[0].Announce = false
			d := l.start()
			l.k.table = []accel.Station{at(1, 0, 50)}
			if v := d.swap(t, "nic2"); v.Announced != 0 || len(l.k.sent) != 0 || v.Stations != 1 {
				t.Errorf("the swap is %+v", v)
			}
		})
	})
}

func TestNoDrain(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.config.Groups[0].Drain = 0
		d := l.start()
		began := time.Now()
		if v := d.swap(t, "nic2"); v.Result != "done" || time.Since(began) != 0 {
			t.Errorf("it took %v: %+v", time.Since(began), v)
		}
	})
}

func TestLossesAreThoseOfTheSwap(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		count := func(r accel.Reason, n uint64) {
			l.k.mu.Lock()
			defer l.k.mu.Unlock()
			w := l.k.wires[l.k.find("uplink").Ifindex]
			w.counts[r] = w.counts[r].Add(accel.Count{Packets: n})
		}
		count(accel.Standby, 5)
		l.k.on("Flip nic2", func() { count(accel.Drained, 7); count(accel.OwnReturned, 2) })
		v := d.swap(t, "nic2")
		if v.Drained != 7 || len(v.Dropped) != 1 || v.Dropped["own_returned"] != 2 {
			t.Errorf("drained %d, dropped %v", v.Drained, v.Dropped)
		}
		if g := d.group(t, "uplink"); g.Drained != 7 || g.Dropped["standby"] != 5 {
			t.Errorf("the group shows %+v", g)
		}
	})
}

func TestStopFinishesWhatWasFlipped(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.config.Groups[0].Drain = time.Hour
		d := l.start()
		result := make(chan SwapV1, 1)
		go func() { result <- d.swap(t, "nic2") }()
		synctest.Wait()
		l.end(d)
		if v := <-result; v.Result != "done" {
			t.Errorf("the swap is %+v", v)
		}
		if active, draining, _ := l.k.wire("uplink"); active != "nic2" || draining != "" {
			t.Errorf("the wire is on %s and drains %s", active, draining)
		}
		if !l.k.link("uplink").Carrier {
			t.Error("the stable port has lost its carrier")
		}
	})
}

func TestStopUndoesWhatWasNotFlipped(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic9")
		l.k.unplug("nic9")
		l.share("nic9")
		d := l.start()
		result := make(chan SwapV1, 1)
		go func() { result <- d.swap(t, "nic9") }()
		synctest.Wait()
		l.end(d)
		if v := <-result; v.Result != "failed" || v.Error != errStopping.Error() {
			t.Errorf("the swap is %+v", v)
		}
		if l.k.link("nic9").Up {
			t.Error("the target stays up")
		}
		if _, err := d.Swap(context.Background(), Request{Group: "uplink", To: "nic2"}); err == nil {
			t.Error("a daemon that has stopped swaps")
		}
	})
}
