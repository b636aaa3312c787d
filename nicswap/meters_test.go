package nicswap

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shunt-dev/shunt/accel"
)

// recorder notes what is measured, and in which trace.
type recorder struct {
	notes  []string
	traces map[trace.TraceID]bool
}

func (r *recorder) note(ctx context.Context, format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
	r.traces[trace.SpanContextFromContext(ctx).TraceID()] = true
}

func (r *recorder) PhaseEnded(ctx context.Context, phase, result string, _ time.Duration) {
	r.note(ctx, "%s %s", phase, result)
}

func (r *recorder) Flipped(ctx context.Context, _ time.Duration) { r.note(ctx, "flipped") }

func (r *recorder) SwapEnded(ctx context.Context, group, cause, result string, took time.Duration, lost uint64) {
	r.note(ctx, "%s: %s %s after %v, %d lost", group, cause, result, took, lost)
}

func TestSwapsAreMeasured(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		r := &recorder{traces: make(map[trace.TraceID]bool)}
		d.meters = []Meters{r}
		l.k.on("Flip nic2", func() {
			l.k.mu.Lock()
			defer l.k.mu.Unlock()
			l.k.wires[l.k.find("uplink").Ifindex].counts[accel.NoMember] = accel.Count{Packets: 3}
		})
		v := d.swap(t, "nic2")
		if want := []string{
			"resolve done", "check done", "prewarm done", "flip done", "announce done", "drain done", "retire done",
			"flipped", "uplink: request done after 200ms, 3 lost",
		}; !slices.Equal(r.notes, want) {
			t.Errorf("measured were %q", r.notes)
		}
		if len(r.traces) != 1 {
			t.Errorf("it was measured in the traces %v, the swap's is %s", r.traces, v.TraceID)
		}
		r.notes = nil
		l.k.refuse("PrepareFlip", errRefused)
		d.swap(t, "nic1")
		if want := []string{
			"resolve done", "check done", "prewarm failed", "roll_back done", "uplink: request failed after 0s, 0 lost",
		}; !slices.Equal(r.notes, want) {
			t.Errorf("of the one that failed, measured were %q", r.notes)
		}
	})
}

func TestGroupsAsTheyAreMeasured(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		other := accel.Group{Name: "absent", Bridge: "br0", Port: "absent", Members: []string{"nic7"}}
		l.config.Groups = append(l.config.Groups, other)
		d := l.start()
		func() {
			l.k.mu.Lock()
			defer l.k.mu.Unlock()
			counts := l.k.wires[l.k.find("uplink").Ifindex].counts
			counts[accel.Standby], counts[accel.Drained] = accel.Count{Packets: 5}, accel.Count{Packets: 6}
		}()
		states := d.GroupStates()
		if len(states) != 2 || states[0].Name != "absent" || states[0].State != "down" || states[0].Members[0].State != "missing" {
			t.Fatalf("got %+v", states)
		}
		g := states[1]
		if g.Name != "uplink" || g.Bridge != "br0" || g.Port != "uplink" || g.State != "ready" || g.Active != "nic1" {
			t.Errorf("got %+v", g)
		}
		if want := []accel.MemberState{{Name: "nic1", Kind: "physical", State: "active"}, {Name: "nic2", Kind: "virtual", State: "standby"}}; !slices.Equal(g.Members, want) {
			t.Errorf("got %+v", g.Members)
		}
		if len(g.Frames) != 2 || g.Frames[accel.Standby] != 5 || g.Frames[accel.Drained] != 6 {
			t.Errorf("got %v", g.Frames)
		}
	})
}

// TestCountersThatBeganAnew, because somebody deleted the stable port during a swap.
func TestCountersThatBeganAnew(t *testing.T) {
	before := map[accel.Reason]accel.Count{accel.NoMember: {Packets: 10}, accel.Drained: {Packets: 5}}
	after := map[accel.Reason]accel.Count{accel.NoMember: {Packets: 3}, accel.Drained: {Packets: 5}}
	if drained, dropped := lost(before, after); drained != 0 || dropped[accel.NoMember.String()] != 3 {
		t.Errorf("drained %d, dropped %v", drained, dropped)
	}
}
