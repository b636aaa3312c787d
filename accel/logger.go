package accel

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"go.opentelemetry.io/otel/trace"
)

// newLogger writes to stderr, without the time where the journal adds its own.
func newLogger(level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if toJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
		options.ReplaceAttr = func(groups []string, attr slog.Attr) slog.Attr {
			if len(groups) == 0 && attr.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return attr
		}
	}
	return slog.New(traceNamer{slog.NewTextHandler(os.Stderr, options)})
}

// toJournal follows systemd.exec(5): JOURNAL_STREAM is the device and the inode
// of the stream to the journal, and is inherited by those who write elsewhere.
func toJournal(f *os.File, stream string) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat := info.Sys().(*syscall.Stat_t)
	return stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// traceNamer adds to a line the trace that it was logged in, so that who reads the
// log finds the trace. Traces that nobody keeps are not named.
type traceNamer struct{ slog.Handler }

// Handle writes the line.
func (h traceNamer) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps naming traces.
func (h traceNamer) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceNamer{h.Handler.WithAttrs(attrs)}
}

// WithGroup keeps naming traces.
func (h traceNamer) WithGroup(name string) slog.Handler {
	return traceNamer{h.Handler.WithGroup(name)}
}
