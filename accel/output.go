package accel

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen writes for people: aligned tables that fit 80 columns.
type screen struct {
	io.Writer
	colour bool
}

const screenWidth = 80

// newScreen uses colour only where it is welcome.
func newScreen(w io.Writer) screen {
	f, ok := w.(*os.File)
	return screen{w, ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// The colours that are used, as SGR parameters.
const (
	plain  = ""
	green  = "32"
	yellow = "33"
	red    = "31"
)

// paint colours a text, after it was padded: the codes have no width.
func (s screen) paint(colour, text string) string {
	if !s.colour || colour == plain {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// table is aligned when it is written. A heading that begins with ">" has its
// column aligned to the right.
type table struct {
	headings []string
	rows     []row
}

type row struct {
	cells []string
	// colours are those of the cells, by column.
	colours map[int]string
	// notes are sentences that follow the row, wrapped.
	notes []string
	// alarm is a line before the notes, in red; it is not wrapped.
	alarm string
}

func (s screen) table(t table) error {
	widths := t.widths()
	var b strings.Builder
	s.line(&b, t, row{cells: t.headings}, widths)
	for _, r := range t.rows {
		s.line(&b, t, r, widths)
		if r.alarm != "" {
			fmt.Fprintf(&b, "    %s\n", s.paint(red, r.alarm))
		}
		for _, note := range r.notes {
			writeWrapped(&b, note)
		}
	}
	_, err := io.WriteString(s, b.String())
	return err
}

func (t table) widths() []int {
	widths := make([]int, len(t.headings))
	for i, heading := range t.headings {
		widths[i] = utf8.RuneCountInString(strings.TrimPrefix(heading, ">"))
		for _, r := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r.cells[i]))
		}
	}
	return widths
}

func (s screen) line(b *strings.Builder, t table, r row, widths []int) {
	last := len(r.cells) - 1
	for i, cell := range r.cells {
		cell = strings.TrimPrefix(cell, ">")
		padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		right := strings.HasPrefix(t.headings[i], ">")
		if right {
			b.WriteString(padding)
		}
		b.WriteString(s.paint(r.colours[i], cell))
		if !right && i < last {
			b.WriteString(padding)
		}
		if i < last {
			b.WriteString("  ")
		}
	}
	b.WriteByte('\n')
}

// writeWrapped writes a sentence under a row, indented.
func writeWrapped(b *strings.Builder, text string) {
	writeBehind(b, "    ", "      ", text)
}

// writeBehind writes a sentence in lines that fit the screen, behind what the
// first and each further line begin with.
func writeBehind(b *strings.Builder, first, further, text string) {
	length := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case length == 0:
			b.WriteString(first)
			length = len(first)
		case length+1+utf8.RuneCountInString(word) > screenWidth:
			b.WriteString("\n" + further)
			length = len(further)
		default:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += utf8.RuneCountInString(word)
	}
	b.WriteByte('\n')
}

// explainReason makes the notes for a reason: what it means and what to do.
func explainReason(what string, text, advice string) []string {
	notes := []string{what + ": " + text}
	if advice != "" {
		notes = append(notes, "advice: "+advice)
	}
	return notes
}

// frames writes a number of frames in at most five characters and a unit.
func frames(n uint64) string { return scaled(n, 10_000, "k", "M", "G", "T", "P", "E") }

// octets writes a number of bytes with its unit.
func octets(n uint64) string { return scaled(n, 1000, " kB", " MB", " GB", " TB", " PB", " EB") }

// scaled writes n with three digits and a unit, and numbers below exact as they
// are. Digits are cut, not rounded: 999,999 is 999k and not 1.00M.
func scaled(n, exact uint64, units ...string) string {
	if n < exact {
		if strings.HasPrefix(units[0], " ") {
			return fmt.Sprintf("%d B", n)
		}
		return fmt.Sprint(n)
	}
	divisor, unit := uint64(1000), 0
	for n/divisor >= 1000 && unit < len(units)-1 {
		divisor *= 1000
		unit++
	}
	whole, hundredths := n/divisor, n%divisor/(divisor/100)
	switch {
	case whole < 10:
		return fmt.Sprintf("%d.%02d%s", whole, hundredths, units[unit])
	case whole < 100:
		return fmt.Sprintf("%d.%d%s", whole, hundredths/10, units[unit])
	}
	return fmt.Sprintf("%d%s", whole, units[unit])
}

// share writes part of whole in percent. It is cut, not rounded: 100.0 % means
// all of it.
func share(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	thousandths := uint64(float64(part) / float64(whole) * 1000)
	if part < whole && thousandths == 1000 {
		thousandths = 999
	}
	if part > 0 && thousandths == 0 {
		return "<0.1 %"
	}
	return fmt.Sprintf("%d.%d %%", thousandths/10, thousandths%10)
}

// writeJSON writes what -j prints: one line, as ip -j does.
func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
