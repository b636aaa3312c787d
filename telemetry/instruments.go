package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/shunt-dev/shunt/accel"
)

// Every instrument of shunt stands in this file, and nowhere else: what it is
// called and means here, how it is measured below. docs/telemetry.md is written
// from it: go generate ./telemetry.

// instrument describes one.
type instrument struct {
	Name string
	Kind kind
	Unit string // UCUM
	// Help is a sentence or two.
	Help   string
	Labels []label
	// Buckets are the upper bounds of a histogram.
	Buckets []float64
	// Observed: it is read when metrics are collected, and costs nothing between.
	Observed bool
}

type kind string

const (
	counter   kind = "counter"
	upDown    kind = "up-down counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// label is an attribute. Its values are bounded: no address is ever one.
type label struct {
	Key attribute.Key
	// Values says which there are.
	Values string
}

// The attributes.
const (
	keyBridge = attribute.Key("shunt.bridge")
	keyPort   = attribute.Key("shunt.port")
	keyPath   = attribute.Key("shunt.path")
	keyReason = attribute.Key("shunt.reason")
	keyState  = attribute.Key("shunt.state")
	keyChange = attribute.Key("shunt.change")
	keyCause  = attribute.Key("shunt.cause")
	keyGroup  = attribute.Key("shunt.group")
	keyPhase  = attribute.Key("shunt.phase")
	keyResult = attribute.Key("shunt.result")
)

var (
	ofBridge = label{keyBridge, "the bridge's name"}
	ofPort   = label{keyPort, "the port's name"}
	ofPath   = label{keyPath, "`fast`, `slow`"}
	ofReason = label{keyReason, "the names that `shunt reasons` shows, listed below"}
	ofGroup  = label{keyGroup, "the group's name"}
)

// What the data plane counted.
var (
	frames = instrument{
		Name: "shunt.frames", Kind: counter, Unit: "{frame}", Observed: true,
		Help:   "Frames that arrived on the ports of a bridge, by what became of them. Path `fast` has the reason `fast`; any other reason is why a frame took the bridge.",
		Labels: []label{ofBridge, ofPort, ofPath, ofReason},
	}
	frameBytes = instrument{
		Name: "shunt.bytes", Kind: counter, Unit: "By", Observed: true,
		Help:   "Bytes of those frames, with their Ethernet headers.",
		Labels: []label{ofBridge, ofPort, ofPath},
	}
	revocations = instrument{
		Name: "shunt.revocations", Kind: counter, Unit: "{entry}", Observed: true,
		Help:   "Entries that programs in the kernel took back in the instant in which the bridge deleted or moved them, or a frame showed that they were wrong.",
		Labels: []label{ofBridge},
	}
)

// What is known of bridges.
var (
	eligible = instrument{
		Name: "shunt.bridge.eligible", Kind: gauge, Unit: "{bridge}", Observed: true,
		Help:   "1 while known unicast takes the fast path, with the reason `fast`; 0 while it does not, with the reason why.",
		Labels: []label{ofBridge, ofReason},
	}
	ports = instrument{
		Name: "shunt.bridge.ports", Kind: upDown, Unit: "{port}", Observed: true,
		Help:   "Ports of a bridge.",
		Labels: []label{ofBridge},
	}
	entries = instrument{
		Name: "shunt.fdb.entries", Kind: upDown, Unit: "{entry}", Observed: true,
		Help: "Entries of a bridge's table, as they are mirrored.",
		Labels: []label{ofBridge, {keyState,
			"`active` (verified: the fast path uses it), `pending` (waits for that), `unmirrored` (there is no room for it: raise max_stations)"}},
	}
)

// What mirroring a bridge takes.
var (
	applyDuration = instrument{
		Name: "shunt.fdb.apply.duration", Kind: histogram, Unit: "s",
		Help: "From the kernel's event about an entry to the data plane's map.",
		Labels: []label{ofBridge, {keyChange,
			"`revoked` (taken out of the map), `admitted` (taken into it, to decide nothing yet), `activated` (verified, so that it decides; 10 ms of that are waited on purpose, to ask the kernel once more)"}},
		Buckets: []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 12.5e-3, 15e-3, 20e-3, 50e-3, 100e-3, 250e-3, 1},
	}
	overruns = instrument{
		Name: "shunt.netlink.overruns", Kind: counter, Unit: "{overrun}",
		Help: "Times that the kernel had to drop events. The bridges take the slow path until they are read again.",
	}
	skipped = instrument{
		Name: "shunt.netlink.skipped", Kind: counter, Unit: "{message}",
		Help: "Messages of the kernel that could not be read. There should be none.",
	}
	resyncs = instrument{
		Name: "shunt.resyncs", Kind: counter, Unit: "{resync}",
		Help: "Times that the tables were read again as a whole.",
		Labels: []label{{keyCause,
			"`overrun` (the kernel dropped events), `periodic` (the comparison every 30 s)"}},
	}
)

