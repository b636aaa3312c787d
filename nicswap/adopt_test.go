package nicswap

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// withPort puts eth0 into the bridge, with settings and an address, and leaves the
// daemon without groups.
func (l *lab) withPort() fakeLink {
	l.config.Groups = nil
	l.k.add(links.Link{Name: "eth0", Physical: true, Driver: "ixgbe", Up: true, MTU: 1400})
	l.k.set("eth0", func(nic *fakeLink) {
		nic.Master = l.k.find("br0").Ifindex
		nic.settings = links.PortSettings{Options: map[string]uint32{"cost": 7, "isolated": 1}}
		nic.addresses = []links.Address{{Prefix: netip.MustParsePrefix("192.0.2.1/24")}}
	})
	return l.k.link("eth0")
}

// adopted starts a daemon that adopts eth0, and waits until that is settled.
func (l *lab) adopted(t *testing.T) *life {
	t.Helper()
	d := l.start()
	if _, err := d.Adopt(context.Background(), adoptEth0); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return d
}

// wantPutBack holds everything to be as before the adoption.
func (l *lab) wantPutBack(before fakeLink) {
	l.t.Helper()
	after := l.k.link("eth0")
	if after.Link != before.Link || after.ipv6 != before.ipv6 || !reflect.DeepEqual(after.settings, before.settings) || !reflect.DeepEqual(after.addresses, before.addresses) {
		l.t.Errorf("eth0 was %+v\nand is %+v", before, after)
	}
	if l.k.link("eth0.s").Ifindex != 0 || l.k.link(links.StubName("eth0.s")).Ifindex != 0 {
		l.t.Error("the stable port is still there")
	}
	if len(l.k.wires) != 0 {
		l.t.Error("a wire is left")
	}
	if _, err := os.Stat(filepath.Join(l.config.StateDir, "groups", "0", "eth0.s.json")); !errors.Is(err, os.ErrNotExist) {
		l.t.Errorf("the group's file is left: %v", err)
	}
}

// wantAdopted holds the stable port to have taken the place of eth0.
func (l *lab) wantAdopted(d *life, before fakeLink) {
	l.t.Helper()
	port, nic := l.k.link("eth0.s"), l.k.link("eth0")
	if port.Master != before.Master || port.MTU != 1400 || port.MAC != before.MAC || !port.Carrier ||
		!reflect.DeepEqual(port.settings, before.settings) || !reflect.DeepEqual(port.addresses, before.addresses) {
		l.t.Errorf("the stable port is %+v", port)
	}
	if nic.Master != 0 || len(nic.addresses) != 0 || !nic.Promisc {
		l.t.Errorf("the member is %+v", nic)
	}
	if active, draining, _ := l.k.wire("eth0.s"); active != "eth0" || draining != "" || l.k.marking("eth0.s") {
		l.t.Errorf("the wire is on %q", active)
	}
	g := d.group(l.t, "eth0.s")
	if !g.Adopted || g.State != "ready" || g.Bridge != "br0" || g.Active != "eth0" || len(g.Members) != 2 || g.Members[1].State != "standby" {
		l.t.Errorf("the group is %+v", g)
	}
}

var adoptEth0 = AdoptRequestV1{Port: "eth0", Members: []string{"nic2"}}

