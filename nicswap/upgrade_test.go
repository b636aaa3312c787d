package nicswap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// upgradeLab is an upgrader for groups on paper, and its client, by a clock that is
// the test's.
type upgradeLab struct {
	*scriptedEngine
	u    *upgrader
	dir  string
	gone func() // the client goes
	ctx  context.Context

	// command is what the client runs, for a member or for "".
	command func(member string) error
	// seen is called with every step before the client acts on it; with an error
	// the client has gone.
	seen func(n int, step UpgradeStepV1) error

	client sync.WaitGroup
	mu2    sync.Mutex
	steps  []string
	end    *UpgradeV1
}

// withUpgrader runs a test with an upgrader whose client's command makes a new
// device of the member.
func withUpgrader(t *testing.T, groups map[string][]string, test func(*upgradeLab)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		lab := &upgradeLab{scriptedEngine: script(t, groups), dir: dir}
		lab.u = newUpgrader(lab, lab.announce)
		lab.u.start(newJournals(dir, 1, writeFile), slog.New(slog.DiscardHandler))
		defer lab.u.stop()
		lab.ctx, lab.gone = context.WithCancel(context.Background())
		defer lab.gone()
		next := 100
		lab.command = func(member string) error {
			next++
			lab.device(member, 0, false)
			lab.device(member, next, true)
			return nil
		}
		lab.seen = func(int, UpgradeStepV1) error { return nil }
		test(lab)
	})
}

// upgrade asks for an upgrade and is its client until its end.
func (lab *upgradeLab) upgrade(r UpgradeRequestV1) error {
	defer lab.client.Wait()
	lab.steps, lab.end = nil, nil
	return lab.u.run(lab.ctx, r, lab.receive)
}

func (lab *upgradeLab) receive(line any) error {
	step := line.(UpgradeStepV1)
	if lab.ctx.Err() != nil {
		return errors.New("the connection is closed")
	}
	n := len(lab.steps)
	lab.steps = append(lab.steps, strings.Join(slices.DeleteFunc(
		[]string{step.Step, step.Member, strings.Join(step.Members, "+"), "of", strings.Join(step.Groups, "+")},
		func(s string) bool { return s == "" }), " "))
	lab.end = step.Upgrade
	if err := lab.seen(n, step); err != nil {
		return err
	}
	if step.Step == "away" && lab.ctx.Err() == nil {
		lab.client.Go(func() { lab.runCommand(step) })
	}
	return nil
}

func (lab *upgradeLab) runCommand(step UpgradeStepV1) {
	lab.mu2.Lock()
	defer lab.mu2.Unlock()
	done := UpgradeDoneV1{Member: step.Member}
	if step.Member != "" {
		lab.checkAway(step)
	}
	if err := lab.command(step.Member); err != nil {
		done.Error = err.Error()
	}
	if err := lab.u.report(step.ID, done); err != nil && lab.ctx.Err() == nil {
		lab.t.Errorf("report %s: %v", step.Member, err)
	}
}

// checkAway: while the command runs, nothing can choose the member.
func (lab *upgradeLab) checkAway(step UpgradeStepV1) {
	for _, g := range lab.Groups() {
		for _, m := range g.Members {
			if slices.Contains(step.Members, m.Member) && m.State != "away" {
				lab.t.Errorf("the command runs for %s, which is %s in %s", m.Member, m.State, g.Group)
			}
		}
	}
}

// expectSteps compares what the client was told.
func (lab *upgradeLab) expectSteps(want ...string) {
	lab.t.Helper()
	if !slices.Equal(lab.steps, want) {
		lab.t.Errorf("steps:\n%s\nwant:\n%s", strings.Join(lab.steps, "\n"), strings.Join(want, "\n"))
	}
}

// expectOver: nothing is left of the upgrade, and it was announced.
func (lab *upgradeLab) expectOver(text string) {
	lab.t.Helper()
	lab.scriptedEngine.mu.Lock()
	reserved, events := len(lab.reserved), slices.Clone(lab.events)
	lab.scriptedEngine.mu.Unlock()
	if reserved > 0 {
		lab.t.Errorf("%d members are still reserved", reserved)
	}
	if len(events) == 0 || events[len(events)-1].Event != "upgrade" || !strings.Contains(events[len(events)-1].Text, text) {
		lab.t.Errorf("events %+v, want the last with %q", events, text)
	}
	lab.expectJournals(0)
	for _, g := range lab.Groups() {
		if lab.u.upgrading(g.Group) {
			lab.t.Errorf("group %s is still being upgraded", g.Group)
		}
		if g.Active == "" {
			lab.t.Errorf("group %s has no active member", g.Group)
		}
	}
}

