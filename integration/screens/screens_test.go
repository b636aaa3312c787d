package screens

import (
	"fmt"
	"strings"
	"testing"
)

// widths are those of a small terminal and of a large one.
var widths = []int{80, 200}

// TestScreens runs the program in a terminal and compares what stands there.
func TestScreens(t *testing.T) {
	for _, width := range widths {
		for name, args := range map[string]string{
			"status": "status", "ports": "ports", "fdb": "fdb", "reasons": "reasons", "groups": "groups", "swaps": "swaps", "top-once": "top --once --interval 100ms", "top-help": "top --help",
			"explain": "explain --in uplink --src 52:54:00:12:34:01 --dst 52:54:00:12:34:02",
		} {
			t.Run(fmt.Sprintf("%s-%d", name, width), func(t *testing.T) {
				dir := t.TempDir()
				startDaemon(t, dir, fewPorts())
				term := openTerminal(t, dir, width, 100, "$shunt "+args+" --socket "+socket+"; echo end of the screen")
				screen := term.await("end of the screen")
				term.checkWhole()
				golden(t, fmt.Sprintf("%s-%d", name, width), strings.TrimSuffix(screen, "end of the screen\n"))
			})
		}
	}
}

// TestNarrowTerminal has half the columns that tables are made for.
func TestNarrowTerminal(t *testing.T) {
	for _, command := range []string{"status", "ports", "fdb", "reasons", "groups", "swaps", "top --once --interval 100ms"} {
		dir := t.TempDir()
		startDaemon(t, dir, fewPorts())
		term := openTerminal(t, dir, 44, 200, "$shunt "+command+" --socket "+socket+"; echo end of the screen")
		if screen := term.await("end of the screen"); strings.Contains(screen, "shunt: ") {
			t.Errorf("%s fails:\n%s", command, screen)
		}
		term.checkWhole()
	}
}

// TestColourIsOnlyForTerminalsThatTakeIt looks at the codes themselves.
func TestColourIsOnlyForTerminalsThatTakeIt(t *testing.T) {
	const colour = "\x1b[3" // tmux writes foregrounds so
	for environment, want := range map[string]bool{"": true, "NO_COLOR=1": false, "TERM=dumb": false} {
		for _, command := range []string{"status", "groups", "swaps", "reasons"} {
			dir := t.TempDir()
			startDaemon(t, dir, fewPorts())
			term := openTerminal(t, dir, 80, 100, environment+" $shunt "+command+" --socket "+socket+"; echo end of the screen")
			term.await("end of the screen")
			if got := strings.Contains(term.screen("-e"), colour); got != want {
				t.Errorf("%s %s: colour is %v:\n%q", environment, command, got, term.screen("-e"))
			}
		}
	}
}

// TestErrorsFitTheTerminal, and are a line elsewhere.
func TestErrorsFitTheTerminal(t *testing.T) {
	dir := t.TempDir()
	term := openTerminal(t, dir, 60, 24, "$shunt status --socket "+socket+"; echo end of the screen")
	term.await("end of the screen")
	term.checkWhole()
	out, code := call(t, dir, "status")
	if want := "shunt: no daemon answers at s (no such file or directory); start one with \"shunt run --bridge br0\"\n"; code != 1 || out != want {
		t.Errorf("got %d %s", code, out)
	}
}
