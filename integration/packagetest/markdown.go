package main

import (
	"fmt"
	"strings"

	"github.com/shunt-dev/shunt/integration/pages"
)

// scriptOf makes a script for bash of a page's commands. It ends at the first that
// fails, having said at which line of the page the block stands.
func scriptOf(name, page string) string {
	var b strings.Builder
	b.WriteString("set -euo pipefail\n")
	for _, block := range pages.Blocks(page) {
		if block.Kind != pages.Shell {
			continue
		}
		at := fmt.Sprintf("%s:%d", name, block.Line)
		fmt.Fprintf(&b, "printf 'guest: %%s\\n' '%s'\nset -x\n%s\n{ set +x; } 2>/dev/null\n", at, block.Text)
	}
	return b.String()
}
