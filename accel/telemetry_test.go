package accel

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"
)

// exporting serves as Telemetry with everything, and as Observer.
type exporting struct {
	fake    *fake // notes what is called
	tracers trace.TracerProvider
	logs    slog.Handler
}

func (e exporting) Provision(context.Context, *Host) error { return nil }
func (e exporting) Start(context.Context) error            { return nil }
func (e exporting) Stop(ctx context.Context) error         { return e.fake.Stop(ctx) }
func (e exporting) Settle(context.Context)                 { e.fake.note("settle") }
func (e exporting) TracerProvider() trace.TracerProvider   { return e.tracers }
func (e exporting) MeterProvider() metric.MeterProvider    { return metricnoop.NewMeterProvider() }
func (e exporting) LogHandler() slog.Handler               { return e.logs }

// logged are the lines of a log, with their traces.
type logged struct {
	slog.Handler
	mu     *sync.Mutex
	traces map[string]trace.TraceID
}

func newLogged() logged {
	return logged{slog.DiscardHandler, new(sync.Mutex), make(map[string]trace.TraceID)}
}

func (l logged) Enabled(context.Context, slog.Level) bool { return true }
func (l logged) WithAttrs([]slog.Attr) slog.Handler       { return l }

func (l logged) Handle(ctx context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.traces[r.Message] = trace.SpanContextFromContext(ctx).TraceID()
	return nil
}

// exported runs a daemon whose telemetry is recorded, until it is ready or ends.
func exported(t *testing.T, f *fake) (*runningDaemon, logged, func() []sdktrace.ReadOnlySpan) {
	t.Helper()
	tracers, spans := recording()
	logs := newLogged()
	d := startDaemon(t, socketPath(t), f, func(s *service) {
		s.plugins = []Plugin{
			{Name: "telemetry", New: func() Component { return exporting{&fake{name: "telemetry", calls: f.calls}, tracers, logs} }},
			f.plugin(),
		}
	})
	return d, logs, spans.Ended
}

func TestTheStartIsATraceWithItsLog(t *testing.T) {
	d, logs, spans := exported(t, sample())
	d.ready(t)
	d.end()
	if err := d.wait(t); err != nil {
		t.Fatal(err)
	}
	ended := spans()
	if len(ended) != 1 || ended[0].Name() != "start" || len(ended[0].Events()) != 1 || ended[0].Events()[0].Name != "ready" {
		t.Fatalf("got %v", ended)
	}
	if logs.traces["ready"] != ended[0].SpanContext().TraceID() {
		t.Errorf("ready was logged in trace %v", logs.traces["ready"])
	}
	if id, ok := logs.traces["stopping"]; !ok || id.IsValid() {
		t.Errorf("the end was logged in trace %v (%v)", id, ok)
	}
}

func TestAStartThatFailsIsSaidInItsTrace(t *testing.T) {
	f := sample()
	f.startErr = errors.New("no")
	d, _, spans := exported(t, f)
	if err := d.wait(t); err == nil {
		t.Fatal("it does not fail")
	}
	if ended := spans(); len(ended) != 1 || ended[0].Status().Code != codes.Error || ended[0].Status().Description != "no" {
		t.Errorf("got %v", ended)
	}
}

func TestComponentsAreObservedBeforeTheyStop(t *testing.T) {
	f := sample()
	f.calls = new([]string)
	d, _, _ := exported(t, f)
	d.ready(t)
	d.end()
	if err := d.wait(t); err != nil {
		t.Fatal(err)
	}
	if want := []string{"telemetry settle", "fake stop", "telemetry stop"}; !slices.Equal((*f.calls)[len(*f.calls)-3:], want) {
		t.Errorf("got %v", *f.calls)
	}
}

func TestLinesNameTheirTrace(t *testing.T) {
	var text bytes.Buffer
	logger := slog.New(traceNamer{slog.NewTextHandler(&text, nil)}).With("plugin", "fdbsync")
	id := trace.TraceID{1}
	for flags, want := range map[trace.TraceFlags]bool{trace.FlagsSampled: true, 0: false} {
		text.Reset()
		ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: id, SpanID: trace.SpanID{2}, TraceFlags: flags,
		}))
		logger.InfoContext(ctx, "resync")
		if strings.Contains(text.String(), "plugin=fdbsync trace_id="+id.String()+"\n") != want {
			t.Errorf("flags %v: got %s", flags, &text)
		}
	}
}

// TestStrangersAreNotTraced: of those who may not change anything, no request is, with
// or without a trace of theirs.
func TestStrangersAreNotTraced(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	handler := traced(http.NotFoundHandler(), tracers, newLifecycle(nil, nil).meters)
	for _, c := range []struct {
		peer           *unix.Ucred
		method, parent string
		traced         bool
	}{
		{stranger, "GET", aParent, false},
		{stranger, "POST", aParent, false},
		{stranger, "POST", "", false},
		{nil, "POST", aParent, false},
		{&unix.Ucred{}, "GET", "", false},
		{&unix.Ucred{}, "GET", aParent, true},
		{&unix.Ucred{}, "POST", "", true},
	} {
		spans.Reset()
		r := as(c.peer, c.method, "/v1/status")
		r.Header.Set("Traceparent", c.parent)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		if isTraced := len(spans.GetSpans()) == 1; isTraced != c.traced {
			t.Errorf("%+v: %v", c, isTraced)
		}
	}
}

const aParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
