package nicswap

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// The results of a swap.
const (
	resultPlanned    = "planned"
	resultRunning    = "running"
	resultDone       = "done"
	resultFailed     = "failed"
	resultRolledBack = "rolled_back"
)

// The causes of a swap that come from here; requests may say others.
const (
	causeRequest  = "request"
	causeLoss     = "loss"
	causeRecovery = "recovery"
)

// swap is a swap that is running or was. What is not guarded belongs to the
// goroutine that runs it.
type swap struct {
	e       *Engine
	group   *group
	request Request
	began   time.Time
	done    chan struct{} // closed when it is over
	before  *swap         // the one that this took the group from
	span    trace.Span

	// from is nil where no member was active.
	from, to *member
	target   device     // as check found it
	port     links.Link // as prewarm found it
	wasWarm  bool       // the target was a warm member before
	claimed  bool       // prewarm claimed, or tried to
	touched  bool       // prewarm may have changed something
	prepared bool       // PrepareFlip was called
	counts   map[accel.Reason]accel.Count
	// keep: recovery after the next start has something to do.
	keep bool

	// Guarded by the group's mu.
	flipped    bool
	loss       *loss
	stop       context.CancelCauseFunc
	sourceGone chan struct{} // closed when the source is deleted in the drain

	mu sync.Mutex
	v  SwapV1
}

// loss is what a swap is told when the group's active member was lost.
type loss struct {
	err  error
	back bool // the traffic is on the source again; else another swap has taken over
}

func (e *Engine) newSwap(g *group, r Request) *swap {
	if r.Cause == "" {
		r.Cause = causeRequest
	}
	now := time.Now()
	return &swap{
		e: e, group: g, request: r, began: now, done: make(chan struct{}), sourceGone: make(chan struct{}),
		stop: func(error) {},
		v: SwapV1{
			ID: strings.ToLower(rand.Text()[:12]), Group: g.Name, To: r.To, Cause: r.Cause, Why: r.Why,
			Result: resultRunning, Began: now, Phases: []PhaseV1{}, Dropped: map[string]uint64{},
		},
	}
}

// begin starts the swap's trace. Whatever ctx carries is its parent.
func (s *swap) begin(ctx context.Context, options ...trace.SpanStartOption) context.Context {
	options = append(options, trace.WithAttributes(
		attribute.String("shunt.group", s.group.Name), attribute.String("shunt.cause", s.request.Cause)))
	ctx, s.span = s.e.tracer.Start(ctx, "swap", options...)
	if id := s.span.SpanContext().TraceID(); id.IsValid() {
		s.note(func(v *SwapV1) { v.TraceID = id.String() })
	}
	return ctx
}

// name takes down who the members are. The group is locked.
func (s *swap) name() {
	s.note(func(v *SwapV1) {
		v.To, v.ToKind = s.to.name, kind(s.to.link)
		if s.from != nil {
			v.From, v.FromKind = s.from.name, kind(s.from.link)
		}
	})
}

// note changes the swap's description.
func (s *swap) note(change func(*SwapV1)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.v)
}

// describe returns the swap as the API shows it.
func (s *swap) describe() SwapV1 {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.v
	v.Phases, v.Plan, v.Dropped = slices.Clone(v.Phases), slices.Clone(v.Plan), maps.Clone(v.Dropped)
	return v
}

