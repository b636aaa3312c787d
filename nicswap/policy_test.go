package nicswap

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// thresholds are those of every group here.
var thresholds = accel.GroupPolicy{
	AbovePackets: 20_000, BelowPackets: 5_000,
	AboveBits: 1_000_000_000, BelowBits: 100_000_000,
	Hold: 10 * time.Second,
}

// policyLab runs a policy on groups on paper, by a clock that is the test's.
type policyLab struct {
	*scriptedEngine
	log       bytes.Buffer
	upgrading atomic.Bool
	stop      func()
}

// withPolicy runs a test with a policy for every group, between two seconds of its
// clock.
func withPolicy(t *testing.T, groups map[string][]string, test func(*policyLab)) {
	synctest.Test(t, func(t *testing.T) {
		lab := &policyLab{scriptedEngine: script(t, groups)}
		var configured []accel.Group
		for _, g := range lab.groups {
			configured = append(configured, accel.Group{Name: g.Group, Policy: &thresholds})
		}
		p := newPolicy(lab, lab, func(string) bool { return lab.upgrading.Load() }, configured,
			slog.New(slog.NewTextHandler(&lab.log, nil)))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.run(ctx)
		}()
		lab.stop = func() {
			cancel()
			<-ended
		}
		defer lab.stop()
		lab.pass(500 * time.Millisecond)
		test(lab)
	})
}

// pass lets time pass and everything that it brings happen.
func (lab *policyLab) pass(d time.Duration) {
	synctest.Wait()
	time.Sleep(d)
	synctest.Wait()
}

// expect compares the swaps since the last look.
func (lab *policyLab) expect(when string, want ...string) {
	lab.t.Helper()
	if got := lab.taken(); !slices.Equal(got, want) {
		lab.t.Errorf("%s: swaps %q, want %q", when, got, want)
	}
}

var oneGroup = map[string][]string{"a": {"v0", "p0:physical"}}

func TestLoadMovesAGroupThereAndBack(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.rate("a", 23_400, 1_000_000)
		lab.pass(11 * time.Second)
		lab.expect("before the hold has passed")
		lab.pass(2 * time.Second)
		lab.expect("above for the hold", "a>p0 policy")

		lab.rate("a", 10_000, 1_000_000)
		lab.pass(time.Hour)
		lab.expect("between the thresholds")

		lab.rate("a", 1_000, 1_000_000)
		lab.pass(10 * time.Second)
		lab.expect("before the hold has passed")
		lab.pass(20 * time.Second)
		lab.expect("below for the hold", "a>v0 policy")
		lab.pass(time.Hour)
		lab.expect("at rest")
	})
}

func TestEitherIsEnoughToGoUpAndBothMustFall(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.rate("a", 100, 2_000_000_000)
		lab.pass(15 * time.Second)
		lab.expect("many bits in few packets", "a>p0 policy")
		lab.rate("a", 100, 500_000_000)
		lab.pass(time.Hour)
		lab.expect("few packets, and bits between the thresholds")
		lab.rate("a", 10_000, 1000)
		lab.pass(time.Hour)
		lab.expect("few bits, and packets between the thresholds")
	})
}

func TestTheSwapSaysWhy(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		why := func() string {
			lab.mu.Lock()
			defer lab.mu.Unlock()
			return strings.Join(lab.whys, "|")
		}
		lab.rate("a", 23_400, 1_000_000)
		lab.pass(15 * time.Second)
		if got := why(); got != "23,400 packets/s for 10 s, above 20,000" {
			t.Errorf("up: %s", got)
		}
		lab.taken()
		lab.rate("a", 1_000, 2_000_000)
		lab.pass(time.Minute)
		if got := why(); !strings.HasSuffix(got, " bit/s for 10 s, below 5,000 and 100,000,000") || !strings.Contains(got, " packets/s and ") {
			t.Errorf("down: %s", got)
		}
		lab.taken()
		lab.rate("a", 10, 3_000_000_000)
		lab.pass(15 * time.Second)
		if got := why(); !strings.HasSuffix(got, " bit/s for 10 s, above 1,000,000,000") {
			t.Errorf("up by bits: %s", got)
		}
	})
}