func TestAdoptAndRelease(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		before := l.withPort()
		l.k.table = []accel.Station{{Port: before.Ifindex, Active: true}, {Port: 50, Active: true}}
		d := l.start()
		plan, err := d.Adopt(context.Background(), AdoptRequestV1{Port: "eth0", Members: []string{"nic2"}, DryRun: true})
		if err != nil || plan.Done || plan.Group != "eth0.s" || plan.Bridge != "br0" || !strings.Contains(strings.Join(plan.Costs, "\n"), "behind it (1)") {
			t.Errorf("the plan is %+v, %v", plan, err)
		}
		if !slices.Contains(plan.Steps, "further member nic2") || !slices.Contains(plan.Costs, "addresses of eth0 (1) move to eth0.s; routes over it do not") {
			t.Errorf("the plan is %q, at the cost of %q", plan.Steps, plan.Costs)
		}
		l.wantPutBack(before)

		c, err := d.Adopt(context.Background(), adoptEth0)
		if err != nil || !c.Done || c.Port != "eth0.s" || c.Member != "eth0" || c.Ifindex == 0 {
			t.Fatalf("the adoption is %+v, %v", c, err)
		}
		synctest.Wait()
		l.wantAdopted(d, before)
		l.end(d) // it is remembered
		d = l.start()
		l.wantAdopted(d, before)

		plan, err = d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s", DryRun: true})
		if err != nil || plan.Done || plan.Member != "eth0" {
			t.Errorf("the plan is %+v, %v", plan, err)
		}
		l.wantAdopted(d, before)
		c, err = d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"})
		if err != nil || !c.Done || c.Member != "eth0" {
			t.Errorf("the release is %+v, %v", c, err)
		}
		l.wantPutBack(before)
		if l.k.link("nic2").Promisc {
			t.Error("a member that was never active stays promiscuous")
		}
		if len(d.Groups()) != 0 {
			t.Errorf("the groups are %+v", d.Groups())
		}
		l.end(d)
		if d = l.start(); len(d.Groups()) != 0 {
			t.Errorf("after a start the groups are %+v", d.Groups())
		}
	})
}

// TestReleaseOnAnotherMember puts the one into the bridge that is active, with what
// was set on the stable port since.
func TestReleaseOnAnotherMember(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.withPort()
		d := l.adopted(t)
		if v, err := d.Swap(context.Background(), Request{Group: "eth0.s", To: "nic2"}); err != nil || v.Result != "done" {
			t.Fatalf("the swap is %+v, %v", v, err)
		}
		changed := links.PortSettings{Options: map[string]uint32{"cost": 9}}
		l.k.set("eth0.s", func(port *fakeLink) { port.settings = changed })
		if c, err := d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"}); err != nil || c.Member != "nic2" {
			t.Fatalf("the release is %+v, %v", c, err)
		}
		nic := l.k.link("nic2")
		if nic.Master == 0 || nic.Promisc || len(nic.addresses) != 1 || !reflect.DeepEqual(nic.settings, changed) || l.k.link("eth0").Master != 0 {
			t.Errorf("nic2 is %+v", nic)
		}
	})
}

// TestAdoptFailsAnywhere: whatever operation is refused, the port is put back.
func TestAdoptFailsAnywhere(t *testing.T) {
	for n, failed := 1, true; failed; n++ {
		inLab(t, func(t *testing.T, l *lab) {
			before := l.withPort()
			d := l.start()
			d.lockedDo(func() { d.failAt = d.count + n })
			_, err := d.Adopt(context.Background(), adoptEth0)
			failed = d.failed
			synctest.Wait()
			if err != nil {
				l.wantPutBack(before)
				if len(d.Groups()) != 0 {
					t.Errorf("refused at %d: the groups are %+v", n, d.Groups())
				}
			} else {
				time.Sleep(2 * tendAgain)
				synctest.Wait()
				l.wantAdopted(d, before)
			}
		})
	}
}

func TestDaemonKilledAnywhereInAdopt(t *testing.T) {
	for n, killed := 1, true; killed; n++ {
		inLab(t, func(t *testing.T, l *lab) {
			before := l.withPort()
			d := l.start()
			killed = l.killedAt(d, n, func() { d.Adopt(context.Background(), adoptEth0) })
			d = l.start()
			if len(d.Groups()) == 0 {
				l.wantPutBack(before)
			} else {
				l.wantAdopted(d, before)
			}
		})
	}
}

// TestReleaseFailsAnywhere: the group works on.
func TestReleaseFailsAnywhere(t *testing.T) {
	for n, failed := 1, true; failed; n++ {
		inLab(t, func(t *testing.T, l *lab) {
			before := l.withPort()
			d := l.adopted(t)
			d.lockedDo(func() { d.failAt = d.count + n })
			_, err := d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"})
			failed = d.failed
			time.Sleep(2 * tendAgain)
			synctest.Wait()
			if err != nil {
				l.wantAdopted(d, before)
				_, err = d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"})
			}
			if err != nil {
				t.Errorf("refused at %d: it cannot be released again: %v", n, err)
			}
			l.wantPutBack(before)
		})
	}
}

