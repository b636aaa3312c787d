package pages

import (
	"regexp"
	"testing"

	"github.com/shunt-dev/shunt/accel"
)

// row is one of the tables on the page of reasons: the name, and two cells.
var row = regexp.MustCompile("(?m)^\\| `([a-z_0-9]+)` \\| [^|]+ \\| [^|]+ \\|$")

// Every reason has its place on the page, once, and nothing else has.
func TestEveryReasonIsExplained(t *testing.T) {
	rows := make(map[string]int)
	for _, found := range row.FindAllStringSubmatch(read(t, "docs/never-accelerated.md"), -1) {
		rows[found[1]]++
	}
	for _, reason := range accel.Reasons() {
		if n := rows[reason.String()]; n != 1 && reason != accel.Fast {
			t.Errorf("%s stands %d times on the page: %s", reason, n, reason.Text())
		}
		delete(rows, reason.String())
	}
	for name := range rows {
		t.Errorf("there is no reason %s", name)
	}
}
