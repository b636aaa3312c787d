package bench

import (
	"math"
	"slices"
	"testing"
)

func TestQuantilesLieBetweenTheValues(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{3, 1}, spread{1.5, 2, 2.5}},
		{[]float64{5, 1, 4, 2, 3}, spread{2, 3, 4}},
		{[]float64{1, 1, 1, 1000}, spread{1, 1, 250.75}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("of %v: got %v, want %v", c.values, got, c.want)
		}
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v", got)
	}
}

func TestQuantilesLeaveTheValuesAlone(t *testing.T) {
	values := []float64{3, 1, 2}
	quantile(values, 0.5)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("they are %v now", values)
	}
}

// What most rounds agree on is a difference, if there are enough of them.
func TestVerdicts(t *testing.T) {
	rounds := func(above, below int) []float64 {
		return append(slices.Repeat([]float64{1.1}, above), slices.Repeat([]float64{0.9}, below)...)
	}
	for _, c := range []struct {
		unit         unit
		above, below int
		want         string
	}{
		{framesPerSecond, 20, 0, better},
		{framesPerSecond, 15, 5, better},
		{framesPerSecond, 14, 6, same},
		{framesPerSecond, 10, 10, same},
		{framesPerSecond, 6, 14, same},
		{framesPerSecond, 5, 15, worse},
		{microseconds, 15, 5, worse},
		{microseconds, 5, 15, better},
		{framesPerSecond, 6, 0, better},
		{framesPerSecond, 5, 0, same},
		{framesPerSecond, 1, 0, same},
		{framesPerSecond, 0, 0, same},
		{framesPerSecond, 10_000, 0, better},
		{framesPerSecond, 5_000, 5_000, same},
	} {
		if got := c.unit.judge(rounds(c.above, c.below)); got != c.want {
			t.Errorf("%s, %d rounds above 1 and %d below: got %s, want %s", c.unit.name, c.above, c.below, got, c.want)
		}
	}
	if got := framesPerSecond.judge([]float64{1, 1, 1, 1, 1, 1, 1, 1}); got != same {
		t.Errorf("rounds without a difference: got %s", got)
	}
}

// The examples are 2 (1/16), 2 (5/16), and what is certain.
func TestChance(t *testing.T) {
	for _, c := range []struct {
		many, n int
		want    float64
	}{{4, 4, 0.125}, {3, 4, 0.625}, {2, 4, 1}, {0, 0, 1}} {
		if got := byChance(c.many, c.n); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%d of %d: got %v, want %v", c.many, c.n, got, c.want)
		}
	}
}