func (lab *upgradeLab) expectJournals(want int) {
	lab.t.Helper()
	entries, err := filepath.Glob(filepath.Join(lab.dir, "upgrades", "*"))
	if err != nil || len(entries) != want {
		lab.t.Errorf("journals %v (%v), want %d", entries, err, want)
	}
}

func expectRefused(t *testing.T, err error, status int, text string) {
	t.Helper()
	var refused *accel.StatusError
	if !errors.As(err, &refused) || refused.Status != status || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want status %d with %q", err, status, text)
	}
}

var twoMembers = map[string][]string{"a": {"e0", "e1"}}

func TestAGroupsMembersAreUpgradedInTurn(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		lab.expectSteps(
			"begin e1+e0 of a",
			"away e1 e1 of a", "back e1 of a",
			"moved e1 of a", "away e0 e0 of a", "back e0 of a",
			"moved e0 of a",
			"end e1+e0 of a")
		if got := lab.taken(); !slices.Equal(got, []string{"a>e1 upgrade", "a>e0 upgrade"}) {
			t.Errorf("swaps %q", got)
		}
		if lab.end.Result != "done" || len(lab.end.Left) != 0 {
			t.Errorf("outcome %+v", lab.end)
		}
		lab.expectOver("the upgrade of group a is done: e1, e0")
	})
}

func TestAMemberThatComesBackLaterIsAwaited(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		command := lab.command
		lab.command = func(member string) error {
			lab.device(member, 0, false)
			lab.client.Go(func() {
				time.Sleep(90 * time.Second)
				lab.device(member, 200, false) // there, but no carrier yet
				time.Sleep(20 * time.Second)
				_ = command(member)
				lab.change(func() { lab.find("a", member).State = memberCold }) // being made ready
				time.Sleep(5 * time.Second)
				lab.change(func() { lab.find("a", member).State = memberStandby })
			})
			return nil
		}
		began := time.Now()
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		lab.expectOver("is done")
		if passed := time.Since(began); passed < 230*time.Second {
			t.Errorf("the upgrade did not wait for the member to be ready: %v", passed)
		}
	})
}

func TestTheFirstThatDoesNotComeBackEndsTheUpgrade(t *testing.T) {
	withUpgrader(t, map[string][]string{"a": {"e0", "e1", "e2"}}, func(lab *upgradeLab) {
		command := lab.command
		lab.command = func(member string) error {
			if member == "e2" {
				lab.device(member, 0, false)
				return nil
			}
			return command(member)
		}
		if err := lab.upgrade(UpgradeRequestV1{Group: "a", TimeoutMS: 30_000}); err != nil {
			t.Fatal(err)
		}
		if lab.end.Result != "failed" || lab.end.Error != "e2 did not come back within 30s" ||
			!slices.Equal(lab.end.Upgraded, []string{"e1"}) || !slices.Equal(lab.end.Left, []string{"e0"}) {
			t.Errorf("outcome %+v", lab.end)
		}
		lab.expectOver("e2 is not there, and taken back when it is")
		if lab.active("a") != "e0" {
			t.Errorf("active is %s", lab.active("a"))
		}
	})
}

func TestAGroupStaysOnTheMemberThatWorks(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		command := lab.command
		lab.command = func(member string) error {
			if member == "e0" { // the one that was active
				return errors.New("exit status 3")
			}
			return command(member)
		}
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		lab.expectOver("failed: the command for e0 failed: exit status 3; e0 is there and taken back as a standby")
		if lab.active("a") != "e1" {
			t.Errorf("active is %s, whose command failed", lab.active("a"))
		}
	})
}

func TestAMemberThatIsBackAndUnfitEndsTheUpgrade(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		lab.refuse["a>e1"] = "it has an address"
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		lab.expectOver("e1 is back, but cannot carry group a: it has an address")
	})
}

func TestADriverTakesItsMembersOfAllGroupsAlong(t *testing.T) {
	groups := map[string][]string{
		"a": {"e0:physical", "v0"},
		"b": {"e1:physical", "v1"},
		"c": {"v2", "v3"},
	}
	withUpgrader(t, groups, func(lab *upgradeLab) {
		lab.command = func(member string) error {
			for _, member := range []string{"e0", "e1"} {
				lab.device(member, 0, false)
			}
			for i, member := range []string{"e0", "e1"} {
				lab.device(member, 100+i, true)
			}
			return nil
		}
		if err := lab.upgrade(UpgradeRequestV1{Driver: "drv"}); err != nil {
			t.Fatal(err)
		}
		lab.expectSteps(
			"begin e0+e1 of a+b",
			"moved v0 of a", "moved v1 of b",
			"away e0+e1 of a+b", "back e0+e1 of a+b",
			"moved e0 of a", "moved e1 of b",
			"end e0+e1 of a+b")
		lab.expectOver("the upgrade of driver drv is done: e0, e1")
	})
}

