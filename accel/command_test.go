package accel

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files")

// TestScreens compares what people see, and what scripts read, with golden
// files; and no line for people is wider than the screen.
func TestScreens(t *testing.T) {
	d := startDaemon(t, socketPath(t), sample())
	d.ready(t)
	for _, command := range []string{"status", "ports", "fdb", "reasons"} {
		for _, filter := range [][]string{nil, {"--bridge", "br0"}, {"-j"}} {
			a := newTestApp()
			args := append([]string{command, "--socket", d.config.Socket}, filter...)
			code, out, stderr := a.call(t, args...)
			if code != 0 {
				t.Fatalf("%v: %d %s", args, code, stderr)
			}
			if len(filter) == 1 {
				compare(t, command+".json", stable(t, out))
				continue
			}
			compare(t, command+strings.TrimPrefix(strings.Join(filter, "-"), "--bridge")+".txt", out)
			checkWidth(t, out)
		}
	}
}

func TestHelpFitsTheScreen(t *testing.T) {
	for _, command := range []string{"", "run", "status", "ports", "fdb", "reasons", "explain", "on", "off", "detach", "doctor", "version"} {
		args := append(strings.Fields(command), "--help")
		code, out, stderr := newTestApp().call(t, args...)
		if code != 0 || !strings.Contains(out, "Usage:") {
			t.Errorf("%v: %d %s%s", args, code, out, stderr)
		}
		checkWidth(t, out)
	}
	_, out, _ := newTestApp().call(t, "detach", "--help")
	mustContain(t, out, "Stable ports stay")
}

// stable takes out what differs from run to run.
func stable(t *testing.T, text string) string {
	t.Helper()
	var status map[string]any
	if json.Unmarshal([]byte(text), &status) != nil {
		return text // an array: nothing in it differs
	}
	for _, key := range []string{"pid", "namespace", "version"} {
		if _, ok := status[key]; !ok {
			t.Errorf("no key %s", key)
		}
		delete(status, key)
	}
	out, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + "\n"
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test ./accel -update writes it):\n%s", path, got)
	}
}