// TestReleaseThatCannotBeWrittenDown changes nothing: the stable port stays, and what
// goes over it.
func TestReleaseThatCannotBeWrittenDown(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		before := l.withPort()
		d := l.adopted(t)
		port := l.k.link("eth0.s").Ifindex
		l.k.refuse("write", syscall.ENOSPC)
		_, err := d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"})
		if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") {
			t.Errorf("the release: %v", err)
		}
		synctest.Wait()
		l.wantAdopted(d, before)
		if l.k.link("eth0.s").Ifindex != port {
			t.Error("the stable port was made anew")
		}
	})
}

// TestReleaseOfAPortThatIsGone leaves no wire behind: eth0 can be adopted again.
func TestReleaseOfAPortThatIsGone(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.withPort()
		d := l.adopted(t)
		l.k.refuse("CreatePort eth0.s", syscall.ENOMEM)
		l.k.remove("eth0.s")
		synctest.Wait()
		c, err := d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"})
		if err != nil || c.Member != "" || c.Steps[0] != "put no member into br0, since none is active: ip link set dev NAME master br0 does that" {
			t.Fatalf("the release is %+v, %v", c, err)
		}
		if len(l.k.wires) != 0 {
			t.Error("a wire is left")
		}
	})
}

func TestDaemonKilledAnywhereInRelease(t *testing.T) {
	for n, killed := 1, true; killed; n++ {
		inLab(t, func(t *testing.T, l *lab) {
			before := l.withPort()
			d := l.adopted(t)
			killed = l.killedAt(d, n, func() { d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"}) })
			d = l.start()
			if len(d.Groups()) == 0 {
				l.wantPutBack(before)
			} else {
				l.wantAdopted(d, before)
			}
		})
	}
}

func TestAdoptRefuses(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.withPort()
		l.config.Groups = []accel.Group{uplink()}
		br1 := l.k.add(links.Link{Name: "br1", Kind: "bridge"})
		l.k.nic("elsewhere")
		l.k.set("elsewhere", func(n *fakeLink) { n.Master = br1 })
		d := l.start()
		for _, c := range []struct {
			r      AdoptRequestV1
			status int
			says   string
		}{
			{AdoptRequestV1{Port: "none"}, 404, "no device none"},
			{AdoptRequestV1{Port: "nic1"}, 409, "member of group uplink"},
			{AdoptRequestV1{Port: "uplink"}, 409, "a stable port already"},
			{AdoptRequestV1{Port: "elsewhere"}, 409, "not among this daemon's bridges"},
			{AdoptRequestV1{Port: "br0"}, 409, "no port of a bridge"},
			{AdoptRequestV1{Port: "eth0", Group: "uplink"}, 409, "a group uplink already"},
			{AdoptRequestV1{Port: "eth0", Group: "nic2"}, 409, "a device nic2 already"},
			{AdoptRequestV1{Port: "eth0", Group: "../x"}, 400, "cannot be"},
			{AdoptRequestV1{Port: ""}, 400, "cannot be"},
			{AdoptRequestV1{Port: "eth0", Members: []string{"eth0"}}, 400, "named twice"},
			{AdoptRequestV1{Port: "eth0", Members: []string{"nic2"}}, 409, "member of group uplink"},
		} {
			_, err := d.Adopt(context.Background(), c.r)
			var status *accel.StatusError
			if !errors.As(err, &status) || status.Status != c.status || !strings.Contains(status.Text, c.says) {
				t.Errorf("%+v gives %v", c.r, err)
			}
		}
	})
}

