package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shunt-dev/shunt/accel"
)

// exporter is the component, provisioned in an environment with only the given
// OTEL_* variables, and what it logs.
func exporter(t *testing.T, environment map[string]string) (*Exporter, *log, error) {
	t.Helper()
	for _, name := range []string{
		"OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL",
		"OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_COMPRESSION",
	} {
		t.Setenv(name, environment[name])
	}
	l := new(log)
	e := new(Exporter)
	err := e.Provision(t.Context(), &accel.Host{Logger: slog.New(slog.NewTextHandler(l, nil))})
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

// use does what a component does with what it is given.
func use(t *testing.T, e *Exporter) {
	t.Helper()
	_, span := e.TracerProvider().Tracer("nicswap").Start(t.Context(), "swap")
	span.End()
	swaps, err := e.MeterProvider().Meter("nicswap").Int64Counter("swaps")
	if err != nil {
		t.Fatal(err)
	}
	swaps.Add(t.Context(), 1)
}

// collector is what OTLP is sent to.
type collector struct {
	*httptest.Server
	mu      sync.Mutex
	traces  []*tracepb.ExportTraceServiceRequest
	metrics []*metricspb.ExportMetricsServiceRequest
	asked   []string
}

func newCollector(t *testing.T) *collector {
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = append(c.asked, r.URL.Path)
		if err := c.take(r); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) take(r *http.Request) error {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = unzipped
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	switch r.URL.Path {
	case "/v1/traces":
		request := new(tracepb.ExportTraceServiceRequest)
		c.traces = append(c.traces, request)
		return proto.Unmarshal(text, request)
	case "/v1/metrics":
		request := new(metricspb.ExportMetricsServiceRequest)
		c.metrics = append(c.metrics, request)
		return proto.Unmarshal(text, request)
	}
	return fmt.Errorf("asked for %s", r.URL.Path)
}

func TestNothingIsSentUnlessAskedFor(t *testing.T) {
	c := newCollector(t)
	for _, environment := range []map[string]string{
		{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
	} {
		e, l, err := exporter(t, environment)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.shutdowns) != 0 {
			t.Errorf("%v: something was made", environment)
		}
		use(t, e)
		if err := e.Stop(t.Context()); err != nil || l.String() != "" {
			t.Errorf("%v: got %v, %s", environment, err, l)
		}
	}
	if len(c.asked) != 0 {
		t.Error("the collector was asked:", c.asked)
	}
}

func TestWhatWasNotSentYetIsSentByStop(t *testing.T) {
	for _, c := range []struct {
		environment map[string]string
		traces      int
		metrics     int
		service     string
	}{
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, 1, 0, "shunt"},
		{map[string]string{"OTEL_METRICS_EXPORTER": "otlp"}, 0, 1, "shunt"},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"}, 1, 1, "shunt"},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SERVICE_NAME": "bridges", "OTEL_RESOURCE_ATTRIBUTES": "service.name=x,rack=7"}, 1, 0, "bridges"},
	} {
		receiver := newCollector(t)
		c.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.URL
		e, l, err := exporter(t, c.environment)
		if err != nil {
			t.Fatal(err)
		}
		use(t, e)
		for range 2 {
			if err := e.Stop(t.Context()); err != nil || l.String() != "" {
				t.Errorf("%v: got %v, %s", c.environment, err, l)
			}
		}
		if len(receiver.traces) != c.traces || len(receiver.metrics) != c.metrics {
			t.Errorf("%v: got %v", c.environment, receiver.asked)
		}
		for _, r := range receiver.traces {
			checkResource(t, r.ResourceSpans[0].Resource.Attributes, c.service, c.environment)
			if got := r.ResourceSpans[0].ScopeSpans[0].Spans[0].Name; got != "swap" {
				t.Errorf("got span %s", got)
			}
		}
		for _, r := range receiver.metrics {
			checkResource(t, r.ResourceMetrics[0].Resource.Attributes, c.service, c.environment)
			if got := r.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].Name; got != "swaps" {
				t.Errorf("got metric %s", got)
			}
		}
	}
}

func checkResource(t *testing.T, attributes []*commonpb.KeyValue, service string, environment map[string]string) {
	t.Helper()
	got := make(map[string]string)
	for _, a := range attributes {
		got[a.Key] = a.Value.GetStringValue()
	}
	if got["service.name"] != service || got["service.version"] != accel.Version() || got["host.name"] == "" {
		t.Errorf("got %v", got)
	}
	if strings.Contains(environment["OTEL_RESOURCE_ATTRIBUTES"], "rack=7") && got["rack"] != "7" {
		t.Errorf("got %v", got)
	}
}

// TestCollectorThatIsAway is one that refuses, and one that never answers.
func TestCollectorThatIsAway(t *testing.T) {
	refusing := httptest.NewServer(nil)
	refusing.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, endpoint := range []string{refusing.URL, "http://" + silent.Addr().String()} {
		e, l, err := exporter(t, map[string]string{
			"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
		})
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
		if err != nil || strings.Count(l.String(), "what was traced or measured last is lost") != 1 {
			t.Errorf("%s: got %v, %s", endpoint, err, l)
		}
	}
}

func TestMistakesAreFoundBeforeTheStart(t *testing.T) {
	for want, environment := range map[string]map[string]string{
		"export traces as the OTEL_* variables say: ":                   {"OTEL_TRACES_EXPORTER": "jaeger"},
		"export metrics as the OTEL_* variables say: ":                  {"OTEL_METRICS_EXPORTER": "oltp"},
		"describe this service as OTEL_RESOURCE_ATTRIBUTES says: ":      {"OTEL_RESOURCE_ATTRIBUTES": "rack"},
		"export traces as the OTEL_* variables say: invalid OTLP proto": {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"},
	} {
		e, _, err := exporter(t, environment)
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

func TestComplaintsAreRare(t *testing.T) {
	_, l, err := exporter(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		otel.Handle(io.ErrUnexpectedEOF)
	}
	if strings.Count(l.String(), "telemetry cannot be sent") != 1 || !strings.Contains(l.String(), io.ErrUnexpectedEOF.Error()) {
		t.Errorf("got %s", l)
	}
}
