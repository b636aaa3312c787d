package nicswap

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// Upgrades and policies with the engine itself, on the kernel on paper.

// exchange is a client whose command makes a new device of every member.
func (d *life) exchange(t *testing.T, l *lab, r UpgradeRequestV1) (outcome UpgradeV1) {
	t.Helper()
	seen := func(line any) error {
		step := line.(UpgradeStepV1)
		if step.Step == "end" {
			outcome = *step.Upgrade
		}
		if step.Step != "away" {
			return nil
		}
		for _, member := range step.Members {
			l.k.remove(member)
		}
		synctest.Wait()
		for _, member := range step.Members {
			if member == "nic2" {
				l.k.veth(member)
			} else {
				l.k.nic(member)
			}
		}
		return d.upgrades.report(step.ID, UpgradeDoneV1{Member: step.Member})
	}
	if err := d.upgrades.run(context.Background(), r, seen); err != nil {
		t.Fatal(err)
	}
	return outcome
}

func TestAnUpgradeExchangesTheDevicesOfAGroup(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		port := d.group(t, "uplink").Ifindex
		before := l.k.link("nic1").Ifindex
		outcome := d.exchange(t, l, UpgradeRequestV1{Group: "uplink"})
		if outcome.Result != resultDone || !slices.Equal(outcome.Upgraded, []string{"nic2", "nic1"}) {
			t.Errorf("outcome %+v", outcome)
		}
		g := d.group(t, "uplink")
		if g.State != groupReady || g.Active != "nic1" || g.Ifindex != port || g.Members[0].Ifindex == before {
			t.Errorf("after the upgrade: %+v", g)
		}
		var causes []string
		for _, s := range d.Swaps() {
			causes = append(causes, s.To+" "+s.Cause+" "+s.Result)
		}
		if want := []string{"nic1 upgrade done", "nic2 upgrade done"}; !slices.Equal(causes, want) {
			t.Errorf("swaps %q", causes)
		}
	})
}

func TestAnUpgradeOfADriverMovesBothGroups(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.nic("nic3")
		l.k.veth("nic4")
		other := uplink()
		other.Name, other.Port, other.Members = "other", "other", []string{"nic3", "nic4"}
		l.config.Groups = append(l.config.Groups, other)
		d := l.start()
		outcome := d.exchange(t, l, UpgradeRequestV1{Driver: "ixgbe"})
		if outcome.Result != resultDone || !slices.Equal(outcome.Upgraded, []string{"nic1", "nic3"}) {
			t.Errorf("outcome %+v", outcome)
		}
		for _, name := range []string{"uplink", "other"} {
			if g := d.group(t, name); g.State != groupReady || g.Active != g.Members[0].Member {
				t.Errorf("after the upgrade: %+v", g)
			}
		}
	})
}

func TestTheDaemonsEndEndsAnUpgrade(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		ended := make(chan error, 1)
		away := make(chan struct{})
		go func() {
			ended <- d.upgrades.run(context.Background(), UpgradeRequestV1{Group: "uplink"}, func(line any) error {
				if line.(UpgradeStepV1).Step == "away" {
					close(away)
				}
				return nil
			})
		}()
		<-away
		l.end(d)
		if err := <-ended; err != errStopping {
			t.Errorf("run: %v", err)
		}
		next := l.start()
		if g := next.group(t, "uplink"); g.State != groupReady || g.Active != "nic1" {
			t.Errorf("the next daemon: %+v", g)
		}
	})
}

func TestAnIdleGroupLeavesThePhysicalMember(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.config.Groups[0].Policy = &accel.GroupPolicy{AbovePackets: 20_000, BelowPackets: 5_000, Hold: 10 * time.Second}
		d := l.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		swaps := d.Swaps()
		if len(swaps) != 1 || swaps[0].Cause != "policy" || swaps[0].To != "nic2" || swaps[0].Why != "0 packets/s for 10 s, below 5,000" {
			t.Errorf("swaps %+v", swaps)
		}
	})
}
