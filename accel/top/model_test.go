package top

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/shunt-dev/shunt/accel"
)

// snapshotAt is that of a bridge with two ports.
func snapshotAt(pid int, at time.Duration, fast, slow uint64) accel.SnapshotV1 {
	traffic := accel.TrafficV1{Fast: fast, Slow: slow, FastBytes: 100 * fast, SlowBytes: 60 * slow}
	return accel.SnapshotV1{
		TimeNS: int64(at),
		Status: accel.StatusV1{Ready: true, PID: pid, Bridges: []accel.BridgeV1{{Name: "br0", Eligible: true}}},
		Ports: []accel.PortV1{
			{Port: "p1", Bridge: "br0", Ifindex: 1, TrafficV1: traffic},
			{Port: "p2", Bridge: "br0", Ifindex: 2, TrafficV1: traffic},
		},
		Reasons: []accel.ReasonV1{{Reason: accel.Fast, Frames: 2 * fast}, {Reason: accel.ARP, Frames: 2 * slow}},
	}
}

func readingAt(pid int, at time.Duration, fast, slow uint64) reading {
	return reading{snapshot: snapshotAt(pid, at, fast, slow)}
}

// after is a model that was told all this.
func after(messages ...tea.Msg) model {
	var m tea.Model = model{interval: time.Second}
	for _, message := range messages {
		m, _ = m.Update(message)
	}
	return m.(model)
}

func TestRatesAreOfTheDaemonsOwnTime(t *testing.T) {
	r := between(snapshotAt(1, 10*time.Second, 1000, 10), snapshotAt(1, 12500*time.Millisecond, 6000, 20))
	want := flow{known: true, fast: 2000, fastBits: 1_600_000, slow: 4, slowBits: 8 * 240}
	if got := r.ports[portKey{"br0", 1}]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := r.bridges["br0"]; got != want.add(want) || got.fast != 4000 {
		t.Errorf("the bridge: %+v", got)
	}
	if r.reasons[accel.ARP] != 8 {
		t.Errorf("the reasons: %v", r.reasons)
	}
}

