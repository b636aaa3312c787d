// Package otlptest is a backend for tests: it takes traces, metrics and logs over
// OTLP (HTTP with protobuf), in the process of the test, and lets it wait for what
// it wants to see.
package otlptest

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logpb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	spanpb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span that was received.
type Span struct {
	Name                      string
	TraceID, SpanID, ParentID string // in hexadecimal; ParentID is empty for a root
	Start, End                time.Time
	Attributes, Resource      map[string]string
	Events                    []Event
	// Failed is what is said of a span with the status Error.
	Failed string
}

// Event is a moment in a span.
type Event struct {
	Name       string
	Attributes map[string]string
}

// Point is a value of a metric, the last that was received of its series.
type Point struct {
	Metric, Unit, Help   string
	Attributes, Resource map[string]string
	// Value is a counter's or a gauge's.
	Value int64
	// Count, Sum, Bounds and Buckets are a histogram's: the last bucket has no bound.
	Count   uint64
	Sum     float64
	Bounds  []float64
	Buckets []uint64
	// Traces are those of the exemplars.
	Traces []string
}

// Record is a line of the log.
type Record struct {
	Text, Severity       string
	TraceID, SpanID      string // empty outside of a trace
	Attributes, Resource map[string]string
}

// Received is what was received so far.
type Received struct {
	Spans   []Span
	Points  []Point
	Records []Record
	// Requests counts what came, by path.
	Requests map[string]int
}

// Receiver takes what is exported to it.
type Receiver struct {
	server  http.Server
	address string
	serving sync.WaitGroup

	mu      sync.Mutex
	got     Received
	series  map[string]int // the place of a series in got.Points
	changed chan struct{}  // closed, and made anew, whenever something came
}

// Serve receives on a listener until Close, which closes it.
func Serve(listener net.Listener) *Receiver {
	r := &Receiver{
		address: listener.Addr().String(), changed: make(chan struct{}),
		series: make(map[string]int), got: Received{Requests: make(map[string]int)},
	}
	r.server = http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	r.serving.Go(func() { r.server.Serve(listener) })
	return r
}

// Listen receives on the loopback address.
func Listen() (*Receiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return Serve(listener), nil
}

// Close ends the receiver and its connections.
func (r *Receiver) Close() error {
	err := r.server.Close()
	r.serving.Wait()
	return err
}

// URL is the endpoint, for OTEL_EXPORTER_OTLP_ENDPOINT.
func (r *Receiver) URL() string { return "http://" + r.address }

// Environment is what has a process export everything to the receiver, as soon as
// it can.
func (r *Receiver) Environment() []string {
	return []string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_METRICS_EXPORTER=otlp", "OTEL_LOGS_EXPORTER=otlp",
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL(),
		"OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_BLRP_SCHEDULE_DELAY=50", "OTEL_METRIC_EXPORT_INTERVAL=200",
	}
}

// Received is what came so far.
func (r *Receiver) Received() Received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.clone()
}

// Await returns what came, once holds is true of it. It is asked again with
// everything that comes. The error is that of ctx, with what came.
func (r *Receiver) Await(ctx context.Context, holds func(Received) bool) (Received, error) {
	for {
		r.mu.Lock()
		got, changed := r.got.clone(), r.changed
		r.mu.Unlock()
		if holds(got) {
			return got, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return got, fmt.Errorf("%w; received were %s", context.Cause(ctx), got)
		}
	}
}

func (g Received) clone() Received {
	requests := make(map[string]int)
	for path, n := range g.Requests {
		requests[path] = n
	}
	return Received{slices.Clone(g.Spans), slices.Clone(g.Points), slices.Clone(g.Records), requests}
}

func (g Received) String() string {
	text := fmt.Sprintf("%d spans, %d series, %d records:", len(g.Spans), len(g.Points), len(g.Records))
	for _, s := range g.Spans {
		text += fmt.Sprintf("\nspan %s %s/%s below %q %v %v %s", s.Name, s.TraceID, s.SpanID, s.ParentID, s.Attributes, s.Events, s.Failed)
	}
	for _, p := range g.Points {
		text += fmt.Sprintf("\npoint %s %v = %d (%d, %g)", p.Metric, p.Attributes, p.Value, p.Count, p.Sum)
	}
	for _, l := range g.Records {
		text += fmt.Sprintf("\nrecord %s %s %v %s", l.Severity, l.Text, l.Attributes, l.TraceID)
	}
	return text
}

// Named returns the spans of that name, in the order in which they came.
func (g Received) Named(name string) (spans []Span) {
	for _, s := range g.Spans {
		if s.Name == name {
			spans = append(spans, s)
		}
	}
	return spans
}

// Below returns the spans whose parent is s, by their beginning.
func (g Received) Below(s Span) (spans []Span) {
	for _, child := range g.Spans {
		if child.TraceID == s.TraceID && child.ParentID == s.SpanID {
			spans = append(spans, child)
		}
	}
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return spans
}

// Of returns the series of a metric that have all these attributes, as pairs of key
// and value.
func (g Received) Of(metric string, attributes ...string) (points []Point) {
	for _, p := range g.Points {
		has := p.Metric == metric
		for pair := range slices.Chunk(attributes, 2) {
			has = has && p.Attributes[pair[0]] == pair[1]
		}
		if has {
			points = append(points, p)
		}
	}
	return points
}

