package screens

import (
	"os"
	"strings"
	"testing"
)

// TestBenchInATerminal runs the real benchmark, in rounds that are too short to say much.
// Its sentences are other ones on every machine, and integration/bench has them all; here
// they fit, and nothing is left of what was said meanwhile.
func TestBenchInATerminal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	for _, width := range widths {
		term := openTerminal(t, t.TempDir(), width, 60, "$shunt bench --rounds 2 --duration 10ms; echo end of the screen")
		term.await("starting shunt")
		screen := term.await("end of the screen")
		term.checkWhole()
		if !strings.HasPrefix(screen, "    Linux ") || !strings.Contains(screen, "\nTRAFFIC ") || !strings.Contains(screen, "\nround trip p99 ") {
			t.Errorf("in %d columns it shows\n%s", width, screen)
		}
		if strings.Contains(screen, "starting shunt") || strings.Contains(screen, "round 2 of 2") {
			t.Errorf("in %d columns its progress is left:\n%s", width, screen)
		}
	}
}