func TestADriversCommandMayBeForEachMember(t *testing.T) {
	withUpgrader(t, map[string][]string{"a": {"e0:physical", "v0"}, "b": {"v1", "e1:physical"}}, func(lab *upgradeLab) {
		if err := lab.upgrade(UpgradeRequestV1{Driver: "drv", Each: true}); err != nil {
			t.Fatal(err)
		}
		lab.expectSteps(
			"begin e0+e1 of a+b",
			"moved v0 of a",
			"away e0 e0 of a", "away e1 e1 of b", "back e0+e1 of a+b",
			"moved e0 of a",
			"end e0+e1 of a+b")
	})
}

func TestALinkKindIsADriverToo(t *testing.T) {
	withUpgrader(t, map[string][]string{"a": {"v0", "e0:physical"}}, func(lab *upgradeLab) {
		lab.change(func() { lab.find("a", "v0").Driver = "" })
		if err := lab.upgrade(UpgradeRequestV1{Driver: "veth", Each: true}); err != nil {
			t.Fatal(err)
		}
		lab.expectOver("is done: v0")
	})
}

func TestASharedMemberIsTakenFromTheGroupThatHasIt(t *testing.T) {
	withUpgrader(t, map[string][]string{"a": {"e0", "p0:physical", "v0"}, "b": {"p0:physical", "v1"}}, func(lab *upgradeLab) {
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		if lab.end.Result != "failed" && lab.active("b") != "p0" {
			t.Errorf("b is on %s", lab.active("b"))
		}
		if !slices.Contains(lab.steps, "moved v1 of b") || !slices.Contains(lab.steps, "away p0 p0 of a+b") {
			t.Errorf("steps %q", lab.steps)
		}
	})
}

func TestAnUpgradeThatWouldEmptyAGroupIsRefused(t *testing.T) {
	groups := map[string][]string{"a": {"e0:physical", "v0"}, "b": {"e1:physical", "e2:physical"}, "c": {"e3:physical"}}
	withUpgrader(t, groups, func(lab *upgradeLab) {
		err := lab.upgrade(UpgradeRequestV1{Driver: "drv"})
		expectRefused(t, err, http.StatusConflict, "groups b, c would be left without a usable member")
		err = lab.upgrade(UpgradeRequestV1{Group: "c"})
		expectRefused(t, err, http.StatusConflict, "group c would be left")
		lab.device("v0", 11, false)
		err = lab.upgrade(UpgradeRequestV1{Group: "a"})
		expectRefused(t, err, http.StatusConflict, "group a would be left")
		if len(lab.taken()) > 0 || len(lab.steps) > 0 {
			t.Errorf("something was done: %q", lab.steps)
		}
		lab.u.stop() // a refused upgrade leaves nothing to wait for
	})
}

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		for _, c := range []struct {
			r      UpgradeRequestV1
			status int
			text   string
		}{
			{UpgradeRequestV1{}, http.StatusBadRequest, "a group or a driver"},
			{UpgradeRequestV1{Group: "a", Driver: "veth"}, http.StatusBadRequest, "not both"},
			{UpgradeRequestV1{Group: "x"}, http.StatusNotFound, "no group x"},
			{UpgradeRequestV1{Driver: "x"}, http.StatusNotFound, "the driver x"},
			{UpgradeRequestV1{Group: "a", TimeoutMS: -1}, http.StatusBadRequest, "timeout"},
		} {
			expectRefused(t, lab.upgrade(c.r), c.status, c.text)
		}
		expectRefused(t, lab.u.report("x", UpgradeDoneV1{}), http.StatusNotFound, "no upgrade x")
		expectRefused(t, lab.u.askStop("x"), http.StatusNotFound, "no upgrade x")
	})
}

func TestASecondUpgradeOfAGroupIsRefused(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		lab.command = func(string) error {
			err := lab.u.run(lab.ctx, UpgradeRequestV1{Driver: "veth"}, func(any) error { return nil })
			expectRefused(t, err, http.StatusConflict, "group a is being upgraded since")
			return errors.New("enough")
		}
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestOnlyTheAwaitedCommandIsTaken(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		lab.seen = func(_ int, step UpgradeStepV1) error {
			if step.Step == "away" {
				expectRefused(t, lab.u.report(step.ID, UpgradeDoneV1{Member: "e7"}), http.StatusConflict, `"e7"`)
			}
			if step.Step == "back" {
				expectRefused(t, lab.u.report(step.ID, UpgradeDoneV1{Member: "e1"}), http.StatusConflict, `"e1"`)
			}
			return nil
		}
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		lab.expectOver("is done")
	})
}

