package announce

import (
	"context"
	"time"
)

// clock is the time, and the waiting for it.
type clock interface {
	now() time.Time
	// wait returns the error of ctx if it ends first.
	wait(ctx context.Context, d time.Duration) error
}

type wallClock struct{}

func (wallClock) now() time.Time { return time.Now() }

func (wallClock) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// burst is how many frames may go at once: few enough for any switch's queue.
const burst = 64

// leastWait is how long is slept at least, so that a high rate is kept by a few
// frames at a time and not by a busy loop.
const leastWait = time.Millisecond

// pace lets a number of frames a second go, and up to burst at once after it was
// idle.
type pace struct {
	clock  clock
	each   time.Duration // between two frames
	credit time.Duration // what may be spent, each for a frame; at most burst of them
	last   time.Time
}

func newPace(perSecond int, c clock) *pace {
	each := max(time.Second/time.Duration(perSecond), 1)
	return &pace{clock: c, each: each, credit: burst * each, last: c.now()}
}

// next waits until a frame may go.
func (p *pace) next(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := p.clock.now()
		p.credit = min(p.credit+now.Sub(p.last), burst*p.each)
		p.last = now
		if p.credit >= p.each {
			p.credit -= p.each
			return nil
		}
		if err := p.clock.wait(ctx, max(p.each-p.credit, leastWait)); err != nil {
			return err
		}
	}
}
