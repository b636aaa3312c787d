package pages

import (
	"regexp"
	"slices"
	"strings"
)

// Commands takes a text of the shell apart into its commands, each in words without
// their quotes. It knows what stands in pages: quotes, comments, pipes, lists,
// redirections and $( ), whose commands come first.
func Commands(text string) (commands [][]string) {
	l := lexer{rest: text}
	for l.more() {
		if l.word() {
			continue
		}
	}
	l.end()
	return l.commands
}

// lexer goes through a text of the shell.
type lexer struct {
	rest     string
	commands [][]string
	words    []string
	skip     bool // the next word is where a redirection goes
}

func (l *lexer) more() bool {
	l.rest = strings.TrimLeft(l.rest, " \t")
	return l.rest != ""
}

// word takes the next word, or what stands between words.
func (l *lexer) word() bool {
	switch c := l.rest[0]; {
	case strings.HasPrefix(l.rest, "\\\n"):
		l.rest = l.rest[2:]
	case c == '#':
		_, after, _ := strings.Cut(l.rest, "\n")
		l.rest = "\n" + after
	case strings.ContainsRune("\n;|&()", rune(c)):
		l.end()
		l.rest = l.rest[1:]
	case c == '<' || c == '>':
		l.rest = strings.TrimLeft(l.rest, "<>&")
		l.skip = true
	default:
		l.take()
		return true
	}
	return false
}

// take reads one word up to what ends it.
func (l *lexer) take() {
	var word strings.Builder
	for l.rest != "" && !strings.ContainsRune(" \t\n;|&()<>", rune(l.rest[0])) {
		switch {
		case strings.HasPrefix(l.rest, "$("):
			word.WriteString(l.inner())
		case l.rest[0] == '\'' || l.rest[0] == '"':
			quoted, after, _ := strings.Cut(l.rest[1:], l.rest[:1])
			word.WriteString(quoted)
			l.rest = after
		case l.rest[0] == '\\' && len(l.rest) > 1:
			word.WriteByte(l.rest[1])
			l.rest = l.rest[2:]
		default:
			word.WriteByte(l.rest[0])
			l.rest = l.rest[1:]
		}
	}
	if !l.skip {
		l.words = append(l.words, word.String())
	}
	l.skip = false
}

// inner takes a $( ), whose commands are commands too.
func (l *lexer) inner() string {
	depth := 0
	for i, c := range l.rest {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 && i > 1 {
			whole := l.rest[:i+1]
			l.commands = append(l.commands, Commands(l.rest[2:i])...)
			l.rest = l.rest[i+1:]
			return whole
		}
	}
	whole := l.rest
	l.rest = ""
	return whole
}

func (l *lexer) end() {
	if len(l.words) > 0 {
		l.commands = append(l.commands, l.words)
	}
	l.words, l.skip = nil, false
}

// assignment is VARIABLE=VALUE before a command.
var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// before are words that stand before a command and let it be one.
var before = []string{"sudo", "time", "if", "then", "do", "while", "until", "!", "{"}

// OfShunt returns the arguments of a command if it is one of shunt.
func OfShunt(words []string) (args []string, ok bool) {
	for len(words) > 0 && (slices.Contains(before, words[0]) || assignment.MatchString(words[0])) {
		words = words[1:]
	}
	if len(words) > 1 && words[0] == "nsenter" {
		words = words[2:] // --net=
	}
	switch {
	case len(words) > 1 && (words[0] == "shunt" || words[0] == "./shunt"):
		return words[1:], true
	case len(words) > 3 && slices.Equal(words[:3], []string{"go", "run", "."}):
		return words[3:], true
	}
	return nil, false
}
