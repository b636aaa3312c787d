package demo

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shunt-dev/shunt/integration/lab"
)

// startCollector starts one in a namespace that no way leads out of, in an environment
// with these OTEL_* variables.
func startCollector(t *testing.T, environment map[string]string) (*collector, *lab.Namespace) {
	t.Helper()
	for _, name := range []string{"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		t.Setenv(name, environment[name])
	}
	l, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := newCollector(t.Context(), l.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close() })
	return c, l.Bridge
}

// send sends spans as a daemon in the namespace does, and returns the answer's status.
func send(t *testing.T, c *collector, ns *lab.Namespace, body []byte) int {
	t.Helper()
	inside := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: ns.Dial}}
	answer, err := inside.Post("http://"+c.listener.Addr().String()+tracesPath, "application/x-protobuf", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	answer.Body.Close()
	return answer.StatusCode
}

// encoded is a request with one span of trace 1.
func encoded(t *testing.T, id, parent byte, name string) []byte {
	t.Helper()
	span := &tracepb.Span{TraceId: bytes.Repeat([]byte{1}, 16), SpanId: bytes.Repeat([]byte{id}, 8), Name: name, StartTimeUnixNano: 1, EndTimeUnixNano: 2}
	if parent != 0 {
		span.ParentSpanId = bytes.Repeat([]byte{parent}, 8)
	}
	body, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{
		{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{span}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

var traceID = strings.Repeat("01", 16)

func TestATraceIsWholeWithItsRoot(t *testing.T) {
	c, inside := startCollector(t, nil)
	if status := send(t, c, inside, encoded(t, 2, 1, "swap")); status != http.StatusOK {
		t.Fatal("got", status)
	}
	hasty, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.await(hasty, traceID); err == nil || !strings.Contains(err.Error(), "only 1 spans came") {
		t.Errorf("without the root, got %v", err)
	}
	root := encoded(t, 1, 0, "POST /v1/swap")
	go send(t, c, inside, root)
	tree, err := c.await(t.Context(), traceID)
	if err != nil || tree.Name != "POST /v1/swap" || len(tree.Below) != 1 {
		t.Errorf("got %+v, %v", tree, err)
	}
}

func TestWhatIsNoTraceIsRefused(t *testing.T) {
	c, inside := startCollector(t, nil)
	if status := send(t, c, inside, []byte("swap")); status != http.StatusBadRequest {
		t.Error("got", status)
	}
}

// A backend that does not answer is asked once, and named at the end.
func TestABackendThatIsAwayHoldsNobody(t *testing.T) {
	var asked atomic.Int32
	leave := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-leave:
		case <-r.Context().Done():
		}
	}))
	defer backend.Close()
	defer close(leave)
	c, inside := startCollector(t, map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": backend.URL})
	for id := range byte(3) {
		if status := send(t, c, inside, encoded(t, id+1, id, "swap")); status != http.StatusOK {
			t.Error("the daemon's spans are answered with", status)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
	if err := c.close(); err == nil || !strings.Contains(err.Error(), "could not be sent on") {
		t.Errorf("got %v", err)
	}
}

// The daemon hears of the operator's service name, and of none of his exporters: it
// could not reach them.
func TestTheDaemonsEnvironment(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "bridges")
	t.Setenv("OTEL_METRICS_EXPORTER", "otlp")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	c, _ := startCollector(t, map[string]string{"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.1"})
	var got []string
	for _, variable := range c.environment() {
		if strings.HasPrefix(variable, "OTEL_") {
			got = append(got, variable)
		}
	}
	slices.Sort(got)
	want := []string{
		"OTEL_BSP_SCHEDULE_DELAY=100",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://" + c.listener.Addr().String() + "/v1/traces",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
		"OTEL_SERVICE_NAME=bridges", "OTEL_TRACES_EXPORTER=otlp",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if c.onward != nil {
		t.Error("traces are sent on that were not asked for by OTLP")
	}
}
