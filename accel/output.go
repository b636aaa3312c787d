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

// Screen writes for people: aligned tables, and sentences that fit 80 columns.
type Screen struct {
	io.Writer
	colour bool
}

const screenWidth = 80

// NewScreen uses colour only where it is welcome.
func NewScreen(w io.Writer) Screen {
	f, ok := w.(*os.File)
	return Screen{w, ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(f)}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Colour is an SGR parameter.
type Colour string

// The colours that are used, and what they mean.
const (
	Plain  Colour = ""
	Green  Colour = "32" // as it should be
	Yellow Colour = "33" // works, but not as it could
	Red    Colour = "31" // broken, or given up
)

// Paint colours a text, after it was padded: the codes have no width.
func (s Screen) Paint(colour Colour, text string) string {
	if !s.colour || colour == Plain {
		return text
	}
	return "\x1b[" + string(colour) + "m" + text + "\x1b[0m"
}

// Table is aligned when it is written. A heading that begins with ">" has its
// column aligned to the right.
type Table struct {
	Headings []string
	Rows     []Row
}

// Row has as many cells as its table has headings.
type Row struct {
	Cells []string
	// Colours are those of the cells, by column.
	Colours map[int]Colour
	// Notes are sentences that follow the row, wrapped.
	Notes []string
	// Alarm is a line before the notes, in red; it is not wrapped.
	Alarm string
}

// Table writes a table.
func (s Screen) Table(t Table) error {
	widths := t.widths()
	var b strings.Builder
	s.line(&b, t, Row{Cells: t.Headings}, widths)
	for _, r := range t.Rows {
		s.line(&b, t, r, widths)
		if r.Alarm != "" {
			fmt.Fprintf(&b, "    %s\n", s.Paint(Red, r.Alarm))
		}
		for _, note := range r.Notes {
			WriteNote(&b, note)
		}
	}
	_, err := io.WriteString(s, b.String())
	return err
}

func (t Table) widths() []int {
	widths := make([]int, len(t.Headings))
	for i, heading := range t.Headings {
		widths[i] = utf8.RuneCountInString(strings.TrimPrefix(heading, ">"))
		for _, r := range t.Rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r.Cells[i]))
		}
	}
	return widths
}

func (s Screen) line(b *strings.Builder, t Table, r Row, widths []int) {
	last := len(r.Cells) - 1
	for i, cell := range r.Cells {
		cell = strings.TrimPrefix(cell, ">")
		padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		right := strings.HasPrefix(t.Headings[i], ">")
		if right {
			b.WriteString(padding)
		}
		b.WriteString(s.Paint(r.Colours[i], cell))
		if !right && i < last {
			b.WriteString(padding)
		}
		if i < last {
			b.WriteString("  ")
		}
	}
	b.WriteByte('\n')
}

// WriteNote writes a sentence as it stands under a row: indented, and wrapped.
func WriteNote(w io.Writer, text string) error {
	var b strings.Builder
	writeBehind(&b, "    ", "      ", text)
	_, err := io.WriteString(w, b.String())
	return err
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

// FormatFrames writes a number of frames in at most five characters and a unit.
func FormatFrames(n uint64) string { return scaled(n, 10_000, "k", "M", "G", "T", "P", "E") }

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

// WriteJSON writes what -j prints: one line, as ip -j does.
func WriteJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
