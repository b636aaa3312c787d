package nicswap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// routedDaemon stands for accel's client and server: it hands what is asked to the
// routes themselves.
type routedDaemon struct{ u *upgrader }

func (d routedDaemon) request(ctx context.Context, method, path string, body any) (*http.Request, string) {
	var text bytes.Buffer
	if body != nil {
		_ = json.NewEncoder(&text).Encode(body)
	}
	r := httptest.NewRequestWithContext(ctx, method, path, &text)
	pattern := method + " " + path
	if rest, ok := strings.CutPrefix(path, "/v1/upgrades/"); ok {
		id, what, _ := strings.Cut(rest, "/")
		r.SetPathValue("id", id)
		pattern = method + " /v1/upgrades/{id}/" + what
	}
	return r, pattern
}

func (d routedDaemon) Do(ctx context.Context, method, path string, body, _ any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, pattern := d.request(ctx, method, path, body)
	for _, route := range d.u.routes() {
		if route.Pattern == pattern && route.Changes {
			_, err := route.Answer(r)
			return err
		}
	}
	return errors.New("no route " + pattern)
}

func (d routedDaemon) DoStream(ctx context.Context, method, path string, body any, each func(json.RawMessage) error) error {
	r, pattern := d.request(ctx, method, path, body)
	for _, route := range d.u.routes() {
		if route.Pattern == pattern && route.Changes {
			return route.Stream(r, func(line any) error {
				text, err := json.Marshal(line)
				if err != nil {
					return err
				}
				return each(text)
			})
		}
	}
	return errors.New("no route " + pattern)
}

// clientOf makes a client that runs commands on paper.
func clientOf(lab *upgradeLab, execute func(argv []string) error, argv ...string) (*upgradeClient, *bytes.Buffer) {
	var out bytes.Buffer
	return &upgradeClient{daemon: routedDaemon{lab.u}, argv: argv, execute: execute, out: &out}, &out
}

func TestTheClientRunsTheCommandForEachMember(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		var ran []string
		c, out := clientOf(lab, func(argv []string) error {
			ran = append(ran, strings.Join(argv, " "))
			return nil
		}, "flash", "--device={member}", "{member}.bin")
		outcome, err := c.run(context.Background(), UpgradeRequestV1{Group: "a", Each: true})
		if err != nil || outcome.Result != "done" {
			t.Errorf("%+v: %v", outcome, err)
		}
		if want := []string{"flash --device=e1 e1.bin", "flash --device=e0 e0.bin"}; !slices.Equal(ran, want) {
			t.Errorf("ran %q", ran)
		}
		want := "upgrading e1, e0 of a\n" +
			"e1: out of service, running the command\n" +
			"e1: in service\n" +
			"a: on e1\n" +
			"e0: out of service, running the command\n" +
			"e0: in service\n" +
			"a: on e0\n" +
			"done in 0.0 s\n"
		if out.String() != want {
			t.Errorf("said:\n%s", out.String())
		}
	})
}

func TestACommandThatFailsFailsTheUpgrade(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		c, out := clientOf(lab, func([]string) error { return errors.New("exit status 3") }, "flash")
		if _, err := c.run(context.Background(), UpgradeRequestV1{Group: "a"}); err == nil || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("run: %v", err)
		}
		if !strings.HasSuffix(out.String(), "\nnot touched: e0\n") {
			t.Errorf("said:\n%s", out.String())
		}
	})
}

func TestCtrlCEndsAfterTheCurrentMember(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		ctx, interrupt := context.WithCancel(context.Background())
		n := 0
		c, out := clientOf(lab, func([]string) error {
			n++
			interrupt()
			time.Sleep(time.Second) // the command goes on
			return nil
		}, "flash")
		outcome, err := c.run(ctx, UpgradeRequestV1{Group: "a"})
		if err == nil || outcome.Result != "stopped" || n != 1 {
			t.Errorf("%d commands, %+v: %v", n, outcome, err)
		}
		if !strings.Contains(out.String(), "Ctrl-C again") {
			t.Errorf("said:\n%s", out.String())
		}
	})
}

func TestADaemonThatEndsIsNoSuccess(t *testing.T) {
	c := &upgradeClient{daemon: silentDaemon{}, out: new(bytes.Buffer)}
	if _, err := c.run(context.Background(), UpgradeRequestV1{}); err == nil {
		t.Error("a stream without an end passed for an upgrade")
	}
}

type silentDaemon struct{}