// TestOneFrameASecondIsOne though the second reading comes late.
func TestOneFrameASecondIsOne(t *testing.T) {
	r := between(snapshotAt(1, time.Second, 1000, 10), snapshotAt(1, 2004*time.Millisecond, 1001, 11))
	if got := r.ports[portKey{"br0", 1}]; got.fast != 1 || got.slow != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestRatesThatAreNotKnown(t *testing.T) {
	before := snapshotAt(1, time.Second, 1000, 10)
	for what, after := range map[string]accel.SnapshotV1{
		"another daemon":      snapshotAt(2, 2*time.Second, 2000, 20),
		"a clock that stands": snapshotAt(1, time.Second, 2000, 20),
		"a clock that is set": snapshotAt(1, 0, 2000, 20),
		"counters begun anew": snapshotAt(1, 2*time.Second, 999, 9),
	} {
		r := between(before, after)
		if r.ports[portKey{"br0", 1}].known || r.bridges["br0"].known {
			t.Errorf("%s: got %+v", what, r)
		}
		if _, ok := r.reasons[accel.ARP]; ok {
			t.Errorf("%s: got %v", what, r.reasons)
		}
	}
}

// TestPortThatComesBack is a new one, and leaves the rates of the others.
func TestPortThatComesBack(t *testing.T) {
	before, after := snapshotAt(1, time.Second, 1000, 0), snapshotAt(1, 2*time.Second, 1500, 0)
	after.Ports[1].Ifindex = 3
	r := between(before, after)
	if _, ok := r.ports[portKey{"br0", 3}]; ok || r.bridges["br0"].fast != 500 {
		t.Errorf("got %+v", r)
	}
}

func TestReasonsAreRankedByRate(t *testing.T) {
	reasons := []accel.ReasonV1{
		{Reason: accel.Fast, Frames: 1 << 40}, {Reason: accel.MTU, Frames: 1000}, {Reason: accel.ARP, Frames: 5}, {Reason: accel.Multicast, Frames: 7}, {Reason: accel.LLC, Frames: 5},
	}
	ranked := rates{reasons: map[accel.Reason]uint64{accel.ARP: 3, accel.MTU: 1}}.rank(reasons)
	var names []string
	for _, r := range ranked {
		names = append(names, r.Reason.String())
	}
	if got := strings.Join(names, " "); got != "arp mtu multicast llc" {
		t.Errorf("got %s", got)
	}
}

func TestReasonThatIsNewHasARate(t *testing.T) {
	before, after := snapshotAt(1, time.Second, 1, 0), snapshotAt(1, 2*time.Second, 1, 50)
	before.Reasons = before.Reasons[:1]
	if rate := between(before, after).reasons[accel.ARP]; rate != 100 {
		t.Errorf("got %d", rate)
	}
}

// TestNothingStaleIsShownAsNow: no rates while the daemon is away, nor of the time
// when it was.
func TestNothingStaleIsShownAsNow(t *testing.T) {
	size := tea.WindowSizeMsg{Width: 80, Height: 24}
	m := after(size, readingAt(1, time.Second, 1000, 10), readingAt(1, 2*time.Second, 2000, 20))
	mustShow(t, m, "2000  ")
	gone := reading{err: errors.New("no daemon answers")}
	m = after(size, readingAt(1, time.Second, 1000, 10), readingAt(1, 2*time.Second, 2000, 20), gone)
	mustShow(t, m, "no daemon answers", "  p1  ")
	mustNotShow(t, m, "2000")
	m = after(size, readingAt(1, time.Second, 1000, 10), gone, readingAt(1, 60*time.Second, 9000, 10))
	if m.rated() || m.trouble != nil {
		t.Error("rates of the time when it was away")
	}
}

var uplink = group{Group: "uplink", Bridge: "br0", State: "ready", Active: "eth0", Members: []member{{Member: "eth0", State: "active"}, {Member: "eth1", State: "standby"}}}

func withGroups() reading {
	r := readingAt(1, time.Second, 1, 1)
	r.groups = []group{uplink}
	return r
}

func TestSwapIsFollowed(t *testing.T) {
	size := tea.WindowSizeMsg{Width: 80, Height: 24}
	enter := func(phase string) event { return event{Group: "uplink", Event: "phase", Phase: phase, Member: "eth1"} }
	m := after(size, withGroups(), enter("check"), enter("prewarm"))
	mustShow(t, m, "uplink   eth0  eth1  running", "    check, prewarm\n", "swap uplink: eth0 to eth1: prewarm")

	m = after(size, withGroups(), enter("check"), event{Group: "uplink", Event: "phase", Phase: "check", Member: "eth2"})
	if len(m.running) != 1 || m.running[0].To != "eth2" {
		t.Errorf("a swap that took the place of another: %+v", m.running)
	}
	over := event{Group: "uplink", Event: "swap", Swap: &swap{
		Group: "uplink", From: "eth0", To: "eth1", Result: "done", Cause: "request", FlipNS: 1234, Phases: []phase{{"prewarm", 12.345}, {"flip", 0.001}},
	}}
	m = after(size, withGroups(), enter("check"), over)
	mustShow(t, m, "done", "    prewarm 12.3ms, flip 1.2us\n", "q quits")
	mustNotShow(t, m, "running")

	m = after(size, withGroups(), enter("check"), unfollowed{})
	mustNotShow(t, m, "running") // nobody knows
	m = after(size, withGroups(), event{Group: "other", Event: "phase", Phase: "check", Member: "eth1"})
	mustNotShow(t, m, "running")
}

func TestStatesAreTakenFromEvents(t *testing.T) {
	first := withGroups()
	m := after(tea.WindowSizeMsg{Width: 80, Height: 24}, first,
		event{Group: "uplink", Event: "member", Member: "eth1", State: "no_carrier"}, event{Group: "uplink", Event: "group", State: "degraded"})
	mustShow(t, m, "degraded", "no_carrier")
	if first.groups[0].State != "ready" || first.groups[0].Members[1].State != "standby" {
		t.Error("a message was changed")
	}
}

func TestNamesCommandNoTerminal(t *testing.T) {
	const odd = "\x1b[2J"
	r := readingAt(1, time.Second, 1000, 10)
	r.snapshot.Ports[0].Port = odd
	r.groups = []group{{Group: odd, Bridge: odd, Active: odd, Members: []member{{Member: odd}}}}
	m := after(tea.WindowSizeMsg{Width: 80, Height: 40}, r, event{Group: odd, Event: "phase", Member: odd, Phase: odd})
	for _, line := range m.draw() {
		if strings.Contains(line, "\x1b") {
			t.Errorf("%q", line)
		}
	}
	if foot := m.foot(); !strings.Contains(foot, `\x1b[2J`) {
		t.Errorf("%q", foot)
	}
}

func TestKeysEnd(t *testing.T) {
	for _, key := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		if _, do := after().Update(key); do == nil || do() != tea.Quit() {
			t.Errorf("%v does not end", key)
		}
	}
	if _, do := after().Update(tea.KeyPressMsg{Code: 'x', Text: "x"}); do != nil {
		t.Error("x does something")
	}
}

