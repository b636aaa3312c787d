package nicswap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/accel"
)

// daemonOnPaper answers every request with a result, and keeps what was asked.
type daemonOnPaper struct {
	socket string
	status int
	answer any
	asked  string
}

func onPaper(t *testing.T, answer any) *daemonOnPaper {
	t.Helper()
	d := &daemonOnPaper{socket: filepath.Join(t.TempDir(), "s"), status: http.StatusOK, answer: answer}
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/events" {
			json.NewEncoder(w).Encode(EventV1{Group: "uplink", Event: eventPhase, Phase: phaseFlip})
			return
		}
		body, _ := io.ReadAll(r.Body)
		d.asked = r.Method + " " + r.URL.String() + " " + string(body)
		w.WriteHeader(d.status)
		json.NewEncoder(w).Encode(d.answer)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return d
}

// run runs a command against the daemon.
func (d *daemonOnPaper) run(args ...string) (stdout, stderr string, err error) {
	root := &cobra.Command{Use: "shunt", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(commands()...)
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append(args, "--socket", d.socket))
	err = root.ExecuteContext(context.Background())
	return out.String(), errs.String(), err
}

func wantLines(t *testing.T, got, want string) {
	t.Helper()
	if want = strings.TrimPrefix(want, "\n"); got != want {
		t.Errorf("it prints\n%s\nand not\n%s", got, want)
	}
	for line := range strings.Lines(got) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("the line is too long: %q", line)
		}
	}
}

func TestGroupsCommand(t *testing.T) {
	d := onPaper(t, []GroupV1{{
		Group: "uplink", Bridge: "br0", Port: "uplink", State: "degraded", Active: "eth0",
		Why: "eth2 is not there; eth1 has addresses of this host, which would answer no more: remove them",
		Members: []MemberV1{
			{Member: "eth0", Kind: "physical", Driver: "ixgbe", State: "active", MTU: 1500},
			{Member: "eth1", Kind: "virtual", LinkKind: "macvlan", State: "cold", MTU: 1500},
			{Member: "eth2", Kind: "virtual", State: "missing"},
		},
		Dropped: map[string]uint64{"standby": 12345, "doubled": 2},
	}})
	out, _, err := d.run("groups", "--group", "uplink")
	if err != nil || d.asked != "GET /v1/groups?group=uplink " {
		t.Errorf("asked %q: %v", d.asked, err)
	}
	wantLines(t, out, `
GROUP   BRIDGE  STATE     KIND      MTU
uplink  br0     degraded  -           -
  eth0          active    ixgbe    1500
  eth1          cold      macvlan  1500
  eth2          missing   -           -
    eth2 is not there; eth1 has addresses of this host, which would answer no
      more: remove them
    dropped: 2 frames, doubled: the new member has delivered for these stations:
      what the old one brings was dropped, it would come twice
    dropped: 12.3k frames, standby: it arrived on a member that does not carry
      the group, and was dropped
`)
	out, _, err = d.run("groups", "-j")
	if err != nil || !strings.HasPrefix(out, `[{"group":"uplink","bridge":"br0"`) {
		t.Errorf("-j prints %s, %v", out, err)
	}
}

func TestSwapsCommand(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	d := onPaper(t, []SwapV1{
		{Group: "uplink", From: "eth0", To: "eth1", Cause: "loss", Why: "eth0 has lost its carrier", Result: "done", Began: began, FlipNS: 1234},
		{Group: "uplink", To: "eth0", Cause: "request", Result: "failed", Phase: "check", Error: "eth0 is not there", Began: began},
	})
	out, _, err := d.run("swaps")
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, out, `
BEGAN            GROUP   FROM  TO    RESULT  CAUSE      FLIP
Jan  2 03:04:05  uplink  eth0  eth1  done    loss     1.2 us
    why: eth0 has lost its carrier
Jan  2 03:04:05  uplink  -     eth0  failed  request       -
    check: eth0 is not there
`)
}

