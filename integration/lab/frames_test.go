package lab

import (
	"bytes"
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
		var got Tally
		for _, s := range c.sequence {
			got.Add(s)
		}
		if got.report != c.want || got.report.Lost(4) != c.lost {
			t.Errorf("%s: %+v and %d lost, want %+v and %d", name, got.report, got.report.Lost(4), c.want, c.lost)
		}
		if below := got.LostBelow(4); below != c.lost || uint64(len(got.Missing(4, 10))) != c.lost {
			t.Errorf("%s: %d are lost below 4, and %v, want %d", name, below, got.Missing(4, 10), c.lost)
		}
		if below := got.LostBelow(1000); below != c.lost+996 {
			t.Errorf("%s: %d are lost below 1000, want %d", name, below, c.lost+996)
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

func TestFramesKeepTheirTag(t *testing.T) {
	l, err := New(Options{Hosts: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from := wire(t, l.Hosts[0])
	to, err := l.Hosts[1].WireOfAll()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	for _, tag := range []Tag{{}, {Dot1Q, 0, 0}, {Dot1Q, 5, 0}, {Dot1Q, 4094, 7}, {Dot1AD, 1, 3}} {
		sent := Frame{Source: l.Hosts[0].MAC, Destination: l.Hosts[1].MAC, Tag: tag, Stream: 3, Sequence: 1 << 40}.Bytes()
		if f, ok := ParseFrame(sent); !ok || f.Tag != tag || f.Stream != 3 || f.Sequence != 1<<40 {
			t.Errorf("%+v is parsed as %+v", tag, f)
		}
		if err := l.Deliver(from, sent); err != nil {
			t.Fatal(err)
		}
		got, err := Arrived(to)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || !bytes.Equal(got[0], sent) {
			t.Errorf("sent % x, and % x arrived", sent, got)
		}
	}
}