// TestEveryScreenIsWhole draws whatever may come, with whatever keys, in terminals of
// any size: as many lines as there are, none wider.
func TestEveryScreenIsWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	keys := []tea.KeyPressMsg{{Code: tea.KeyDown}, {Code: tea.KeyUp}, {Code: tea.KeyPgDown}, {Code: tea.KeyPgUp}, {Code: tea.KeyEnd}, {Code: tea.KeyHome}, {Code: tea.KeyTab}}
	for range 300 {
		width, height := 40+random.IntN(200), 1+random.IntN(60)
		var m tea.Model = after(tea.WindowSizeMsg{Width: width, Height: height}, anything(random))
		for range random.IntN(20) {
			m, _ = m.Update(keys[random.IntN(len(keys))])
			if random.IntN(4) == 0 {
				m, _ = m.Update(anything(random))
			}
		}
		lines := m.(model).draw()
		if len(lines) != height {
			t.Fatalf("%d lines for a terminal of %dx%d", len(lines), width, height)
		}
		for _, line := range lines {
			if ansi.StringWidth(line) > width {
				t.Fatalf("%d columns for a terminal of %dx%d: %q", ansi.StringWidth(line), width, height, line)
			}
		}
	}
}

// anything is a reading with names as long as they can be.
func anything(random *rand.Rand) reading {
	if random.IntN(5) == 0 {
		return reading{err: errors.New(strings.Repeat("the daemon is not there ", random.IntN(9)))}
	}
	name := func(i int) string { return fmt.Sprintf("a-long-name-%03d", i) }
	all := accel.Reasons()
	r := reading{snapshot: accel.SnapshotV1{TimeNS: 1 + random.Int64N(1e10), Status: accel.StatusV1{PID: 1 << 22}}}
	for i := range random.IntN(4) {
		reason := all[random.IntN(len(all))]
		r.snapshot.Status.Bridges = append(r.snapshot.Status.Bridges, accel.BridgeV1{Name: name(i), Reason: reason, Text: reason.Text()})
		for j := range random.IntN(50) {
			traffic := accel.TrafficV1{Fast: random.Uint64(), Slow: random.Uint64(), FastBytes: random.Uint64(), SlowBytes: random.Uint64()}
			r.snapshot.Ports = append(r.snapshot.Ports, accel.PortV1{Port: name(j), Bridge: name(i), Ifindex: j, In: reason, Out: all[random.IntN(len(all))], TrafficV1: traffic})
		}
	}
	for _, reason := range all {
		if random.IntN(4) == 0 {
			r.snapshot.Reasons = append(r.snapshot.Reasons, accel.ReasonV1{Reason: reason, Frames: random.Uint64(), Text: reason.Text(), Advice: reason.Advice()})
		}
	}
	for i := range random.IntN(3) {
		r.groups = append(r.groups, group{Group: name(i), Bridge: name(0), State: "degraded", Why: "a member is missing", Members: []member{{Member: name(i), Driver: "virtio_net", State: "no_carrier"}}})
		r.swaps = append(r.swaps, swap{Group: name(i), From: name(1), To: name(2), Result: "rolled_back", Cause: "recovery", Phases: []phase{{"prewarm", 1e5}}})
	}
	return r
}

func mustShow(t *testing.T, m model, parts ...string) {
	t.Helper()
	screen := m.View().Content + "\n"
	for _, part := range parts {
		if !strings.Contains(screen, part) {
			t.Errorf("%q is not in:\n%s", part, screen)
		}
	}
}

func mustNotShow(t *testing.T, m model, parts ...string) {
	t.Helper()
	screen := m.View().Content + "\n"
	for _, part := range parts {
		if strings.Contains(screen, part) {
			t.Errorf("%q is in:\n%s", part, screen)
		}
	}
}

// TestFollowGoesOnAfterTheDaemonEnded has a stream that ends again and again.
func TestFollowGoesOnAfterTheDaemonEnded(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(event{Event: "follow"})
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told []string
	daemon{client: accel.NewClient(socket)}.follow(ctx, time.Millisecond, func(message tea.Msg) {
		if told = append(told, fmt.Sprintf("%T", message)); len(told) == 4 {
			cancel()
		}
	})
	if got := strings.Join(told, " "); got != "top.event top.unfollowed top.event top.unfollowed" {
		t.Errorf("told %s", got)
	}
}

// TestOtherBridgesGroupsAreLeftOut reads one bridge of two.
func TestOtherBridgesGroupsAreLeftOut(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]any{
		"/v1/snapshot?bridge=br0": snapshotAt(1, 1, 1, 1),
		"/v1/groups":              []group{uplink, {Group: "other", Bridge: "br1"}},
		"/v1/swaps":               []swap{{Group: "other"}, {Group: "uplink"}},
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(answers[r.URL.String()])
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	r := daemon{accel.NewClient(socket), "br0"}.read(t.Context())
	if r.err != nil || len(r.groups) != 1 || len(r.swaps) != 1 || r.swaps[0].Group != "uplink" {
		t.Errorf("got %+v", r)
	}
}
