package screens

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/nicswap"
)

// openTop runs top in a terminal, and tells afterwards how it ended.
func openTop(t *testing.T, dir string, width, height int, environment, flags string) *terminal {
	t.Helper()
	return openTerminal(t, dir, width, height, "trap : INT; stty -g >before; "+
		"sh -c 'echo $$ >pid; exec env "+environment+" $shunt top --socket "+socket+" --interval 100ms "+flags+"'; "+
		"code=$?; stty -g >after; echo ended with $code")
}

// rated is in a screen that has rates: those of the first port.
const rated = "370k"

// sizes are those of a small terminal and of a large one.
var sizes = [][2]int{{80, 24}, {200, 50}}

// shoot compares a screen of top with its file.
func (term *terminal) shoot(name, screen string) {
	term.t.Helper()
	term.checkWhole()
	golden(term.t, fmt.Sprintf("top-%s-%d", name, term.width), screen)
}

// TestTopInATerminal also takes the daemon away, and gives it back.
func TestTopInATerminal(t *testing.T) {
	for _, size := range sizes {
		dir := t.TempDir()
		d := startDaemon(t, dir, fewPorts())
		term := openTop(t, dir, size[0], size[1], "", "")
		term.shoot("few", term.await(rated, "uplink"))
		d.stop()
		term.shoot("gone", term.await("no daemon answers at s"))
		d.start()
		term.awaitThat("the daemon that is back", func(screen string) bool {
			return !strings.Contains(screen, "no daemon answers") && strings.Contains(screen, rated)
		})
	}
}

// TestTopShowsASwapAsItHappens tells of it phase by phase.
func TestTopShowsASwapAsItHappens(t *testing.T) {
	for _, size := range sizes {
		dir := t.TempDir()
		d := startDaemon(t, dir, fewPorts())
		term := openTop(t, dir, size[0], size[1], "", "")
		term.await(rated, "uplink")
		var screen string
		for _, phase := range []string{"check", "prewarm", "flip"} {
			d.tell(nicswap.EventV1{Group: "uplink", Event: "phase", Phase: phase, Member: "enp129s0f1np1v0"})
			screen = term.await("swap uplink: enp129s0f0np0v0 to enp129s0f1np1v0: " + phase)
		}
		term.shoot("swap", screen)
		done := swaps()[2]
		d.tell(nicswap.EventV1{Group: "uplink", Event: "swap", Swap: &done})
		term.awaitThat("the end of the swap", func(screen string) bool { return !strings.Contains(screen, "running") })
	}
}

// TestTopScrolls has more ports than lines.
func TestTopScrolls(t *testing.T) {
	for _, size := range sizes {
		dir := t.TempDir()
		startDaemon(t, dir, manyPorts())
		term := openTop(t, dir, size[0], size[1], "", "")
		shown := func(first int) func(string) bool {
			return func(screen string) bool {
				above, below := fmt.Sprintf("tap-012345678%02d", first-1), fmt.Sprintf("tap-012345678%02d", first)
				return strings.Contains(screen, below) && !strings.Contains(screen, above) && strings.Contains(screen, "M")
			}
		}
		term.shoot("many", term.await("tap-01234567800", "7.40M", "uplink"))
		room := strings.Count(term.screen(), "tap-") + 1 // and their bridge
		const lines = 60 + 1 + 6                         // with three bridges more, and why they are slow
		nextPage := min(room-1, lines-room) - 1
		for _, step := range []struct {
			keys  string
			first int
		}{
			{"j j Down", 2}, {"k", 1}, {"Up j Down", 2}, {"Home j j", 1}, {"g NPage", nextPage}, {"PPage j j", 1},
			{"G G j j j Home End", 0}, {"PPage PPage PPage PPage PPage PPage PPage PPage PPage PPage j j", 1},
		} {
			term.press(strings.Fields(step.keys)...)
			if step.first == 0 {
				term.await("tap-01234567859", "br-off")
			} else {
				term.awaitThat(fmt.Sprintf("port %d at the top after %s", step.first, step.keys), shown(step.first))
			}
			term.checkWhole()
		}
	}
}

// TestTopLeavesTheTerminalAsItWas ends it in every way.
func TestTopLeavesTheTerminalAsItWas(t *testing.T) {
	for name, end := range map[string]func(term *terminal){
		"q":      func(term *terminal) { term.press("q") },
		"Ctrl-C": func(term *terminal) { term.press("C-c") },
		"SIGTERM": func(term *terminal) {
			if err := syscall.Kill(term.pid(), syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			startDaemon(t, dir, fewPorts())
			term := openTop(t, dir, 80, 24, "", "")
			term.await(rated)
			end(term)
			if screen := term.await("ended with"); screen != "ended with 0\n" {
				t.Errorf("it leaves behind:\n%s", screen)
			}
			if flags := term.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}"); flags != "0 1\n" {
				t.Errorf("alternate screen and cursor are %s", flags)
			}
			before, _ := os.ReadFile(filepath.Join(dir, "before"))
			after, _ := os.ReadFile(filepath.Join(dir, "after"))
			if len(before) == 0 || string(before) != string(after) {
				t.Errorf("the terminal was set to %q and is to %q", before, after)
			}
		})
	}
}

