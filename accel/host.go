package accel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Host is what a component may ask of the program that it runs in.
type Host struct {
	// Logger is the component's own, marked with the plugin's name.
	Logger *slog.Logger
	// Config is the whole configuration, already checked.
	Config *Config
	// Namespace is the network namespace that the daemon was started in and
	// works in.
	Namespace Namespace
	// Tracer and Meter are the component's own. They go nowhere unless a component
	// that serves [Telemetry] was provisioned before. The plugins of shunt itself
	// leave Meter to others: their instruments stand in package telemetry, in one file.
	Tracer trace.Tracer
	Meter  metric.Meter

	fail  context.CancelCauseFunc
	peers []running
}

type running struct {
	name      string
	component Component
}

// Fail ends the daemon: a component calls it when it cannot go on. The first
// error is the one that the daemon reports.
func (h *Host) Fail(err error) { h.fail(err) }

// Use finds the one component that serves as T, which is usually a small
// interface that the caller's package declares. It is called in Provision.
func Use[T any](h *Host) (T, error) {
	found := UseAll[T](h)
	if len(found) == 1 {
		return found[0], nil
	}
	var none T
	return none, fmt.Errorf("%d plugins serve as %v, need exactly one: see the imports of main.go", len(found), reflect.TypeFor[T]())
}

// UseAll finds every component that serves as T, which may be none.
func UseAll[T any](h *Host) []T { return serving[T](h.peers) }

// lifecycle holds the components of one run of the daemon.
type lifecycle struct {
	components []running
	// logger writes to where [Telemetry] says, too, once that was provisioned.
	logger  *slog.Logger
	tracers trace.TracerProvider
	meters  metric.MeterProvider
}

// newLifecycle makes one component of every plugin that has one.
func newLifecycle(plugins []Plugin, logger *slog.Logger) *lifecycle {
	l := &lifecycle{logger: logger, tracers: tracenoop.NewTracerProvider(), meters: metricnoop.NewMeterProvider()}
	for _, p := range plugins {
		if p.New != nil {
			l.components = append(l.components, running{p.Name, p.New()})
		}
	}
	return l
}

// provision lets every component check what it was given. Nothing is changed. If
// one fails, those before it are stopped.
func (l *lifecycle) provision(ctx context.Context, base Host) error {
	for i, r := range l.components {
		h := base
		h.peers = l.components
		h.Logger = l.logger.With("plugin", r.name)
		h.Tracer, h.Meter = l.tracers.Tracer(r.name), l.meters.Meter(r.name)
		if err := r.component.Provision(ctx, &h); err != nil {
			return errors.Join(err, stopAll(context.WithoutCancel(ctx), l.components[:i]))
		}
		if t, ok := r.component.(Telemetry); ok {
			l.tracers, l.meters = t.TracerProvider(), t.MeterProvider()
			if logs := t.LogHandler(); logs != nil {
				l.logger = slog.New(slog.NewMultiHandler(l.logger.Handler(), logs))
			}
		}
	}
	return nil
}

// start starts the components in order, up to the first that fails. Whether it
// fails or not, stop must follow.
func (l *lifecycle) start(ctx context.Context) error {
	for _, r := range l.components {
		if err := r.component.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle tells those who want to know that soon the components stop.
func (l *lifecycle) settle(ctx context.Context) {
	for _, o := range serving[Observer](l.components) {
		o.Settle(ctx)
	}
}

// stop stops every component in the reverse order, those too that never
// started, and joins their errors.
func (l *lifecycle) stop(ctx context.Context) error { return stopAll(ctx, l.components) }

func stopAll(ctx context.Context, components []running) error {
	var errs []error
	for i := len(components) - 1; i >= 0; i-- {
		r := components[i]
		if err := r.component.Stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", r.name, err))
		}
	}
	return errors.Join(errs...)
}

// serving returns every component that serves as T.
func serving[T any](components []running) []T {
	var found []T
	for _, r := range components {
		if t, ok := r.component.(T); ok {
			found = append(found, t)
		}
	}
	return found
}
