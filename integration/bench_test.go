package integration

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/bench"
)

// The whole of it, in rounds that are too short to say much: every figure is there, was
// measured on the fast path, and is in the picture, too.
func TestBenchComparesTheBridgeWithShunt(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "bench.svg")
	cmd := exec.Command(binary, "bench", "-j", "--rounds", "2", "--duration", "20ms", "--plot", picture)
	var stderr output
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.String() != "" {
		t.Fatalf("%v, and it says %q", err, stderr.String())
	}
	var r bench.Report
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var loose any
	if err := json.Unmarshal(out, &loose); err != nil || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v in %s", err, out)
	}
	for _, trouble := range missing(reflect.TypeFor[bench.Report](), loose, "") {
		t.Errorf("%s in %s", trouble, out)
	}
	checkBenchReport(t, r)
	text, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(text, new(struct{})); err != nil {
		t.Errorf("the picture: %v in %s", err, text)
	}
	for _, m := range r.Measurements {
		if !strings.Contains(string(text), ">"+m.Title+"<") {
			t.Errorf("the picture has no %s", m.Title)
		}
	}
}

func checkBenchReport(t *testing.T, r bench.Report) {
	t.Helper()
	if r.Rounds != 2 || r.Duration != 20 || r.CPUs < 1 || r.Kernel == "" || r.Attach != "tcx" && r.Attach != "clsact" || r.Revocation.State == "" {
		t.Errorf("got %+v", r)
	}
	if r.Fast == 0 || r.Slow*20 > r.Fast {
		t.Errorf("%d frames were fast and %d slow", r.Fast, r.Slow)
	}
	var names []string
	for _, m := range r.Measurements {
		names = append(names, m.Name)
		for what, of := range map[string][3]float64{
			"off": {m.OffLower, m.OffMedian, m.OffUpper}, "on": {m.OnLower, m.OnMedian, m.OnUpper}, "ratio": {m.RatioLower, m.RatioMedian, m.RatioUpper},
		} {
			if !(of[0] > 0 && of[0] <= of[1] && of[1] <= of[2]) {
				t.Errorf("%s, %s: the quartiles are %v", m.Name, what, of)
			}
		}
		if m.Fast == 0 {
			t.Errorf("%s: no frame was fast", m.Name)
		}
	}
	if got, want := strings.Join(names, " "), "frames_64 frames_512 frames_1514 frames_gso tcp rr_p50 rr_p99"; got != want {
		t.Errorf("it measured %s, want %s", got, want)
	}
}

func TestBenchMeasuresOnlyWhatIsAskedFor(t *testing.T) {
	out, err := exec.Command(binary, "bench", "-j", "--only", "rr", "--rounds", "1", "--duration", "10ms").Output()
	if err != nil {
		t.Fatal(err)
	}
	var r bench.Report
	if err := json.Unmarshal(out, &r); err != nil || len(r.Measurements) != 2 || r.Measurements[0].Name != "rr_p50" {
		t.Errorf("%v in %s", err, out)
	}
}

func TestBenchWithoutRootIsRefused(t *testing.T) { refusedWithoutRoot(t, "bench") }

func TestMistakesForBench(t *testing.T) {
	for args, want := range map[string]int{
		"--only udp": 2, "--rounds 0": 2, "--duration 1h": 2, "frames": 2, "--plot /nowhere/bench.svg": 1,
	} {
		cmd := exec.Command(binary, append([]string{"bench"}, strings.Fields(args)...)...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want || !strings.HasPrefix(string(out), "shunt: ") {
			t.Errorf("bench %s: exit code %d, want %d, and it says %q", args, got, want, out)
		}
	}
}

// However it ends in the middle, nothing of it is left: no daemon, no pin, no picture.
func TestBenchRemovesWhatItMade(t *testing.T) {
	for name, c := range map[string]struct {
		signal syscall.Signal
		code   int
		says   string
	}{
		"Ctrl-C":  {syscall.SIGINT, 1, "interrupted"},
		"SIGTERM": {syscall.SIGTERM, 1, "interrupted"},
		"SIGKILL": {syscall.SIGKILL, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			picture := filepath.Join(t.TempDir(), "bench.svg")
			cmd := exec.Command(binary, "bench", "--rounds", "10000", "--plot", picture)
			var stdout, stderr output
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pins string
			var daemon int
			await(t, "it has a daemon with pins", func() bool {
				children := childrenOf(t, cmd.Process.Pid)
				if len(children) == 0 {
					return false
				}
				daemon = children[0]
				pins = pinsOf(t, daemon)
				_, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", daemon, pins))
				return err == nil
			})
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(stderr.String(), c.says) || stdout.String() != "" {
				t.Errorf("exit code %d, %q and %q", cmd.ProcessState.ExitCode(), stdout.String(), stderr.String())
			}
			await(t, "its daemon is gone", func() bool { return errors.Is(unix.Kill(daemon, 0), unix.ESRCH) })
			if _, err := os.Stat(pins); !os.IsNotExist(err) {
				t.Errorf("%s is left (%v)", pins, err)
			}
			if _, err := os.Stat(picture); c.signal != syscall.SIGKILL && !os.IsNotExist(err) {
				t.Errorf("a picture of nothing is left (%v)", err)
			}
		})
	}
}
