package fdbsync

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// newTracedSyncer is newFakeSyncer with a tracer that keeps what it is told, and
// br0 with two ports and a station in the kernel.
func newTracedSyncer(t *testing.T) (*Syncer, *world, *spans) {
	s, w := newFakeSyncer(t, "br0")
	told := &spans{InMemoryExporter: tracetest.NewInMemoryExporter()}
	s.tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(told)).Tracer("fdbsync")
	w.known = linksOf(plainBridge(), plainPort(4, "p1"), plainPort(6, "p2"))
	w.table[at(1, 4).StationKey] = at(1, 4)
	return s, w, told
}

// spans are those that ended.
type spans struct{ *tracetest.InMemoryExporter }

// say lists the spans by their ends: the name, its parent's, and what is said of
// it, without the bridge, which all of one have.
func (s *spans) say(t *testing.T) (list []string) {
	t.Helper()
	all := s.GetSpans()
	names := make(map[trace.SpanID]string)
	for _, span := range all {
		names[span.SpanContext.SpanID()] = span.Name
	}
	for _, span := range all {
		line := span.Name
		if span.Parent.IsValid() {
			line += " < " + orElse(names[span.Parent.SpanID()], "caller")
		}
		isOfBridge := false
		for _, a := range span.Attributes {
			switch a.Key {
			case keyBridge:
				isOfBridge = a.Value.AsString() == "br0"
			case keyText:
			default:
				line += fmt.Sprintf(" %s=%v", a.Key[len("shunt."):], a.Value.AsInterface())
			}
		}
		if !isOfBridge && span.Name != "resync" && span.Name != "start" {
			t.Errorf("%s says nothing of its bridge: %v", span.Name, span.Attributes)
		}
		for _, e := range span.Events {
			line += fmt.Sprintf(" then %v", e.Attributes[0].Value.AsInterface())
		}
		if span.Status.Description != "" {
			line += ": " + span.Status.Description
		}
		list = append(list, line)
	}
	s.Reset()
	return list
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func wantSpans(t *testing.T, told *spans, want ...string) {
	t.Helper()
	if got := told.say(t); !slices.Equal(got, want) {
		t.Errorf("the spans are %q, want %q", got, want)
	}
}

// turn lets the loop go on until everything is verified.
func turn(t *testing.T, s *Syncer, w *world) {
	t.Helper()
	for range 4 {
		w.pass(2 * gracePeriod)
		_, err := s.advance(w.now)
		must(t, err)
	}
}

func caller() context.Context {
	return trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	}))
}

func TestABridgeAtTheStartIsPartOfItsTrace(t *testing.T) {
	s, w, told := newTracedSyncer(t)
	must(t, s.begin(caller()))
	turn(t, s, w)
	wantSpans(t, told, "attach < caller ports=2", "snapshot < caller entries=1", "verify < caller entries=1")
	must(t, s.wholeRound())
	must(t, s.reconcile())
	turn(t, s, w)
	wantSpans(t, told) // nothing is told of what goes its way
}

func TestABridgeThatAppearsIsATrace(t *testing.T) {
	s, w, told := newTracedSyncer(t)
	links := w.known
	w.known = linksOf()
	s.all, s.names = true, nil
	must(t, s.begin(caller()))
	w.known = links
	must(t, s.readLinks())
	must(t, s.settle(true))
	turn(t, s, w)
	wantSpans(t, told, "attach < appear ports=2", "snapshot < appear entries=1", "verify < appear entries=1", "appear")
}

func TestAResyncIsATrace(t *testing.T) {
	s, w, told := newTracedSyncer(t)
	must(t, s.begin(caller()))
	turn(t, s, w)
	told.Reset()
	w.table[at(2, 6).StationKey] = at(2, 6)
	must(t, lostEvents(s))
	must(t, lostEvents(s)) // again, before anything was read
	must(t, s.catchUp())
	turn(t, s, w)
	wantSpans(t, told, "ineligible < resync reason=syncing", "snapshot < resync entries=2", "verify < resync entries=2",
		"eligible < ineligible reason=syncing", "resync cause=overrun entries=2")
}

func TestWhyABridgeWasNotEligible(t *testing.T) {
	s, w, told := newTracedSyncer(t)
	must(t, s.begin(caller()))
	turn(t, s, w)
	told.Reset()
	must(t, s.Switch(caller(), "br0", false))
	wantSpans(t, told, "ineligible < caller reason=off") // at once
	w.change(2, func(l *link) { l.flags &^= unix.IFF_UP })
	must(t, s.refresh(2))
	must(t, s.settle(false))
	w.change(2, func(l *link) { l.flags |= unix.IFF_UP })
	must(t, s.refresh(2))
	must(t, s.settle(false))
	wantSpans(t, told)
	must(t, s.Switch(caller(), "br0", true))
	wantSpans(t, told, "eligible < caller reason=off then bridge_down then off")
	must(t, s.Switch(caller(), "br0", true))
	wantSpans(t, told)
}

