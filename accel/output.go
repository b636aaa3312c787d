package accel

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Screen writes for people: aligned tables, and sentences, that fit its columns.
type Screen struct {
	io.Writer
	colour  bool
	columns int // 0 where that is not known, as it is not of a file
}

// screenWidth is how wide a screen is that is no terminal. Sentences that are
// wider than longestLine are hard to read, and below narrowest nothing fits.
const (
	screenWidth = 80
	longestLine = 120
	narrowest   = 40
)

// NewScreen is as wide as the terminal that w is, and uses colour only where it is
// welcome.
func NewScreen(w io.Writer) Screen {
	f, ok := w.(*os.File)
	if !ok || !IsTerminal(f) {
		return Screen{Writer: w}
	}
	s := Screen{Writer: w, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		s.columns = max(int(size.Col), narrowest)
	}
	return s
}

// IsTerminal says whether people look at f.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// To is a screen like this one that writes elsewhere, in so many columns.
func (s Screen) To(w io.Writer, columns int) Screen {
	return Screen{w, s.colour, max(columns, narrowest)}
}

// Columns is how wide the screen is.
func (s Screen) Columns() int { return cmp.Or(s.columns, screenWidth) }

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

// Printable is text that a terminal shows and does not obey: what is no character is
// written as Go does, \x1b for an escape. The kernel takes nearly any bytes as the
// name of a device, and who names one need not be who looks at it. Tables and notes
// are printable anyway.
func Printable(text string) string {
	var b strings.Builder
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// Table is aligned when it is written. A heading that begins with ">" has its
// column aligned to the right. The last columns of a table that is too wide for the
// screen stand in a line below each row, with their headings.
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
	// Alarm is a sentence before the notes, in red.
	Alarm string
}

// Table writes a table.
func (s Screen) Table(t Table) error {
	t = t.printable().folded(s.Columns())
	widths := t.widths()
	var b strings.Builder
	s.line(&b, t, Row{Cells: t.Headings}, widths)
	for _, r := range t.Rows {
		s.line(&b, t, r, widths)
		if r.Alarm != "" {
			s.alarm(&b, r.Alarm)
		}
		for _, note := range r.Notes {
			s.note(&b, note)
		}
	}
	_, err := io.WriteString(s, b.String())
	return err
}

// printable is the table with cells that can be written. Notes are made so when they
// are wrapped.
func (t Table) printable() Table {
	t.Rows = slices.Clone(t.Rows)
	for i, r := range t.Rows {
		t.Rows[i].Cells = slices.Clone(r.Cells)
		for j, cell := range r.Cells {
			t.Rows[i].Cells[j] = Printable(cell)
		}
	}
	return t
}

// folded moves the columns that do not fit into notes.
func (t Table) folded(columns int) Table {
	fits, end := 0, -2
	for _, width := range t.widths() {
		if end += 2 + width; end > columns {
			break
		}
		fits++
	}
	if fits = max(fits, 1); fits == len(t.Headings) {
		return t
	}
	folded := Table{Headings: t.Headings[:fits]}
	for _, r := range t.Rows {
		var rest []string
		for i, cell := range r.Cells[fits:] {
			rest = append(rest, strings.ToLower(strings.TrimPrefix(t.Headings[fits+i], ">"))+" "+cell)
		}
		r.Cells, r.Notes = r.Cells[:fits], append([]string{strings.Join(rest, ", ")}, r.Notes...)
		folded.Rows = append(folded.Rows, r)
	}
	return folded
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

// WriteNote writes a sentence as it stands under a row: indented, and wrapped at
// the width of w, if that is a Screen.
func WriteNote(w io.Writer, text string) error {
	s, _ := w.(Screen)
	var b strings.Builder
	s.note(&b, text)
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Screen) note(b *strings.Builder, text string) { s.behind(b, "    ", "      ", text) }

// behind writes a sentence in lines that fit the screen, behind what the first and
// each further line begin with.
func (s Screen) behind(b *strings.Builder, first, further, text string) {
	length, end := 0, min(s.Columns(), longestLine)
	for word := range strings.FieldsSeq(text) {
		word = Printable(word)
		switch {
		case length == 0:
			b.WriteString(first)
			length = len(first)
		case length+1+utf8.RuneCountInString(word) > end:
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

// alarm writes a note in red, but for the space before each of its lines.
func (s Screen) alarm(b *strings.Builder, text string) {
	var note strings.Builder
	s.note(&note, text)
	for line := range strings.Lines(note.String()) {
		words := strings.TrimSpace(line)
		b.WriteString(strings.TrimSuffix(line, words+"\n") + s.Paint(Red, words) + "\n")
	}
}

// complain writes an error: a line for a program that reads it, and what fits for
// people at a terminal.
func (s Screen) complain(who, text string) {
	var b strings.Builder
	if s.columns == 0 {
		b.WriteString(who + Printable(text) + "\n")
	} else {
		s.behind(&b, who, "  ", text)
	}
	io.WriteString(s, b.String())
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

// FormatShare writes part of whole in percent. It is cut, not rounded: 100.0 % means
// all of it.
func FormatShare(part, whole uint64) string {
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
