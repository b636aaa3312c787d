package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/telemetry/otlptest"
)

// exporter is the component, provisioned in an environment with only the given
// OTEL_* variables, and what it logs.
func exporter(t *testing.T, environment ...string) (*Exporter, *log, error) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for _, pair := range environment {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	l := new(log)
	e := new(Exporter)
	err := e.Provision(t.Context(), &accel.Host{
		Logger: slog.New(slog.NewTextHandler(l, nil)), Namespace: accel.Namespace{Inode: 7},
	})
	t.Cleanup(func() { e.Stop(context.Background()) })
	return e, l, err
}

// log is written by several goroutines.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newReceiver(t *testing.T) *otlptest.Receiver {
	t.Helper()
	r, err := otlptest.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// use does what components do with what they are given.
func use(t *testing.T, e *Exporter) {
	t.Helper()
	ctx, span := e.TracerProvider().Tracer("nicswap").Start(t.Context(), "swap")
	defer span.End()
	e.SwapEnded(ctx, "uplink", "request", "done", time.Second, 2)
	if handler := e.LogHandler(); handler != nil {
		slog.New(handler).InfoContext(ctx, "swapped", "group", "uplink")
	}
}

func TestNothingIsSentUnlessAskedFor(t *testing.T) {
	r := newReceiver(t)
	endpoint := "OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL()
	for _, environment := range [][]string{
		{endpoint},
		{endpoint, "OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none"},
	} {
		e, l, err := exporter(t, environment...)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.shutdowns) != 0 || e.LogHandler() != nil {
			t.Errorf("%v: something was made", environment)
		}
		use(t, e)
		if err := e.Stop(t.Context()); err != nil || l.String() != "" {
			t.Errorf("%v: got %v, %s", environment, err, l)
		}
	}
	if got := r.Received(); len(got.Requests) != 0 {
		t.Error("the collector was asked:", got.Requests)
	}
}

func TestWhatWasNotSentYetIsSentByStop(t *testing.T) {
	const traces, metrics, logs = "OTEL_TRACES_EXPORTER=otlp", "OTEL_METRICS_EXPORTER=otlp", "OTEL_LOGS_EXPORTER=otlp"
	for _, environment := range [][]string{{traces}, {metrics}, {logs}, {traces, metrics, logs}} {
		r := newReceiver(t)
		e, l, err := exporter(t, append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL()}, environment...)...)
		if err != nil {
			t.Fatal(err)
		}
		use(t, e)
		for range 2 {
			if err := e.Stop(t.Context()); err != nil || l.String() != "" {
				t.Errorf("%v: got %v, %s", environment, err, l)
			}
		}
		got := r.Received()
		if sent := len(got.Named("swap")) == 1; sent != slices.Contains(environment, traces) {
			t.Errorf("%v: got %s", environment, got)
		}
		if sent := len(got.Of("shunt.swaps")) == 1; sent != slices.Contains(environment, metrics) {
			t.Errorf("%v: got %s", environment, got)
		}
		if sent := len(got.Saying("swapped")) == 1; sent != slices.Contains(environment, logs) {
			t.Errorf("%v: got %s", environment, got)
		}
	}
}

func TestWhoSends(t *testing.T) {
	for service, environment := range map[string][]string{
		"shunt":   nil,
		"bridges": {"OTEL_SERVICE_NAME=bridges", "OTEL_RESOURCE_ATTRIBUTES=service.name=x,rack=7"},
	} {
		r := newReceiver(t)
		e, _, err := exporter(t, append(r.Environment(), environment...)...)
		if err != nil {
			t.Fatal(err)
		}
		use(t, e)
		e.Stop(t.Context())
		got := r.Received()
		for _, resource := range []map[string]string{got.Spans[0].Resource, got.Points[0].Resource, got.Records[0].Resource} {
			if resource["service.name"] != service || resource["service.version"] != accel.Version() ||
				resource["host.name"] == "" || resource["service.instance.id"] != resource["host.name"]+"/netns-7" {
				t.Errorf("got %v", resource)
			}
			if environment != nil && resource["rack"] != "7" {
				t.Errorf("got %v", resource)
			}
		}
	}
}

