package accel

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// heart beats when it is told to.
type heart struct{ beats atomic.Uint64 }

func (h *heart) Beats() uint64 { return h.beats.Load() }

func TestHeartThatStandsStillIsNotCoveredUp(t *testing.T) {
	one, two := new(heart), new(heart)
	alive := 0
	var doubts []string
	w := watchdog{
		hearts: []Heart{one, two},
		alive:  func() { alive++ },
		doubt:  func(what string) { doubts = append(doubts, what) },
	}
	for _, step := range []struct {
		one, two uint64 // beats before the look
		want     int    // signs of life after it
	}{
		{0, 0, 1}, // there is nothing yet to compare with
		{1, 3, 2},
		{0, 1, 2}, // one stands still
		{0, 1, 2}, // and longer
		{1, 0, 3}, // it goes on; two had beaten since the last sign
		{1, 1, 4},
		{0, 0, 4},
		{1, 1, 5},
	} {
		one.beats.Add(step.one)
		two.beats.Add(step.two)
		w.look()
		if alive != step.want {
			t.Fatalf("after %+v: %d signs of life", step, alive)
		}
	}
	if want := []string{"*accel.heart", "*accel.heart, *accel.heart"}; !slices.Equal(doubts, want) {
		t.Errorf("told of %q, want %q", doubts, want)
	}
}

func TestWatchdogWithoutHearts(t *testing.T) {
	alive := 0
	w := watchdog{alive: func() { alive++ }}
	w.look()
	w.look()
	if alive != 2 {
		t.Errorf("%d signs of life, want 2", alive)
	}
}

func TestWatchdogEndsWithTheDaemon(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	looked := make(chan struct{}, 1)
	w := watchdog{alive: func() { looked <- struct{}{} }}
	ticks, ended := make(chan time.Time), make(chan struct{})
	go func() {
		defer close(ended)
		w.watch(ctx, ticks)
	}()
	ticks <- time.Time{}
	<-looked
	end()
	<-ended
}

// The program as systemd starts it, with a heart that beats a few times and
// then never again.
func TestProcessTellsSystemdThatItWorks(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	told := func(patience time.Duration) string {
		message := make([]byte, 1024)
		systemd.SetReadDeadline(time.Now().Add(patience))
		n, err := systemd.Read(message)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ""
		} else if err != nil {
			t.Fatal(err)
		}
		return string(message[:n])
	}
	cmd, output := program(t, "run", "--bridge", bridgeName(), "--socket", socketPath(t))
	cmd.Env = append(cmd.Env, asProgram+"=mortal", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=40000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got := told(10 * time.Second); got != "READY=1" {
		t.Errorf("told %q first\n%s", got, output)
	}
	for n := range mortalBeats {
		if got := told(10 * time.Second); got != "WATCHDOG=1" {
			t.Fatalf("told %q after %d signs of life", got, n)
		}
	}
	if got := told(500 * time.Millisecond); got != "" {
		t.Errorf("told %q of a heart that stands still", got)
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
	if got := told(10 * time.Second); got != "STOPPING=1" {
		t.Errorf("told %q at the end", got)
	}
	if !strings.Contains(output.String(), "stands still") {
		t.Errorf("nothing in the log says why systemd will end the daemon:\n%s", output)
	}
}

// mortalBeats is how often the heart of a mortal beats.
const mortalBeats = 5

// mortal is a component whose heart beats with every look, for a while.
type mortal struct {
	*fake
	beats atomic.Uint64
}

func (m *mortal) Beats() uint64 { return min(m.beats.Add(1), mortalBeats) }
