package telemetry

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/telemetry/otlptest"
)

// kernel stands for all that is asked when metrics are collected.
type kernel struct {
	accel.BridgeSource
	bridges []accel.BridgeState
	stats   []accel.PortStats
	revoked uint64
	groups  []accel.GroupState
	err     error
}

func (k *kernel) Bridges() []accel.BridgeState             { return k.bridges }
func (k *kernel) PortStats(int) ([]accel.PortStats, error) { return k.stats, k.err }
func (k *kernel) Revocations(int) (uint64, error)          { return k.revoked, k.err }
func (k *kernel) GroupStates() []accel.GroupState          { return k.groups }
func (k *kernel) serve(e *Exporter) {
	e.sources.bridges, e.sources.counters, e.sources.revokers, e.sources.groups = []accel.BridgeSource{k}, []accel.CounterSource{k}, []revoker{k}, []accel.GroupSource{k}
}

// sample is a bridge of two ports, one that is gone, and a group.
func sample() *kernel {
	return &kernel{
		bridges: []accel.BridgeState{
			{
				Bridge: accel.Bridge{Name: "br0", Ifindex: 2}, Present: true, Reason: accel.Fast,
				Ports:    []accel.PortState{{Port: accel.Port{Name: "p1", Ifindex: 3}}, {Port: accel.Port{Name: "p2", Ifindex: 4}}},
				Stations: 5, Pending: 1, Unmirrored: 2,
			},
			{Bridge: accel.Bridge{Name: "br1"}, Reason: accel.Absent},
		},
		stats: []accel.PortStats{
			{Ifindex: 3, Counts: map[accel.Reason]accel.Count{
				accel.Fast: {Packets: 10, Bytes: 1000}, accel.ARP: {Packets: 2, Bytes: 120}, accel.Multicast: {Packets: 1, Bytes: 60},
			}},
			{Ifindex: 4, Counts: map[accel.Reason]accel.Count{accel.ARP: {Packets: 1, Bytes: 60}}},
			{Ifindex: 9, Counts: map[accel.Reason]accel.Count{accel.Fast: {Packets: 1}}},
		},
		revoked: 6,
		groups: []accel.GroupState{{
			Name: "uplink", Members: []accel.MemberState{{State: "active"}, {State: "standby"}, {State: "standby"}},
			Frames: map[accel.Reason]uint64{accel.NoMember: 3, accel.Drained: 4},
		}},
	}
}

// measureAll has every instrument measure something.
func measureAll(t *testing.T, e *Exporter) {
	sample().serve(e)
	e.EntryApplied("br0", "revoked", 30*time.Microsecond)
	e.EventsLost()
	e.MessageSkipped()
	e.Resynced(t.Context(), "overrun")
	e.PhaseEnded(t.Context(), "prewarm", "failed", time.Millisecond)
	e.Flipped(t.Context(), time.Microsecond)
	e.SwapEnded(t.Context(), "uplink", "loss", "rolled_back", 300*time.Millisecond, 8)
}

func collect(t *testing.T, use func(*Exporter)) otlptest.Received {
	t.Helper()
	r := newReceiver(t)
	e, l, err := exporter(t, r.Environment()...)
	if err != nil {
		t.Fatal(err)
	}
	use(e)
	if err := e.Stop(t.Context()); err != nil || l.String() != "" {
		t.Errorf("got %v, %s", err, l)
	}
	return r.Received()
}

