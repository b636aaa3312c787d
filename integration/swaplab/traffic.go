package swaplab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

// The streams of StartTraffic.
const (
	Out uint32 = 1 // from the guest to the station
	In  uint32 = 2 // from the station to the guest
)

// Traffic is numbered frames both ways between a guest and a station.
type Traffic struct {
	// Guest and Station count what comes to them.
	Guest, Station *Meter

	l         *Lab
	out, in   lab.Sender
	stop      context.CancelFunc
	sending   sync.WaitGroup
	failed    [2]error
	began     time.Time
	overflows uint64 // before
}

// Pace is what the tests of swaps send each way.
var Pace = lab.Pace{PerSecond: 20_000, Burst: 32, Gentle: true}

// Totals are what became of the frames of both ways.
type Totals struct {
	Out, In Way
	// Lab counts frames that the lab itself lost: a receiver's ring, a CPU's
	// backlog or a tap's queue was full. They are among the lost ones.
	Lab uint64
	For time.Duration
}

// Way is one direction.
type Way struct {
	Sent uint64
	lab.Report
	Lost uint64
	// Returned came back to where they were sent from: once for each time.
	Returned uint64
	Longest  Gap
	// Missing are the first of the lost.
	Missing []uint64
}

func (w Way) String() string {
	return fmt.Sprintf("%d sent, %d lost %v, %d doubled, %d out of order, %d returned, longest gap %.1f ms",
		w.Sent, w.Lost, w.Missing, w.Doubled, w.Reordered, w.Returned, float64(w.Longest.Length.Microseconds())/1000)
}

func (t Totals) String() string {
	return fmt.Sprintf("%.1f s, %.0f and %.0f frames/s; out: %v; in: %v; %d lost in the lab",
		t.For.Seconds(), float64(t.Out.Sent)/t.For.Seconds(), float64(t.In.Sent)/t.For.Seconds(), t.Out, t.In, t.Lab)
}

// StartTraffic sends both ways between the first guest and the station until Stop.
func (l *Lab) StartTraffic(pace lab.Pace) (*Traffic, error) {
	return l.StartTrafficBetween(l.Guest(), l.Station(), Out, pace)
}

// StartTrafficBetween sends both ways between a guest and a station until Stop. The
// stream out has that number, and the one in the next.
func (l *Lab) StartTrafficBetween(guest, station *lab.Host, out uint32, pace lab.Pace) (t *Traffic, err error) {
	t = &Traffic{l: l, stop: func() {}}
	t.out = lab.Sender{Pace: pace, Frame: lab.Frame{Source: guest.MAC, Destination: station.MAC, Stream: out}}
	t.in = lab.Sender{Pace: pace, Frame: lab.Frame{Source: station.MAC, Destination: guest.MAC, Stream: out + 1}, CPU: 1}
	if err := t.open(guest, station); err != nil {
		return nil, errors.Join(err, t.close())
	}
	var ctx context.Context
	ctx, t.stop = context.WithCancel(context.Background())
	t.began = time.Now()
	for n, s := range []*lab.Sender{&t.out, &t.in} {
		const never = 1 << 40
		t.sending.Go(func() { t.failed[n] = s.Send(ctx, never) })
	}
	return t, nil
}

func (t *Traffic) open(guest, station *lab.Host) (err error) {
	if t.out.Wire, err = guest.SendingWire(); err != nil {
		return err
	}
	if t.in.Wire, err = station.SendingWire(); err != nil {
		return err
	}
	if t.Guest, err = NewMeter(guest); err != nil {
		return err
	}
	if t.Station, err = NewMeter(station); err != nil {
		return err
	}
	t.overflows, err = t.l.overflows()
	return err
}

// Sent returns how many frames were sent so far, each way.
func (t *Traffic) Sent() (out, in uint64) { return t.out.Next.Load(), t.in.Next.Load() }

// Came returns how many frames arrived so far, each way.
func (t *Traffic) Came() (out, in uint64) {
	return t.Station.Report(t.out.Frame.Stream).Received, t.Guest.Report(t.in.Frame.Stream).Received
}

// Lost returns how many of the frames that were sent until now do not arrive. It
// waits for later ones, which all come behind them.
func (t *Traffic) Lost() (out, in uint64, err error) {
	sentOut, sentIn := t.Sent()
	const later = 1000
	err = t.AwaitFlow(later)
	return t.Station.LostBelow(t.out.Frame.Stream, sentOut), t.Guest.LostBelow(t.in.Frame.Stream, sentIn), err
}

// AwaitFlow returns when so many more frames have come, each way.
func (t *Traffic) AwaitFlow(frames uint64) error {
	const timeout, look = 20 * time.Second, time.Millisecond
	out, in := t.Came()
	for begin := time.Now(); time.Since(begin) < timeout; time.Sleep(look) {
		if outNow, inNow := t.Came(); outNow >= out+frames && inNow >= in+frames {
			return nil
		}
	}
	outNow, inNow := t.Came()
	return fmt.Errorf("of %d frames each way only %d and %d came within %v", frames, outNow-out, inNow-in, timeout)
}

// Stop ends the sending, waits for what is on its way, and returns what became of
// all.
func (t *Traffic) Stop() (Totals, error) {
	t.stop()
	t.sending.Wait()
	totals := Totals{For: time.Since(t.began)}
	t.awaitArrivals()
	overflows, err := t.l.overflows()
	totals.Lab = overflows - t.overflows
	for _, m := range []*Meter{t.Guest, t.Station} {
		drops, failed := m.ring.Drops()
		totals.Lab += drops
		err = errors.Join(err, failed)
	}
	totals.Out = way(&t.out, t.Station, t.Guest)
	totals.In = way(&t.in, t.Guest, t.Station)
	return totals, errors.Join(err, t.failed[0], t.failed[1], t.close())
}

// awaitArrivals returns when all have come, or when nothing came for a while.
func (t *Traffic) awaitArrivals() {
	const quiet, look = time.Second, 10 * time.Millisecond
	var came uint64
	for since := time.Now(); time.Since(since) < quiet; time.Sleep(look) {
		out, in := t.Came()
		if out >= t.out.Next.Load() && in >= t.in.Next.Load() {
			return
		}
		if out+in != came {
			came, since = out+in, time.Now()
		}
	}
}

func way(s *lab.Sender, to, from *Meter) Way {
	sent, id := s.Next.Load(), s.Frame.Stream
	w := Way{Sent: sent, Report: to.Report(id), Longest: to.Longest(id), Missing: to.Missing(id, sent, 5)}
	back := from.Report(id)
	w.Lost, w.Returned = w.Report.Lost(sent), back.Received+back.Doubled
	return w
}

func (t *Traffic) close() error {
	var errs []error
	for _, w := range []lab.Wire{t.out.Wire, t.in.Wire} {
		if w != nil {
			errs = append(errs, w.Close())
		}
	}
	for _, m := range []*Meter{t.Guest, t.Station} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// overflows counts what the machine and the lab's taps lost for want of room.
func (l *Lab) overflows() (lost uint64, err error) {
	lost, err = backlogDrops()
	for _, m := range l.members {
		n, failed := m.Overflowed()
		if failed == nil { // else the tap is gone
			lost += n
		}
	}
	return lost, err
}

// backlogDrops counts the frames for which CPUs' backlogs had no room: the second
// word of each line (net/core/net-procfs.c: softnet_seq_show).
func backlogDrops() (drops uint64, err error) {
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		n, err := strconv.ParseUint(words[1], 16, 64)
		if err != nil {
			return 0, err
		}
		drops += n
	}
	return drops, nil
}