// What is known of groups, and how swaps go.
var (
	members = instrument{
		Name: "shunt.group.members", Kind: upDown, Unit: "{member}", Observed: true,
		Help: "Members of a group by their state.",
		Labels: []label{ofGroup, {keyState,
			"`active`, `draining`, `standby`, `cold`, `away` (being upgraded), `no_carrier`, `missing`"}},
	}
	groupFrames = instrument{
		Name: "shunt.group.frames", Kind: counter, Unit: "{frame}", Observed: true,
		Help: "Frames that the wire of a stable port dropped, by reason, and those that it delivered from a member that was left.",
		Labels: []label{ofGroup, {keyReason,
			"`own_returned`, `doubled`, `standby`, `no_member` (dropped), `drained` (delivered)"}},
	}
	swaps = instrument{
		Name: "shunt.swaps", Kind: counter, Unit: "{swap}",
		Help:   "Swaps that ended.",
		Labels: []label{ofGroup, ofCause, ofResult},
	}
	swapDuration = instrument{
		Name: "shunt.swap.duration", Kind: histogram, Unit: "s",
		Help:    "How long swaps took, from the request to the source's retirement.",
		Labels:  []label{ofGroup, ofResult},
		Buckets: []float64{0.01, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30},
	}
	phaseDuration = instrument{
		Name: "shunt.swap.phase.duration", Kind: histogram, Unit: "s",
		Help: "How long the phases of swaps took.",
		Labels: []label{
			{keyPhase, "`resolve`, `check`, `prewarm`, `flip`, `announce`, `drain`, `retire`, `roll_back`"},
			{keyResult, "`done`, `failed`"},
		},
		Buckets: []float64{100e-6, 1e-3, 5e-3, 10e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
	}
	flipDuration = instrument{
		Name: "shunt.swap.flip.duration", Kind: histogram, Unit: "s",
		Help:    "How long the one store took that exchanges the active member.",
		Buckets: []float64{100e-9, 250e-9, 500e-9, 1e-6, 2.5e-6, 5e-6, 10e-6, 100e-6, 1e-3},
	}
	swapLost = instrument{
		Name: "shunt.swap.lost", Kind: counter, Unit: "{frame}",
		Help:   "Frames that found no active member while a swap ran, as far as the wire counted them. What was sent to a member that had lost its carrier already is not among them.",
		Labels: []label{ofGroup},
	}

	ofCause  = label{keyCause, "`request`, `policy`, `loss`, `upgrade`, `recovery`"}
	ofResult = label{keyResult, "`done`, `failed`, `rolled_back`"}
)

// instruments lists all, in the order of docs/telemetry.md.
func instruments() []instrument {
	return []instrument{
		frames, frameBytes, revocations,
		eligible, ports, entries,
		applyDuration, overruns, skipped, resyncs,
		members, groupFrames, swaps, swapDuration, phaseDuration, flipDuration, swapLost,
	}
}

// scope is the name under which shunt measures.
const scope = "github.com/shunt-dev/shunt"

// measures are the instruments, made. Those that are observed have a callback
// that reads them.
type measures struct {
	frames, frameBytes, revocations, groupFrames metric.Int64ObservableCounter
	eligible                                     metric.Int64ObservableGauge
	ports, entries, members                      metric.Int64ObservableUpDownCounter

	overruns, skipped, resyncs, swaps, swapLost              metric.Int64Counter
	applyDuration, swapDuration, phaseDuration, flipDuration metric.Float64Histogram
}

// makeMeasures makes them. The two ways to fail are a mistake in the names and a
// provider that is shut down.
func makeMeasures(provider metric.MeterProvider) (*measures, error) {
	f := factory{meter: provider.Meter(scope, metric.WithInstrumentationVersion(accel.Version()))}
	m := &measures{
		frames: f.observedCounter(frames), frameBytes: f.observedCounter(frameBytes),
		revocations: f.observedCounter(revocations), groupFrames: f.observedCounter(groupFrames),
		eligible: f.observedGauge(eligible),
		ports:    f.observedUpDown(ports), entries: f.observedUpDown(entries), members: f.observedUpDown(members),
		overruns: f.counter(overruns), skipped: f.counter(skipped), resyncs: f.counter(resyncs),
		swaps: f.counter(swaps), swapLost: f.counter(swapLost),
		applyDuration: f.histogram(applyDuration), swapDuration: f.histogram(swapDuration),
		phaseDuration: f.histogram(phaseDuration), flipDuration: f.histogram(flipDuration),
	}
	m.begin()
	return m, errors.Join(f.errs...)
}

// begin shows counters before they first count: whoever asks by how much they rose
// would miss the first time (Prometheus' increase).
func (m *measures) begin() {
	ctx := context.Background()
	m.overruns.Add(ctx, 0)
	m.skipped.Add(ctx, 0)
	for _, cause := range []string{"overrun", "periodic"} {
		m.resyncs.Add(ctx, 0, with(keyCause.String(cause)))
	}
}

// observe has the callback called with every collection.
func (m *measures) observe(provider metric.MeterProvider, callback metric.Callback) error {
	_, err := provider.Meter(scope, metric.WithInstrumentationVersion(accel.Version())).RegisterCallback(callback,
		m.frames, m.frameBytes, m.revocations, m.groupFrames, m.eligible, m.ports, m.entries, m.members)
	return err
}

// factory makes instruments of their descriptions.
type factory struct {
	meter metric.Meter
	errs  []error
}

func (f *factory) took(i instrument, err error) {
	if err != nil {
		f.errs = append(f.errs, fmt.Errorf("make the instrument %s: %w", i.Name, err))
	}
}

func (f *factory) counter(i instrument) metric.Int64Counter {
	c, err := f.meter.Int64Counter(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.plainHelp()))
	f.took(i, err)
	return c
}