func TestWhatIsMeasured(t *testing.T) {
	got := collect(t, func(e *Exporter) { measureAll(t, e) })
	for _, want := range []struct {
		value int64
		of    []string
	}{
		{10, []string{"shunt.frames", "shunt.bridge", "br0", "shunt.port", "p1", "shunt.path", "fast", "shunt.reason", "fast"}},
		{2, []string{"shunt.frames", "shunt.bridge", "br0", "shunt.port", "p1", "shunt.path", "slow", "shunt.reason", "arp"}},
		{1, []string{"shunt.frames", "shunt.bridge", "br0", "shunt.port", "p1", "shunt.path", "slow", "shunt.reason", "multicast"}},
		{0, []string{"shunt.frames", "shunt.bridge", "br0", "shunt.port", "p2", "shunt.path", "fast", "shunt.reason", "fast"}},
		{1, []string{"shunt.frames", "shunt.bridge", "br0", "shunt.port", "p2", "shunt.path", "slow", "shunt.reason", "arp"}},
		{1000, []string{"shunt.bytes", "shunt.bridge", "br0", "shunt.port", "p1", "shunt.path", "fast"}},
		{180, []string{"shunt.bytes", "shunt.bridge", "br0", "shunt.port", "p1", "shunt.path", "slow"}},
		{6, []string{"shunt.revocations", "shunt.bridge", "br0"}},
		{1, []string{"shunt.bridge.eligible", "shunt.bridge", "br0", "shunt.reason", "fast"}},
		{0, []string{"shunt.bridge.eligible", "shunt.bridge", "br1", "shunt.reason", "absent"}},
		{2, []string{"shunt.bridge.ports", "shunt.bridge", "br0"}},
		{5, []string{"shunt.fdb.entries", "shunt.bridge", "br0", "shunt.state", "active"}},
		{1, []string{"shunt.fdb.entries", "shunt.bridge", "br0", "shunt.state", "pending"}},
		{2, []string{"shunt.fdb.entries", "shunt.bridge", "br0", "shunt.state", "unmirrored"}},
		{1, []string{"shunt.group.members", "shunt.group", "uplink", "shunt.state", "active"}},
		{2, []string{"shunt.group.members", "shunt.group", "uplink", "shunt.state", "standby"}},
		{0, []string{"shunt.group.members", "shunt.group", "uplink", "shunt.state", "missing"}},
		{3, []string{"shunt.group.frames", "shunt.group", "uplink", "shunt.reason", "no_member"}},
		{4, []string{"shunt.group.frames", "shunt.group", "uplink", "shunt.reason", "drained"}},
		{1, []string{"shunt.netlink.overruns"}},
		{1, []string{"shunt.netlink.skipped"}},
		{1, []string{"shunt.resyncs", "shunt.cause", "overrun"}},
		{0, []string{"shunt.resyncs", "shunt.cause", "periodic"}},
		{1, []string{"shunt.swaps", "shunt.group", "uplink", "shunt.cause", "loss", "shunt.result", "rolled_back"}},
		{8, []string{"shunt.swap.lost", "shunt.group", "uplink"}},
	} {
		points := got.Of(want.of[0], want.of[1:]...)
		if len(points) != 1 || points[0].Value != want.value || len(points[0].Attributes) != (len(want.of)-1)/2 {
			t.Errorf("%v: got %+v, want %d", want.of, points, want.value)
		}
	}
	if n := len(got.Of("shunt.frames")); n != 5 {
		t.Errorf("shunt.frames has %d series: a port that is no port of the bridge is measured, or a reason that was never seen", n)
	}
	for _, want := range []struct {
		seconds float64
		of      []string
	}{
		{30e-6, []string{"shunt.fdb.apply.duration", "shunt.bridge", "br0", "shunt.change", "revoked"}},
		{1e-3, []string{"shunt.swap.phase.duration", "shunt.phase", "prewarm", "shunt.result", "failed"}},
		{1e-6, []string{"shunt.swap.flip.duration"}},
		{0.3, []string{"shunt.swap.duration", "shunt.group", "uplink", "shunt.result", "rolled_back"}},
	} {
		points := got.Of(want.of[0], want.of[1:]...)
		if len(points) != 1 || points[0].Count != 1 || points[0].Sum != want.seconds {
			t.Errorf("%v: got %+v, want %g", want.of, points, want.seconds)
		}
	}
}

// TestEveryInstrumentIsAsDescribed compares what is exported with the descriptions,
// in both directions.
func TestEveryInstrumentIsAsDescribed(t *testing.T) {
	got := collect(t, func(e *Exporter) { measureAll(t, e) })
	described := make(map[string]instrument)
	for _, i := range instruments() {
		described[i.Name] = i
		points := got.Of(i.Name)
		if len(points) == 0 {
			t.Errorf("%s is described, and not measured", i.Name)
		}
		for _, p := range points {
			if p.Unit != i.Unit || p.Help != i.plainHelp() || !slices.Equal(p.Bounds, i.Buckets) || len(p.Attributes) != len(i.Labels) {
				t.Errorf("%s is described as %+v, and measured as %+v", i.Name, i, p)
			}
			for _, l := range i.Labels {
				if _, ok := p.Attributes[string(l.Key)]; !ok {
					t.Errorf("%s has no %s: %v", i.Name, l.Key, p.Attributes)
				}
			}
		}
	}
	for _, p := range got.Points {
		if _, ok := described[p.Metric]; !ok && strings.HasPrefix(p.Metric, "shunt.") {
			t.Errorf("%s is measured, and not described", p.Metric)
		}
	}
	for _, name := range []string{"go.memory.used", "go.goroutine.count"} {
		if len(got.Of(name)) == 0 {
			t.Errorf("the Go runtime's %s is missing", name)
		}
	}
}

func TestNamesInPrometheus(t *testing.T) {
	registry := prometheus.NewRegistry()
	reader, err := promexporter.New(promexporter.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	e := &Exporter{meters: provider}
	if err := e.measure(); err != nil {
		t.Fatal(err)
	}
	measureAll(t, e)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range instruments() {
		name, err := prometheusName(i)
		if err != nil {
			t.Error(err)
		}
		at := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == name })
		if at < 0 {
			t.Errorf("%s is not called %s there: %v", i.Name, name, families)
			continue
		}
		labels, err := prometheusLabels(i)
		if err != nil {
			t.Error(err)
		}
		for _, l := range families[at].GetMetric()[0].GetLabel() {
			if !strings.HasPrefix(l.GetName(), "otel_scope_") && !strings.Contains(labels, l.GetName()) {
				t.Errorf("%s has the label %s there, which is not among %s", i.Name, l.GetName(), labels)
			}
		}
	}
}

