package main

import (
	"fmt"
	"math"
	"time"
)

// spin runs two instructions for each of n, which must not be 0.
func spin(n uint64)

// instruction is how long one takes by the machine's monotonic clock, in
// nanoseconds, and is 1 where the clock counts instructions.
func instruction() float64 {
	const n = 1 << 20
	shortest := time.Duration(math.MaxInt64) // the others were interrupted
	for range 16 {
		start := time.Now()
		spin(n)
		shortest = min(shortest, time.Since(start))
	}
	return float64(shortest.Nanoseconds()) / (2 * n)
}

// checkClock returns an error where the clock does not count instructions.
func checkClock() error {
	if ns := instruction(); math.Abs(ns-1) > 1e-3 {
		return fmt.Errorf("an instruction takes %.4f ns by the clock, which does not count them then", ns)
	}
	return nil
}
