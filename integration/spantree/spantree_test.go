package spantree

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var phases = []string{"flip", "drain"}

// swapped is the trace of a swap that took 100 ms, 98 of them in its phases. Its spans
// are in the order in which they ended.
func swapped() []Span {
	begin := time.Unix(1000, 0)
	at := func(id, parent, name string, began, took time.Duration) Span {
		return Span{Trace: "t", ID: id, Parent: parent, Name: name, Began: begin.Add(began * time.Millisecond), Took: took * time.Millisecond}
	}
	return []Span{
		at("3", "2", "flip", 1, 8), at("4", "2", "drain", 9, 90),
		at("2", "1", "swap", 1, 98), at("1", "", "POST /v1/swap", 0, 100),
	}
}

func TestATraceIsATree(t *testing.T) {
	spans := swapped()
	slices.Reverse(spans) // as a backend may hand them out
	tree, err := Grow(spans)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	tree.Walk(func(s *Tree, depth int) { lines = append(lines, strings.Repeat(" ", depth)+s.Name) })
	if want := []string{"POST /v1/swap", " swap", "  flip", "  drain"}; !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	if share, err := tree.CheckSwap(phases); err != nil || share != 0.98 {
		t.Errorf("got %v, %v", share, err)
	}
}

func TestTracesThatAreNotWhole(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]Span) []Span
		says   string
	}{
		"nothing":            {func([]Span) []Span { return nil }, "none of 0 spans"},
		"no root":            {func(s []Span) []Span { return s[:3] }, "what is above swap is missing"},
		"the swap's is away": {func(s []Span) []Span { return slices.Delete(s, 2, 3) }, "what is above flip is missing"},
		"two roots":          {func(s []Span) []Span { s[1].Parent = ""; return s }, "two roots"},
		"twice the same":     {func(s []Span) []Span { return append(s, s[0]) }, "the same number"},
		"a circle":           {func(s []Span) []Span { s[3].Parent = "2"; return s }, "none of 4 spans"},
	} {
		if _, err := Grow(c.change(swapped())); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSwapsThatDoNotAddUp(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]Span)
		says   string
	}{
		"no swap":              {func(s []Span) { s[2].Name = "adopt" }, "there is no swap"},
		"another phase":        {func(s []Span) { s[0].Name = "check" }, "the phases are [check drain]"},
		"another order":        {func(s []Span) { s[1].Began = s[1].Began.Add(-time.Second) }, "the phases are [drain flip]"},
		"two at once":          {func(s []Span) { s[0].Took *= 2 }, "drain begins before flip has ended"},
		"below another phase":  {func(s []Span) { s[1].Parent = "3" }, "the phases are [flip]"},
		"time without a phase": {func(s []Span) { s[3].Took += 10 * time.Millisecond }, "take 98ms of the 110ms"},
	} {
		spans := swapped()
		c.change(spans)
		tree, err := Grow(spans)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := tree.CheckSwap(phases); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