func TestHistogramsNameTraces(t *testing.T) {
	got := collect(t, func(e *Exporter) { use(t, e) })
	points, spans := got.Of("shunt.swap.duration"), got.Named("swap")
	if len(points) != 1 || len(spans) != 1 || !slices.Equal(points[0].Traces, []string{spans[0].TraceID}) {
		t.Errorf("got %+v with %+v", points, spans)
	}
}

// TestTheLastValuesAreSent lets those who know them go before the end.
func TestTheLastValuesAreSent(t *testing.T) {
	got := collect(t, func(e *Exporter) {
		k := sample()
		k.serve(e)
		k.stats[0].Counts[accel.Fast] = accel.Count{Packets: 11}
		e.Settle(t.Context())
		k.bridges, k.stats, k.groups = nil, nil, nil
	})
	if points := got.Of("shunt.frames", "shunt.port", "p1", "shunt.path", "fast"); len(points) != 1 || points[0].Value != 11 {
		t.Errorf("got %+v", points)
	}
}

func TestWhatCannotBeReadHoldsNothingElseBack(t *testing.T) {
	r := newReceiver(t)
	e, l, err := exporter(t, r.Environment()...)
	if err != nil {
		t.Fatal(err)
	}
	k := sample()
	k.err = errors.New("no such map")
	k.serve(e)
	e.Stop(t.Context())
	got := r.Received()
	if len(got.Of("shunt.frames")) != 0 || len(got.Of("shunt.bridge.ports", "shunt.bridge", "br0")) != 1 || len(got.Of("shunt.group.members")) == 0 {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(l.String(), "read the counters of bridge br0: no such map") {
		t.Errorf("got %s", l)
	}
}

// TestManyPorts has more series than the SDK's own limit.
func TestManyPorts(t *testing.T) {
	const ports = 300
	got := collect(t, func(e *Exporter) {
		k := sample()
		k.bridges[0].Ports, k.stats = nil, nil
		for n := range ports {
			k.bridges[0].Ports = append(k.bridges[0].Ports, accel.PortState{Port: accel.Port{Name: "p" + string(rune('0'+n)), Ifindex: n}})
			counts := make(map[accel.Reason]accel.Count)
			for _, reason := range accel.Reasons()[:10] {
				counts[reason] = accel.Count{Packets: 1}
			}
			k.stats = append(k.stats, accel.PortStats{Ifindex: n, Counts: counts})
		}
		k.serve(e)
	})
	if n := len(got.Of("shunt.frames")); n != 10*ports {
		t.Errorf("got %d series, want %d", n, 10*ports)
	}
}

func TestThePageIsFresh(t *testing.T) {
	want, err := Document()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error(`docs/telemetry.md is not what the instruments say: run "go generate ./telemetry"`)
	}
}

// TestNamesThatAreNotText: a message with one string that is not UTF-8 is not sent at
// all, with what all others measured, traced and logged.
func TestNamesThatAreNotText(t *testing.T) {
	const odd, sent = "p\xff2", "p\uFFFD2"
	k := sample()
	k.bridges[0].Ports[1].Name = odd
	got := collect(t, func(e *Exporter) {
		k.serve(e)
		use(t, e)
		_, span := e.TracerProvider().Tracer("accel").Start(t.Context(), odd, trace.WithAttributes(attribute.String("url.path", odd)))
		span.RecordError(errors.New(odd))
		span.SetStatus(codes.Error, odd)
		span.End()
		slog.New(e.LogHandler()).With("bridge", odd).Info(odd, "error", errors.New(odd), slog.Group("of", "port", odd))
	})
	for _, port := range []string{"p1", sent} {
		if len(got.Of("shunt.frames", "shunt.port", port)) == 0 {
			t.Errorf("nothing of port %s was measured: %s", port, got)
		}
	}
	if spans := got.Named(sent); len(spans) != 1 || spans[0].Attributes["url.path"] != sent || len(got.Named("swap")) != 1 {
		t.Errorf("spans: %s", got)
	}
	if said := got.Saying(sent); len(said) != 1 || said[0].Attributes["bridge"] != sent || len(got.Saying("swapped")) != 1 {
		t.Errorf("records: %+v", said)
	}
}

// TestNamesThatAreNotTextAreScraped, too: Prometheus would refuse the whole answer.
func TestNamesThatAreNotTextAreScraped(t *testing.T) {
	registry := prometheus.NewRegistry()
	reader, err := promexporter.New(promexporter.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	k := sample()
	k.bridges[0].Name = "br\xff"
	e := &Exporter{meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}
	k.serve(e)
	if err := e.measure(); err != nil {
		t.Fatal(err)
	}
	if families, err := registry.Gather(); err != nil || len(families) == 0 {
		t.Errorf("got %d families, %v", len(families), err)
	}
}
