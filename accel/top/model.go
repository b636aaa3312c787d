package top

import (
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/shunt-dev/shunt/accel"
)

// model is what is shown, and where in it the operator is.
type model struct {
	screen        accel.Screen // says which colours there are
	interval      time.Duration
	width, height int

	last    reading // that went well
	rates   rates   // none while the daemon does not answer
	trouble error   // why it does not
	running []swap  // as the events tell

	focus  int // the part that the keys scroll
	offset [2]int
}

func (m model) Init() tea.Cmd { return nil }

func (m model) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
		return m.scroll(0), nil
	case tea.KeyPressMsg:
		return m.press(message.String())
	case reading:
		return m.take(message).scroll(0), nil
	case event:
		return m.hear(message), nil
	case unfollowed:
		m.running = nil
	}
	return m, nil
}

func (m model) press(key string) (tea.Model, tea.Cmd) {
	page := max(1, m.parts()[m.focus].room-1)
	switch key {
	case "q", "ctrl+c":
		return m, tea.Quit
	case "ctrl+z":
		return m, tea.Suspend
	case "tab", "shift+tab":
		m.focus = 1 - m.focus
	case "up", "k":
		return m.scroll(-1), nil
	case "down", "j":
		return m.scroll(1), nil
	case "pgup":
		return m.scroll(-page), nil
	case "pgdown", "space":
		return m.scroll(page), nil
	case "home", "g":
		m.offset[m.focus] = 0
	case "end", "G":
		return m.scroll(len(m.parts()[m.focus].lines)), nil
	}
	return m, nil
}

// scroll moves the part in focus, and no part beyond its end.
func (m model) scroll(lines int) model {
	m.offset[m.focus] += lines
	for i, p := range m.parts() {
		m.offset[i] = min(max(m.offset[i], 0), max(0, len(p.lines)-p.room))
	}
	return m
}

// take takes a reading in. One that failed leaves what was there, but for the rates.
func (m model) take(r reading) model {
	m.trouble = r.err
	if r.err != nil {
		m.rates, m.last.snapshot.TimeNS = rates{}, 0 // the next reading is the first again
		return m
	}
	m.rates = rates{}
	if m.last.snapshot.TimeNS != 0 {
		m.rates = between(m.last.snapshot, r.snapshot)
	}
	m.last = r
	return m
}

// rated is true once two readings of one daemon were compared.
func (m model) rated() bool { return m.rates.ports != nil }

// hear takes in what happened between two readings.
func (m model) hear(e event) model {
	if !slices.ContainsFunc(m.last.groups, func(g group) bool { return g.Group == e.Group }) {
		return m // of another bridge, or not read yet
	}
	switch e.Event {
	case "phase":
		m.running = m.entered(e)
	case "swap":
		m.running = without(m.running, e.Group)
		if e.Swap != nil {
			m.last.swaps = slices.Insert(slices.Clone(m.last.swaps), 0, *e.Swap)
		}
	case "group", "member":
		m.last.groups = withState(m.last.groups, e)
	}
	return m
}

// entered are the running swaps with a phase more.
func (m model) entered(e event) []swap {
	entry := phase{Phase: e.Phase}
	for i, s := range m.running {
		if s.Group == e.Group && s.To == e.Member {
			running := slices.Clone(m.running)
			running[i].Phases = append(slices.Clone(s.Phases), entry)
			return running
		}
	}
	s := swap{Group: e.Group, To: e.Member, Result: "running", Phases: []phase{entry}}
	for _, g := range m.last.groups {
		if g.Group == e.Group {
			s.From = g.Active
		}
	}
	return append(without(m.running, e.Group), s)
}

func without(running []swap, group string) []swap {
	return slices.DeleteFunc(slices.Clone(running), func(s swap) bool { return s.Group == group })
}

// withState are the groups with the state that an event tells of one, or of a member.
func withState(groups []group, e event) []group {
	groups = slices.Clone(groups)
	for i, g := range groups {
		if g.Group != e.Group {
			continue
		}
		if e.Event == "group" {
			groups[i].State = e.State
			continue
		}
		groups[i].Members = slices.Clone(g.Members)
		for j, member := range g.Members {
			if member.Member == e.Member {
				groups[i].Members[j].State = e.State
			}
		}
	}
	return groups
}
