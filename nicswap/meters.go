package nicswap

import (
	"context"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// Meters measures swaps; telemetry serves it. There may be none, or several. Its
// methods are called within the swap's trace.
type Meters interface {
	// PhaseEnded is told of every phase; result is "done" or "failed".
	PhaseEnded(ctx context.Context, phase, result string, took time.Duration)
	// Flipped is told how long the store of a flip took.
	Flipped(ctx context.Context, took time.Duration)
	// SwapEnded is told of every swap that was begun. Cause and result are those of
	// SwapV1; lost counts the frames that found no active member meanwhile.
	SwapEnded(ctx context.Context, group, cause, result string, took time.Duration, lost uint64)
}

func (e *Engine) phaseEnded(ctx context.Context, phase string, took time.Duration, err error) {
	result := resultDone
	if err != nil {
		result = resultFailed
	}
	for _, m := range e.meters {
		m.PhaseEnded(ctx, phase, result, took)
	}
}

func (e *Engine) swapEnded(ctx context.Context, v SwapV1, took time.Duration) {
	for _, m := range e.meters {
		if v.FlipNS > 0 {
			m.Flipped(ctx, time.Duration(v.FlipNS))
		}
		m.SwapEnded(ctx, v.Group, v.Cause, v.Result, took, v.Dropped[accel.NoMember.String()])
	}
}
