package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shunt-dev/shunt/integration/beside"
	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/spantree"
)

// collector is the OpenTelemetry backend of the demo's daemon. From the daemon's network
// namespace no way leads out, not even to this machine's loopback address. But a socket
// stays in the namespace where it was opened, whoever reads it: so the collector listens
// there and works here, and what the OTEL_* variables ask for is sent on from here.
type collector struct {
	listener net.Listener
	server   *http.Server
	serving  sync.WaitGroup
	// onward sends to the operator's own backend; nil if there is none.
	onward otlptrace.Client

	mu      sync.Mutex
	spans   []spantree.Span
	arrived chan struct{} // closed, and made anew, when spans arrive
	failed  error         // why nothing is sent on any more
}

// tracesPath is where OTLP over HTTP has its traces.
const tracesPath = "/v1/traces"

func newCollector(ctx context.Context, ns *lab.Namespace) (c *collector, err error) {
	c = &collector{arrived: make(chan struct{}), onward: onward()}
	if c.onward != nil {
		if err := c.onward.Start(ctx); err != nil {
			return nil, fmt.Errorf("send traces as the OTEL_* variables say: %w", err)
		}
	}
	err = ns.Do(func() (err error) {
		c.listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for traces: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tracesPath, c.receive)
	c.server = &http.Server{Handler: mux, ReadTimeout: sendTimeout}
	c.serving.Go(func() { c.server.Serve(c.listener) })
	return c, nil
}

// onward is how the operator wants traces to be sent, if at all. The client itself reads
// where to, and what with.
func onward() otlptrace.Client {
	if os.Getenv("OTEL_TRACES_EXPORTER") != "otlp" {
		return nil
	}
	switch cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")) {
	case "grpc":
		return otlptracegrpc.NewClient()
	default:
		return otlptracehttp.NewClient()
	}
}

// environment is that of the daemon: it sends every span here, soon.
func (c *collector) environment() []string {
	return append(beside.Environment(), "OTEL_TRACES_EXPORTER=otlp", "OTEL_BSP_SCHEDULE_DELAY=100",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://"+c.listener.Addr().String()+tracesPath)
}

func (c *collector) receive(w http.ResponseWriter, r *http.Request) {
	sent := new(collectorpb.ExportTraceServiceRequest)
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = proto.Unmarshal(body, sent)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.take(spantree.FromOTLP(sent.ResourceSpans))
	c.sendOn(r.Context(), sent.ResourceSpans)
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty body is an empty answer
}

func (c *collector) take(spans []spantree.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, spans...)
	close(c.arrived)
	c.arrived = make(chan struct{})
}

// sendTimeout bounds one sending: it is less than the daemon waits for at its end.
const sendTimeout = 2 * time.Second

// sendOn sends to the operator's backend, until that fails once: the demo shall not
// wait for it.
func (c *collector) sendOn(ctx context.Context, spans []*tracepb.ResourceSpans) {
	if c.onward == nil || c.failure() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := c.onward.UploadTraces(ctx, spans); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.failed = fmt.Errorf("the traces could not be sent on as the OTEL_* variables say: %w", err)
	}
}

// failure is why nothing is sent on any more.
func (c *collector) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// traceTimeout is how long a trace may take to come.
const traceTimeout = 20 * time.Second

// await returns a trace when its root has come, and so all of it: a span is sent when
// it has ended, in that order.
func (c *collector) await(ctx context.Context, id string) (*spantree.Tree, error) {
	ctx, cancel := context.WithTimeout(ctx, traceTimeout)
	defer cancel()
	for {
		spans, arrived := c.trace(id)
		if slices.ContainsFunc(spans, func(s spantree.Span) bool { return s.Parent == "" }) {
			return spantree.Grow(spans)
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, fmt.Errorf("of trace %s only %d spans came: %w", id, len(spans), ctx.Err())
		}
	}
}

// trace returns what has come of a trace, and what tells of more.
func (c *collector) trace(id string) (spans []spantree.Span, arrived <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Trace == id {
			spans = append(spans, s)
		}
	}
	return spans, c.arrived
}

// close is for after the daemon's end, which sends what is left. It is an error that
// something could not be sent on: the operator asked for it.
func (c *collector) close() error {
	err := errors.Join(c.server.Close(), c.failure())
	c.serving.Wait()
	if c.onward != nil {
		ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
		defer cancel()
		c.onward.Stop(ctx) // nothing is left to be sent
	}
	return err
}
