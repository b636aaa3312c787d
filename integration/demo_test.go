package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/spantree"
	"github.com/shunt-dev/shunt/telemetry/otlptest"
)

// What it prints of the last swap is what an operator's own backend gets, which the
// daemon could not reach by itself.
func TestDemoMeasuresAndLosesNothing(t *testing.T) {
	backend, err := otlptest.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	cmd := exec.Command(binary, "demo", "-j")
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT="+backend.URL())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, key := range []string{
		"off_tcp_bits_per_second", "on_tcp_bits_per_second", "tcp_ratio",
		"off_udp_frames_per_second", "on_udp_frames_per_second", "udp_ratio",
		"off_latency_p50_microseconds", "on_latency_p50_microseconds",
		"off_latency_p99_microseconds", "on_latency_p99_microseconds",
		"rounds", "fast_frames", "stream_frames", "stream_switches",
		"swaps", "swap_frames", "swap_flip_microseconds",
	} {
		if n, ok := r[key].(float64); !ok || n <= 0 {
			t.Errorf("%s is %v", key, r[key])
		}
	}
	for _, key := range []string{
		"stream_lost", "stream_doubled", "stream_out_of_order",
		"swap_lost", "swap_doubled", "swap_out_of_order",
	} {
		if n, ok := r[key].(float64); !ok || n != 0 {
			t.Errorf("%s is %v (present: %v)", key, n, ok)
		}
	}
	if r["fast_share"].(float64) < 0.99 {
		t.Errorf("%.4f of the frames were fast", r["fast_share"])
	}
	expectSwapTrace(t, out, backend.Received())
}

// expectSwapTrace wants the trace that the demo printed to explain the time that the
// swap took, and the backend to have the same one.
func expectSwapTrace(t *testing.T, printed []byte, got otlptest.Received) {
	t.Helper()
	var r struct {
		ID    string `json:"swap_trace_id"`
		Spans []struct {
			Name     string  `json:"name"`
			ID       string  `json:"span_id"`
			Parent   string  `json:"parent_span_id"`
			Begins   float64 `json:"begins_milliseconds"`
			Duration float64 `json:"duration_milliseconds"`
		} `json:"swap_trace"`
	}
	if err := json.Unmarshal(printed, &r); err != nil {
		t.Fatal(err)
	}
	var spans []spantree.Span
	inMilliseconds := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	for _, s := range r.Spans {
		spans = append(spans, spantree.Span{ID: s.ID, Parent: s.Parent, Name: s.Name,
			Began: time.Time{}.Add(inMilliseconds(s.Begins)), Took: inMilliseconds(s.Duration)})
	}
	shown := checkSwap(t, spans)
	sent := checkSwap(t, traceOf(got, r.ID))
	if shown.ID != sent.ID {
		t.Errorf("root %s is shown, and %s is sent", shown.ID, sent.ID)
	}
}

// swapPhases are those of a swap that goes well.
var swapPhases = []string{"resolve", "check", "prewarm", "flip", "announce", "drain", "retire"}

// checkSwap wants the trace of a swap that went well, and returns its root.
func checkSwap(t *testing.T, spans []spantree.Span) *spantree.Tree {
	t.Helper()
	tree, err := spantree.Grow(spans)
	if err != nil {
		t.Fatal(err)
	}
	share, err := tree.CheckSwap(swapPhases)
	if err != nil {
		t.Errorf("%v in %+v", err, spans)
	}
	t.Logf("the phases explain %.2f %% of the time\n%s", 100*share, tree.Outline())
	return tree
}

// traceOf returns what came of a trace.
func traceOf(got otlptest.Received, id string) (spans []spantree.Span) {
	for _, s := range got.Spans {
		if s.TraceID == id {
			spans = append(spans, spantree.Span{Trace: id, ID: s.SpanID, Parent: s.ParentID, Name: s.Name, Began: s.Start, Took: s.End.Sub(s.Start)})
		}
	}
	return spans
}

func TestDemoFitsTheTerminal(t *testing.T) {
	out, err := exec.Command(binary, "demo").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// However the demo ends in the middle, nothing of it is left. What its daemon pins,
// nobody else ever sees.
func TestDemoRemovesWhatItMade(t *testing.T) {
	const measuring, exchanging = "round 1", "sending numbered frames both ways"
	for name, c := range map[string]struct {
		signal      syscall.Signal
		while, says string
	}{
		"Ctrl-C":           {syscall.SIGINT, measuring, "interrupted"},
		"Ctrl-C in a swap": {syscall.SIGINT, exchanging, "interrupted"},
		"SIGTERM":          {syscall.SIGTERM, measuring, "interrupted"},
		"SIGKILL":          {syscall.SIGKILL, measuring, ""},
	} {
		t.Run(name, func(t *testing.T) {
			temporary := t.TempDir()
			cmd := exec.Command(binary, "demo")
			cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr output
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			for lines.Scan() && !strings.HasPrefix(lines.Text(), c.while) {
			}
			daemon := childOf(t, cmd.Process.Pid)
			pins := pinsOf(t, daemon)
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", daemon, pins)); err != nil {
				t.Fatalf("the demo's daemon has no pins: %v", err)
			}
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, stdout)
			cmd.Wait()
			if c.says != "" && (cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), c.says)) {
				t.Errorf("exit code %d and %q", cmd.ProcessState.ExitCode(), stderr.String())
			}
			await(t, "the demo's daemon is gone", func() bool {
				return errors.Is(unix.Kill(daemon, 0), unix.ESRCH)
			})
			if _, err := os.Stat(pins); !os.IsNotExist(err) {
				t.Errorf("%s is left (%v)", pins, err)
				os.RemoveAll(pins)
			}
			if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
				t.Errorf("of its temporary files %v are left (%v)", left, err)
			}
		})
	}
}

// childOf returns the only child of a process.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	if children := childrenOf(t, pid); len(children) > 0 {
		return children[0]
	}
	t.Fatal("it has no daemon")
	return 0
}

func childrenOf(t *testing.T, pid int) (children []int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has ended
		}
		if child, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			children = append(children, child)
		}
	}
	return children
}

// pinsOf is where a daemon's pins are.
func pinsOf(t *testing.T, pid int) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/sys/fs/bpf/shunt/net-%d", st.Ino)
}

func TestDemoWithoutRootIsRefused(t *testing.T) { refusedWithoutRoot(t, "demo") }

// refusedWithoutRoot wants a command to say that it needs root.
func refusedWithoutRoot(t *testing.T, command string) {
	t.Helper()
	cmd := exec.Command("/proc/self/fd/3", command)
	program, err := os.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd.ExtraFiles = []*os.File{program}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stderr output
	cmd.Stderr = &stderr
	cmd.Run()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "root") {
		t.Errorf("exit code %d, and it says %q", cmd.ProcessState.ExitCode(), stderr.String())
	}
}
