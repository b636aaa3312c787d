package swaplab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
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

// Pace is what the tests of swaps send each way.
var Pace = lab.Pace{PerSecond: 20_000, Burst: 32, Gentle: true}

// Stream is numbered frames one way.
type Stream struct {
	// To and From count what comes to the host that the frames are for, and what
	// comes back to the one that sends them.
	To, From *Meter

	sender  lab.Sender
	stopped context.CancelFunc
	sending sync.WaitGroup
	failed  error
}

// Way is what became of a stream.
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

// StartStream sends from one host to a station at the other until Stop: the other
// itself, or who is thought to be there.
func StartStream(from, to *lab.Host, station net.HardwareAddr, id uint32, pace lab.Pace) (s *Stream, err error) {
	s = newStream(from, station, id, pace)
	if s.From, err = NewMeter(from); err != nil {
		return nil, err
	}
	if s.To, err = NewMeter(to); err != nil {
		return nil, errors.Join(err, s.From.Close())
	}
	if err := s.start(from); err != nil {
		return nil, errors.Join(err, s.From.Close(), s.To.Close())
	}
	return s, nil
}

func newStream(from *lab.Host, station net.HardwareAddr, id uint32, pace lab.Pace) *Stream {
	frame := lab.Frame{Source: from.MAC, Destination: station, Stream: id}
	return &Stream{sender: lab.Sender{Pace: pace, Frame: frame, CPU: int(id)}}
}

func (s *Stream) start(from *lab.Host) (err error) {
	if s.sender.Wire, err = from.SendingWire(); err != nil {
		return err
	}
	var ctx context.Context
	ctx, s.stopped = context.WithCancel(context.Background())
	s.sending.Go(func() {
		const never = 1 << 40
		s.failed = s.sender.Send(ctx, never)
	})
	return nil
}

// Sent returns how many frames were sent so far.
func (s *Stream) Sent() uint64 { return s.sender.Next.Load() }

// Came returns how many frames arrived so far.
func (s *Stream) Came() uint64 { return s.To.Report(s.sender.Frame.Stream).Received }

// AwaitFlow returns when so many more frames have come.
func (s *Stream) AwaitFlow(frames uint64) error {
	const timeout, look = 20 * time.Second, time.Millisecond
	before := s.Came()
	for begin := time.Now(); time.Since(begin) < timeout; time.Sleep(look) {
		if s.Came() >= before+frames {
			return nil
		}
	}
	return fmt.Errorf("of %d frames of stream %d only %d came within %v", frames, s.sender.Frame.Stream, s.Came()-before, timeout)
}

// Lost returns how many of the frames that were sent until now do not arrive. It
// waits for later ones, which come behind them.
func (s *Stream) Lost() (uint64, error) {
	const later = 1000
	sent := s.Sent()
	err := s.AwaitFlow(later)
	return s.To.LostBelow(s.sender.Frame.Stream, sent), err
}

// Stop ends the sending, waits for what is on its way, and returns what became of
// all. Stopping twice is no error.
func (s *Stream) Stop() (Way, error) {
	s.endSending()
	s.awaitArrivals()
	return s.way(), errors.Join(s.failed, s.From.Close(), s.To.Close())
}

func (s *Stream) endSending() {
	s.stopped()
	s.sending.Wait()
	s.sender.Wire.Close()
}

// awaitArrivals returns when all have come, or when none came for a while.
func (s *Stream) awaitArrivals() {
	const quiet, look = time.Second, 10 * time.Millisecond
	came := s.Came()
	for since := time.Now(); s.Came() < s.Sent() && time.Since(since) < quiet; time.Sleep(look) {
		if now := s.Came(); now != came {
			came, since = now, time.Now()
		}
	}
}

func (s *Stream) way() Way {
	const most = 5
	sent, id := s.Sent(), s.sender.Frame.Stream
	w := Way{Sent: sent, Report: s.To.Report(id), Longest: s.To.Longest(id), Missing: s.To.Missing(id, sent, most)}
	back := s.From.Report(id)
	w.Lost, w.Returned = w.Report.Lost(sent), back.Received+back.Doubled
	return w
}

// Traffic is a stream each way between a guest and a station.
type Traffic struct {
	Out, In *Stream

	l      *Lab
	meters []*Meter
	began  time.Time
	before uint64 // overflows
}

// Totals are what became of the frames of both ways.
type Totals struct {
	Out, In Way
	// Lab counts frames that the lab itself lost: a receiver's ring, a CPU's
	// backlog or a tap's queue was full. They are among the lost ones.
	Lab uint64
	For time.Duration
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
	t = &Traffic{l: l, Out: newStream(guest, station.MAC, out, pace), In: newStream(station, guest.MAC, out+1, pace)}
	for _, h := range []*lab.Host{guest, station} {
		m, err := NewMeter(h)
		if err != nil {
			return nil, errors.Join(err, t.closeMeters())
		}
		t.meters = append(t.meters, m)
	}
	t.Out.From, t.In.From = t.meters[0], t.meters[1]
	t.Out.To, t.In.To = t.meters[1], t.meters[0]
	if t.before, err = l.overflows(); err != nil {
		return nil, errors.Join(err, t.closeMeters())
	}
	t.began = time.Now()
	if err := t.Out.start(guest); err != nil {
		return nil, errors.Join(err, t.closeMeters())
	}
	if err := t.In.start(station); err != nil {
		t.Out.endSending()
		return nil, errors.Join(err, t.closeMeters())
	}
	return t, nil
}

func (t *Traffic) closeMeters() error {
	var errs []error
	for _, m := range t.meters {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// AwaitFlow returns when so many more frames have come, each way.
func (t *Traffic) AwaitFlow(frames uint64) error {
	return errors.Join(t.Out.AwaitFlow(frames), t.In.AwaitFlow(frames))
}

// Lost returns how many of the frames that were sent until now do not arrive.
func (t *Traffic) Lost() (out, in uint64, err error) {
	out, err = t.Out.Lost()
	in, failed := t.In.Lost()
	return out, in, errors.Join(err, failed)
}

// Stop ends the sending, waits for what is on its way, and returns what became of
// all. Stopping twice is no error.
func (t *Traffic) Stop() (totals Totals, err error) {
	t.Out.endSending()
	t.In.endSending()
	totals.For = time.Since(t.began)
	t.Out.awaitArrivals()
	t.In.awaitArrivals()
	totals.Out, totals.In = t.Out.way(), t.In.way()
	overflows, err := t.l.overflows()
	totals.Lab = overflows - t.before
	for _, m := range t.meters {
		drops, failed := m.Drops()
		totals.Lab += drops
		err = errors.Join(err, failed)
	}
	return totals, errors.Join(err, t.Out.failed, t.In.failed, t.closeMeters())
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
