package nicswap

import (
	"context"
	"fmt"
	"strings"
)

// plan says what the swap would do, with what it found. It changes nothing.
func (s *swap) plan(ctx context.Context) SwapV1 {
	defer s.span.End()
	if err := s.phase(ctx, phaseCheck, s.check); err != nil {
		s.failed(err)
		s.note(func(v *SwapV1) { v.Result = resultFailed })
		return s.describe()
	}
	g := s.group
	g.mu.Lock()
	port := g.port
	sentences := []string{s.planMove(), s.planPrewarm(port.MTU)}
	g.mu.Unlock()
	stations, entries, err := s.e.stations(g.Bridge, port.Ifindex)
	if err != nil {
		sentences = append(sentences, fmt.Sprintf("the table of %s cannot be read now: %v", g.Bridge, err))
	} else if g.Announce {
		sentences = append(sentences, fmt.Sprintf("announce: %d stations, at most %d frames/s", len(stations), g.AnnounceRate))
	}
	sentences = append(sentences, fmt.Sprintf("drain: %v", g.Drain))
	s.note(func(v *SwapV1) { v.Result, v.Plan, v.Stations = resultPlanned, sentences, entries })
	return s.describe()
}

func (s *swap) planMove() string {
	if s.from == nil {
		return fmt.Sprintf("flip: from no member to %s (%s)", s.to.name, kindName(s.target.Link))
	}
	return fmt.Sprintf("flip: from %s (%s) to %s (%s)", s.from.name, kindName(s.from.link), s.to.name, kindName(s.target.Link))
}

func (s *swap) planPrewarm(mtu int) string {
	if s.to.usable() && s.target.MTU == mtu {
		return fmt.Sprintf("prewarm: %s is a warm standby with carrier", s.to.name)
	}
	var todo []string
	add := func(needed bool, format string, args ...any) {
		if needed {
			todo = append(todo, fmt.Sprintf(format, args...))
		}
	}
	add(!s.target.Up, "set it up")
	add(!s.target.Carrier, "wait for its carrier, %v at most", carrierTimeout)
	add(s.target.MTU != mtu, "change its MTU from %d to %d", s.target.MTU, mtu)
	add(!s.target.Promisc, "make it promiscuous")
	add(!s.to.warm, "put the programs on it")
	add(s.group.Probe.IsValid(), "probe %v", s.group.Probe)
	return fmt.Sprintf("prewarm of %s: %s", s.to.name, orElse(strings.Join(todo, ", "), "nothing to do"))
}
