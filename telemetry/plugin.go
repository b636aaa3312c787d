// Package telemetry sends what shunt traces, measures and logs to where the
// OTEL_* environment variables say. Without them it does nothing.
//
// plugin.go is the component, providers.go makes what the variables ask for,
// scrape.go answers Prometheus,
// instruments.go has every instrument, observe.go reads those that are read when
// metrics are collected, text.go keeps out what cannot be sent, complaints.go says
// once that a collector is away, and document.go writes docs/telemetry.md.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/shunt-dev/shunt/accel"
)

func init() {
	accel.Register(accel.Plugin{
		Name: "telemetry",
		New:  func() accel.Component { return new(Exporter) },
	})
}

// flushTimeout is how long what was not sent yet may take at the end.
const flushTimeout = 5 * time.Second

// Exporter has the providers. They are made in Provision, since the components
// after it take their tracers and meters there; until then, and where nothing is
// to be exported, what they get goes nowhere.
type Exporter struct {
	logger   *slog.Logger
	tracers  trace.TracerProvider
	meters   metric.MeterProvider
	logs     slog.Handler // nil where logs are not exported
	measures *measures
	sources  sources
	unread   atomic.Bool // the last time not everything could be read
	// shutdowns flush and end what was made.
	shutdowns []func(context.Context) error
}

var (
	_ accel.Component = (*Exporter)(nil)
	_ accel.Telemetry = (*Exporter)(nil)
	_ accel.Observer  = (*Exporter)(nil)
)

// TracerProvider is for after Provision.
func (e *Exporter) TracerProvider() trace.TracerProvider { return e.tracers }

// MeterProvider is for after Provision.
func (e *Exporter) MeterProvider() metric.MeterProvider { return e.meters }

// LogHandler is for after Provision.
func (e *Exporter) LogHandler() slog.Handler { return e.logs }

// Provision reads the environment. Nothing is sent before there is something to
// send, so a collector need not be there.
func (e *Exporter) Provision(ctx context.Context, h *accel.Host) error {
	e.logger = h.Logger
	e.tracers, e.meters = tracenoop.NewTracerProvider(), metricnoop.NewMeterProvider()
	e.sources.find(h)
	described, err := describe(ctx, h.Namespace)
	if err != nil {
		return fmt.Errorf("describe this service as OTEL_RESOURCE_ATTRIBUTES says: %w", err)
	}
	complainTo(e.logger)
	err = errors.Join(e.provideTracers(ctx, described), e.provideMeters(ctx, described), e.provideLogs(ctx, described))
	if err == nil {
		err = e.measure()
	}
	if err != nil {
		return errors.Join(err, e.shutdown(ctx))
	}
	return nil
}

// Start has nothing to do: the providers are there.
func (e *Exporter) Start(context.Context) error { return nil }

// Settle reads what is read with every collection one last time: soon those who
// know it are gone, and the last values are to be sent.
func (e *Exporter) Settle(context.Context) { e.sources.settle() }

// Stop sends what was not sent yet. That it could not be is no failure of shunt.
func (e *Exporter) Stop(ctx context.Context) error {
	if err := e.shutdown(ctx); err != nil {
		e.logger.Warn("what was traced, measured or logged last is lost", "error", err)
	}
	return nil
}

// shutdown ends everything within flushTimeout, together: what waits for one
// collector takes no time from the other. It is safe twice.
func (e *Exporter) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	errs := make([]error, len(e.shutdowns))
	var all sync.WaitGroup
	for i, shutdown := range e.shutdowns {
		all.Go(func() { errs[i] = shutdown(ctx) })
	}
	all.Wait()
	e.shutdowns = nil
	return errors.Join(errs...)
}