// TestAdoptCountsTheAddressesThatMove: the kernel's own link-local one does not.
func TestAdoptCountsTheAddressesThatMove(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.withPort()
		d := l.start()
		plan := func(prefixes ...string) string {
			l.k.set("eth0", func(nic *fakeLink) {
				nic.addresses = nil
				for _, p := range prefixes {
					nic.addresses = append(nic.addresses, links.Address{Prefix: netip.MustParsePrefix(p)})
				}
			})
			c, err := d.Adopt(context.Background(), AdoptRequestV1{Port: "eth0", DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(c.Costs, "\n")
		}
		if costs := plan("192.0.2.1/24", "fe80::1/64"); !strings.Contains(costs, "addresses of eth0 (1) move") {
			t.Errorf("with both the costs are %s", costs)
		}
		if costs := plan("fe80::1/64"); strings.Contains(costs, "addresses") {
			t.Errorf("with the kernel's own the costs are %s", costs)
		}
	})
}

// TestAdoptRefusesAMemberThatCannotBeUsed before anything is changed: traffic would pay
// for a group that has no second way.
func TestAdoptRefusesAMemberThatCannotBeUsed(t *testing.T) {
	for why, spoil := range map[string]func(*lab){
		"nic3 is not there":          func(l *lab) { l.k.remove("nic3") },
		"nic3 belongs to br0":        func(l *lab) { l.k.set("nic3", func(n *fakeLink) { n.Master = l.k.find("br0").Ifindex }) },
		"nic3 takes an MTU from 0 t": func(l *lab) { l.k.set("nic3", func(n *fakeLink) { n.MaxMTU = 1300 }) },
	} {
		inLab(t, func(t *testing.T, l *lab) {
			before := l.withPort()
			l.k.nic("nic3")
			spoil(l)
			d := l.start()
			for _, dryRun := range []bool{true, false} {
				_, err := d.Adopt(context.Background(), AdoptRequestV1{Port: "eth0", Members: []string{"nic2", "nic3"}, DryRun: dryRun})
				var refused *accel.StatusError
				if !errors.As(err, &refused) || refused.Status != 409 || !strings.HasPrefix(refused.Text, "nothing was changed: "+why) ||
					!strings.HasSuffix(refused.Text, "; or adopt eth0 without nic3") {
					t.Errorf("%s: the adoption gives %v", why, err)
				}
				l.wantPutBack(before)
			}
			if len(d.Groups()) != 0 {
				t.Errorf("%s: the groups are %+v", why, d.Groups())
			}
		})
	}
}

func TestReleaseRefuses(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		for group, status := range map[string]int{"none": 404, "uplink": 409} {
			_, err := d.Release(context.Background(), ReleaseRequestV1{Group: group})
			var refused *accel.StatusError
			if !errors.As(err, &refused) || refused.Status != status {
				t.Errorf("the release of %s: %v", group, err)
			}
		}
		l.wantActive(d, "nic1")
	})
}

// TestAGroupThatTheConfigurationForgot stays wired until it is released.
func TestAGroupThatTheConfigurationForgot(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		d.swap(t, "nic2")
		l.end(d)
		l.config.Groups = nil
		d = l.start()
		l.wantActive(d, "nic2")
		if g := d.group(t, "uplink"); g.State != "degraded" || !strings.Contains(g.Why, "shunt release uplink") || g.Adopted {
			t.Errorf("the group is %+v", g)
		}
		if c, err := d.Release(context.Background(), ReleaseRequestV1{Group: "uplink"}); err != nil || c.Member != "nic2" {
			t.Errorf("the release is %+v, %v", c, err)
		}
		if l.k.link("nic2").Master == 0 || l.k.link("uplink").Ifindex != 0 {
			t.Error("nic2 did not take the place of the stable port")
		}
	})
}

func TestADaemonWithoutGroupsSaysSo(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.config.Groups = nil
		_, err := l.start().Release(context.Background(), ReleaseRequestV1{Group: "uplink"})
		if err == nil || err.Error() != "there is no group uplink; this daemon has no groups" {
			t.Errorf("got %v", err)
		}
	})
}

