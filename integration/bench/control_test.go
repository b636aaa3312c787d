package bench

import (
	"flag"
	"testing"
	"time"
)

var (
	controlRounds   = flag.Int("control", 2, "rounds of TestControl")
	controlDuration = flag.Duration("control.duration", 10*time.Millisecond, "of each measurement of TestControl")
)

// TestControl compares two bridges without shunt in the way of the benchmark, and prints
// what that finds: of no difference, it should find none.
func TestControl(t *testing.T) {
	b := &bench{probes: probes, rounds: *controlRounds, duration: *controlDuration, progress: &progress{}}
	defer func() {
		if err := b.remove(); err != nil {
			t.Error(err)
		}
	}()
	if err := b.build(); err != nil {
		t.Fatal(err)
	}
	for i, p := range b.probes {
		for _, turn := range schedule(b.rounds) {
			if err := b.announce(); err != nil {
				t.Fatal(err)
			}
			b.series[i] = append(b.series[i], control(t, b, i, turn))
		}
		for n, m := range p.metrics {
			s := m.summarize(n, b.series[i])
			t.Logf("%-20s %.3fx %.3f-%.3fx %s", m.title, s.RatioMedian, s.RatioLower, s.RatioUpper, s.Verdict)
		}
	}
}

// control is a pair without shunt on either side.
func control(t *testing.T, b *bench, probe int, turn turn) (p pair) {
	t.Helper()
	for second := range 2 {
		side, figures := b.sides[1-turn.served], &p.off
		if (second == 0) == turn.shuntFirst {
			side, figures = b.sides[turn.served], &p.on
		}
		var err error
		if *figures, err = side.measure(t.Context(), probe, b.duration); err != nil {
			t.Fatal(err)
		}
	}
	return p
}