func (silentDaemon) Do(context.Context, string, string, any, any) error { return nil }
func (silentDaemon) DoStream(context.Context, string, string, any, func(json.RawMessage) error) error {
	return nil
}

func TestProgressFitsTheScreen(t *testing.T) {
	var out bytes.Buffer
	c := &upgradeClient{out: &out}
	c.say("upgrading " + strings.Repeat("enp129s0f0np123, ", 20) + "of uplink")
	for line := range strings.Lines(out.String()) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("too wide: %s", line)
		}
	}
	if got := strings.Fields(out.String()); len(got) != 23 {
		t.Errorf("%d words of 23: %s", len(got), out.String())
	}
}

func TestTheCommandLineOfUpgrade(t *testing.T) {
	for _, c := range []struct {
		args  string
		wrong string // a part of the error
	}{
		{"a -- true {member}", ""},
		{"--driver veth -- true", ""},
		{"--driver veth --timeout 1h -- true -j", ""},
		{"a", "no command"},
		{"a --", "no command"},
		{"a true", "no command"},
		{"-- true", "name a group"},
		{"a b -- true", "one group"},
		{"a --driver veth -- true", "one group"},
		{"a --timeout 0s -- true", "--timeout"},
		{"a -- no-such-command-here", "no-such-command-here"},
	} {
		cmd := upgradeCommand(func(string) upgradeDaemon { return silentDaemon{} })
		cmd.SetArgs(strings.Fields(c.args))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.RunE = func(*cobra.Command, []string) error { return nil }
		err := cmd.ExecuteContext(context.Background())
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", c.args, err, c.wrong)
		}
	}
}

func TestUpgradePrintsOneObject(t *testing.T) {
	withUpgrader(t, twoMembers, func(lab *upgradeLab) {
		cmd := upgradeCommand(func(string) upgradeDaemon { return routedDaemon{lab.u} })
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"-j", "a", "--", "true"})
		if err := cmd.ExecuteContext(context.Background()); err != nil {
			t.Fatal(err)
		}
		var outcome UpgradeV1
		if err := json.Unmarshal(out.Bytes(), &outcome); err != nil || outcome.Result != "done" || len(outcome.Upgraded) != 2 {
			t.Errorf("%s: %v", out.String(), err)
		}
	})
}

// TestTheCommandDoesNotGetCtrlC nor the hangup of a terminal that goes.
func TestTheCommandDoesNotGetCtrlC(t *testing.T) {
	var out bytes.Buffer
	if err := execute([]string{"sh", "-c", "kill -INT $$; kill -HUP $$; echo unhurt"}, nil, &out, &out); err != nil || out.String() != "unhurt\n" {
		t.Errorf("%q: %v", out.String(), err)
	}
}

// TestTheCommandEndsWithTheClient: this test is the client too, when it is run again.
func TestTheCommandEndsWithTheClient(t *testing.T) {
	if os.Getenv("SHUNT_TEST_CLIENT") != "" {
		t.Fatal(execute([]string{"sh", "-c", "trap 'echo ended; exit' TERM; echo begun; for i in $(seq 500); do sleep 0.01; done; echo outlived"}, nil, os.Stdout, os.Stderr))
	}
	client := exec.Command(os.Args[0], "-test.run=^TestTheCommandEndsWithTheClient$")
	client.Env = append(os.Environ(), "SHUNT_TEST_CLIENT=1")
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	begun, _ := said.ReadString('\n')
	if err := client.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended, _ := said.ReadString('\n')
	if begun != "begun\n" || ended != "ended\n" {
		t.Errorf("the command said %q, %q", begun, ended)
	}
	_ = client.Wait() // it was killed
}

func TestTheArgumentsReachTheCommandAsTheyAre(t *testing.T) {
	var out bytes.Buffer
	if err := execute([]string{"printf", "<%s>", "a b", "$HOME", "", "*"}, nil, &out, &out); err != nil || out.String() != "<a b><$HOME><><*>" {
		t.Errorf("%q: %v", out.String(), err)
	}
	if err := execute([]string{"sh", "-c", "exit 3"}, nil, &out, &out); err == nil || err.Error() != "exit status 3" {
		t.Errorf("exit 3: %v", err)
	}
}

func TestAMistypedKeyIsRefused(t *testing.T) {
	for body, ok := range map[string]bool{
		`{"group":"a"}`:    true,
		`{"groups":["a"]}`: false,
		`{"group":"a"}{}`:  false,
		``:                 false,
	} {
		var r UpgradeRequestV1
		if err := decode(strings.NewReader(body), &r, "{}"); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}