func TestAReboot(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		before := l.withPort()
		d := l.start()
		if _, err := d.Adopt(context.Background(), adoptEth0); err != nil {
			t.Fatal(err)
		}
		l.end(d)
		l.k.remove("eth0.s")
		l.k.set("eth0", func(nic *fakeLink) { *nic = before })
		if d = l.start(); len(d.Groups()) != 0 {
			t.Errorf("the groups are %+v", d.Groups())
		}
		l.wantPutBack(before)
	})
}

func TestAnAdoptedPortIsDeleted(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		before := l.withPort()
		d := l.adopted(t)
		l.k.remove("eth0.s")
		synctest.Wait()
		l.wantAdopted(d, before)
	})
}

func TestKept(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		if kept := l.make().Kept(); len(kept) != 0 {
			t.Errorf("before the start %v is kept", kept)
		}
		if kept := l.start().Kept(); len(kept) != 1 || !strings.Contains(kept[0], "group uplink in br0") {
			t.Errorf("kept is %v", kept)
		}
	})
}

// TestWireIsClosedFirst: a member in the bridge that is wired to it is a loop.
func TestWireIsClosedFirst(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.withPort()
		d := l.start()
		if _, err := d.Adopt(context.Background(), adoptEth0); err != nil {
			t.Fatal(err)
		}
		l.k.on("SetMaster eth0", func() {
			if _, _, members := l.k.wire("eth0.s"); len(members) != 0 {
				t.Errorf("eth0 enters the bridge while %v are wired to it", members)
			}
		})
		if _, err := d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAdoptByAnAlternativeName: the kernel tells of devices by their first.
func TestAdoptByAnAlternativeName(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		before := l.withPort()
		l.k.set("eth0", func(nic *fakeLink) { nic.altName = "enp3s0" })
		l.k.set("nic2", func(nic *fakeLink) { nic.altName = "enp4s0" })
		d := l.start()
		r := AdoptRequestV1{Port: "enp3s0", Group: "eth0.s", Members: []string{"enp4s0"}}
		if _, err := d.Adopt(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.wantAdopted(d, before)
	})
}

// TestBackupPortsAndHairpinAreRefused: neither would be the same afterwards.
func TestBackupPortsAndHairpinAreRefused(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.withPort()
		l.k.veth("tap1")
		backup := func(of string) {
			l.k.set("tap1", func(tap *fakeLink) {
				tap.Master, tap.settings.BackupPort = l.k.find("br0").Ifindex, of
			})
		}
		hairpin := func(port string, on uint32) {
			l.k.set(port, func(p *fakeLink) { p.settings = links.PortSettings{Options: map[string]uint32{"hairpin": on}} })
		}
		refused := func(what, says string, err error) {
			if status(err) != 409 || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v", what, err)
			}
		}
		d := l.start()
		backup("eth0")
		_, err := d.Adopt(context.Background(), adoptEth0)
		refused("adopt", "eth0 is the backup port of tap1", err)
		backup("")
		hairpin("eth0", 1)
		_, err = d.Adopt(context.Background(), adoptEth0)
		refused("adopt", "eth0 has hairpin on", err)
		hairpin("eth0", 0)
		if _, err := d.Adopt(context.Background(), adoptEth0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hairpin("eth0.s", 1)
		if v, err := d.Swap(context.Background(), Request{Group: "eth0.s", To: "nic2"}); err != nil || v.Result != "failed" || !strings.Contains(v.Error, "eth0.s has hairpin on") {
			t.Errorf("the swap is %+v, %v", v, err)
		}
		backup("eth0.s")
		_, err = d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"})
		refused("release", "eth0.s is the backup port of tap1", err)
		backup("")
		if _, err := d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"}); err != nil {
			t.Error(err)
		}
	})
}

// TestReleaseGivesPromiscuityBack that the port had by itself.
func TestReleaseGivesPromiscuityBack(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.withPort()
		l.k.set("eth0", func(nic *fakeLink) { nic.Promisc = true })
		before := l.k.link("eth0")
		d := l.start()
		if _, err := d.Adopt(context.Background(), adoptEth0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := d.Release(context.Background(), ReleaseRequestV1{Group: "eth0.s"}); err != nil {
			t.Fatal(err)
		}
		l.wantPutBack(before)
	})
}
