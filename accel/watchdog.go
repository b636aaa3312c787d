package accel

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// watchdog tells systemd that the daemon works, if every heart has beaten since
// the last time. How long one may stand still is written in one place, which is
// the unit (WatchdogSec=); then systemd ends the daemon and starts it again.
type watchdog struct {
	hearts []Heart
	// beats are those of the last time; nil before the first.
	beats []uint64
	alive func()
	// doubt is told once of each time that something stands still.
	doubt   func(what string)
	doubted bool
}

// awaitEnd waits for the end of ctx. Until then it tells systemd that the daemon
// works, where systemd wants to know.
func (s *service) awaitEnd(ctx context.Context) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.logger.Warn("the watchdog's limit cannot be read: systemd will not be told that the daemon works", "error", err)
	}
	if limit == 0 || err != nil {
		<-ctx.Done()
		return
	}
	// Four times in a limit: one that comes late is no hang.
	often := time.NewTicker(limit / 4)
	defer often.Stop()
	w := watchdog{
		hearts: serving[Heart](s.life.components),
		alive:  func() { s.notify(daemon.SdNotifyWatchdog) },
		doubt: func(what string) {
			s.logger.Error("a part of the daemon stands still: systemd will start it again", "part", what, "limit", limit)
		},
	}
	w.watch(ctx, often.C)
}

// watch looks at the hearts at every tick, until ctx ends.
func (w *watchdog) watch(ctx context.Context, ticks <-chan time.Time) {
	for {
		select {
		case <-ticks:
			w.look()
		case <-ctx.Done():
			return
		}
	}
}

// look says that the daemon works, unless a heart has not beaten since it was said
// the last time.
func (w *watchdog) look() {
	beats := make([]uint64, len(w.hearts))
	var still []string
	for i, h := range w.hearts {
		beats[i] = h.Beats()
		if w.beats != nil && beats[i] == w.beats[i] {
			still = append(still, fmt.Sprint(reflect.TypeOf(h)))
		}
	}
	if len(still) > 0 {
		if !w.doubted {
			w.doubt(strings.Join(still, ", "))
		}
		w.doubted = true
		return
	}
	w.beats, w.doubted = beats, false
	w.alive()
}
