package accel

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bridgeDoctor is a fake that knows bridges too.
type bridgeDoctor struct {
	*fake
	finds func(*Host, Examination) []Finding
}

func (d bridgeDoctor) CheckBridges(_ context.Context, h *Host, x Examination) []Finding {
	return d.finds(h, x)
}

func (d bridgeDoctor) plugin() Plugin {
	return Plugin{Name: "doctor", New: func() Component { return d }}
}

func TestDoctor(t *testing.T) {
	socket := socketPath(t)
	good := &fake{finds: []Finding{{Check: "tcx", Level: LevelNote, Text: "no tcx: clsact is used", Advice: "Linux 6.6"}}}
	a := newTestApp(good.plugin())
	code, out, stderr := a.call(t, "doctor", "--socket", socket)
	if code != 0 || stderr != "" {
		t.Errorf("got %d %s", code, stderr)
	}
	mustContain(t, out, "ok    privileges     CAP_NET_ADMIN, ", "ok    kernel         Linux ", "note  daemon ",
		"note  tcx            no tcx: clsact is used\n                     advice: Linux 6.6\n",
		"\nshunt can run here: notes 2, ok 4\n")
	checkWidth(t, out)
	bad := &fake{finds: []Finding{{Check: "bpf", Level: LevelFail, Text: "no BPF"}}}
	a = newTestApp(bad.plugin())
	code, out, stderr = a.call(t, "doctor", "-j", "--socket", socket)
	if code != 1 || stderr != "shunt: shunt cannot run here: see the lines marked fail\n" {
		t.Errorf("got %d %s", code, stderr)
	}
	var findings []Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil || findings[len(findings)-1].Check != "bpf" {
		t.Errorf("got %s, %v", out, err)
	}
}

// TestDoctorWithoutRights does not take what it may not see for what is not there.
func TestDoctorWithoutRights(t *testing.T) {
	nothing := bridgeDoctor{sample(), func(*Host, Examination) []Finding { t.Error("the bridges were looked at"); return nil }}
	a := newTestApp(nothing.plugin())
	a.privileges = func() error { return errors.New("this needs CAP_BPF, which the process does not have: use sudo") }
	code, out, _ := a.call(t, "doctor", "--socket", socketPath(t))
	if code != 1 {
		t.Errorf("got %d", code)
	}
	mustContain(t, out, "shunt cannot run here: failed 1, notes 2, ok 3\n", "fail  privileges     this needs CAP_BPF, ", "advice: sudo shunt doctor\n", "note  the rest       not looked at ")
	checkWidth(t, out)
}

// TestDoctorOfBridges asks for one of several, which no daemon has.
func TestDoctorOfBridges(t *testing.T) {
	var asked []Examination
	d := bridgeDoctor{sample(), func(h *Host, x Examination) []Finding {
		asked = append(asked, x)
		if _, err := Use[BridgeChecker](h); err != nil {
			t.Error("a checker does not find the others:", err)
		}
		return []Finding{
			{Check: "eligible", Level: LevelNote, Bridge: "br1", Text: "no: hub"},
			TrafficFinding("br0", Forecast{
				Source: SourceSample, Seconds: 2, Frames: 1000, Looked: 1000, Fast: 0, FastIfEligible: 900,
				Reasons: Rank(map[Reason]Count{BrNetfilter: {900, 54000}, Multicast: {50, 3000}, DestinationUnknown: {30, 1}, ARP: {10, 1}, LLC: {6, 1}, CFM: {4, 1}}, "br0"),
			}),
			{Check: "machine", Level: LevelOK, Text: "of no bridge"},
		}
	}}
	a := newTestApp(d.plugin())
	code, out, stderr := a.call(t, "doctor", "--bridge", "br0", "--sample", "3s", "--socket", socketPath(t))
	if code != 0 || stderr != "" {
		t.Fatalf("got %d %s", code, stderr)
	}
	if len(asked) != 1 || asked[0].Bridge != "br0" || asked[0].Sample != 3*time.Second || len(asked[0].Served) != 0 {
		t.Errorf("it was asked for %+v", asked)
	}
	_, bridges, _ := strings.Cut(out, "of no bridge\n")
	compare(t, "doctor-bridges.txt", bridges)
	checkWidth(t, out)
	for _, args := range [][]string{{"--sample", "-1s"}, {"--sample", "2m"}, {"--sample", "x"}, {"--bridge", "a/b"}} {
		if code, _, stderr := a.call(t, append([]string{"doctor"}, args...)...); code != 2 || stderr == "" {
			t.Errorf("%v: got %d %s", args, code, stderr)
		}
	}
}

