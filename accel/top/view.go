package top

import (
	"fmt"
	"io"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/shunt-dev/shunt/accel"
)

const (
	// besides is how wide a screen is that has its parts side by side, each of
	// partWidth at least.
	besides   = 2*partWidth + len(gap)
	partWidth = 80
	gap       = "  "
	// latestSwaps is how many swaps are shown that are over.
	latestSwaps = 3
)

// part is a part of the screen: lines of which some are shown.
type part struct {
	head  []string // always shown
	lines []string
	room  int // how many of lines can be shown
}

func (m model) View() tea.View {
	v := tea.NewView(strings.Join(m.draw(), "\n"))
	v.AltScreen = true
	return v
}

// draw makes as many lines as the terminal has.
func (m model) draw() []string {
	if m.width == 0 {
		return nil // the terminal has not said yet
	}
	parts := m.parts()
	var shown [2][]string
	for i, p := range parts {
		shown[i] = m.show(p, i)
	}
	lines := m.head()
	if m.width >= besides {
		lines = append(lines, beside(shown[0], shown[1])...)
	} else {
		lines = slices.Concat(lines, shown[0], []string{""}, shown[1])
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	return append(lines[:max(0, m.height-1)], m.foot())
}

// beside puts b to the right of a.
func beside(a, b []string) (lines []string) {
	for i := range max(len(a), len(b)) {
		var left, right string
		if i < len(a) {
			left = a[i]
		}
		if i < len(b) {
			right = b[i]
		}
		lines = append(lines, left+strings.Repeat(" ", partWidth-ansi.StringWidth(left))+gap+right)
	}
	return lines
}

// print writes the whole, however long it is.
func (m model) print() error {
	var b strings.Builder
	parts := m.parts()
	between := []string{""}
	for _, line := range slices.Concat(m.head(), parts[0].head, parts[0].lines, between, parts[1].lines, between) {
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(m.screen, b.String())
	return err
}

// parts are the two parts of the screen, with their room.
func (m model) parts() [2]part {
	left, right := m.columns(), m.columns()
	if m.width >= besides {
		left, right = partWidth, m.width-partWidth-len(gap)
	}
	traffic, rest := m.table(m.traffic(), left), m.rest(right)
	parts := [2]part{{head: traffic[:1], lines: traffic[1:]}, {lines: rest}}
	room := max(0, m.height-len(m.head())-1)
	if m.width >= besides {
		parts[0].room, parts[1].room = max(0, fit(len(traffic), room)-1), fit(len(rest), room)
		return parts
	}
	room-- // an empty line is between them
	lower := min(len(rest), max(room/2, room-len(traffic)))
	parts[0].room = max(0, fit(len(traffic), room-lower)-1)
	parts[1].room = fit(len(rest), lower)
	return parts
}

// rest is what is not traffic. Swaps come first while one is running.
func (m model) rest(columns int) (lines []string) {
	tables := []accel.Table{m.reasons(m.width >= besides), m.groups(), m.swaps()}
	if len(m.running) > 0 {
		tables[0], tables[1], tables[2] = tables[2], tables[0], tables[1]
	}
	for i, t := range tables {
		if len(t.Rows) == 0 && i > 0 {
			continue
		}
		if i > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, m.table(t, columns)...)
	}
	return lines
}

// fit is how many lines are shown in a room: a line less if there are more of them, for
// what show says of that.
func fit(lines, room int) int {
	if lines <= room {
		return lines
	}
	return max(0, room-1)
}

// show cuts a part to its room, and says so.
func (m model) show(p part, i int) []string {
	if len(p.lines) <= p.room {
		return slices.Concat(p.head, p.lines)
	}
	from := m.offset[i]
	to := min(from+p.room, len(p.lines))
	more, how := fmt.Sprintf("lines %d to %d of %d", min(from+1, to), to, len(p.lines)), ": the arrows scroll"
	if m.focus != i {
		how = ": Tab and the arrows scroll"
	}
	return slices.Concat(p.head, p.lines[from:to], []string{m.screen.Paint(accel.Yellow, m.fitting(more+how, more))})
}

// columns is the width of a terminal, and without one of what is printed on.
func (m model) columns() int {
	if m.width == 0 {
		return m.screen.Columns()
	}
	return m.width
}

func (m model) table(t accel.Table, columns int) []string {
	var b strings.Builder
	m.screen.To(&b, columns).Table(t) // a Builder takes everything
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

// head says of whom all this is, and what is wrong.
func (m model) head() []string {
	s := m.last.snapshot
	title := fmt.Sprintf("shunt top, every %v", m.interval)
	if s.Status.PID != 0 {
		title = m.fitting(fmt.Sprintf("%s: daemon %d, %s, %s", title, s.Status.PID, count(len(s.Status.Bridges), "bridge"), count(len(s.Ports), "port")), title)
	}
	lines := []string{title}
	if m.trouble != nil {
		var b strings.Builder
		accel.WriteNote(m.screen.To(&b, m.columns()), m.trouble.Error())
		for line := range strings.Lines(b.String()) {
			lines = append(lines, m.screen.Paint(accel.Red, strings.TrimSuffix(line, "\n")))
		}
	}
	return append(lines, "")
}

// fitting is the long text where it fits in a line, and else the short one.
func (m model) fitting(long, short string) string {
	if len(long) <= m.columns() {
		return long
	}
	return short
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// foot is the swap that is running, or what the keys do.
func (m model) foot() string {
	if len(m.running) == 0 {
		return m.fitting("q quits, the arrows scroll, Tab goes to the other part", "q quits")
	}
	s := m.running[len(m.running)-1]
	phase := s.Phases[len(s.Phases)-1].Phase
	long, short := fmt.Sprintf("swap %s: %s to %s: %s", s.Group, orDash(s.From), s.To, phase), fmt.Sprintf("swap %s: %s", s.Group, phase)
	return m.screen.Paint(accel.Green, m.fitting(accel.Printable(long), accel.Printable(short)))
}

// traffic is a row for every bridge, and one for each port below it.
func (m model) traffic() accel.Table {
	t := accel.Table{Headings: []string{"BRIDGE, PORT", "PATH", ">FAST fr/s", ">FAST bit/s", ">SLOW fr/s", ">SLOW bit/s", ">  SHARE"}}
	for _, b := range m.last.snapshot.Status.Bridges {
		row := flowRow(b.Name, b.Eligible, m.rates.bridges[b.Name])
		if !b.Eligible {
			row.Notes = []string{fmt.Sprintf("%v: %s", b.Reason, b.Text)}
		}
		t.Rows = append(t.Rows, row)
		for _, p := range m.last.snapshot.Ports {
			if p.Bridge == b.Name {
				t.Rows = append(t.Rows, m.port(p))
			}
		}
	}
	return t
}

func (m model) port(p accel.PortV1) accel.Row {
	row := flowRow("  "+p.Port, p.In == accel.Fast && p.Out == accel.Fast, m.rates.ports[keyOf(p)])
	if p.In == p.Out {
		row.Notes = because("", p.In)
	} else {
		row.Notes = append(because("in: ", p.In), because("out: ", p.Out)...)
	}
	return row
}

// because says why a port is not eligible in a direction.
func because(direction string, reason accel.Reason) []string {
	if reason == accel.Fast {
		return nil
	}
	return []string{fmt.Sprintf("%s%v: %s", direction, reason, reason.Text())}
}

func flowRow(name string, eligible bool, f flow) accel.Row {
	row := accel.Row{Cells: []string{name, "fast", "-", "-", "-", "-", "-"}, Colours: map[int]accel.Colour{1: accel.Green}}
	if !eligible {
		row.Cells[1], row.Colours[1] = "slow", accel.Yellow
	}
	if f.known {
		copy(row.Cells[2:], []string{
			accel.FormatFrames(f.fast), accel.FormatFrames(f.fastBits), accel.FormatFrames(f.slow), accel.FormatFrames(f.slowBits),
			accel.FormatShare(f.fast, f.fast+f.slow),
		})
	}
	return row
}

// reasons are those for the slow path, ranked.
func (m model) reasons(explained bool) accel.Table {
	t := accel.Table{Headings: []string{">SLOW fr/s", ">  SHARE", ">FRAMES", "BECAUSE OF"}}
	ranked := m.rates.rank(m.last.snapshot.Reasons)
	var all uint64
	for _, r := range ranked {
		all += m.rates.reasons[r.Reason]
	}
	for _, r := range ranked {
		row := accel.Row{Cells: []string{"-", "-", accel.FormatFrames(r.Frames), r.Reason.String()}}
		if rate, ok := m.rates.reasons[r.Reason]; ok {
			row.Cells[0], row.Cells[1] = accel.FormatFrames(rate), accel.FormatShare(rate, all)
		}
		if explained {
			row.Notes = append(row.Notes, r.Text)
			if r.Advice != "" {
				row.Notes = append(row.Notes, "advice: "+r.Advice)
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// groups is a row for every group, and one for each member below it.
func (m model) groups() accel.Table {
	t := accel.Table{Headings: []string{"GROUP, MEMBER", "BRIDGE", "STATE", "KIND"}}
	for _, g := range m.last.groups {
		t.Rows = append(t.Rows, stateRow(g.Group, g.Bridge, g.State, ""))
		for _, v := range g.Members {
			kind := v.Kind
			if v.LinkKind != "" {
				kind = v.LinkKind
			} else if v.Driver != "" {
				kind = v.Driver
			}
			t.Rows = append(t.Rows, stateRow("  "+v.Member, "", v.State, kind))
		}
		if g.Why != "" {
			last := &t.Rows[len(t.Rows)-1]
			last.Notes = append(last.Notes, g.Why)
		}
	}
	return t
}

func stateRow(name, bridge, state, kind string) accel.Row {
	row := accel.Row{Cells: []string{name, bridge, state, kind}, Colours: map[int]accel.Colour{2: accel.Yellow}}
	switch state {
	case "ready", "swapping", "active", "standby":
		row.Colours[2] = accel.Green
	case "down":
		row.Colours[2] = accel.Red
	}
	return row
}

// swaps are those that run, and the last ones.
func (m model) swaps() accel.Table {
	t := accel.Table{Headings: []string{"SWAP OF", "FROM", "TO", "RESULT", "CAUSE"}}
	for _, s := range slices.Concat(m.running, m.last.swaps[:min(latestSwaps, len(m.last.swaps))]) {
		row := accel.Row{Cells: []string{s.Group, orDash(s.From), orDash(s.To), s.Result, orDash(s.Cause)}, Colours: map[int]accel.Colour{3: resultColour(s.Result)}}
		if s.Error != "" {
			row.Notes = append(row.Notes, s.Error)
		}
		var phases []string
		for _, p := range s.Phases {
			phases = append(phases, describePhase(p, s))
		}
		if len(phases) > 0 {
			row.Notes = append(row.Notes, strings.Join(phases, ", "))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func describePhase(p phase, s swap) string {
	switch {
	case s.Result == "running": // how long it takes is told at the end
		return p.Phase
	case p.Phase == "flip" && s.FlipNS > 0:
		return fmt.Sprintf("flip %d.%dus", s.FlipNS/1000, s.FlipNS%1000/100)
	}
	return fmt.Sprintf("%s %.1fms", p.Phase, p.DurationMS)
}

func resultColour(result string) accel.Colour {
	switch result {
	case "done", "running":
		return accel.Green
	case "rolled_back":
		return accel.Yellow
	}
	return accel.Red
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