func TestSwapCommand(t *testing.T) {
	done := SwapV1{Group: "uplink", From: "eth0", To: "eth1", Result: "done", FlipNS: 900, Stations: 7, Announced: 5, Drained: 3, TraceID: "01ab"}
	d := onPaper(t, []SwapV1{done})
	out, _, err := d.run("swap", "uplink", "--to", "eth1")
	if err != nil || d.asked != `POST /v1/swap {"groups":["uplink"],"to":"eth1","dry_run":false}` {
		t.Errorf("asked %q: %v", d.asked, err)
	}
	wantLines(t, out, `
uplink: from eth0 to eth1: done
    flip 0.9 us, 7 entries untouched, 5 frames announced, 3 drained
    trace 01ab
`)
	_, stderr, err := d.run("swap", "uplink", "--to", "eth1", "--follow")
	if err != nil || stderr != "" && stderr != "uplink: flip\n" { // the swap may be over first
		t.Errorf("followed was %q, %v", stderr, err)
	}

	d.answer = []SwapV1{done, {Group: "storage", To: "eth1", Result: "failed", Phase: "resolve", Error: "eth1 is used by group uplink now"}}
	out, _, err = d.run("swap", "uplink", "storage", "third", "--to", "eth1")
	if err == nil || err.Error() != "storage is not moved to eth1: eth1 is used by group uplink now; not tried: third" {
		t.Errorf("the error is %v", err)
	}
	if !strings.Contains(out, "\nstorage: failed\n") {
		t.Errorf("it prints %s", out)
	}

	d.answer = []SwapV1{{Group: "uplink", From: "eth0", To: "eth1", Result: "planned", Plan: []string{
		"prewarm of eth1: set it up, wait for its carrier, 10s at most, change its MTU from 1400 to 1500", "drain: 1s",
	}}}
	out, _, err = d.run("swap", "uplink", "--to", "eth1", "--dry-run")
	if err != nil || !strings.Contains(d.asked, `"dry_run":true`) {
		t.Errorf("asked %q: %v", d.asked, err)
	}
	wantLines(t, out, `
uplink: would move from eth0 to eth1
    prewarm of eth1: set it up, wait for its carrier, 10s at most, change its
      MTU from 1400 to 1500
    drain: 1s
`)

	d.status, d.answer = http.StatusConflict, accel.ErrorV1{Error: "a swap of uplink is running since 03:04:05"}
	if _, _, err := d.run("swap", "uplink", "--to", "eth1"); err == nil || err.Error() != "a swap of uplink is running since 03:04:05" {
		t.Errorf("the error is %v", err)
	}
}

func TestAdoptAndReleaseCommands(t *testing.T) {
	change := ChangeV1{Group: "uplink", Bridge: "br0", Port: "uplink", Member: "eth0", Steps: []string{"take eth0 out of br0"}, Costs: []string{"what is behind eth0 is learned anew"}}
	d := onPaper(t, change)
	out, _, err := d.run("adopt", "eth0", "--group", "uplink", "--member", "eth1", "--member", "eth2", "--dry-run")
	if err != nil || d.asked != `POST /v1/adopt {"port":"eth0","group":"uplink","members":["eth1","eth2"],"dry_run":true}` {
		t.Errorf("asked %q: %v", d.asked, err)
	}
	wantLines(t, out, `
uplink: this would be done
PORT    BRIDGE  MEMBER
uplink  br0     eth0
    take eth0 out of br0
    cost: what is behind eth0 is learned anew
`)
	change.Done = true
	d.answer = change
	out, _, err = d.run("release", "uplink")
	if err != nil || d.asked != `POST /v1/release {"group":"uplink","dry_run":false}` || !strings.HasPrefix(out, "uplink: done\n") {
		t.Errorf("asked %q, printed %s: %v", d.asked, out, err)
	}
}

func TestNamesCommandNoTerminal(t *testing.T) {
	const odd = "\x1b[2J"
	for _, result := range []string{resultPlanned, resultFailed, resultDone} {
		var out bytes.Buffer
		s := accel.NewScreen(&out)
		swap := SwapV1{Group: odd, From: odd, To: odd, Result: result, Phase: phaseResolve, Why: odd, Plan: []string{odd}}
		errs := []error{
			showSwapped(s, []SwapV1{swap}), showSwaps(s, []SwapV1{swap}),
			showGroups(s, []GroupV1{{Group: odd, Why: odd, Members: []MemberV1{{Member: odd}}}}), showChange(s, ChangeV1{Group: odd, Port: odd}),
		}
		if strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), `\x1b[2J`) || errors.Join(errs...) != nil {
			t.Errorf("%s: %q, %v", result, out.String(), errs)
		}
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	d := onPaper(t, nil)
	for _, args := range [][]string{{"swap", "uplink"}, {"swap", "uplink", "--to", ""}, {"swap", "--to", "eth1"}, {"adopt"}, {"adopt", "a", "b"}, {"release"}} {
		if _, _, err := d.run(args...); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	if d.asked != "" {
		t.Errorf("the daemon was asked %q", d.asked)
	}
}

func TestHelpFitsTheScreen(t *testing.T) {
	d := onPaper(t, nil)
	for _, cmd := range commands() {
		help, _, err := d.run(cmd.Name(), "--help")
		if err != nil {
			t.Fatal(err)
		}
		// The list of all commands has the short text behind 14 columns.
		for line := range strings.Lines(help + strings.Repeat(" ", 14) + cmd.Short + "\n") {
			if len(line) > 80+len("\n") {
				t.Errorf("%s: the line is too long: %q", cmd.Name(), line)
			}
		}
	}
}