// pid is that of top.
func (term *terminal) pid() int {
	term.t.Helper()
	text, err := os.ReadFile(filepath.Join(term.dir, "pid"))
	if err != nil {
		term.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		term.t.Fatal(err)
	}
	return pid
}

// TestTopEndsWithItsTerminal, as when a connection by ssh breaks.
func TestTopEndsWithItsTerminal(t *testing.T) {
	dir := t.TempDir()
	startDaemon(t, dir, fewPorts())
	term := openTop(t, dir, 80, 24, "", "")
	term.await(rated)
	top, err := unix.PidfdOpen(term.pid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(top)
	term.tmux("respawn-pane", "-k", "cat") // the old terminal hangs up
	ended := []unix.PollFd{{Fd: int32(top), Events: unix.POLLIN}}
	if n, err := unix.Poll(ended, int(patience.Milliseconds())); n != 1 || err != nil {
		t.Errorf("top lives on without a terminal: %v", err)
	}
}

// TestTopTakesEverySize resizes the terminal under it.
func TestTopTakesEverySize(t *testing.T) {
	dir := t.TempDir()
	startDaemon(t, dir, fewPorts())
	term := openTop(t, dir, 80, 24, "", "")
	term.await(rated)
	for _, size := range [][2]int{{200, 60}, {50, 12}, {30, 6}, {162, 24}, {10, 2}, {80, 24}} {
		term.width, term.height = size[0], size[1]
		term.tmux("resize-window", "-x", strconv.Itoa(size[0]), "-y", strconv.Itoa(size[1]))
		term.awaitThat(fmt.Sprintf("a screen of %v", size), func(screen string) bool {
			lines := strings.Split(strings.TrimSuffix(screen, "\n"), "\n")
			return len(lines) == term.height && strings.HasPrefix(lines[term.height-1], "q quits") && term.tooLong() == ""
		})
	}
}

// TestTopWithoutColour looks at the codes themselves.
func TestTopWithoutColour(t *testing.T) {
	const colour = "\x1b[3"
	for environment, want := range map[string]bool{"A=b": true, "NO_COLOR=1": false} {
		dir := t.TempDir()
		startDaemon(t, dir, fewPorts())
		term := openTop(t, dir, 80, 24, environment, "")
		term.await(rated)
		if got := strings.Contains(term.screen("-e"), colour); got != want {
			t.Errorf("%s: colour is %v:\n%q", environment, got, term.screen("-e"))
		}
	}
}

// TestTopOnADumbTerminal prints one screen below the other, and draws nothing.
func TestTopOnADumbTerminal(t *testing.T) {
	dir := t.TempDir()
	startDaemon(t, dir, fewPorts())
	term := openTop(t, dir, 80, 200, "TERM=dumb", "")
	term.awaitThat("a second screen", func(screen string) bool { return strings.Count(screen, rated) >= 2 })
	if flag := term.tmux("display-message", "-p", "#{alternate_on}"); flag != "0\n" {
		t.Error("it draws on a terminal that cannot be drawn on")
	}
	term.checkWhole()
	term.press("C-c")
	term.await("ended with 0")
}

// TestTopWithoutATerminal is refused, with what to do.
func TestTopWithoutATerminal(t *testing.T) {
	dir := t.TempDir()
	startDaemon(t, dir, fewPorts())
	out, code := call(t, dir, "top")
	if code != 1 || out != "shunt: top needs a terminal; \"shunt top --once\" prints one screen anywhere\n" {
		t.Errorf("got %d %s", code, out)
	}
	if out, code = call(t, dir, "top", "--once", "--interval", "100ms"); code != 0 || !strings.Contains(out, rated) || strings.Contains(out, "\x1b") {
		t.Errorf("got %d %q", code, out)
	}
	if out, code = call(t, dir, "top", "--interval", "1ms"); code != 2 || out != "shunt: --interval must be 100ms or more, not 1ms\n" {
		t.Errorf("got %d %s", code, out)
	}
}

// TestTopWithoutGroups works on a daemon without stable ports.
func TestTopWithoutGroups(t *testing.T) {
	dir := t.TempDir()
	startDaemon(t, dir, fewPorts()).groups = false
	out, code := call(t, dir, "top", "--once", "--interval", "100ms")
	if code != 0 || !strings.Contains(out, rated) {
		t.Errorf("got %d %s", code, out)
	}
	mustNotContain(t, out, "GROUP", "SWAP")
}
