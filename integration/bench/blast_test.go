package bench

import "testing"

// A volley during which somebody took the CPU is one among many.
func TestAnInterruptionIsNotInThePace(t *testing.T) {
	if got := paceOf([]float64{0.001, 0.001, 1.5, 0.001, 0.001}); got != slots*1000 {
		t.Errorf("got %v", got)
	}
}
