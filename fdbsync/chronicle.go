package fdbsync

import (
	"context"

	attr "go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/shunt-dev/shunt/accel"
)

// chronicle tells in spans what an operator would ask about one bridge: how it
// came, and when, why and for how long it was off the fast path. It is told of
// transitions only, never of an entry or a frame. Without a tracer it tells nobody.
type chronicle struct {
	tracer trace.Tracer
	bridge string
	// within is the trace of what goes on: the start, a bridge that appears, a
	// resync, or a request; nil for nothing.
	within context.Context
	coming trace.Span // of a bridge that appears, until it is verified; else nil
	verify trace.Span // while entries are asked for; else nil
	// away lasts from when the bridge left the fast path until it is back; nil
	// while it is there, and before it was.
	away trace.Span
}

const (
	keyBridge  = attr.Key("shunt.bridge")
	keyReason  = attr.Key("shunt.reason")
	keyText    = attr.Key("shunt.text")
	keyPorts   = attr.Key("shunt.ports")
	keyEntries = attr.Key("shunt.entries")
	keyCause   = attr.Key("shunt.cause")
)

// in makes what happens until the function that it returns is called a part of
// ctx's trace.
func (c *chronicle) in(ctx context.Context) (leave func()) {
	before := c.within
	c.within = ctx
	return func() { c.within = before }
}

// comes begins with a bridge that is mirrored anew: as part of ctx's trace, or with
// a trace of its own.
func (c *chronicle) comes(ctx context.Context) {
	endSpans(&c.verify, &c.coming)
	c.within = ctx
	if !trace.SpanContextFromContext(ctx).IsValid() {
		c.within, c.coming = c.start(ctx, "appear")
	}
}

// span is a part of what goes on; nothing where nothing does.
func (c *chronicle) span(name string, attributes ...attr.KeyValue) trace.Span {
	if c.within == nil {
		return noop.Span{}
	}
	_, span := c.start(c.within, name, attributes...)
	return span
}

// start begins a span about the bridge.
func (c *chronicle) start(ctx context.Context, name string, attributes ...attr.KeyValue) (context.Context, trace.Span) {
	if c.tracer == nil {
		return ctx, noop.Span{}
	}
	return c.tracer.Start(ctx, name, trace.WithAttributes(append(attributes, keyBridge.String(c.bridge))...))
}

// asks begins to tell of the verification, unless that is told of already.
func (c *chronicle) asks() {
	if c.within != nil && c.verify == nil {
		c.verify = c.span("verify")
	}
}

// isVerified ends what was told of the table.
func (c *chronicle) isVerified(entries int) {
	if c.verify != nil {
		c.verify.SetAttributes(keyEntries.Int(entries))
	}
	endSpans(&c.verify)
}

// isDone ends what went on: the bridge is mirrored.
func (c *chronicle) isDone() {
	endSpans(&c.coming)
	c.within = nil
}

// goes ends what was told of a bridge that is closed.
func (c *chronicle) goes() {
	for _, span := range []trace.Span{c.verify, c.coming} {
		if span != nil {
			span.SetStatus(codes.Error, "the bridge is gone")
		}
	}
	endSpans(&c.verify, &c.coming)
	c.within = nil
}

// leaves tells that the bridge takes the slow path, and why, at once: who knows
// when it will be back. The context that is returned is for the log.
func (c *chronicle) leaves(r accel.Reason) context.Context {
	why := []attr.KeyValue{keyReason.String(r.String()), keyText.String(r.Text())}
	if c.away != nil {
		c.away.AddEvent("reason", trace.WithAttributes(why...))
		return trace.ContextWithSpan(context.Background(), c.away)
	}
	ctx, left := c.start(c.current(), "ineligible", why...)
	left.End()
	_, c.away = c.start(context.WithoutCancel(ctx), "eligible", why...)
	return ctx
}

// returns tells that it is back on the fast path.
func (c *chronicle) returns() context.Context {
	if c.away == nil {
		return c.current()
	}
	ctx := trace.ContextWithSpan(context.Background(), c.away)
	endSpans(&c.away)
	return ctx
}

func (c *chronicle) current() context.Context {
	if c.within == nil {
		return context.Background()
	}
	return c.within
}

// endSpans ends those that there are.
func endSpans(spans ...*trace.Span) {
	for _, span := range spans {
		if *span != nil {
			(*span).End()
			*span = nil
		}
	}
}
