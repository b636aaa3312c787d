package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/spantree"
)

// jaegerConfig keeps traces in memory, and is the smallest that takes and gives them.
// The ports are free: nobody else is in the namespace.
const jaegerConfig = `
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}
  telemetry:
    metrics: {level: none}
extensions:
  jaeger_query:
    storage: {traces: memory}
    http: {endpoint: "127.0.0.1:16686"}
    grpc: {endpoint: "127.0.0.1:16685"}
  jaeger_storage:
    backends:
      memory: {memory: {max_traces: 10000}}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:4317"}
      http: {endpoint: "127.0.0.1:4318"}
exporters:
  jaeger_storage_exporter: {trace_storage: memory}
`

// tryJaeger runs the demo for each protocol of OTLP, as an operator would, and checks
// the traces of all its swaps as Jaeger has them.
func tryJaeger(ctx context.Context, p place) error {
	program, err := jaeger(ctx, p.cache)
	if err != nil {
		return err
	}
	l, err := lab.New(lab.Options{}) // Jaeger needs no host
	if err != nil {
		return err
	}
	defer l.Close()
	config := filepath.Join(p.dir, "jaeger.yaml")
	if err := os.WriteFile(config, []byte(jaegerConfig), 0o600); err != nil {
		return err
	}
	s, err := serve(l.Bridge, "http://127.0.0.1:16686", exec.Command(program, "--config", config))
	if err != nil {
		return err
	}
	defer s.stop()
	if err := s.await(ctx, func(ctx context.Context) error { return s.get(ctx, "/api/services", new(any)) }); err != nil {
		return fmt.Errorf("start Jaeger: %w", err)
	}
	for protocol, port := range map[string]int{"http/protobuf": 4318, "grpc": 4317} {
		fmt.Printf("running the demo, whose traces go to Jaeger by %s\n", protocol)
		service := "shunt by " + protocol
		done, err := demonstrate(ctx, l.Bridge, p.shunt, []string{
			"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
			fmt.Sprintf("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:%d", port), "OTEL_SERVICE_NAME=" + service,
		})
		if err != nil {
			return err
		}
		if err := checkTraces(ctx, s, service, done); err != nil {
			return fmt.Errorf("by %s: %w", protocol, err)
		}
	}
	return nil
}

// demonstrated is what the demo says of its swaps.
type demonstrated struct {
	Swaps   int    `json:"swaps"`
	TraceID string `json:"swap_trace_id"` // of the last
}

func demonstrate(ctx context.Context, ns *lab.Namespace, shunt string, environment []string) (done demonstrated, err error) {
	var printed []byte
	err = ns.Do(func() (err error) {
		cmd := exec.CommandContext(ctx, shunt, "demo", "-j")
		cmd.Env = append(os.Environ(), environment...)
		cmd.Stderr = os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		printed, err = cmd.Output()
		return err
	})
	if err != nil {
		return done, fmt.Errorf("run the demo: %w", err)
	}
	return done, json.Unmarshal(printed, &done)
}

// phases are those of a swap that goes well.
var phases = []string{"resolve", "check", "prewarm", "flip", "announce", "drain", "retire"}

// checkTraces wants Jaeger to have a whole trace of every swap, the last one under the
// number that the demo printed. It prints that, and what the phases of all explain.
func checkTraces(ctx context.Context, s *server, service string, done demonstrated) error {
	var found struct{ Data []jaegerTrace }
	query := url.Values{"service": {service}, "operation": {"swap"}, "limit": {"100"}}
	err := s.await(ctx, func(ctx context.Context) error {
		err := s.get(ctx, "/api/traces?"+query.Encode(), &found)
		if err == nil && len(found.Data) != done.Swaps {
			err = fmt.Errorf("%d traces of swaps are there, and there were %d", len(found.Data), done.Swaps)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, t := range found.Data {
		if err := checkTrace(t, service); err != nil {
			return fmt.Errorf("trace %s: %w", t.ID, err)
		}
	}
	var last struct{ Data []jaegerTrace }
	if err := s.get(ctx, "/api/traces/"+done.TraceID, &last); err != nil || len(last.Data) != 1 {
		return errors.Join(fmt.Errorf("the trace that the demo printed is there %d times", len(last.Data)), err)
	}
	tree, err := last.Data[0].grow()
	if err == nil {
		fmt.Print(tree.Outline())
	}
	return err
}

func checkTrace(t jaegerTrace, service string) error {
	tree, err := t.grow()
	if err != nil {
		return err
	}
	for _, process := range t.Processes {
		if process.ServiceName != service {
			return fmt.Errorf("it is of service %q, want %q", process.ServiceName, service)
		}
	}
	share, err := tree.CheckSwap(phases)
	if err != nil {
		return err
	}
	fmt.Printf("trace %s: 1 root, %d spans, %d phases in order, which explain %.2f %% of %v\n",
		t.ID, len(t.Spans), len(phases), 100*share, tree.Took)
	return nil
}

// jaegerTrace is a trace in Jaeger's HTTP API; times are in µs.
type jaegerTrace struct {
	ID    string `json:"traceID"`
	Spans []struct {
		ID         string `json:"spanID"`
		Name       string `json:"operationName"`
		References []struct {
			Type string `json:"refType"`
			ID   string `json:"spanID"`
		} `json:"references"`
		Began    int64    `json:"startTime"`
		Duration int64    `json:"duration"`
		Warnings []string `json:"warnings"`
	} `json:"spans"`
	Processes map[string]struct {
		ServiceName string `json:"serviceName"`
	} `json:"processes"`
}

// grow makes the trace's tree.
func (t jaegerTrace) grow() (*spantree.Tree, error) {
	var spans []spantree.Span
	for _, s := range t.Spans {
		if len(s.Warnings) > 0 {
			return nil, fmt.Errorf("there are warnings of %s: %v", s.Name, s.Warnings)
		}
		span := spantree.Span{Trace: t.ID, ID: s.ID, Name: s.Name,
			Began: time.UnixMicro(s.Began), Took: time.Duration(s.Duration) * time.Microsecond}
		for _, r := range s.References {
			if r.Type == "CHILD_OF" {
				span.Parent = r.ID
			}
		}
		spans = append(spans, span)
	}
	return spantree.Grow(spans)
}