func TestAFlappingLoadMovesNothing(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		for range 50 {
			lab.rate("a", 40_000, 0)
			lab.pass(8 * time.Second)
			lab.rate("a", 0, 0)
			lab.pass(8 * time.Second)
		}
		lab.expect("8 s of load, 8 s of none")
	})
}

func TestAPauseOfASecondDoesNotBreakTheHold(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.rate("a", 35_000, 0)
		lab.pass(6 * time.Second)
		lab.rate("a", 0, 0)
		lab.pass(time.Second)
		lab.rate("a", 35_000, 0)
		lab.pass(6 * time.Second)
		lab.expect("load with a pause", "a>p0 policy")
	})
}

func TestCountersThatGoBackRestartTheMeasurement(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.rate("a", 40_000, 0)
		lab.pass(8 * time.Second)
		lab.change(func() { *lab.counter(10) = load{} }) // another device got the number
		lab.pass(8 * time.Second)
		lab.expect("16 s of load, 8 s since the counters went back")
		lab.pass(4 * time.Second)
		lab.expect("the hold has passed again", "a>p0 policy")
	})
}

func TestADeviceThatIsReplacedRestartsTheMeasurement(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.rate("a", 40_000, 0)
		lab.pass(8 * time.Second)
		lab.change(func() { *lab.counter(99) = load{1e9, 1e9} })
		lab.device("v0", 99, true)
		lab.pass(8 * time.Second)
		lab.expect("8 s since the device was replaced")
		lab.pass(4 * time.Second)
		lab.expect("the hold has passed again", "a>p0 policy")
	})
}

func TestASwapByTheOperatorRestartsTheMeasurement(t *testing.T) {
	withPolicy(t, map[string][]string{"a": {"v0", "v1", "p0:physical"}}, func(lab *policyLab) {
		lab.rate("a", 40_000, 0)
		lab.pass(8 * time.Second)
		if _, err := lab.Swap(context.Background(), Request{Group: "a", To: "v1", Cause: "request"}); err != nil {
			t.Fatal(err)
		}
		lab.pass(8 * time.Second)
		lab.expect("8 s since the swap", "a>v1 request")
		lab.pass(4 * time.Second)
		lab.expect("the hold has passed again", "a>p0 policy")
	})
}

// threeGuests share one physical member.
var threeGuests = map[string][]string{
	"a": {"va", "p0:physical"},
	"b": {"vb", "p0:physical"},
	"c": {"vc", "p0:physical"},
}

func TestTheBusiestGroupGetsTheSharedMember(t *testing.T) {
	withPolicy(t, threeGuests, func(lab *policyLab) {
		lab.rate("a", 30_000, 0)
		lab.rate("b", 50_000, 0)
		lab.rate("c", 40_000, 0)
		lab.pass(15 * time.Second)
		lab.expect("three want one", "b>p0 policy")

		lab.rate("c", 500_000, 0)
		lab.pass(time.Hour)
		lab.expect("a busier group takes nothing from one that is still busy")

		lab.rate("b", 0, 0)
		lab.pass(time.Minute)
		lab.expect("the holder is idle", "b>vb policy", "c>p0 policy")
	})
}

func TestTwoSharedMembersGoToTheTwoBusiest(t *testing.T) {
	withPolicy(t, map[string][]string{
		"a": {"va", "p0:physical", "p1:physical"},
		"b": {"vb", "p0:physical", "p1:physical"},
		"c": {"vc", "p0:physical", "p1:physical"},
	}, func(lab *policyLab) {
		lab.rate("a", 30_000, 0)
		lab.rate("b", 50_000, 0)
		lab.rate("c", 40_000, 0)
		lab.pass(15 * time.Second)
		lab.expect("three want two", "b>p0 policy", "c>p1 policy")
	})
}

func TestWithoutAUsableMemberItIsSaidOnce(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.device("p0", 0, false)
		lab.rate("a", 40_000, 0)
		lab.pass(time.Hour)
		lab.expect("the physical member is missing")
		if n := strings.Count(lab.log.String(), "no physical member is free and usable"); n != 1 {
			t.Errorf("said %d times:\n%s", n, lab.log.String())
		}
		lab.device("p0", 33, true)
		lab.pass(2 * time.Second)
		lab.expect("it is there", "a>p0 policy")
	})
}

