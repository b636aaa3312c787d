package accel

import (
	"cmp"
	"fmt"
	"strings"
)

// What the reading commands print.

func (s screen) status(status StatusV1) error {
	if !status.Ready {
		fmt.Fprintln(s, "the daemon is starting or stopping")
	}
	t := table{headings: []string{"BRIDGE", "SWITCH", "PATH", ">PORTS", ">STATIONS", ">FAST", ">SLOW", ">SHARE"}}
	weakest := make(map[string]string) // the first bridge of which it was said
	for _, b := range status.Bridges {
		r := bridgeRow(b)
		if first, ok := weakest[b.Weaker]; ok {
			r.notes = append(r.notes, "weaker: as on "+first)
		} else if b.Weaker != "" {
			weakest[b.Weaker] = b.Name
			r.notes = append(r.notes, "weaker: "+b.Weaker)
		}
		t.rows = append(t.rows, r)
	}
	return s.table(t)
}

// bypassText says what netfilter: bypass means, in one line of the screen.
const bypassText = "no firewall rule is asked about frames on the fast path"

func bridgeRow(b BridgeV1) row {
	r := row{
		cells: []string{
			b.Name, onOff(b.On), path(b.Eligible), fmt.Sprint(b.Ports), fmt.Sprint(b.Stations),
			frames(b.Fast), frames(b.Slow), share(b.Fast, b.Fast+b.Slow),
		},
		colours: map[int]string{2: pathColour(b.Eligible)},
	}
	if b.Netfilter == netfilterBypass {
		r.alarm = "netfilter: bypass: " + bypassText
	}
	if !b.Eligible {
		r.notes = explainReason(b.Reason.String(), b.Text, b.Advice)
	}
	if b.Pending > 0 {
		r.notes = append(r.notes, fmt.Sprintf("pending: %d stations wait to be verified", b.Pending))
	}
	if b.FDBFull > 0 {
		r.notes = append(r.notes,
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

func pathColour(eligible bool) string {
	if eligible {
		return green
	}
	return yellow
}

func (s screen) ports(ports []PortV1) error {
	t := table{headings: []string{"PORT", "BRIDGE", "STATE", "ATTACH", ">STATIONS", ">FAST", ">SLOW"}}
	for _, p := range ports {
		t.rows = append(t.rows, portRow(p))
	}
	return s.table(t)
}

func portRow(p PortV1) row {
	r := row{cells: []string{p.Port, p.Bridge, p.State, p.Attach, fmt.Sprint(p.Stations), frames(p.Fast), frames(p.Slow)}}
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
func (r *row) explain(p PortV1, direction string, reason Reason) {
	if reason != Fast {
		r.notes = append(r.notes, explainReason(direction+": "+reason.String(), reason.Text(), advise(reason, p.Bridge, p.Port))...)
	}
}

func (s screen) fdb(entries []EntryV1) error {
	t := table{headings: []string{"MAC", "VLAN", "PORT", "BRIDGE", "ACTIVE", "FLAGS"}}
	for _, e := range entries {
		t.rows = append(t.rows, row{cells: []string{
			e.MAC.String(), vlan(e.VLAN), e.Port, e.Bridge, yesNo(e.Active), dash(strings.Join(e.Flags, " ")),
		}})
	}
	return s.table(t)
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

func (s screen) reasons(reasons []ReasonV1) error {
	var all uint64
	for _, r := range reasons {
		all += r.Frames
	}
	t := table{headings: []string{">FRAMES", ">BYTES", ">SHARE", "REASON"}}
	for _, r := range reasons {
		t.rows = append(t.rows, row{
			cells:   []string{frames(r.Frames), octets(r.Bytes), share(r.Frames, all), r.Reason.String()},
			colours: map[int]string{3: pathColour(r.Reason == Fast)},
			notes:   reasonNotes(r),
		})
	}
	return s.table(t)
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
func (s screen) explanation(e ExplainV1) error {
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
		writeBehind(&b, label, strings.Repeat(" ", len(label)), line[1])
	}
	if e.WhyPort != "" && !strings.HasSuffix(e.WhyPort, e.Text) {
		writeWrapped(&b, "port "+e.WhyPort)
	}
	if e.Advice != "" {
		b.WriteString("what would change it:\n")
		writeWrapped(&b, e.Advice)
	}
	_, err := s.Write([]byte(b.String()))
	return err
}

// verdict is the first line, which may be wrapped.
func (s screen) verdict(e ExplainV1) string {
	fast := e.Reason == Fast
	text := e.Verdict + ": the frame takes the fast path"
	if !fast {
		text = fmt.Sprintf("%s: %s: %s", e.Verdict, e.Reason, e.Text)
	}
	var b strings.Builder
	writeBehind(&b, "", "  ", text)
	return s.paint(pathColour(fast), e.Verdict) + strings.TrimPrefix(b.String(), e.Verdict)
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
func (s screen) switched(bridges []BridgeV1) error {
	var b strings.Builder
	for _, bridge := range bridges {
		fmt.Fprintf(&b, "%s: %s\n", bridge.Name, onOff(bridge.On))
		if bridge.On && !bridge.Eligible {
			for _, note := range explainReason("still on the slow path", bridge.Text, bridge.Advice) {
				writeWrapped(&b, note)
			}
		}
	}
	_, err := s.Write([]byte(b.String()))
	return err
}

func (s screen) detached(d DetachV1) error {
	switch {
	case d.Daemon:
		fmt.Fprintf(s, "detached from %s; the daemon has ended\n", cmp.Or(enumerate(d.Bridges), "no bridge"))
	case len(d.Removed) == 0:
		fmt.Fprintln(s, "no daemon runs, and nothing of shunt is in this network namespace")
	}
	for _, what := range d.Removed {
		fmt.Fprintln(s, "removed", what)
	}
	return nil
}

var levelColours = map[string]string{LevelOK: green, LevelNote: yellow, LevelFail: red}

func (s screen) findings(findings []Finding) error {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s %s\n", s.paint(levelColours[f.Level], fmt.Sprintf("%-4s", f.Level)), f.Check)
		writeWrapped(&b, f.Text)
		if f.Advice != "" {
			writeWrapped(&b, "advice: "+f.Advice)
		}
	}
	_, err := s.Write([]byte(b.String()))
	return err
}
