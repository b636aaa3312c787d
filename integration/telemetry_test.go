package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/telemetry/otlptest"
)

// backend is an OTLP receiver in the bridge's namespace, to which the daemons of
// the test export everything.
func backend(t *testing.T, ns *lab.Namespace) *otlptest.Receiver {
	t.Helper()
	var listener net.Listener
	err := ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r := otlptest.Serve(listener)
	t.Cleanup(func() { r.Close() })
	for _, pair := range r.Environment() {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	return r
}

// expect waits until what the backend received is as it should be.
func expect(t *testing.T, r *otlptest.Receiver, what string, holds func(otlptest.Received) bool) otlptest.Received {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, fmt.Errorf("waited in vain until %s", what))
	defer cancel()
	got, err := r.Await(ctx, holds)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A backend sees the start as one trace, what the data plane counted, and the log
// with the ids of its traces; and what is left at the end.
func TestBackendSeesTheStartTheFramesAndTheLog(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	r := backend(t, l.Bridge)
	d := startDaemon(t, l)
	expectStart(t, d, r)
	expectFrames(t, l, d, r)
	expectOff(t, d, r)
	d.stop()
	got := r.Received()
	if len(got.Saying("stopping")) != 1 {
		t.Errorf("what was logged at the end is missing: %s", got)
	}
	if strings.Contains(d.log.String(), "cannot be sent") {
		t.Error("the backend was there, and the log says otherwise")
	}
	expectDocumented(t, got)
}

// expectStart wants the start's phases in one trace, with what it logged.
func expectStart(t *testing.T, d *daemon, r *otlptest.Receiver) {
	t.Helper()
	got := expect(t, r, "the start is there", func(got otlptest.Received) bool {
		return len(got.Named("start")) == 1 && len(got.Saying("ready")) == 1
	})
	start := got.Named("start")[0]
	var names []string
	for _, s := range got.Below(start) {
		names = append(names, s.Name)
		if s.End.After(start.End) || s.Start.Before(start.Start) {
			t.Errorf("%s does not lie within the start", s.Name)
		}
	}
	if strings.Join(names, " ") != "probe attach snapshot verify" || start.ParentID != "" {
		t.Errorf("below start are %v", names)
	}
	if len(start.Events) != 1 || start.Events[0].Name != "ready" {
		t.Errorf("the start has the events %v", start.Events)
	}
	for name, attributes := range map[string][]string{
		"probe": {"shunt.attach"}, "attach": {"shunt.bridge", "shunt.ports"},
		"snapshot": {"shunt.bridge", "shunt.entries"}, "verify": {"shunt.bridge", "shunt.entries"},
	} {
		for _, key := range attributes {
			if got.Named(name)[0].Attributes[key] == "" {
				t.Errorf("%s does not say its %s", name, key)
			}
		}
	}
	for _, text := range []string{"ready", "the fast path is open"} {
		if records := got.Saying(text); len(records) != 1 || records[0].TraceID != start.TraceID {
			t.Errorf("%q was logged as %+v, in trace %s", text, records, start.TraceID)
		}
	}
	if !strings.Contains(d.log.String(), "trace_id="+start.TraceID) {
		t.Error("the log on stderr does not name the trace")
	}
}

// expectFrames wants the metrics to be what the commands say.
func expectFrames(t *testing.T, l *lab.Lab, d *daemon, r *otlptest.Receiver) {
	t.Helper()
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	d.awaitActive(a.mac, b.mac)
	s := &lab.Sender{
		Wire: a.wire, Frame: lab.Frame{Source: a.mac, Destination: b.mac, Stream: 1}, Pace: lab.Pace{PerSecond: 10_000},
	}
	if _, err := lab.Run(t.Context(), s, 10_000, b.wire); err != nil {
		t.Fatal(err)
	}
	counted := d.reasons() // nothing is sent any more
	if counted[accel.Fast] < 9_900 {
		t.Errorf("only %d frames were fast", counted[accel.Fast])
	}
	got := expect(t, r, fmt.Sprintf("the frames are %v", counted), func(got otlptest.Received) bool {
		sum := make(map[string]uint64)
		for _, p := range got.Of("shunt.frames", "shunt.bridge", lab.BridgeName) {
			sum[p.Attributes["shunt.reason"]] += uint64(p.Value)
		}
		for reason, n := range counted {
			if sum[reason.String()] != n {
				return false
			}
			delete(sum, reason.String())
		}
		return len(sum) == 0
	})
	status := d.bridge()
	for _, want := range []struct {
		value uint64
		of    []string
	}{
		{status.FastBytes, []string{"shunt.bytes", "shunt.path", "fast"}},
		{status.SlowBytes, []string{"shunt.bytes", "shunt.path", "slow"}},
		{1, []string{"shunt.bridge.eligible", "shunt.bridge", lab.BridgeName, "shunt.reason", "fast"}},
		{2, []string{"shunt.bridge.ports", "shunt.bridge", lab.BridgeName}},
		{uint64(status.Stations), []string{"shunt.fdb.entries", "shunt.bridge", lab.BridgeName, "shunt.state", "active"}},
	} {
		var sum uint64
		for _, p := range got.Of(want.of[0], want.of[1:]...) {
			sum += uint64(p.Value)
		}
		if sum != want.value {
			t.Errorf("%v is %d, and the status says %d", want.of, sum, want.value)
		}
	}
	for _, p := range got.Of("shunt.fdb.apply.duration", "shunt.change", "activated") {
		if p.Count < 2 || p.Sum < float64(p.Count)*0.01 {
			t.Errorf("two stations were learned, and the map had them after %+v", p)
		}
	}
}

// expectOff switches the bridge off and on, and wants that told, as part of the
// request.
func expectOff(t *testing.T, d *daemon, r *otlptest.Receiver) {
	t.Helper()
	d.shunt("off")
	d.shunt("on")
	got := expect(t, r, "the bridge is eligible again", func(got otlptest.Received) bool {
		return len(got.Named("eligible")) == 1 && len(got.Named("POST /v1/off")) == 1 && len(got.Saying("the fast path is shut")) == 1
	})
	request, left, back := got.Named("POST /v1/off")[0], got.Named("ineligible")[0], got.Named("eligible")[0]
	if left.ParentID != request.SpanID || back.ParentID != left.SpanID || back.TraceID != request.TraceID {
		t.Errorf("the trace is %+v, %+v, %+v", request, left, back)
	}
	if left.Attributes["shunt.reason"] != "off" || back.Attributes["shunt.reason"] != "off" || back.Start.Before(left.Start) {
		t.Errorf("got %+v, %+v", left, back)
	}
	expect(t, r, "the request is measured", func(got otlptest.Received) bool {
		points := got.Of("http.server.request.duration", "http.route", "/v1/off")
		return len(points) == 1 && points[0].Count == 1 && points[0].Attributes["server.address"] == ""
	})
	if shut := got.Saying("the fast path is shut")[0]; shut.TraceID != request.TraceID {
		t.Errorf("it was logged in trace %q", shut.TraceID)
	}
}

// expectDocumented wants every span, and every attribute of ours, to stand in
// docs/telemetry.md. (That every instrument does is tested where they are.)
func expectDocumented(t *testing.T, got otlptest.Received) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "telemetry.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range got.Spans {
		if name, _, _ := strings.Cut(s.Name, "/v1/"); !strings.Contains(string(page), "`"+name) {
			t.Errorf("docs/telemetry.md says nothing of the span %s", s.Name)
		}
		for key := range s.Attributes {
			if strings.HasPrefix(key, "shunt.") && !strings.Contains(string(page), "`"+key+"`") {
				t.Errorf("docs/telemetry.md says nothing of %s of the span %s", key, s.Name)
			}
		}
	}
}

// A daemon whose collector is away works as one without, and says so once.
func TestCollectorThatIsAwayIsSaidOnce(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) { expectOneComplaint(t, protocol) })
	}
}

func expectOneComplaint(t *testing.T, protocol string) {
	l := newLab(t, lab.Options{Hosts: 2})
	r := backend(t, l.Bridge)
	r.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "500") // ms: gRPC tries for that long
	d := startDaemon(t, l)
	for range 5 {
		d.shunt("off")
		d.shunt("on")
	}
	awaitWithin(t, startTimeout, "it was said", func() bool { return strings.Contains(d.log.String(), "telemetry cannot be sent") })
	d.stop()
	for line := range strings.Lines(d.log.String()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("something else writes to the log: %s", line)
		}
	}
	if n := strings.Count(d.log.String(), "telemetry cannot be sent"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, d.log)
	}
}
