package demo

import "github.com/shunt-dev/shunt/integration/spantree"

// Span is a span of the trace in Result.
type Span struct {
	Name     string  `json:"name"`
	ID       string  `json:"span_id"`
	Parent   string  `json:"parent_span_id"`      // empty for the root
	Begins   float64 `json:"begins_milliseconds"` // behind the root's begin
	Duration float64 `json:"duration_milliseconds"`
}

func spansOf(tree *spantree.Tree) (spans []Span) {
	tree.Walk(func(t *spantree.Tree, _ int) {
		spans = append(spans, Span{t.Name, t.ID, t.Parent, milliseconds(t.Began.Sub(tree.Began)), milliseconds(t.Took)})
	})
	return spans
}
