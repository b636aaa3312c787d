package traffic

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.New(lab.Options{Hosts: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// However short the time, and busy the machine, something is measured.
func TestThroughputOfAMoment(t *testing.T) {
	l := newLab(t)
	for _, d := range []time.Duration{0, time.Nanosecond, 20 * time.Millisecond} {
		bits, err := TCPThroughput(t.Context(), l.Hosts[0], l.Hosts[1], d)
		if err != nil || bits <= 0 {
			t.Errorf("for %v: %v bits a second, %v", d, bits, err)
		}
	}
}

// An interrupt ends it, and nothing that it started goes on.
func TestThroughputIsInterrupted(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := TCPThroughput(ctx, l.Hosts[0], l.Hosts[1], time.Hour)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
