package spantree

import (
	"encoding/hex"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// FromOTLP takes the spans out of what an exporter sent.
func FromOTLP(sent []*tracepb.ResourceSpans) (spans []Span) {
	for _, resource := range sent {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				spans = append(spans, fromOTLP(s))
			}
		}
	}
	return spans
}

func fromOTLP(s *tracepb.Span) Span {
	return Span{
		Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId),
		Name: s.Name, Began: time.Unix(0, int64(s.StartTimeUnixNano)),
		Took:   time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano),
		Failed: s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR,
	}
}