func TestTheClientMayStopAfterAMember(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		lab.seen = func(_ int, step UpgradeStepV1) error {
			if step.Step == "away" {
				return errors.Join(lab.u.askStop(step.ID), lab.u.askStop(step.ID))
			}
			return nil
		}
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		if lab.end.Result != "stopped" || !slices.Equal(lab.end.Upgraded, []string{"e1"}) || !slices.Equal(lab.end.Left, []string{"e0"}) {
			t.Errorf("outcome %+v", lab.end)
		}
		lab.expectSteps("begin e1+e0 of a", "away e1 e1 of a", "back e1 of a", "end e1 of a")
		lab.expectOver("stopped as asked; not upgraded: e0")
	})
}

// TestTheClientMayDieAtEveryStep: nothing stays away, nothing stays reserved, and the
// next upgrade can begin.
func TestTheClientMayDieAtEveryStep(t *testing.T) {
	groups := map[string][]string{"a": {"e0:physical", "e1:physical"}, "b": {"e2:physical", "v0"}}
	requests := []UpgradeRequestV1{{Group: "a"}, {Driver: "veth"}}
	for _, how := range []string{"unable to be told", "after it was told"} {
		for _, request := range requests {
			for at := 0; ; at++ {
				reached := false
				t.Run(fmt.Sprintf("%s%s, step %d, %s", request.Group, request.Driver, at, how), func(t *testing.T) {
					withUpgrader(t, groups, func(lab *upgradeLab) {
						reached = lab.dieAt(at, how, request)
					})
				})
				if !reached {
					break
				}
			}
		}
	}
}

// dieAt lets the client die at its n-th step, and returns whether there was one.
func (lab *upgradeLab) dieAt(at int, how string, request UpgradeRequestV1) (reached bool) {
	moved := false // a command was begun and its member is not back
	lab.seen = func(n int, step UpgradeStepV1) error {
		if n != at {
			moved = step.Step == "away" || moved && step.Step != "back"
			return nil
		}
		reached = true
		moved = moved || step.Step == "away"
		lab.gone()
		if how == "unable to be told" {
			return errors.New("broken pipe")
		}
		return nil
	}
	lab.command = func(string) error { return nil }
	if err := lab.upgrade(request); err != nil {
		lab.t.Fatal(err)
	}
	synctest.Wait()
	lab.expectOver("the upgrade of ")
	if reached && !moved && (lab.active("a") != "e0" || lab.active("b") != "e2") {
		lab.t.Errorf("no member is in doubt, but a is on %s and b on %s", lab.active("a"), lab.active("b"))
	}
	lab.ctx, lab.gone = context.WithCancel(context.Background())
	lab.seen = func(int, UpgradeStepV1) error { return nil }
	if err := lab.upgrade(request); err != nil {
		lab.t.Errorf("the next upgrade: %v", err)
	}
	lab.expectOver("is done")
	lab.gone()
	return reached
}

func TestNothingIsTakenAwayIfItCannotBeJournalled(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		file := filepath.Join(lab.dir, "full")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		lab.u.journals = newJournals(file, 1, writeFile) // its directory cannot be made
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		if lab.end.Result != "failed" || !strings.Contains(lab.end.Error, "cannot be journalled") || len(lab.end.Left) != 2 {
			t.Errorf("outcome %+v", lab.end)
		}
		if swaps := lab.taken(); len(swaps) > 0 {
			t.Errorf("swaps %q", swaps)
		}
	})
}

func TestAGroupThatCannotBeMovedLeavesTheOthersWhereTheyWere(t *testing.T) {
	groups := map[string][]string{"a": {"e0:physical", "v0"}, "b": {"e1:physical", "v1"}}
	withUpgrader(t, groups, func(lab *upgradeLab) {
		lab.refuse["b>v1"] = "the probe is not answered"
		if err := lab.upgrade(UpgradeRequestV1{Driver: "drv"}); err != nil {
			t.Fatal(err)
		}
		if lab.active("a") != "e0" || lab.active("b") != "e1" {
			t.Errorf("a is on %s, b on %s", lab.active("a"), lab.active("b"))
		}
		lab.expectOver("group b cannot be moved to v1: the probe is not answered")
	})
}

