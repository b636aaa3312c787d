package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel/attribute"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/shunt-dev/shunt/accel"
)

// describe says who sends: shunt, its version, and which daemon of which host, over
// which OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go.
func describe(ctx context.Context, ns accel.Namespace) (*resource.Resource, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.HostName(host), semconv.ServiceName("shunt"), semconv.ServiceVersion(accel.Version()),
			semconv.ServiceInstanceID(fmt.Sprintf("%s/netns-%d", host, ns.Inode))),
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
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(described), sdktrace.WithBatcher(textSpans{exporter}))
	e.tracers = provider
	e.shutdowns = append(e.shutdowns, provider.Shutdown)
	return nil
}

// maxSeries is how many series an instrument may have: every port of a full data
// plane with every reason. The SDK's own limit of 2000 would add up what is above,
// as of 100 ports.
const maxSeries = 2048 * accel.NumReasons

// provideMeters makes the meters if OTEL_METRICS_EXPORTER asks for them.
func (e *Exporter) provideMeters(ctx context.Context, described *resource.Resource) error {
	reader, err := e.metricReader(ctx)
	if err != nil {
		return fmt.Errorf("export metrics as the OTEL_* variables say: %w", err)
	}
	if reader == nil || autoexport.IsNoneMetricReader(reader) {
		return nil
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithResource(described), sdkmetric.WithReader(reader),
		sdkmetric.WithCardinalityLimit(maxSeries), sdkmetric.WithView(requests))
	e.meters = provider
	e.shutdowns = append(e.shutdowns, provider.Shutdown)
	return runtime.Start(runtime.WithMeterProvider(provider))
}

func (e *Exporter) metricReader(ctx context.Context) (sdkmetric.Reader, error) {
	if os.Getenv("OTEL_METRICS_EXPORTER") == "prometheus" {
		reader, server, err := listenToScrapers(ctx, e.logger)
		if err == nil {
			e.shutdowns = append(e.shutdowns, server.end)
		}
		return reader, err
	}
	return autoexport.NewMetricReader(ctx, autoexport.WithFallbackMetricReader(
		func(context.Context) (sdkmetric.Reader, error) { return nil, nil }))
}

// requests keeps of the metrics of HTTP requests what is bounded: a client can
// name any host.
func requests(i sdkmetric.Instrument) (sdkmetric.Stream, bool) {
	return sdkmetric.Stream{
		Name: i.Name, Description: i.Description, Unit: i.Unit,
		AttributeFilter: attribute.NewAllowKeysFilter(
			semconv.HTTPRequestMethodKey, semconv.HTTPRouteKey, semconv.HTTPResponseStatusCodeKey),
	}, strings.HasPrefix(i.Name, "http.server.")
}

// provideLogs makes the handler for logs if OTEL_LOGS_EXPORTER asks for it.
func (e *Exporter) provideLogs(ctx context.Context, described *resource.Resource) error {
	exporter, err := autoexport.NewLogExporter(ctx, autoexport.WithFallbackLogExporter(
		func(context.Context) (sdklog.Exporter, error) { return nil, nil }))
	if err != nil {
		return fmt.Errorf("export logs as the OTEL_* variables say: %w", err)
	}
	if exporter == nil || autoexport.IsNoneLogExporter(exporter) {
		return nil
	}
	provider := sdklog.NewLoggerProvider(sdklog.WithResource(described),
		sdklog.WithProcessor(textRecords{}), sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)))
	e.logs = asVerbose{otelslog.NewHandler(scope, otelslog.WithLoggerProvider(provider), otelslog.WithVersion(accel.Version())), e.logger.Handler()}
	e.shutdowns = append(e.shutdowns, provider.Shutdown)
	return nil
}

// asVerbose takes the levels that another handler takes: --log-level holds for what
// is exported too.
type asVerbose struct {
	slog.Handler
	other slog.Handler
}

func (h asVerbose) Enabled(ctx context.Context, level slog.Level) bool {
	return h.other.Enabled(ctx, level) && h.Handler.Enabled(ctx, level)
}

func (h asVerbose) WithAttrs(attrs []slog.Attr) slog.Handler {
	return asVerbose{h.Handler.WithAttrs(attrs), h.other}
}

func (h asVerbose) WithGroup(name string) slog.Handler {
	return asVerbose{h.Handler.WithGroup(name), h.other}
}
