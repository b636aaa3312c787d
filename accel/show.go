package accel

import (
	"cmp"
	"fmt"
	"strings"
)

// What the reading commands print.

func (s Screen) status(status StatusV1) error {
	if !status.Ready {
		fmt.Fprintln(s, "the daemon is starting or stopping")
	}
	t := Table{Headings: []string{"BRIDGE", "SWITCH", "PATH", ">PORTS", ">STATIONS", ">FAST", ">SLOW", ">SHARE"}}
	weakest := make(map[string]string) // the first bridge of which it was said
	for _, b := range status.Bridges {
		r := bridgeRow(b)
		if first, ok := weakest[b.Weaker]; ok {
			r.Notes = append(r.Notes, "weaker: as on "+first)
		} else if b.Weaker != "" {
			weakest[b.Weaker] = b.Name
			r.Notes = append(r.Notes, "weaker: "+b.Weaker)
		}
		t.Rows = append(t.Rows, r)
	}
	return s.Table(t)
}

// bypassText says what netfilter: bypass means, in one line of the screen.
const bypassText = "no firewall rule is asked about frames on the fast path"

func bridgeRow(b BridgeV1) Row {
	r := Row{
		Cells: []string{
			b.Name, onOff(b.On), path(b.Eligible), fmt.Sprint(b.Ports), fmt.Sprint(b.Stations),
			FormatFrames(b.Fast), FormatFrames(b.Slow), FormatShare(b.Fast, b.Fast+b.Slow),
		},
		Colours: map[int]Colour{2: pathColour(b.Eligible)},
	}
	if b.Netfilter == netfilterBypass {
		r.Alarm = "netfilter: bypass: " + bypassText
	}
	if !b.Eligible {
		r.Notes = explainReason(b.Reason.String(), b.Text, b.Advice)
	}
	if b.Pending > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("pending: %d stations wait to be verified", b.Pending))
	}
	if b.FDBFull > 0 {
		r.Notes = append(r.Notes,
			fmt.Sprintf("fdb_full: %d stations do not fit and take the slow path", b.FDBFull),
			"advice: raise max_stations in the configuration")
	}
	return r
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func path(eligible bool) string {
	if eligible {
		return "fast"
	}
	return "slow"
}

func pathColour(eligible bool) Colour {
	if eligible {
		return Green
	}
	return Yellow
}

func (s Screen) ports(ports []PortV1) error {
	t := Table{Headings: []string{"PORT", "BRIDGE", "STATE", "ATTACH", ">STATIONS", ">FAST", ">SLOW"}}
	for _, p := range ports {
		t.Rows = append(t.Rows, portRow(p))
	}
	return s.Table(t)
}

func portRow(p PortV1) Row {
	r := Row{Cells: []string{p.Port, p.Bridge, p.State, p.Attach, fmt.Sprint(p.Stations), FormatFrames(p.Fast), FormatFrames(p.Slow)}}
	switch {
	case p.In == p.Out:
		r.explain(p, "in, out", p.In)
	default:
		r.explain(p, "in", p.In)
		r.explain(p, "out", p.Out)
	}
	return r
}

// explain notes why a port is not eligible in a direction.
func (r *Row) explain(p PortV1, direction string, reason Reason) {
	if reason != Fast {
		r.Notes = append(r.Notes, explainReason(direction+": "+reason.String(), reason.Text(), Advise(reason, p.Bridge, p.Port))...)
	}
}

func (s Screen) fdb(entries []EntryV1) error {
	t := Table{Headings: []string{"MAC", "VLAN", "PORT", "BRIDGE", "ACTIVE", "FLAGS"}}
	for _, e := range entries {
		t.Rows = append(t.Rows, Row{Cells: []string{
			e.MAC.String(), vlan(e.VLAN), e.Port, e.Bridge, yesNo(e.Active), dash(strings.Join(e.Flags, " ")),
		}})
	}
	return s.Table(t)
}