// TestDoctorAsksTheDaemon whose counters say what became of the frames; one of
// another namespace has other bridges.
func TestDoctorAsksTheDaemon(t *testing.T) {
	f := sample()
	d := startDaemon(t, socketPath(t), f)
	d.ready(t)
	more := bridgeDoctor{sample(), func(_ *Host, x Examination) []Finding {
		if len(x.Served) != 3 || x.Served["br0"].Name != "br0" {
			t.Errorf("served are %+v", x.Served)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stats = map[int][]PortStats{10: {
			{Ifindex: 11, Attach: "tcx", Counts: map[Reason]Count{Fast: {1_234_567 + 600, 1_851_850_500}, Keepalive: {120 + 2, 7200}, Multicast: {7 + 398, 420}}},
			{Ifindex: 12, Attach: "clsact", Counts: map[Reason]Count{PortForeignTC: {99_999, 5_999_940}, SourceMoved: {3, 180}}},
		}}
		return nil
	}}
	_, out, _ := newTestApp(more.plugin()).call(t, "doctor", "--sample", "0", "-j", "--socket", d.config.Socket)
	var findings []Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil {
		t.Fatal(err)
	}
	for _, found := range findings {
		if found.Bridge != "br0" || found.Check != "traffic" {
			continue
		}
		got := found.Traffic
		if got.Source != SourceDaemon || got.Frames != 1000 || got.Fast != 600 || len(got.Reasons) != 3 || got.Reasons[1].Reason != Multicast || got.Reasons[1].Frames != 398 {
			t.Errorf("got %+v", got)
		}
		return
	}
	t.Errorf("the daemon's counters are not there: %s", out)
}

func TestDoctorPassesADaemonOfAnotherNamespaceOver(t *testing.T) {
	d := startDaemon(t, socketPath(t), sample())
	d.ready(t)
	d.api.status.Namespace++
	more := bridgeDoctor{sample(), func(_ *Host, x Examination) []Finding {
		if len(x.Served) != 0 {
			t.Errorf("served are %+v", x.Served)
		}
		return nil
	}}
	_, out, _ := newTestApp(more.plugin()).call(t, "doctor", "--socket", d.config.Socket)
	mustContain(t, strings.Join(strings.Fields(out), " "), "for another network namespace")
}

func TestLockdown(t *testing.T) {
	for modes, want := range map[string]string{
		"[none] integrity confidentiality\n": LevelOK, "none [integrity] confidentiality\n": LevelOK,
		"none integrity [confidentiality]\n": LevelNote, "": LevelOK,
	} {
		if f := lockdownFinding([]byte(modes), nil); f.Level != want {
			t.Errorf("%q: %+v", modes, f)
		}
	}
	if f := lockdownFinding(nil, fs.ErrNotExist); f.Level != LevelOK {
		t.Errorf("a kernel without: %+v", f)
	}
	if f := lockdownFinding(nil, fs.ErrPermission); f.Level != LevelNote {
		t.Errorf("not to be read: %+v", f)
	}
}

func TestFewOpenFilesAreNoted(t *testing.T) {
	for most, want := range map[uint64]string{256: LevelNote, 1024: LevelOK, 1 << 20: LevelOK, unix.RLIM_INFINITY: LevelOK} {
		if f := filesFinding(most); f.Level != want {
			t.Errorf("%d: %+v", most, f)
		}
	}
}