// TestLogsAreInTheirTrace also wants the level of stderr to hold.
func TestLogsAreInTheirTrace(t *testing.T) {
	r := newReceiver(t)
	e, _, err := exporter(t, r.Environment()...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := e.TracerProvider().Tracer("fdbsync").Start(t.Context(), "resync")
	logger := slog.New(e.LogHandler()).With("plugin", "fdbsync").WithGroup("of")
	logger.WarnContext(ctx, "the kernel dropped events", "bridge", "br0")
	logger.DebugContext(ctx, "nobody wants to know")
	span.End()
	e.Stop(t.Context())
	got := r.Received()
	if len(got.Records) != 1 {
		t.Fatalf("got %s", got)
	}
	l, s := got.Records[0], got.Spans[0]
	if l.Text != "the kernel dropped events" || l.Severity != "WARN" || l.Attributes["plugin"] != "fdbsync" || l.TraceID != s.TraceID || l.SpanID != s.SpanID {
		t.Errorf("got %+v in %+v", l, s)
	}
}

// TestCollectorThatIsAway is one that refuses, and one that never answers.
func TestCollectorThatIsAway(t *testing.T) {
	for _, endpoint := range []string{refusing(), silent(t)} {
		for _, protocol := range []string{"http/protobuf", "grpc"} {
			e, l, err := exporter(t, toAll(endpoint, protocol)...)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			use(t, e)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			err = e.Stop(ctx)
			cancel()
			if err != nil || strings.Count(l.String(), "is lost\" error=") != 1 {
				t.Errorf("%s over %s: got %v, %s", endpoint, protocol, err, l)
			}
		}
	}
}

// refusing is where nobody listens.
func refusing() string {
	s := httptest.NewServer(nil)
	s.Close()
	return s.URL
}

// silent is where somebody listens, and nobody answers.
func silent(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return "http://" + listener.Addr().String()
}

func toAll(endpoint, protocol string) []string {
	return []string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_METRICS_EXPORTER=otlp", "OTEL_LOGS_EXPORTER=otlp",
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
		"OTEL_BSP_SCHEDULE_DELAY=1", "OTEL_BLRP_SCHEDULE_DELAY=1", "OTEL_METRIC_EXPORT_INTERVAL=1",
	}
}

// TestACollectorThatIsAwayCostsNoMemory sends ten times what fits into every queue,
// three times: what is held after the third is what was held after the first.
func TestACollectorThatIsAwayCostsNoMemory(t *testing.T) {
	const size, room = 2048, 8 << 20
	for _, away := range []struct{ endpoint, protocol string }{
		{refusing(), "http/protobuf"}, {refusing(), "grpc"}, {silent(t), "http/protobuf"}, {silent(t), "grpc"},
	} {
		e, l, err := exporter(t, toAll(away.endpoint, away.protocol)...)
		if err != nil {
			t.Fatal(err)
		}
		var held []uint64
		for range 3 {
			for range 10 * size {
				use(t, e)
			}
			held = append(held, heapInUse())
		}
		if held[2] > held[0]+room {
			t.Errorf("%v: %d bytes were held, and then %d", away, held[0], held[2])
		}
		t.Logf("%v: held %d bytes", away, held)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		e.Stop(ctx)
		cancel()
		if lines := strings.Count(l.String(), "cannot be sent"); lines > 1 {
			t.Errorf("%v: it was said %d times: %s", away, lines, l)
		}
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMistakesAreFoundBeforeTheStart(t *testing.T) {
	for want, environment := range map[string][]string{
		"export traces as the OTEL_* variables say: ":                   {"OTEL_TRACES_EXPORTER=jaeger"},
		"export metrics as the OTEL_* variables say: ":                  {"OTEL_METRICS_EXPORTER=oltp"},
		"export logs as the OTEL_* variables say: ":                     {"OTEL_LOGS_EXPORTER=journal"},
		"describe this service as OTEL_RESOURCE_ATTRIBUTES says: ":      {"OTEL_RESOURCE_ATTRIBUTES=rack"},
		"export traces as the OTEL_* variables say: invalid OTLP proto": {"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=carrier-pigeon"},
	} {
		e, _, err := exporter(t, environment...)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: got %v", environment, err)
		}
		if len(e.shutdowns) != 0 {
			t.Errorf("%v: something is left", environment)
		}
	}
}

// TestStopWithoutProvision is what follows when an earlier component fails.
func TestStopWithoutProvision(t *testing.T) {
	e := new(Exporter)
	for range 2 {
		if err := e.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestAnOutageIsSaidOnce lets a collector be away for a day, and again later.
func TestAnOutageIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(log)
		c := &complaints{logger: slog.New(slog.NewTextHandler(l, nil))}
		for range 24 * 60 { // by three signals, every minute
			for range 3 {
				c.Handle(io.ErrUnexpectedEOF)
			}
			time.Sleep(time.Minute)
		}
		if strings.Count(l.String(), "\n") != 1 || !strings.Contains(l.String(), io.ErrUnexpectedEOF.Error()) {
			t.Errorf("got %s", l)
		}
		time.Sleep(time.Hour)
		c.Handle(io.ErrUnexpectedEOF)
		if strings.Count(l.String(), "\n") != 2 {
			t.Errorf("the second outage: got %s", l)
		}
	})
}

// TestRequestsAreBounded: a client can name any host.
func TestRequestsAreBounded(t *testing.T) {
	r := newReceiver(t)
	e, _, err := exporter(t, r.Environment()...)
	if err != nil {
		t.Fatal(err)
	}
	duration, err := e.MeterProvider().Meter("otelhttp").Float64Histogram("http.server.request.duration")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"a", "b"} {
		duration.Record(t.Context(), 1, metric.WithAttributes(semconv.ServerAddress(host), semconv.HTTPRoute("/v1/swap")))
	}
	e.Stop(t.Context())
	if got := r.Received().Of("http.server.request.duration"); len(got) != 1 || got[0].Count != 2 || got[0].Attributes["http.route"] != "/v1/swap" {
		t.Errorf("got %+v", got)
	}
}
