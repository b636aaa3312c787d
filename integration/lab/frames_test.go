package lab

import (
	"testing"
)

// The checker must see the faults that it is there for.
func TestTallySeesEveryFault(t *testing.T) {
	for name, c := range map[string]struct {
		sequence []uint64
		want     Report
		lost     uint64
	}{
		"whole":     {[]uint64{0, 1, 2, 3}, Report{Received: 4}, 0},
		"lost":      {[]uint64{0, 1, 3}, Report{Received: 3}, 1},
		"doubled":   {[]uint64{0, 1, 1, 2, 3}, Report{Received: 4, Doubled: 1}, 0},
		"reordered": {[]uint64{0, 2, 1, 3}, Report{Received: 4, Reordered: 1}, 0},
		"far":       {[]uint64{3, 0, 1, 2}, Report{Received: 4, Reordered: 3}, 0},
	} {
		var got tally
		for _, s := range c.sequence {
			got.add(s)
		}
		if got.report != c.want || got.report.Lost(4) != c.lost {
			t.Errorf("%s: %+v and %d lost, want %+v and %d", name, got.report, got.report.Lost(4), c.want, c.lost)
		}
	}
}

func TestStreamOverABareBridgeIsWhole(t *testing.T) {
	l, err := New(Options{Hosts: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from, to := wire(t, l.Hosts[0]), wire(t, l.Hosts[1])
	const frames = 20000
	s := &Sender{Wire: from, Frame: Frame{Source: l.Hosts[0].MAC, Destination: l.Hosts[1].MAC, Stream: 7}, Pace: Pace{PerSecond: 40000}}
	report, err := Run(t.Context(), s, frames, to)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Report{Received: frames}); report != want {
		t.Errorf("%+v, want %+v", report, want)
	}
}

func wire(t *testing.T, h *Host) Wire {
	t.Helper()
	w, err := h.Wire()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}
