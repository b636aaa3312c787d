package screens

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files")

// binary is the program as it is released. TestMain builds it.
var binary string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shunt-screens-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "shunt")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/shunt-dev/shunt").CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

// terminal is a real one: a pane of a tmux of its own, in an empty directory.
type terminal struct {
	t             *testing.T
	dir           string
	width, height int
}

// openTerminal runs a script of sh(1), which finds the program as $shunt, and the
// terminal's directory as its own.
func openTerminal(t *testing.T, dir string, width, height int, script string) *terminal {
	t.Helper()
	term := &terminal{t, dir, width, height}
	term.tmux("-f", "/dev/null", "new-session", "-d", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height), "-c", dir,
		"-e", "shunt="+binary, "-e", "TZ=UTC", "sh", "-c", script+"; exec cat")
	t.Cleanup(func() { term.tmux("kill-server") })
	return term
}

// tmux fails the test where tmux does: without it, no screen was seen.
func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-S", filepath.Join(term.dir, "tmux")}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=/nonexistent"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		term.t.Fatalf("tmux %v: %v %s(Debian's package is tmux)", args, err, &stderr)
	}
	return string(out)
}

// press sends keys, as tmux names them.
func (term *terminal) press(keys ...string) {
	term.t.Helper()
	term.tmux(append([]string{"send-keys"}, keys...)...)
}

// screen is what the terminal shows, without what is empty at its end.
func (term *terminal) screen(flags ...string) string {
	term.t.Helper()
	out := term.tmux(append([]string{"capture-pane", "-p"}, flags...)...)
	return strings.TrimRight(out, "\n") + "\n"
}

// patience is how long a screen may take to come, on a machine that is busy.
const patience = time.Minute

// await waits for a screen with all of these texts, and returns it.
func (term *terminal) await(texts ...string) string {
	term.t.Helper()
	return term.awaitThat(strings.Join(texts, " and "), func(screen string) bool {
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return false
			}
		}
		return true
	})
}

func (term *terminal) awaitThat(what string, holds func(screen string) bool) string {
	term.t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for late := time.After(patience); ; {
		screen := term.screen()
		if holds(screen) {
			return screen
		}
		select {
		case <-again.C:
		case <-late:
			term.t.Fatalf("%s does not come; the screen is\n%s", what, screen)
		}
	}
}

// checkWhole fails if a line is wider than the terminal, or was wrapped by it.
func (term *terminal) checkWhole() {
	term.t.Helper()
	if line := term.tooLong(); line != "" {
		term.t.Errorf("in a terminal of %d columns a line is longer, or wrapped: %q", term.width, line)
	}
}

// tooLong returns a line that does not fit. tmux puts what it wrapped into one again.
func (term *terminal) tooLong() string {
	term.t.Helper()
	for line := range strings.Lines(term.screen("-J")) {
		if line = strings.TrimRight(line, " \n"); utf8.RuneCountInString(line) > term.width {
			return line
		}
	}
	return ""
}

// golden compares a screen with its file.
func golden(t *testing.T, name, screen string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(screen), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if screen != string(want) {
		t.Errorf("%s differs (go test ./integration/screens -update writes it):\n%s", path, screen)
	}
}

// call runs the program without a terminal.
func call(t *testing.T, dir string, args ...string) (output string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append(args, "--socket", socket)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
