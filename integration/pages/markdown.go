package pages

import (
	"regexp"
	"strings"
)

// Kind says what a block of a page is.
type Kind string

// The kinds of blocks.
const (
	Shell  Kind = "shell"  // commands
	Config Kind = "config" // of shunt, in YAML
	Unit   Kind = "unit"   // a file of systemd or systemd-networkd
	Other  Kind = "other"  // what is printed, or belongs to other programs
)

// Block is a block of code in a page.
type Block struct {
	Line int // of its first line, counted from 1
	Kind Kind
	Text string
}

// Blocks returns the blocks of a Markdown page. One that is indented by four blanks, or
// more in a list, is commands, or settings if it looks like them; one in a fence is what
// the fence is marked with.
func Blocks(page string) (blocks []Block) {
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		if fence, mark, ok := openingFence(lines[i]); ok {
			begin := i + 1
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != fence; i++ {
			}
			blocks = append(blocks, Block{begin + 1, marked(mark), strings.Join(lines[begin:min(i, len(lines))], "\n")})
			continue
		}
		if !isIndented(lines[i]) || i > 0 && strings.TrimSpace(lines[i-1]) != "" {
			continue
		}
		begin := i
		margin := lines[i][:len(lines[i])-len(strings.TrimLeft(lines[i], " "))]
		var text []string
		for ; i < len(lines) && (isIndented(lines[i]) || strings.TrimSpace(lines[i]) == ""); i++ {
			text = append(text, strings.TrimPrefix(lines[i], margin))
		}
		i--
		block := strings.TrimRight(strings.Join(text, "\n"), "\n ")
		blocks = append(blocks, Block{begin + 1, looksLike(block), block})
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

// marked is the kind of a fence.
func marked(mark string) Kind {
	switch mark {
	case "sh", "bash", "shell":
		return Shell
	case "yaml":
		return Config
	case "ini":
		return Unit
	}
	return Other
}

// key is how a line of settings begins.
var key = regexp.MustCompile(`^[a-z_]+:(\s|$)`)

func looksLike(text string) Kind {
	if key.MatchString(text) {
		return Config
	}
	return Shell
}

// inline is code within a sentence.
var inline = regexp.MustCompile("`([^`\n]+)`")

// Inline returns the code that stands within the sentences of a page, as blocks of
// one line.
func Inline(page string) (blocks []Block) {
	fenced := false
	for i, line := range strings.Split(page, "\n") {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if fenced || isIndented(line) {
			continue
		}
		for _, code := range inline.FindAllStringSubmatch(line, -1) {
			blocks = append(blocks, Block{i + 1, Shell, code[1]})
		}
	}
	return blocks
}