// Saying returns the records of that text.
func (g Received) Saying(text string) (records []Record) {
	for _, l := range g.Records {
		if l.Text == text {
			records = append(records, l)
		}
	}
	return records
}

// ServeHTTP takes one request of an exporter.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if err := r.take(request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (r *Receiver) take(request *http.Request) error {
	body, err := readBody(request)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch request.URL.Path {
	case "/v1/traces":
		var message tracepb.ExportTraceServiceRequest
		err = proto.Unmarshal(body, &message)
		r.takeSpans(message.ResourceSpans)
	case "/v1/metrics":
		var message metricspb.ExportMetricsServiceRequest
		err = proto.Unmarshal(body, &message)
		r.takeMetrics(message.ResourceMetrics)
	case "/v1/logs":
		var message logspb.ExportLogsServiceRequest
		err = proto.Unmarshal(body, &message)
		r.takeRecords(message.ResourceLogs)
	default:
		err = errors.New("no signal is sent to " + request.URL.Path)
	}
	r.got.Requests[request.URL.Path]++
	close(r.changed)
	r.changed = make(chan struct{})
	return err
}

func readBody(request *http.Request) ([]byte, error) {
	body := io.Reader(request.Body)
	if request.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = unzipped
	}
	return io.ReadAll(body)
}

func (r *Receiver) takeSpans(all []*spanpb.ResourceSpans) {
	for _, of := range all {
		resource := attributesOf(of.GetResource().GetAttributes())
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.got.Spans = append(r.got.Spans, spanOf(s, resource))
			}
		}
	}
}

func spanOf(s *spanpb.Span, resource map[string]string) Span {
	span := Span{
		Name: s.Name, TraceID: hex.EncodeToString(s.TraceId), SpanID: hex.EncodeToString(s.SpanId),
		ParentID: hex.EncodeToString(s.ParentSpanId), Attributes: attributesOf(s.Attributes), Resource: resource,
		Start: time.Unix(0, int64(s.StartTimeUnixNano)), End: time.Unix(0, int64(s.EndTimeUnixNano)),
	}
	for _, e := range s.Events {
		span.Events = append(span.Events, Event{e.Name, attributesOf(e.Attributes)})
	}
	if s.GetStatus().GetCode() == spanpb.Status_STATUS_CODE_ERROR {
		span.Failed = s.GetStatus().GetMessage()
	}
	return span
}

func (r *Receiver) takeRecords(all []*logpb.ResourceLogs) {
	for _, of := range all {
		resource := attributesOf(of.GetResource().GetAttributes())
		for _, scope := range of.ScopeLogs {
			for _, l := range scope.LogRecords {
				r.got.Records = append(r.got.Records, Record{
					Text: valueOf(l.Body), Severity: l.SeverityText, Attributes: attributesOf(l.Attributes), Resource: resource,
					TraceID: hex.EncodeToString(l.TraceId), SpanID: hex.EncodeToString(l.SpanId),
				})
			}
		}
	}
}

func (r *Receiver) takeMetrics(all []*metricpb.ResourceMetrics) {
	for _, of := range all {
		resource := attributesOf(of.GetResource().GetAttributes())
		for _, scope := range of.ScopeMetrics {
			for _, m := range scope.Metrics {
				for _, p := range pointsOf(m) {
					p.Metric, p.Unit, p.Help, p.Resource = m.Name, m.Unit, m.Description, resource
					r.takePoint(p)
				}
			}
		}
	}
}

func (r *Receiver) takePoint(p Point) {
	series := fmt.Sprint(p.Metric, p.Attributes)
	at, known := r.series[series]
	if !known {
		r.series[series] = len(r.got.Points)
		r.got.Points = append(r.got.Points, p)
		return
	}
	r.got.Points[at] = p
}

func pointsOf(m *metricpb.Metric) (points []Point) {
	for _, p := range append(m.GetSum().GetDataPoints(), m.GetGauge().GetDataPoints()...) {
		points = append(points, Point{
			Attributes: attributesOf(p.Attributes), Value: p.GetAsInt(), Traces: tracesOf(p.Exemplars),
		})
	}
	for _, p := range m.GetHistogram().GetDataPoints() {
		points = append(points, Point{
			Attributes: attributesOf(p.Attributes), Count: p.Count, Sum: p.GetSum(), Bounds: p.ExplicitBounds,
			Buckets: p.BucketCounts, Traces: tracesOf(p.Exemplars),
		})
	}
	return points
}

func tracesOf(exemplars []*metricpb.Exemplar) (ids []string) {
	for _, e := range exemplars {
		ids = append(ids, hex.EncodeToString(e.TraceId))
	}
	return ids
}

func attributesOf(all []*commonpb.KeyValue) map[string]string {
	attributes := make(map[string]string)
	for _, a := range all {
		attributes[a.Key] = valueOf(a.Value)
	}
	return attributes
}

// valueOf writes a value as people would.
func valueOf(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *commonpb.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	case *commonpb.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	}
	return v.String()
}
