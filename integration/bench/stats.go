package bench

import (
	"math"
	"slices"
)

// quantile returns the value below which that part of the values is, 0 to 1. Between two
// values it lies where the part does. Of no values it is not a number.
func quantile(values []float64, part float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := part * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

// spread is the median of values, and the quartiles: half of them lie between those.
type spread struct{ lower, median, upper float64 }

func spreadOf(values []float64) spread {
	return spread{quantile(values, 0.25), quantile(values, 0.5), quantile(values, 0.75)}
}

// The verdicts.
const (
	better = "better"
	worse  = "worse"
	same   = "same"
)

// chance is how often the rounds may agree by accident on a difference that there is not.
const chance = 0.05

// judge says whether shunt is better, by the ratios of shunt over the bridge, one of each
// round: there is a difference if so many rounds agree on it as they hardly would by
// chance (a sign test). Of five rounds or fewer, none are enough.
func (u unit) judge(ratios []float64) string {
	var above, below int
	for _, ratio := range ratios {
		switch {
		case ratio > 1:
			above++
		case ratio < 1:
			below++
		}
	}
	switch {
	case byChance(max(above, below), above+below) > chance:
		return same
	case (above > below) != u.less:
		return better
	default:
		return worse
	}
}

// byChance is how probable it is that of n throws of a coin as many or more fall on one
// side, whichever that is.
func byChance(many, n int) (p float64) {
	of := func(n int) float64 { // the logarithm of n!
		log, _ := math.Lgamma(float64(n + 1))
		return log
	}
	for k := many; k <= n; k++ {
		p += 2 * math.Exp(of(n)-of(k)-of(n-k)-float64(n)*math.Ln2)
	}
	return min(p, 1)
}

func (s spread) each() (lower, median, upper float64) { return s.lower, s.median, s.upper }
