package screens

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	trace  = regexp.MustCompile(`\b[0-9a-f]{16,32}\b`)
	figure = regexp.MustCompile(`[0-9]+(\.[0-9]+)?`)
	blanks = regexp.MustCompile(` +`)
)

// TestDemoInATerminal runs the real demo. Its figures are other ones every time, and so
// is the space before them.
func TestDemoInATerminal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	for _, width := range widths {
		term := openTerminal(t, t.TempDir(), width, 100, "$shunt demo; echo end of the screen")
		screen := term.await("end of the screen")
		term.checkWhole()
		screen = figure.ReplaceAllString(trace.ReplaceAllString(screen, "ID"), "N")
		screen = blanks.ReplaceAllString(screen, " ")
		golden(t, fmt.Sprintf("demo-%d", width), strings.TrimSuffix(screen, "end of the screen\n"))
	}
}
