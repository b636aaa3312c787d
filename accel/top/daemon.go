package top

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/shunt-dev/shunt/accel"
)

// What is read of the stable ports. The whole of it is nicswap's.

type group struct {
	Group   string   `json:"group"`
	Bridge  string   `json:"bridge"`
	State   string   `json:"state"`
	Why     string   `json:"why"`
	Active  string   `json:"active"`
	Members []member `json:"members"`
}

type member struct {
	Member   string `json:"member"`
	Kind     string `json:"kind"`
	LinkKind string `json:"link_kind"`
	Driver   string `json:"driver"`
	State    string `json:"state"`
}

type swap struct {
	ID     string  `json:"id"`
	Group  string  `json:"group"`
	From   string  `json:"from"`
	To     string  `json:"to"`
	Cause  string  `json:"cause"`
	Result string  `json:"result"`
	Error  string  `json:"error"`
	Phases []phase `json:"phases"`
	FlipNS int64   `json:"flip_ns"`
}

type phase struct {
	Phase      string  `json:"phase"`
	DurationMS float64 `json:"duration_ms"`
}

// event is a line of the stream; it is also the message to the model.
type event struct {
	Group  string `json:"group"`
	Event  string `json:"event"`
	Member string `json:"member"`
	State  string `json:"state"`
	Phase  string `json:"phase"`
	Swap   *swap  `json:"swap"`
}

// unfollowed tells the model that events were missed.
type unfollowed struct{}

// reading is all that was asked at once; it is also the message to the model.
type reading struct {
	snapshot accel.SnapshotV1
	groups   []group
	swaps    []swap // the newest first
	err      error
}

// daemon is whom top asks.
type daemon struct {
	client *accel.Client
	bridge string // "" for all
}

// answerTimeout is how long the daemon may take for the groups and the swaps.
const answerTimeout = 15 * time.Second

func (d daemon) read(ctx context.Context) (r reading) {
	if r.snapshot, r.err = d.client.Snapshot(ctx, d.bridge); r.err != nil {
		return r
	}
	if r.err = d.list(ctx, "/v1/groups", &r.groups); r.err != nil {
		return r
	}
	r.err = d.list(ctx, "/v1/swaps", &r.swaps)
	if d.bridge == "" {
		return r
	}
	r.groups = slices.DeleteFunc(r.groups, func(g group) bool { return g.Bridge != d.bridge })
	r.swaps = slices.DeleteFunc(r.swaps, func(s swap) bool {
		return !slices.ContainsFunc(r.groups, func(g group) bool { return g.Group == s.Group })
	})
	return r
}

// list reads what a daemon without stable ports does not know.
func (d daemon) list(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	err := d.client.Do(ctx, http.MethodGet, path, nil, into)
	var refused *accel.StatusError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return nil
	}
	return err
}

// watch reads at every interval and tells what it read, until ctx ends.
func (d daemon) watch(ctx context.Context, interval time.Duration, tell func(tea.Msg)) {
	for again := time.NewTicker(interval); ; {
		tell(d.read(ctx))
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
}

// follow tells of events, until ctx ends. A daemon that ended, or knows no events, is
// asked again at every interval.
func (d daemon) follow(ctx context.Context, interval time.Duration, tell func(tea.Msg)) {
	for ctx.Err() == nil {
		d.client.Stream(ctx, "/v1/events", func(line json.RawMessage) error {
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				return err
			}
			tell(e)
			return nil
		}) // why it ended is what read says too
		tell(unfollowed{})
		wait(ctx, interval)
	}
}