func TestTheNextMemberIsTriedIfTheFirstTakesNoTraffic(t *testing.T) {
	withUpgrader(t, map[string][]string{"a": {"e0:physical", "v0", "v1"}}, func(lab *upgradeLab) {
		lab.refuse["a>v0"] = "the probe is not answered"
		if err := lab.upgrade(UpgradeRequestV1{Driver: "drv"}); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(lab.steps, "moved v1 of a") {
			t.Errorf("steps %q", lab.steps)
		}
		lab.expectOver("is done")
	})
}

func TestASwapThatIsRunningIsAwaited(t *testing.T) {
	withUpgrader(t, map[string][]string{"a": {"e0:physical", "v0"}}, func(lab *upgradeLab) {
		state := func(state string) { lab.change(func() { lab.groups[0].State = state }) }
		state(groupSwapping) // before the traffic is moved
		lab.seen = func(_ int, step UpgradeStepV1) error {
			if step.Step == "away" || step.Step == "back" {
				state(groupSwapping) // and before the member is looked at, and before it gets it back
			}
			return nil
		}
		lab.client.Go(func() {
			for range 4 {
				time.Sleep(5 * time.Second)
				state(groupReady)
			}
		})
		if err := lab.upgrade(UpgradeRequestV1{Driver: "drv", Each: true}); err != nil {
			t.Fatal(err)
		}
		lab.expectOver("is done")
	})
}

// TestADaemonThatStopsEndsTheUpgradeAndTheNextSaysSo: what stops is the daemon that
// is asked to, so there is time to take the member back.
func TestADaemonThatStopsEndsTheUpgradeAndTheNextSaysSo(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		stopping := errors.New("the daemon is stopping")
		ctx, stop := context.WithCancelCause(context.Background())
		lab.ctx = ctx
		lab.command = func(member string) error {
			lab.device(member, 0, false)
			stop(stopping)
			return nil
		}
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != stopping {
			t.Errorf("run: %v", err)
		}
		if len(lab.reserved) > 0 {
			t.Error("a member is still reserved")
		}
		lab.expectJournals(1)
		lab.restart()
		lab.expectJournals(1)
		lab.device("e1", 55, true)
		synctest.Wait()
		lab.expectOver("interrupted by the end of the daemon; e1 is in service; before it, the traffic was on e0")
	})
}

// TestADaemonThatIsKilledIsFollowedByOneThatKnows: the journal is as the first left
// it while the command ran.
func TestADaemonThatIsKilledIsFollowedByOneThatKnows(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		killed := lab.dir
		lab.dir = t.TempDir()
		lab.command = func(member string) error {
			if err := os.CopyFS(lab.dir, os.DirFS(killed)); err != nil {
				t.Error(err)
			}
			return errors.New("enough")
		}
		if err := lab.upgrade(UpgradeRequestV1{Group: "a"}); err != nil {
			t.Fatal(err)
		}
		lab.device("e1", 0, false)
		lab.restart()
		lab.expectJournals(1)
		lab.restart() // once more in the middle
		lab.expectJournals(1)
		lab.device("e1", 66, true)
		synctest.Wait()
		lab.expectOver("e1 is in service")
	})
}

// restart makes a new upgrader over the same groups and the same directory.
func (lab *upgradeLab) restart() {
	lab.u.stop()
	lab.u = newUpgrader(lab, lab.announce)
	lab.u.start(newJournals(lab.dir, 1, writeFile), slog.New(slog.DiscardHandler))
	synctest.Wait()
}

func TestAJournalThatCannotBeReadIsRemoved(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		dir := filepath.Join(lab.dir, "upgrades")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"cut.json": `{"id": "cu`, "other.json": `{"id":"x"}`} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		lab.restart()
		lab.expectJournals(0)
	})
}

func TestAJournalOfMembersThatAreNoneAnyMoreIsForgotten(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		j := upgradeJournal{ID: "x", Away: []placement{{"a", "e9"}, {"z", "e0"}}}
		if err := lab.u.journals.write(j); err != nil {
			t.Fatal(err)
		}
		lab.restart()
		lab.expectJournals(0)
	})
}

func TestTheJournalsOfOtherNamespacesAreLeftAlone(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		j := upgradeJournal{ID: "x", Away: []placement{{"a", "e0"}}}
		if err := newJournals(lab.dir, 2, writeFile).write(j); err != nil {
			t.Fatal(err)
		}
		lab.restart()
		lab.expectJournals(1)
	})
}

func TestNoUpgradeBeginsInADaemonThatStops(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		lab.u.stop()
		expectRefused(t, lab.upgrade(UpgradeRequestV1{Group: "a"}), http.StatusServiceUnavailable, "stops")
	})
}