func TestAMoveThatFailsIsTriedAgainLessAndLessOften(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.refuse["a>p0"] = "the MTU is refused"
		lab.rate("a", 40_000, 0)
		lab.pass(12*time.Second + 75*time.Second) // at 0, 10, 30 and 70 s after the hold
		lab.expect("failing", "a>p0 policy", "a>p0 policy", "a>p0 policy", "a>p0 policy")
		lab.pass(24 * time.Hour)
		if n := len(lab.taken()); n < 140 || n > 150 {
			t.Errorf("%d tries in a day, want one in 10 minutes", n)
		}
		if n := strings.Count(lab.log.String(), "the MTU is refused"); n != 1 {
			t.Errorf("said %d times", n)
		}
		lab.change(func() { delete(lab.refuse, "a>p0") })
		lab.pass(11 * time.Minute)
		lab.expect("it can be moved", "a>p0 policy")
		lab.rate("a", 0, 0)
		lab.pass(40 * time.Second)
		lab.expect("back: what failed was another move", "a>v0 policy")
	})
}

func TestWhatFailedIsRememberedOverASwapByTheOperator(t *testing.T) {
	withPolicy(t, map[string][]string{"a": {"v0", "v1", "p0:physical"}}, func(lab *policyLab) {
		operator := func(to string) {
			t.Helper()
			if _, err := lab.Swap(context.Background(), Request{Group: "a", To: to, Cause: "request"}); err != nil {
				t.Fatal(err)
			}
		}
		lab.refuse["a>p0"] = "the MTU is refused"
		lab.rate("a", 40_000, 0)
		lab.pass(12*time.Second + 75*time.Second)
		lab.taken()
		operator("v1")
		lab.pass(30 * time.Second)
		lab.expect("the next try is 80 s after the last", "a>v1 request")

		lab.change(func() { delete(lab.refuse, "a>p0") })
		operator("p0")
		lab.rate("a", 0, 0)
		lab.pass(15 * time.Second)
		lab.expect("the way back did not fail, and waits for nothing", "a>p0 request", "a>v0 policy")
	})
}

func TestAMemberIsGivenBackBeforeAnotherIsTaken(t *testing.T) {
	groups := map[string][]string{"a": {"va", "p0:physical"}, "b": {"p1:physical", "vb"}}
	withPolicy(t, groups, func(lab *policyLab) {
		lab.rate("a", 40_000, 0)
		lab.pass(20 * time.Second)
		lab.expect("both at once", "b>vb policy", "a>p0 policy")
	})
}

func TestAMemberThatIsNotReadyIsNotUsable(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.change(func() { lab.find("a", "p0").State = memberCold })
		lab.rate("a", 40_000, 0)
		lab.pass(time.Minute)
		lab.expect("cold, and not because it is shared")
	})
}

func TestAnUpgradeKeepsThePolicyAway(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.upgrading.Store(true)
		lab.rate("a", 40_000, 0)
		lab.pass(time.Hour)
		lab.expect("during the upgrade")
		lab.upgrading.Store(false)
		lab.pass(time.Second)
		lab.expect("after it", "a>p0 policy")
	})
}

func TestOthersAreMeasuredWhileAMoveIsUnderWay(t *testing.T) {
	groups := map[string][]string{"a": {"va", "p0:physical"}, "b": {"vb", "p1:physical"}}
	withPolicy(t, groups, func(lab *policyLab) {
		lab.slow = make(chan struct{})
		lab.rate("a", 40_000, 0)
		lab.pass(15 * time.Second)
		lab.rate("b", 30_000, 0)
		lab.pass(15 * time.Second)
		lab.expect("a's swap takes long")
		close(lab.slow)
		lab.pass(time.Millisecond)
		lab.expect("it has ended", "a>p0 policy", "b>p1 policy")
	})
}

func TestThePolicyEndsWithAMoveUnderWay(t *testing.T) {
	withPolicy(t, oneGroup, func(lab *policyLab) {
		lab.slow = make(chan struct{})
		lab.rate("a", 40_000, 0)
		lab.pass(15 * time.Second)
		lab.stop() // the swap, which waits for ever, ends with it
		lab.expect("aborted")
		if !lab.aborted.Load() {
			t.Error("the policy did not wait for its swap")
		}
	})
}
