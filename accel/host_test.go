package accel

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

func TestStartOrder(t *testing.T) {
	for _, c := range []struct {
		plugins []Plugin
		want    string
	}{
		{[]Plugin{{Name: "a"}, {Name: "b"}}, "a b"},
		{[]Plugin{{Name: "a", After: []string{"b"}}, {Name: "b"}}, "b a"},
		{[]Plugin{{Name: "a", After: []string{"c"}}, {Name: "b"}, {Name: "c", After: []string{"b"}}}, "b c a"},
		{[]Plugin{{Name: "a", After: []string{"nobody"}}}, "a"},
		{[]Plugin{{Name: "a", After: []string{"b"}}, {Name: "b", After: []string{"a"}}}, "error: plugin a wants to start after itself"},
	} {
		if got := orderOf(startOrder(c.plugins)); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func orderOf(plugins []Plugin, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var names []string
	for _, p := range plugins {
		names = append(names, p.Name)
	}
	return strings.Join(names, " ")
}

// three makes a lifecycle of three fakes that note their calls.
func three(change func(a, b, c *fake)) (*lifecycle, *[]string) {
	calls := new([]string)
	var fakes [3]*fake
	var plugins []Plugin
	for i, name := range []string{"a", "b", "c"} {
		f := &fake{name: name, calls: calls}
		fakes[i] = f
		plugins = append(plugins, Plugin{Name: name, New: func() Component { return f }})
	}
	change(fakes[0], fakes[1], fakes[2])
	return newLifecycle(plugins, slog.New(slog.DiscardHandler)), calls
}

func TestLifecycle(t *testing.T) {
	l, calls := three(func(_, _, _ *fake) {})
	ctx := t.Context()
	if err := errors.Join(l.provision(ctx, Host{}), l.start(ctx), l.stop(ctx), l.stop(ctx)); err != nil {
		t.Fatal(err)
	}
	want := "a provision|b provision|c provision|a start|b start|c start|c stop|b stop|a stop|c stop|b stop|a stop"
	if got := strings.Join(*calls, "|"); got != want {
		t.Errorf("got %s", got)
	}
}

func TestProvisionThatFailsStopsThoseBefore(t *testing.T) {
	l, calls := three(func(_, _, c *fake) { c.provisionErr = errors.New("no") })
	if err := l.provision(t.Context(), Host{}); err == nil || err.Error() != "no" {
		t.Errorf("got %v", err)
	}
	if want := "a provision|b provision|c provision|b stop|a stop"; strings.Join(*calls, "|") != want {
		t.Errorf("got %v", *calls)
	}
}

func TestTelemetryServesThoseBehindIt(t *testing.T) {
	tracers, spans := recording()
	before, after := &fake{}, &fake{}
	l := newLifecycle([]Plugin{
		{Name: "before", New: func() Component { return before }},
		{Name: "telemetry", New: func() Component { return tracing{&fake{}, tracers} }},
		{Name: "after", New: func() Component { return after }},
	}, slog.New(slog.DiscardHandler))
	if err := l.provision(t.Context(), Host{}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*fake{before, after} {
		_, span := f.host.Tracer.Start(t.Context(), "swap")
		span.End()
		if _, err := f.host.Meter.Int64Counter("swaps"); err != nil {
			t.Error(err)
		}
	}
	ended := spans.Ended()
	if len(ended) != 1 || ended[0].InstrumentationScope().Name != "after" {
		t.Errorf("got %d spans", len(ended))
	}
}

func TestStartStopsAtTheFirstFailure(t *testing.T) {
	l, calls := three(func(_, b, _ *fake) { b.startErr = errors.New("no") })
	if err := l.start(t.Context()); err == nil || err.Error() != "no" {
		t.Errorf("got %v", err)
	}
	if want := []string{"a start", "b start"}; !reflect.DeepEqual(*calls, want) {
		t.Errorf("got %v", *calls)
	}
}

func TestStopJoinsErrors(t *testing.T) {
	l, calls := three(func(a, _, c *fake) { a.stopErr, c.stopErr = errors.New("x"), errors.New("y") })
	if err := l.stop(t.Context()); err == nil || err.Error() != "stop c: y\nstop a: x" {
		t.Errorf("got %v", err)
	}
	if len(*calls) != 3 {
		t.Errorf("got %v", *calls)
	}
}

func TestUse(t *testing.T) {
	l, _ := three(func(_, _, _ *fake) {})
	h := &Host{peers: l.components}
	if _, err := Use[BridgeSource](h); err == nil || err.Error() != "3 plugins serve as accel.BridgeSource, need exactly one: see the imports of main.go" {
		t.Errorf("got %v", err)
	}
	h.peers = h.peers[:1]
	if found, err := Use[BridgeSource](h); err != nil || found != l.components[0].component.(BridgeSource) {
		t.Errorf("got %v, %v", found, err)
	}
	h.peers = nil
	if _, err := Use[context.Context](h); err == nil {
		t.Error("found what is not there")
	}
}

func TestReasonsAreWhole(t *testing.T) {
	names := make(map[string]bool)
	for _, r := range Reasons() {
		if r.Text() == "" || names[r.String()] {
			t.Errorf("reason %d has no text, or its name %q is taken", r, r)
		}
		names[r.String()] = true
		text, err := r.MarshalJSON()
		var back Reason
		if err := errors.Join(err, back.UnmarshalJSON(text)); err != nil || back != r {
			t.Errorf("%s comes back as %v: %v", text, back, err)
		}
	}
}