func TestABridgeThatGoesIsTold(t *testing.T) {
	s, w, told := newTracedSyncer(t)
	must(t, s.begin(caller()))
	_, err := s.advance(w.now)
	must(t, err)
	must(t, s.linkGone(2)) // while it is verified
	wantSpans(t, told, "attach < caller ports=2", "snapshot < caller entries=1", "ineligible < caller reason=absent", "verify < caller: the bridge is gone")
	must(t, s.readLinks())
	must(t, s.settle(true))
	turn(t, s, w)
	wantSpans(t, told, "attach < appear ports=2", "snapshot < appear entries=1", "verify < appear entries=1",
		"eligible < caller reason=absent", "appear")
}

// TestTheEndIsNoReason: that shunt lets a bridge go is told of by its log.
func TestTheEndIsNoReason(t *testing.T) {
	s, w, told := newTracedSyncer(t)
	must(t, s.begin(caller()))
	turn(t, s, w)
	told.Reset()
	for _, m := range s.mirrors {
		must(t, m.vanish())
	}
	wantSpans(t, told)
}

// measured notes what is measured.
type measured struct{ notes []string }

func (m *measured) EntryApplied(bridge, change string, took time.Duration) {
	if took <= 0 {
		change += " too soon"
	}
	m.notes = append(m.notes, bridge+" "+change)
}
func (m *measured) EventsLost()                              { m.notes = append(m.notes, "lost") }
func (m *measured) MessageSkipped()                          { m.notes = append(m.notes, "skipped") }
func (m *measured) Resynced(_ context.Context, cause string) { m.notes = append(m.notes, cause) }
func (m *measured) want(t *testing.T, what string, w ...string) {
	t.Helper()
	if !slices.Equal(m.notes, w) {
		t.Errorf("%s: measured were %q, want %q", what, m.notes, w)
	}
	m.notes = nil
}

func TestWhatIsMeasured(t *testing.T) {
	s, w, _ := newTracedSyncer(t)
	m := &measured{}
	s.meters = meters{m}
	must(t, s.begin(t.Context()))
	turn(t, s, w)
	m.want(t, "entries that were read")

	event := func(what accel.Station, isNew bool) {
		t.Helper()
		if isNew {
			w.table[what.StationKey] = what
		} else {
			delete(w.table, what.StationKey)
		}
		must(t, s.neighs([]neigh{{bridge: 2, station: what, heard: time.Now().Add(-time.Second), isGone: !isNew}}))
	}
	event(at(2, 4), true)
	m.want(t, "an entry that waits")
	event(at(2, 4), true)
	turn(t, s, w)
	m.want(t, "an entry that came", "br0 admitted", "br0 activated")
	event(at(2, 4), true)
	turn(t, s, w)
	m.want(t, "an entry that was refreshed")
	if waits := s.mirrors[0].awaits; len(waits) != 0 {
		t.Errorf("what is active is waited for: %v", waits)
	}
	event(at(2, 6), true)
	m.want(t, "an entry that moved", "br0 revoked")
	turn(t, s, w)
	m.want(t, "an entry that moved, later", "br0 admitted", "br0 activated")
	event(at(2, 6), false)
	turn(t, s, w)
	m.want(t, "an entry that went", "br0 revoked")
	event(at(3, 6), true)
	event(at(3, 6), false)
	turn(t, s, w)
	m.want(t, "an entry that came and went", "br0 revoked")

	must(t, lostEvents(s))
	must(t, s.catchUp())
	m.want(t, "lost events", "lost", "overrun")
	must(t, s.reconcile())
	m.want(t, "a comparison", "periodic")
	s.skip(errTest)
	m.want(t, "a message that cannot be read", "skipped")
	if waits := s.mirrors[0].awaits; len(waits) != 0 {
		t.Errorf("these are waited for for ever: %v", waits)
	}
}

// TestNobodyLooksAtAHalfStart: metrics may be collected while it lasts.
func TestNobodyLooksAtAHalfStart(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge)
		b := newBench(t)
		b.plane.attaching = func(int) {
			if b.Syncer.mu.TryLock() {
				b.Syncer.mu.Unlock()
				t.Error("the bridges can be asked for while they are being taken")
			}
		}
		b.start(t)
		if len(b.Bridges()) != 1 {
			t.Error("the bridge is missing")
		}
	})
}
