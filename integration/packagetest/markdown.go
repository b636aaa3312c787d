package main

import (
	"fmt"
	"slices"
	"strings"
)

// block is a block of code in a page.
type block struct {
	line int // its first, counted from 1
	text string
}

// shells are what a fence with commands is marked with. Other fences, and those
// without a mark, show what is not a command: a file, or what is printed.
var shells = []string{"sh", "bash", "shell"}

// blocksOf returns the blocks of commands of a Markdown page: those that are indented
// by four spaces, behind an empty line, and those in fences for a shell.
func blocksOf(page string) (blocks []block) {
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		var text []string
		begin := i
		if fence, mark, ok := openingFence(lines[i]); ok {
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != fence; i++ {
				text = append(text, lines[i])
			}
			begin++
			if !slices.Contains(shells, mark) {
				continue
			}
		} else if isIndented(lines[i]) && (i == 0 || strings.TrimSpace(lines[i-1]) == "") {
			for ; i < len(lines) && (isIndented(lines[i]) || strings.TrimSpace(lines[i]) == ""); i++ {
				text = append(text, strings.TrimPrefix(lines[i], "    "))
			}
			i--
		} else {
			continue
		}
		blocks = append(blocks, block{begin + 1, strings.TrimRight(strings.Join(text, "\n"), "\n ")})
	}
	return blocks
}

func isIndented(line string) bool {
	return strings.HasPrefix(line, "    ") && strings.TrimSpace(line) != ""
}

// openingFence returns what closes a fence and what it is marked with.
func openingFence(line string) (fence, mark string, ok bool) {
	rest := strings.TrimLeft(line, "`")
	fence = line[:len(line)-len(rest)]
	return fence, strings.TrimSpace(rest), len(fence) >= 3
}

// scriptOf makes a script for bash of a page's commands. It ends at the first that
// fails, having said at which line of the page the block stands.
func scriptOf(name, page string) string {
	var b strings.Builder
	b.WriteString("set -euo pipefail\n")
	for _, block := range blocksOf(page) {
		at := fmt.Sprintf("%s:%d", name, block.line)
		fmt.Fprintf(&b, "printf 'guest: %%s\\n' '%s'\nset -x\n%s\n{ set +x; } 2>/dev/null\n", at, block.text)
	}
	return b.String()
}
