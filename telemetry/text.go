package telemetry

import (
	"context"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// What is sent must be UTF-8: of a message with one string that is not, Protocol
// Buffers send nothing. But the kernel takes nearly any bytes for a device's name, and
// a client of the control socket can write any into a path.

// text is s with U+FFFD in the place of bytes that are no UTF-8.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func textOf(attributes []attribute.KeyValue) []attribute.KeyValue {
	attributes = slices.Clone(attributes)
	for i, a := range attributes {
		attributes[i].Value = textValue(a.Value)
	}
	return attributes
}

func textValue(v attribute.Value) attribute.Value {
	switch v.Type() {
	case attribute.STRING:
		return attribute.StringValue(text(v.AsString()))
	case attribute.STRINGSLICE:
		values := slices.Clone(v.AsStringSlice())
		for i, s := range values {
			values[i] = text(s)
		}
		return attribute.StringSliceValue(values)
	case attribute.SLICE:
		values := slices.Clone(v.AsSlice())
		for i, value := range values {
			values[i] = textValue(value)
		}
		return attribute.SliceValue(values...)
	case attribute.MAP:
		return attribute.MapValue(textOf(v.AsMap())...)
	}
	return v
}

// textSpans exports spans as they can be sent.
type textSpans struct{ sdktrace.SpanExporter }

// ExportSpans is called with those that ended.
func (e textSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	sent := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, span := range spans {
		sent[i] = textSpan{span}
	}
	return e.SpanExporter.ExportSpans(ctx, sent)
}

// textSpan is a span as it can be sent.
type textSpan struct{ sdktrace.ReadOnlySpan }

func (s textSpan) Name() string { return text(s.ReadOnlySpan.Name()) }

func (s textSpan) Attributes() []attribute.KeyValue { return textOf(s.ReadOnlySpan.Attributes()) }

func (s textSpan) Status() sdktrace.Status {
	status := s.ReadOnlySpan.Status()
	status.Description = text(status.Description)
	return status
}

func (s textSpan) Events() []sdktrace.Event {
	events := slices.Clone(s.ReadOnlySpan.Events())
	for i, e := range events {
		events[i].Name, events[i].Attributes = text(e.Name), textOf(e.Attributes)
	}
	return events
}

// textRecords changes records of the log so that the processor behind it can send
// them.
type textRecords struct{}

func (textRecords) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }

func (textRecords) OnEmit(_ context.Context, r *sdklog.Record) error {
	r.SetBody(textValue(r.Body()))
	attributes := make([]attribute.KeyValue, 0, r.AttributesLen())
	r.WalkAttributes(func(a attribute.KeyValue) bool {
		attributes = append(attributes, a)
		return true
	})
	r.SetAttributes(textOf(attributes)...)
	return nil
}

func (textRecords) Shutdown(context.Context) error { return nil }

func (textRecords) ForceFlush(context.Context) error { return nil }