// phase does one phase, with its span, its event and its duration.
func (s *swap) phase(ctx context.Context, name string, do func(context.Context) error) error {
	began := time.Now()
	ctx, span := s.e.tracer.Start(ctx, name)
	defer span.End()
	if name != phaseResolve {
		s.e.events.tell(EventV1{Group: s.group.Name, Event: eventPhase, Phase: name, Member: s.to.name})
	}
	err := do(ctx)
	took := time.Since(began)
	s.e.phaseEnded(context.WithoutCancel(ctx), name, took, err)
	entry := PhaseV1{Phase: name, DurationMS: float64(took.Microseconds()) / 1000}
	if err != nil {
		entry.Error = err.Error()
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	s.note(func(v *SwapV1) { v.Phases = append(v.Phases, entry) })
	return err
}

// tookPlace takes down a flip that was not waited for.
func (s *swap) tookPlace(ctx context.Context) {
	took := time.Duration(s.describe().FlipNS)
	_, span := s.e.tracer.Start(ctx, phaseFlip, trace.WithTimestamp(s.began))
	span.End(trace.WithTimestamp(s.began.Add(took)))
	s.e.phaseEnded(ctx, phaseFlip, took, nil)
	s.note(func(v *SwapV1) {
		v.Phases = append(v.Phases, PhaseV1{Phase: phaseFlip, DurationMS: float64(took.Microseconds()) / 1000})
	})
	s.e.events.tell(EventV1{Group: s.group.Name, Event: eventPhase, Phase: phaseFlip, Member: s.to.name})
}

// failed takes down why, and in which phase.
func (s *swap) failed(err error) {
	s.span.RecordError(err)
	s.span.SetStatus(codes.Error, err.Error())
	s.note(func(v *SwapV1) {
		v.Error = err.Error()
		if len(v.Phases) > 0 {
			v.Phase = v.Phases[len(v.Phases)-1].Phase
		}
	})
}

// refused ends the trace of a swap that was never begun.
func (s *swap) refused(err error) {
	s.failed(err)
	s.span.End()
}

// end takes down how the swap went.
func (s *swap) end(ctx context.Context, result string) {
	s.note(func(v *SwapV1) { v.Result = result })
	v := s.describe()
	s.span.SetAttributes(attribute.String("shunt.member.from", v.From), attribute.String("shunt.member.to", v.To),
		attribute.String("shunt.member.from.kind", v.FromKind), attribute.String("shunt.member.to.kind", v.ToKind),
		attribute.String("shunt.result", v.Result), attribute.Int("shunt.stations", v.Stations),
		attribute.Int("shunt.announced", v.Announced), attribute.Int64("shunt.drained", int64(v.Drained)))
	for reason, frames := range v.Dropped {
		s.span.SetAttributes(attribute.Int64("shunt.dropped."+reason, int64(frames)))
	}
	s.span.End()
	s.e.swapEnded(ctx, v, time.Since(s.began))
	s.e.remember(s)
	level := slog.LevelInfo
	if v.Result != resultDone {
		level = slog.LevelWarn
	}
	s.e.logger.Log(ctx, level, "swap", "group", v.Group, "from", v.From, "to", v.To, "cause", v.Cause, "result", v.Result, "error", v.Error)
	s.e.events.tell(EventV1{Group: v.Group, Event: eventSwap, Member: v.To, Swap: &v, Text: v.Error})
	close(s.done)
	s.group.tend()
}

// until returns a context that also ends when the swap is told of a loss, or the
// daemon stops.
func (s *swap) until(ctx context.Context) context.Context {
	ctx, stop := context.WithCancelCause(ctx)
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	s.stop(nil) // nobody waits for the one before any more
	s.stop = stop
	switch {
	case s.loss != nil:
		stop(s.loss.err)
	case s.e.working.Err() != nil: // Stop has passed already
		stop(errStopping)
	}
	return ctx
}

// tell tells the swap that the active member was lost. The group is locked.
func (s *swap) tell(l loss) {
	s.loss = &l
	s.stop(l.err)
}

func (s *swap) interrupted() bool {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	return s.loss != nil
}

// takeLoss takes what the swap was told; it can be told again.
func (s *swap) takeLoss() loss {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	l := *s.loss
	s.loss = nil
	return l
}

// leave gives the group free, unless the swap was told something after its flip
// that it has to deal with. It is a part of the last phase, whichever that is: to
// forget the journal takes the disk's time.
func (s *swap) leave() bool {
	g := s.group
	g.mu.Lock()
	if s.flipped && s.loss != nil {
		g.mu.Unlock()
		return false
	}
	if g.running == s {
		g.running = nil
	}
	s.e.told(g)
	g.mu.Unlock()
	s.stop(nil)
	s.journalOver()
	return true
}

// countFrom reads the wire's counters, from which countTo counts.
func (s *swap) countFrom() {
	counts, err := s.e.wires.WireCounts(s.portIndex())
	s.warn("the counters of a wire cannot be read", err)
	s.counts = counts
}

func (s *swap) countTo() {
	counts, err := s.e.wires.WireCounts(s.portIndex())
	s.warn("the counters of a wire cannot be read", err)
	if err == nil {
		s.note(func(v *SwapV1) { v.Drained, v.Dropped = lost(s.counts, counts) })
	}
}

func (s *swap) portIndex() int {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	return s.group.port.Ifindex
}

// warn logs what does not keep the swap from going on.
func (s *swap) warn(what string, err error) {
	if err != nil {
		s.e.logger.Warn(what, "group", s.group.Name, "error", err)
	}
}
