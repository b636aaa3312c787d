// Package telemetry sends what shunt traces and measures to where the OTEL_*
// environment variables say. Without them it does nothing.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
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
	logger  *slog.Logger
	tracers trace.TracerProvider
	meters  metric.MeterProvider
	// shutdowns flush and end what was made.
	shutdowns []func(context.Context) error
}

var (
	_ accel.Component = (*Exporter)(nil)
	_ accel.Telemetry = (*Exporter)(nil)
)

// TracerProvider is for after Provision.
func (e *Exporter) TracerProvider() trace.TracerProvider { return e.tracers }

// MeterProvider is for after Provision.
func (e *Exporter) MeterProvider() metric.MeterProvider { return e.meters }

// LogHandler is for after Provision.
func (e *Exporter) LogHandler() slog.Handler { return nil }

// Provision reads the environment. Nothing is sent before there is something to
// send, so a collector need not be there.
func (e *Exporter) Provision(ctx context.Context, h *accel.Host) error {
	e.logger = h.Logger
	e.tracers, e.meters = tracenoop.NewTracerProvider(), metricnoop.NewMeterProvider()
	described, err := describe(ctx)
	if err != nil {
		return fmt.Errorf("describe this service as OTEL_RESOURCE_ATTRIBUTES says: %w", err)
	}
	// The SDK has this one place for what goes wrong behind its callers' backs.
	otel.SetErrorHandler(&complaints{logger: e.logger})
	if err := errors.Join(e.provideTracers(ctx, described), e.provideMeters(ctx, described)); err != nil {
		return errors.Join(err, e.shutdown(ctx))
	}
	return nil
}

// describe says who sends: shunt and its version, over which OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES go.
func describe(ctx context.Context) (*resource.Resource, error) {
	return resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("shunt"), semconv.ServiceVersion(accel.Version())),
		resource.WithFromEnv(),
	)
}

// provideTracers makes the tracers if OTEL_TRACES_EXPORTER asks for them.
func (e *Exporter) provideTracers(ctx context.Context, described *resource.Resource) error {
	exporter, err := autoexport.NewSpanExporter(ctx, autoexport.WithFallbackSpanExporter(
		func(context.Context) (sdktrace.SpanExporter, error) { return nil, nil }))
	if err != nil {
		return fmt.Errorf("export traces as the OTEL_* variables say: %w", err)
	}
	if exporter == nil || autoexport.IsNoneSpanExporter(exporter) {
		return nil
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(described), sdktrace.WithBatcher(exporter))
	e.tracers = provider
	e.shutdowns = append(e.shutdowns, provider.Shutdown)
	return nil
}

// provideMeters makes the meters if OTEL_METRICS_EXPORTER asks for them.
func (e *Exporter) provideMeters(ctx context.Context, described *resource.Resource) error {
	reader, err := autoexport.NewMetricReader(ctx, autoexport.WithFallbackMetricReader(
		func(context.Context) (sdkmetric.Reader, error) { return nil, nil }))
	if err != nil {
		return fmt.Errorf("export metrics as the OTEL_* variables say: %w", err)
	}
	if reader == nil || autoexport.IsNoneMetricReader(reader) {
		return nil
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithResource(described), sdkmetric.WithReader(reader))
	e.meters = provider
	e.shutdowns = append(e.shutdowns, provider.Shutdown)
	return nil
}

// Start has nothing to do: the providers are there.
func (e *Exporter) Start(context.Context) error { return nil }

// Stop sends what was not sent yet. That it could not be is no failure of shunt.
func (e *Exporter) Stop(ctx context.Context) error {
	if err := e.shutdown(ctx); err != nil {
		e.logger.Warn("what was traced or measured last is lost", "error", err)
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
