// Package outages remembers when a bridge left the fast path, why, and when it was
// back. It is a complete plugin for shunt, and the example of docs/plugins.md.
package outages

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/accel"
)

func init() {
	accel.Register(accel.Plugin{
		Name:     "outages",
		After:    []string{"telemetry", "fdbsync"}, // when we start, the bridges are there
		New:      func() accel.Component { return new(recorder) },
		Commands: func() []*cobra.Command { return []*cobra.Command{command()} },
	})
}

// Outage is the time that a bridge spent on the slow path, and an element of the
// answer to GET /v1/outages.
type Outage struct {
	Bridge string       `json:"bridge"`
	Reason accel.Reason `json:"reason"`
	Began  time.Time    `json:"began"`
	// Ended is null while it lasts.
	Ended *time.Time `json:"ended"`
}

// most is how many outages are remembered: a daemon must not grow with its age.
const most = 100

// recorder is the component. What it did not make itself it found in Provision.
type recorder struct {
	logger  *slog.Logger
	bridges accel.BridgeSource

	mu      sync.Mutex
	outages []Outage // the newest is the last

	end     context.CancelFunc
	working sync.WaitGroup
}

var (
	_ accel.Component = (*recorder)(nil)
	_ accel.Router    = (*recorder)(nil)
)

// Provision finds who knows the bridges. It changes nothing.
func (r *recorder) Provision(_ context.Context, h *accel.Host) (err error) {
	r.logger = h.Logger
	r.bridges, err = accel.Use[accel.BridgeSource](h)
	return err
}

// Start looks at the bridges from now on. Its context is for starting only.
func (r *recorder) Start(ctx context.Context) error {
	ctx, r.end = context.WithCancel(context.WithoutCancel(ctx))
	r.working.Go(func() { r.watch(ctx) })
	return nil
}

// Stop may come without Start, and twice.
func (r *recorder) Stop(context.Context) error {
	if r.end != nil {
		r.end()
	}
	r.working.Wait()
	return nil
}

func (r *recorder) watch(ctx context.Context) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		for _, bridge := range r.bridges.Bridges() {
			r.look(bridge.Name, bridge.Reason)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// look takes in how a bridge is now.
func (r *recorder) look(bridge string, reason accel.Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for i := range r.outages {
		if o := &r.outages[i]; o.Bridge == bridge && o.Ended == nil {
			if o.Reason == reason {
				return
			}
			o.Ended = &now
		}
	}
	if reason == accel.Fast {
		return
	}
	r.logger.Warn("a bridge has left the fast path", "bridge", bridge, "reason", reason.String())
	r.outages = append(r.outages, Outage{Bridge: bridge, Reason: reason, Began: now})
	r.outages = r.outages[max(0, len(r.outages)-most):]
}

// Routes adds to the control API.
func (r *recorder) Routes() []accel.Route {
	return []accel.Route{{Pattern: "GET /v1/outages", Answer: r.answer}}
}

func (r *recorder) answer(*http.Request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	newestFirst := append([]Outage{}, r.outages...) // never null
	slices.Reverse(newestFirst)
	return newestFirst, nil
}

// command asks a running daemon, as every client does.
func command() *cobra.Command {
	var f accel.ClientFlags
	cmd := &cobra.Command{Use: "outages", Short: "Show when bridges left the fast path, and why"}
	f.Add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var outages []Outage
		if err := f.Client().Do(cmd.Context(), http.MethodGet, "/v1/outages", nil, &outages); err != nil {
			return err
		}
		return accel.Print(cmd, f, outages, show)
	}
	return cmd
}

func show(s accel.Screen, outages []Outage) error {
	t := accel.Table{Headings: []string{"BRIDGE", "BEGAN", "ENDED", "REASON"}}
	for _, o := range outages {
		ended := "-"
		if o.Ended != nil {
			ended = o.Ended.Local().Format(time.DateTime)
		}
		t.Rows = append(t.Rows, accel.Row{Cells: []string{o.Bridge, o.Began.Local().Format(time.DateTime), ended, o.Reason.String()}})
	}
	return s.Table(t)
}
