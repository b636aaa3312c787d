package demo

import (
	"fmt"
	"strings"

	"github.com/shunt-dev/shunt/integration/spantree"
)

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

// outline writes a trace as an indented list, at most 80 columns wide.
func outline(tree *spantree.Tree) string {
	const line = "%-40.40s %14s %14s\n"
	text := fmt.Sprintf(line, "", "begins at", "takes")
	tree.Walk(func(t *spantree.Tree, depth int) {
		text += fmt.Sprintf(line, strings.Repeat("  ", depth)+t.Name,
			fmt.Sprintf("%.2f ms", milliseconds(t.Began.Sub(tree.Began))), fmt.Sprintf("%.2f ms", milliseconds(t.Took)))
	})
	return text
}
