package nicswap

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// meters are the instruments of the swaps.
type meters struct {
	swaps    metric.Int64Counter
	duration metric.Float64Histogram // of a phase
	flip     metric.Float64Histogram // of the one store
}

func newMeters(meter metric.Meter) (m *meters, err error) {
	m = new(meters)
	if m.swaps, err = meter.Int64Counter("shunt.swaps",
		metric.WithDescription("Swaps by group, cause and result."), metric.WithUnit("{swap}")); err != nil {
		return nil, err
	}
	if m.duration, err = meter.Float64Histogram("shunt.swap.duration",
		metric.WithDescription("How long the phases of swaps took."), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)); err != nil {
		return nil, err
	}
	m.flip, err = meter.Float64Histogram("shunt.swap.flip.duration",
		metric.WithDescription("How long the store that exchanges the active member took."), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(1e-7, 2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 1e-4, 1e-3))
	return m, err
}

func (m *meters) phase(ctx context.Context, phase string, took time.Duration, err error) {
	result := "done"
	if err != nil {
		result = "failed"
	}
	m.duration.Record(ctx, took.Seconds(), metric.WithAttributes(
		attribute.String("shunt.phase", phase), attribute.String("shunt.result", result)))
}

func (m *meters) swap(ctx context.Context, v SwapV1) {
	m.swaps.Add(ctx, 1, metric.WithAttributes(attribute.String("shunt.group", v.Group),
		attribute.String("shunt.cause", v.Cause), attribute.String("shunt.result", v.Result)))
	if v.FlipNS > 0 {
		m.flip.Record(ctx, time.Duration(v.FlipNS).Seconds())
	}
}
