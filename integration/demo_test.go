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
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

func TestDemoMeasuresAndLosesNothing(t *testing.T) {
	out, err := exec.Command(binary, "demo", "-j").Output()
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]float64
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, key := range []string{
		"off_tcp_bits_per_second", "on_tcp_bits_per_second", "tcp_ratio",
		"off_udp_frames_per_second", "on_udp_frames_per_second", "udp_ratio",
		"off_latency_p50_microseconds", "on_latency_p50_microseconds",
		"off_latency_p99_microseconds", "on_latency_p99_microseconds",
		"rounds", "fast_frames", "stream_frames", "stream_switches",
	} {
		if r[key] <= 0 {
			t.Errorf("%s is %v", key, r[key])
		}
	}
	for _, key := range []string{"stream_lost", "stream_doubled", "stream_out_of_order"} {
		if n, ok := r[key]; !ok || n != 0 {
			t.Errorf("%s is %v (present: %v)", key, n, ok)
		}
	}
	if r["fast_share"] < 0.99 {
		t.Errorf("%.4f of the frames were fast", r["fast_share"])
	}
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

// However the demo ends in the middle, nothing of it is left.
func TestDemoRemovesWhatItMade(t *testing.T) {
	for name, c := range map[string]struct {
		signal syscall.Signal
		says   string
	}{
		"Ctrl-C":  {syscall.SIGINT, "interrupted"},
		"SIGTERM": {syscall.SIGTERM, "interrupted"},
		"SIGKILL": {syscall.SIGKILL, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(binary, "demo")
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
			for lines.Scan() && !strings.HasPrefix(lines.Text(), "round 1") {
			}
			daemon := childOf(t, cmd.Process.Pid)
			pins := pinsOf(t, daemon)
			if _, err := os.Stat(pins); err != nil {
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
			}
		})
	}
}

// childOf returns the only child of a process.
func childOf(t *testing.T, pid int) int {
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
			return child
		}
	}
	t.Fatal("the demo has no daemon")
	return 0
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

func TestDemoWithoutRootIsRefused(t *testing.T) {
	cmd := exec.Command("/proc/self/fd/3", "demo")
	program, err := os.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd.ExtraFiles = []*os.File{program}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stderr output
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "root") {
		t.Errorf("%v, and it says %q", err, stderr.String())
	}
}