func (f *factory) histogram(i instrument) metric.Float64Histogram {
	h, err := f.meter.Float64Histogram(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.plainHelp()),
		metric.WithExplicitBucketBoundaries(i.Buckets...))
	f.took(i, err)
	return h
}

func (f *factory) observedCounter(i instrument) metric.Int64ObservableCounter {
	c, err := f.meter.Int64ObservableCounter(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.plainHelp()))
	f.took(i, err)
	return c
}

func (f *factory) observedUpDown(i instrument) metric.Int64ObservableUpDownCounter {
	c, err := f.meter.Int64ObservableUpDownCounter(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.plainHelp()))
	f.took(i, err)
	return c
}

func (f *factory) observedGauge(i instrument) metric.Int64ObservableGauge {
	g, err := f.meter.Int64ObservableGauge(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.plainHelp()))
	f.took(i, err)
	return g
}

// plainHelp is for backends, which show no Markdown.
func (i instrument) plainHelp() string { return strings.ReplaceAll(i.Help, "`", "") }

// What follows is how the plugins measure. They declare interfaces of these
// methods, and find the Exporter by them.

// EntryApplied takes in that an event about an entry of the bridge's table has
// reached the data plane's map: change is "revoked", "admitted" or "activated".
func (e *Exporter) EntryApplied(bridge, change string, took time.Duration) {
	if ctx := context.Background(); e.measures.applyDuration.Enabled(ctx) {
		e.measures.applyDuration.Record(ctx, took.Seconds(), with(keyBridge.String(bridge), keyChange.String(change)))
	}
}

// EventsLost takes in that the kernel dropped events.
func (e *Exporter) EventsLost() { e.measures.overruns.Add(context.Background(), 1) }

// MessageSkipped takes in that a message of the kernel could not be read.
func (e *Exporter) MessageSkipped() { e.measures.skipped.Add(context.Background(), 1) }

// Resynced takes in that the tables were read again, for a cause: "overrun" or
// "periodic".
func (e *Exporter) Resynced(ctx context.Context, cause string) {
	e.measures.resyncs.Add(ctx, 1, with(keyCause.String(cause)))
}

// PhaseEnded takes in that a phase of a swap ended: result is "done" or "failed".
func (e *Exporter) PhaseEnded(ctx context.Context, phase, result string, took time.Duration) {
	e.measures.phaseDuration.Record(ctx, took.Seconds(), with(keyPhase.String(phase), keyResult.String(result)))
}

// Flipped takes in how long the store of a flip took.
func (e *Exporter) Flipped(ctx context.Context, took time.Duration) {
	e.measures.flipDuration.Record(ctx, took.Seconds())
}

// SwapEnded takes in how a swap ended, and how many frames found no member while
// it ran.
func (e *Exporter) SwapEnded(ctx context.Context, group, cause, result string, took time.Duration, lost uint64) {
	e.measures.swaps.Add(ctx, 1, with(keyGroup.String(group), keyCause.String(cause), keyResult.String(result)))
	e.measures.swapDuration.Record(ctx, took.Seconds(), with(keyGroup.String(group), keyResult.String(result)))
	e.measures.swapLost.Add(ctx, int64(lost), with(keyGroup.String(group)))
}

func with(attributes ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(textOf(attributes)...))
}