func checkWidth(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > screenWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// TestEveryReasonFits shows each reason where it is shown.
func TestEveryReasonFits(t *testing.T) {
	var out strings.Builder
	s := Screen{Writer: &out}
	long := strings.Repeat("x", maxInterfaceName)
	for _, r := range Reasons() {
		err := errors.Join(
			s.status(StatusV1{Ready: true, Bridges: []BridgeV1{describeBridge(BridgeState{
				Bridge: Bridge{Name: long}, Reason: r, Stations: 4194304, Unmirrored: 4194304, Present: true, BypassNetfilter: true, Ports: make([]PortState, 1023),
			}, nil)}}),
			s.ports([]PortV1{{Port: long, Bridge: long, State: "forwarding", Attach: "clsact", Stations: 4194304, In: r, TrafficV1: TrafficV1{Fast: 1 << 63, Slow: 1 << 63}}}),
			s.reasons([]ReasonV1{{r, 1 << 63, 1 << 63, r.Text(), r.Advice()}}),
			s.switched([]BridgeV1{{Name: long, On: true, Text: r.Text(), Advice: r.Advice()}}),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	checkWidth(t, out.String())
}

func TestSwitch(t *testing.T) {
	calls := new([]string)
	f := sample()
	f.name, f.calls = "fake", calls
	d := startDaemon(t, socketPath(t), f)
	d.ready(t)
	a := newTestApp()
	for _, c := range []struct {
		args []string
		code int
		out  string
		err  string
	}{
		{[]string{"off", "--bridge", "br0"}, 0, "br0: off\n", ""},
		{[]string{"on"}, 0, "br0: on\na-long-bridge-n: on\nbr1: on\nbr9: on\n", ""},
		{[]string{"off", "--bridge", "br7"}, 1, "", "shunt: the daemon has no bridge br7; it works on br0, a-long-bridge-n, br1 and br9\n"},
	} {
		code, out, stderr := a.call(t, append(c.args, "--socket", d.config.Socket)...)
		if code != c.code || out != c.out || stderr != c.err {
			t.Errorf("%v: got %d %q %q", c.args, code, out, stderr)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := strings.Join((*calls)[2:], "|"); got != "fake switch br0 false|fake switch br0 true|fake switch a-long-bridge-n true|fake switch br1 true|fake switch br9 true" {
		t.Errorf("got %s", got)
	}
}

func TestDetachWithoutDaemon(t *testing.T) {
	socket := socketPath(t)
	for _, c := range []struct {
		fake *fake
		json bool
		code int
		out  string
		err  string
	}{
		{&fake{}, false, 0, "no daemon runs, and nothing of shunt is in this network namespace\n", ""},
		{&fake{}, true, 0, `{"daemon":false,"bridges":[],"removed":[],"kept":[]}` + "\n", ""},
		{&fake{clean: []string{"a filter", "a pin"}}, false, 0, "removed a filter\nremoved a pin\n", ""},
		{&fake{clean: []string{"the fast path of stable port a-long-port-nam; its members go on to carry it"}}, false, 0, "removed the fast path of stable port a-long-port-nam; its members go on to carry\n  it\n", ""},
		{&fake{clean: []string{"a filter"}, cleanErr: errors.New("a pin stays")}, false, 1, "removed a filter\n", "shunt: a pin stays\n"},
		{&fake{cleanErr: errors.New("a pin stays")}, false, 1, "", "shunt: a pin stays\n"},
	} {
		args := []string{"detach", "--socket", socket}
		if c.json {
			args = append(args, "-j")
		}
		code, out, stderr := newTestApp(c.fake.plugin()).call(t, args...)
		if code != c.code || out != c.out || stderr != c.err {
			t.Errorf("got %d %q %q, want %q", code, out, stderr, c.out)
		}
	}
}

func TestDetachSaysWhatIsKept(t *testing.T) {
	for _, c := range []struct {
		kept []string
		flag string
		want string
	}{
		{[]string{"the wire of port up", "group vm"}, "", "detached from br0, a-long-bridge-n, br1 and br9; the daemon has ended\nkept: the wire of port up\nkept: group vm\n"},
		{nil, "-j", `{"daemon":true,"bridges":["br0","a-long-bridge-n","br1","br9"],"removed":[],"kept":[]}` + "\n"},
		{[]string{"group vm"}, "-j", `{"daemon":true,"bridges":["br0","a-long-bridge-n","br1","br9"],"removed":[],"kept":["group vm"]}` + "\n"},
	} {
		f := sample()
		f.kept = c.kept
		d := startDaemon(t, socketPath(t), f)
		d.ready(t)
		code, out, stderr := newTestApp().call(t, strings.Fields("detach "+c.flag+" --socket "+d.config.Socket)...)
		if code != 0 || out != c.want || stderr != "" {
			t.Errorf("got %d %s %s", code, out, stderr)
		}
	}
	var out strings.Builder
	if err := (Screen{Writer: &out}).detached(DetachV1{Kept: []string{strings.Repeat("the wire of a stable port ", 9)}}); err != nil {
		t.Error(err)
	}
	checkWidth(t, out.String())
}

func TestUsage(t *testing.T) {
	plugin := Plugin{Name: "p", Commands: func() []*cobra.Command {
		needs := &cobra.Command{Use: "needs", RunE: func(*cobra.Command, []string) error { return nil }}
		needs.Flags().String("in", "", "")
		needs.MarkFlagRequired("in")
		return []*cobra.Command{needs}
	}}
	for args, want := range map[string]string{
		"":                             `no command is given; "shunt help" lists them`,
		"statsu":                       `unknown command "statsu"; did you mean "status"?`,
		"statsu --help":                `unknown command "statsu"; did you mean "status"?`,
		"statsu -h":                    `unknown command "statsu"; did you mean "status"?`,
		"--help statsu br0":            `unknown command "statsu"; did you mean "status"?`,
		"help statsu":                  `unknown command "statsu"; did you mean "status"?`,
		"help frobnicate":              `unknown command "frobnicate"; "shunt help" lists them`,
		"frobnicate":                   `unknown command "frobnicate"; "shunt help" lists them`,
		"status br0":                   `"shunt status" takes no argument, but got "br0"; see "shunt status --help"`,
		"status --foo":                 `unknown flag: --foo; see "shunt status --help"`,
		"status --bridge":              `flag needs an argument: --bridge; see "shunt status --help"`,
		"needs":                        `required flag(s) "in" not set`,
		"needs --in x y":               `"shunt needs" takes no argument, but got "y"; see "shunt needs --help"`,
		"run":                          `no bridge is named: write --bridge br0 or --all-bridges, or bridges: [br0] or all_bridges: true in the file of --config`,
		"run --all-bridges=false":      `no bridge is named: write --bridge br0 or --all-bridges, or bridges: [br0] or all_bridges: true in the file of --config`,
		"run --bridge a/b":             `--bridge: "a/b" cannot be the name of an interface: no slash, colon or space may be in it`,
		"run --bridge b --bridge b":    `--bridge: b is given twice`,
		"run --bridge b --attach xdp":  `--attach must be auto, tcx or clsact, not "xdp"`,
		"run --bridge b --socket x":    `--socket must be an absolute path such as /run/shunt/shunt.sock, not "x"`,
		"run --bridge b --state-dir x": `--state-dir must be an absolute path such as /var/lib/shunt, not "x"`,
		"run --bridge b --log-level x": `invalid argument "x" for "--log-level" flag: slog: level string "x": unknown name; see "shunt run --help"`,
	} {
		code, out, stderr := newTestApp(plugin).call(t, strings.Fields(args)...)
		if code != 2 || out != "" || stderr != "shunt: "+want+"\n" {
			t.Errorf("%q: got %d %q %q", args, code, out, stderr)
		}
	}
}

func TestHelpFits(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"run", "--help"}, {"explain", "--help"}, {"detach", "--help"}, {"fdb", "--help"}} {
		code, out, stderr := newTestApp().call(t, args...)
		if code != 0 || stderr != "" {
			t.Errorf("%v: got %d %s", args, code, stderr)
		}
		checkWidth(t, out)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 9999: "9999", 10_000: "10.0k", 99_999: "99.9k", 999_999: "999k", 1_000_000: "1.00M",
		12_345_678: "12.3M", 1<<64 - 1: "18.4E",
	} {
		if got := FormatFrames(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.00 kB", 1<<64 - 1: "18.4 EB"} {
		if got := octets(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	for _, c := range []struct {
		part, whole uint64
		want        string
	}{
		{0, 0, "-"}, {0, 5, "0.0 %"}, {1, 1, "100.0 %"}, {999_999, 1_000_000, "99.9 %"}, {1, 100_000, "<0.1 %"},
		{1<<63 - 1, 1 << 63, "99.9 %"}, {1, 3, "33.3 %"}, {2, 3, "66.6 %"},
	} {
		if got := FormatShare(c.part, c.whole); got != c.want {
			t.Errorf("%d of %d: got %s, want %s", c.part, c.whole, got, c.want)
		}
	}
}

func TestColourIsOnlyForTerminals(t *testing.T) {
	if NewScreen(&strings.Builder{}).colour {
		t.Error("a pipe is coloured")
	}
	if got := (Screen{colour: true}).Paint(Green, "x"); got != "\x1b[32mx\x1b[0m" {
		t.Errorf("got %q", got)
	}
	if got := (Screen{}).Paint(Green, "x"); got != "x" {
		t.Errorf("got %q", got)
	}
}

// TestBypassIsRed also shows that no colour is there where none is welcome.
// TestNamesCommandNoTerminal: \x1b]0; would name the window, \u009b2J clear the screen,
// \u202e write backwards.
func TestNamesCommandNoTerminal(t *testing.T) {
	const odd, shown = "\x1b]0;\a\u009b2J\xff\u202e", `\x1b]0;\a\u009b2J\xff\u202e`
	var out strings.Builder
	s := Screen{Writer: &out, columns: screenWidth}
	bridge := BridgeV1{Name: odd, On: true, Reason: Off, Text: odd, Advice: odd, Weaker: odd}
	for name, show := range map[string]func() error{
		"status":  func() error { return s.status(StatusV1{Ready: true, Bridges: []BridgeV1{bridge}}) },
		"ports":   func() error { return s.ports([]PortV1{{Port: odd, Bridge: odd}}) },
		"fdb":     func() error { return s.fdb([]EntryV1{{Port: odd, Bridge: odd}}) },
		"reasons": func() error { return s.reasons([]ReasonV1{{Text: odd, Advice: odd}}) },
		"explain": func() error {
			return s.explanation(ExplainV1{Verdict: "slow", Reason: Off, Text: odd, Bridge: odd, In: odd})
		},
		"on":       func() error { return s.switched([]BridgeV1{bridge}) },
		"detach":   func() error { return s.detached(DetachV1{Daemon: true, Bridges: []string{odd}, Kept: []string{odd}}) },
		"doctor":   func() error { return s.findings([]Finding{{Bridge: odd, Text: odd, Advice: odd}}) },
		"an error": func() error { s.complain("shunt: ", odd); return nil },
		"to a file": func() error {
			Screen{Writer: &out}.complain("shunt: ", odd)
			return nil
		},
	} {
		out.Reset()
		err := show()
		if strings.ContainsAny(out.String(), "\x1b\a\u009b\u202e") || !strings.Contains(out.String(), shown) || err != nil {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}

func TestBypassIsRed(t *testing.T) {
	const line = "netfilter: bypass: no firewall rule is asked about frames on the fast path"
	bridges := []BridgeV1{{Name: "br0", Netfilter: netfilterBypass}, {Name: "br1", Netfilter: netfilterRespect}}
	for colour, want := range map[bool]string{true: "    \x1b[31m" + line + "\x1b[0m\n", false: "    " + line + "\n"} {
		var out strings.Builder
		if err := (Screen{Writer: &out, colour: colour}).status(StatusV1{Ready: true, Bridges: bridges}); err != nil {
			t.Fatal(err)
		}
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("colour %v: got %q", colour, out.String())
		}
		if !colour {
			checkWidth(t, out.String())
		}
	}
}

// TestWeakerIsSaidOnce keeps the status of many bridges readable, and says which
// guarantee of which bridge is weaker.
func TestWeakerIsSaidOnce(t *testing.T) {
	traced, live, none := Revocation{true, StateTraced, true}, Revocation{true, StateLive, false}, Revocation{false, StateNetlink, true}
	var status StatusV1
	for i, r := range []Revocation{live, traced, none, live, none} {
		status.Bridges = append(status.Bridges, describeBridge(BridgeState{Bridge: Bridge{Name: fmt.Sprintf("br%d", i)}, Present: true, Revocation: r}, nil))
	}
	status.Bridges = append(status.Bridges, describeBridge(BridgeState{Bridge: Bridge{Name: "gone"}}, nil))
	status.Ready = true
	var out strings.Builder
	if err := (Screen{Writer: &out}).status(status); err != nil {
		t.Fatal(err)
	}
	compare(t, "status-weaker.txt", out.String())
	checkWidth(t, out.String())
}

func TestCapabilities(t *testing.T) {
	for bits, want := range map[uint64]string{
		0: "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON", 1 << 12: "CAP_BPF and CAP_PERFMON", 1<<12 | 1<<39: "CAP_PERFMON",
		1<<12 | 1<<38 | 1<<39: "", 1<<12 | 1<<21: "", 1 << 21: "CAP_NET_ADMIN",
	} {
		if got := enumerate(missingCapabilities(bits)); got != want {
			t.Errorf("%x: got %s, want %s", bits, got, want)
		}
	}
}

// TestSnapshot is what the three commands show, at one moment of the daemon's clock.
func TestSnapshot(t *testing.T) {
	d := startDaemon(t, socketPath(t), sample())
	client := d.ready(t)
	first, err := client.Snapshot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := client.Snapshot(t.Context(), "")
	if err != nil || first.TimeNS <= 0 || second.TimeNS <= first.TimeNS {
		t.Errorf("at %d and %d: %v", first.TimeNS, second.TimeNS, err)
	}
	status, err := client.Status(t.Context(), "")
	if diff := cmp.Diff(status, first.Status); diff != "" || err != nil {
		t.Errorf("the status is another: %s%v", diff, err)
	}
	ports, err := client.Ports(t.Context(), "")
	if diff := cmp.Diff(ports, first.Ports); diff != "" || err != nil {
		t.Errorf("the ports are others: %s%v", diff, err)
	}
	reasons, err := client.Reasons(t.Context(), "")
	if diff := cmp.Diff(reasons, first.Reasons); diff != "" || err != nil {
		t.Errorf("the reasons are others: %s%v", diff, err)
	}
	_, err = client.Snapshot(t.Context(), "br7")
	var refused *StatusError
	if !errors.As(err, &refused) || refused.Status != 404 {
		t.Errorf("of a bridge that is not there: %v", err)
	}
}