func vlan(vid uint16) string {
	if vid == 0 {
		return "-"
	}
	return fmt.Sprint(vid)
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func (s Screen) reasons(reasons []ReasonV1) error {
	var all uint64
	for _, r := range reasons {
		all += r.Frames
	}
	t := Table{Headings: []string{">FRAMES", ">BYTES", ">SHARE", "REASON"}}
	for _, r := range reasons {
		t.Rows = append(t.Rows, Row{
			Cells:   []string{FormatFrames(r.Frames), octets(r.Bytes), FormatShare(r.Frames, all), r.Reason.String()},
			Colours: map[int]Colour{3: pathColour(r.Reason == Fast)},
			Notes:   reasonNotes(r),
		})
	}
	return s.Table(t)
}

func reasonNotes(r ReasonV1) []string {
	notes := []string{r.Text}
	if r.Advice != "" {
		notes = append(notes, "advice: "+r.Advice)
	}
	return notes
}

// explanation says the verdict first, then what decided it, then what would
// change it.
func (s Screen) explanation(e ExplainV1) error {
	var b strings.Builder
	b.WriteString(s.verdict(e))
	for _, line := range [][2]string{
		{"bridge", e.Bridge},
		{"in", e.In},
		{"vlan", vlan(e.VLAN)},
		{"source", entryOrWhy(e.Source, e.Reason == SourceUnknown)},
		{"destination", entryOrWhy(e.Destination, e.Reason == DestinationUnknown)},
		{"out", dash(e.Out)},
		{"action", dash(e.Action)},
	} {
		label := fmt.Sprintf("    %-11s  ", line[0])
		s.behind(&b, label, strings.Repeat(" ", len(label)), line[1])
	}
	if e.WhyPort != "" && !strings.HasSuffix(e.WhyPort, e.Text) {
		s.note(&b, "port "+e.WhyPort)
	}
	if e.Advice != "" {
		b.WriteString("what would change it:\n")
		s.note(&b, e.Advice)
	}
	_, err := s.Write([]byte(b.String()))
	return err
}

// verdict is the first line, which may be wrapped.
func (s Screen) verdict(e ExplainV1) string {
	fast := e.Reason == Fast
	text := e.Verdict + ": the frame takes the fast path"
	if !fast {
		text = fmt.Sprintf("%s: %s: %s", e.Verdict, e.Reason, e.Text)
	}
	var b strings.Builder
	s.behind(&b, "", "  ", text)
	return s.Paint(pathColour(fast), e.Verdict) + strings.TrimPrefix(b.String(), e.Verdict)
}

// entryOrWhy shows an entry, or why there is none to show.
func entryOrWhy(e *EntryV1, unknown bool) string {
	switch {
	case e == nil && unknown:
		return "no entry"
	case e == nil:
		return "not looked for"
	}
	text := fmt.Sprintf("%s on %s", StationKey{e.MAC, e.VLAN}, e.Port)
	if len(e.Flags) > 0 {
		text += ", " + strings.Join(e.Flags, ", ")
	}
	if !e.Active {
		text += ", not verified yet"
	}
	return text
}

// switched says what on or off came to.
func (s Screen) switched(bridges []BridgeV1) error {
	var b strings.Builder
	for _, bridge := range bridges {
		fmt.Fprintf(&b, "%s: %s\n", Printable(bridge.Name), onOff(bridge.On))
		if bridge.On && !bridge.Eligible {
			for _, note := range explainReason("still on the slow path", bridge.Text, bridge.Advice) {
				s.note(&b, note)
			}
		}
	}
	_, err := s.Write([]byte(b.String()))
	return err
}

func (s Screen) detached(d DetachV1) error {
	var b strings.Builder
	switch {
	case d.Daemon:
		fmt.Fprintf(&b, "detached from %s; the daemon has ended\n", Printable(cmp.Or(enumerate(d.Bridges), "no bridge")))
	case len(d.Removed) == 0:
		fmt.Fprintln(&b, "no daemon runs, and nothing of shunt is in this network namespace")
	}
	for _, what := range d.Removed {
		s.behind(&b, "", "  ", "removed "+what)
	}
	for _, what := range d.Kept {
		s.behind(&b, "", "  ", "kept: "+what)
	}
	_, err := s.Write([]byte(b.String()))
	return err
}
