// Package spantree reads what a trace says, whoever received it: one tree of spans.
package spantree

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Span is a span that has ended.
type Span struct {
	Trace, ID string // in hexadecimal
	Parent    string // the ID of the span above; empty for a root
	Name      string
	Began     time.Time
	Took      time.Duration
	Failed    bool
}

// Ended is when the span ended.
func (s Span) Ended() time.Time { return s.Began.Add(s.Took) }

// Tree is a span with those below it, in the order in which they began.
type Tree struct {
	Span
	Below []*Tree
}

// Grow makes the tree of one trace. It is an error if it has another number of roots
// than one, or a span that is below none of the others: then spans are missing.
func Grow(spans []Span) (*Tree, error) {
	byID := make(map[string]*Tree, len(spans))
	for _, s := range spans {
		byID[s.ID] = &Tree{Span: s}
	}
	if len(byID) != len(spans) {
		return nil, errors.New("two spans have the same number")
	}
	var root *Tree
	for _, s := range inOrder(spans) {
		above := byID[s.Parent]
		switch {
		case above != nil:
			above.Below = append(above.Below, byID[s.ID])
		case s.Parent != "":
			return nil, fmt.Errorf("what is above %s is missing", s.Name)
		case root != nil:
			return nil, fmt.Errorf("there are two roots, %s and %s", root.Name, s.Name)
		default:
			root = byID[s.ID]
		}
	}
	if root == nil {
		return nil, fmt.Errorf("none of %d spans is the root", len(spans))
	}
	return root, nil
}

// inOrder sorts by the begin; who began at once stays in the order of the ends.
func inOrder(spans []Span) []Span {
	sorted := slices.SortedStableFunc(slices.Values(spans), func(a, b Span) int { return cmp.Compare(a.Ended().UnixNano(), b.Ended().UnixNano()) })
	slices.SortStableFunc(sorted, func(a, b Span) int { return cmp.Compare(a.Began.UnixNano(), b.Began.UnixNano()) })
	return sorted
}

// Walk calls each with every span, those below a span behind it; depth is 0 for the
// root.
func (t *Tree) Walk(each func(t *Tree, depth int)) { t.walk(each, 0) }

func (t *Tree) walk(each func(*Tree, int), depth int) {
	each(t, depth)
	for _, below := range t.Below {
		below.walk(each, depth+1)
	}
}

// Find returns the first span of that name, or nil.
func (t *Tree) Find(name string) (found *Tree) {
	t.Walk(func(s *Tree, _ int) {
		if found == nil && s.Name == name {
			found = s
		}
	})
	return found
}

// Outline writes a trace as an indented list for people, at most 80 columns wide.
func (t *Tree) Outline() string {
	const line = "%-40.40s %14s %14s\n"
	text := fmt.Sprintf(line, "", "begins at", "takes")
	inMilliseconds := func(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Nanoseconds())/1e6) }
	t.Walk(func(s *Tree, depth int) {
		text += fmt.Sprintf(line, strings.Repeat("  ", depth)+s.Name, inMilliseconds(s.Began.Sub(t.Began)), inMilliseconds(s.Took))
	})
	return text
}

// Gap is how much of a root's time the phases may leave unexplained.
const Gap = 0.05

// CheckSwap wants the trace of a swap to have these phases below it, in that order,
// one after the other, and no others; and their durations to add up to the root's
// but for Gap. Share is the part of the root's time that they explain.
func (t *Tree) CheckSwap(phases []string) (share float64, err error) {
	swap := t.Find("swap")
	if swap == nil {
		return 0, fmt.Errorf("below %s there is no swap", t.Name)
	}
	var names []string
	var sum time.Duration
	for _, phase := range swap.Below {
		names, sum = append(names, phase.Name), sum+phase.Took
	}
	if !slices.Equal(names, phases) {
		return 0, fmt.Errorf("the phases are %v, want %v", names, phases)
	}
	for n, phase := range swap.Below[1:] {
		const rounding = time.Microsecond // backends keep no less
		if before := swap.Below[n]; phase.Began.Before(before.Ended().Add(-rounding)) {
			return 0, fmt.Errorf("%s begins before %s has ended", phase.Name, before.Name)
		}
	}
	share = float64(sum) / float64(t.Took)
	if share < 1-Gap || share > 1+Gap {
		return share, fmt.Errorf("the phases take %v of the %v that %s takes", sum, t.Took, t.Name)
	}
	return share, nil
}
