package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

// The uplink is a stable port with two members, whose other ends are in a switch outside.
const (
	uplink = "uplink"
	first  = "nic1"
	second = "nic2"
)

// configuration is that of the daemon.
const configuration = `
bridges: [` + lab.BridgeName + `]
groups:
  - {name: ` + uplink + `, bridge: ` + lab.BridgeName + `, members: [` + first + `, ` + second + `]}
`

// layCables makes the members.
func (s *scene) layCables() error {
	for _, member := range []string{first, second} {
		if err := s.lab.Host.AddCable(member, s.lab.Outside, "to-"+member); err != nil {
			return err
		}
	}
	return nil
}

// uplinkReady says whether the uplink carries traffic and can be exchanged.
func (s *scene) uplinkReady(ctx context.Context) bool {
	var groups []struct {
		State string `json:"state"`
	}
	err := s.client.Do(ctx, http.MethodGet, "/v1/groups", nil, &groups)
	return err == nil && len(groups) == 1 && groups[0].State == "ready"
}

// swapped is what the demo wants to know of a swap.
type swapped struct {
	Result  string `json:"result"`
	Error   string `json:"error"`
	FlipNS  int64  `json:"flip_ns"`
	TraceID string `json:"trace_id"`
}

const (
	swaps        = 3
	framesAround = 2000 // each way, between two swaps
)

// exchange swaps the uplink while numbered frames go both ways between a host and one
// outside.
func (s *scene) exchange(ctx context.Context, r *Result) error {
	traffic, err := s.lab.StartTraffic(lab.Pace{PerSecond: streamRate})
	if err != nil {
		return err
	}
	last, err := s.swapDuring(ctx, traffic, r)
	got, failed := traffic.Stop()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if got.Lab > 0 {
		return fmt.Errorf("the demo itself had no room for %d frames, so the swaps show nothing: run demo again", got.Lab)
	}
	r.Swaps, r.SwapFrames = swaps, got.Out.Sent+got.In.Sent
	r.SwapLost, r.SwapDoubled = got.Out.Lost+got.In.Lost, got.Out.Doubled+got.In.Doubled
	r.SwapOutOfOrder = got.Out.Reordered + got.In.Reordered
	return s.traceOf(ctx, last, r)
}

func (s *scene) swapDuring(ctx context.Context, traffic *swaplab.Traffic, r *Result) (last swapped, err error) {
	var flips []time.Duration
	for n := range swaps {
		if err := traffic.AwaitFlow(framesAround); err != nil {
			return last, err
		}
		if last, err = s.swap(ctx, []string{second, first}[n%2]); err != nil {
			return last, err
		}
		flips = append(flips, time.Duration(last.FlipNS))
	}
	r.SwapFlip = median(flips, func(d time.Duration) float64 { return microseconds(d) })
	return last, traffic.AwaitFlow(framesAround)
}

// swap moves the uplink to a member. Each is a trace of its own, whoever started the
// demo: what is shown of it has a root then.
func (s *scene) swap(ctx context.Context, to string) (done swapped, err error) {
	body := map[string]any{"groups": []string{uplink}, "to": to}
	var all []swapped
	alone := trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	if err := s.client.Do(alone, http.MethodPost, "/v1/swap", body, &all); err != nil {
		return done, fmt.Errorf("exchange the uplink: %w", err)
	}
	if len(all) != 1 || all[0].Result != "done" {
		return done, fmt.Errorf("the uplink was not exchanged: %+v", all)
	}
	return all[0], nil
}

// traceOf takes down the trace of a swap.
func (s *scene) traceOf(ctx context.Context, done swapped, r *Result) error {
	tree, err := s.collector.await(ctx, done.TraceID)
	if err != nil {
		return fmt.Errorf("read the trace of a swap: %w", err)
	}
	r.SwapTraceID, r.SwapTrace, s.swapTrace = done.TraceID, spansOf(tree), tree
	return nil
}
