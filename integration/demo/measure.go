package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/spantree"
	"github.com/shunt-dev/shunt/integration/traffic"
)

// Result is what the demo measured, and what -j prints. Rates and latencies are
// the medians of the rounds.
type Result struct {
	Rounds           int     `json:"rounds"`
	OffTCP           float64 `json:"off_tcp_bits_per_second"`
	OnTCP            float64 `json:"on_tcp_bits_per_second"`
	TCPRatio         float64 `json:"tcp_ratio"`
	OffUDP           float64 `json:"off_udp_frames_per_second"`
	OnUDP            float64 `json:"on_udp_frames_per_second"`
	UDPRatio         float64 `json:"udp_ratio"`
	OffP50           float64 `json:"off_latency_p50_microseconds"`
	OnP50            float64 `json:"on_latency_p50_microseconds"`
	OffP99           float64 `json:"off_latency_p99_microseconds"`
	OnP99            float64 `json:"on_latency_p99_microseconds"`
	FastFrames       uint64  `json:"fast_frames"`
	SlowFrames       uint64  `json:"slow_frames"`
	FastShare        float64 `json:"fast_share"`
	StreamFrames     uint64  `json:"stream_frames"`
	StreamSwitches   int     `json:"stream_switches"`
	StreamLost       uint64  `json:"stream_lost"`
	StreamDoubled    uint64  `json:"stream_doubled"`
	StreamOutOfOrder uint64  `json:"stream_out_of_order"`

	// The swaps of the uplink. The flip's time is the median.
	Swaps          int     `json:"swaps"`
	SwapFrames     uint64  `json:"swap_frames"`
	SwapLost       uint64  `json:"swap_lost"`
	SwapDoubled    uint64  `json:"swap_doubled"`
	SwapOutOfOrder uint64  `json:"swap_out_of_order"`
	SwapFlip       float64 `json:"swap_flip_microseconds"`
	SwapTraceID    string  `json:"swap_trace_id"`
	SwapTrace      []Span  `json:"swap_trace"` // of the last swap
}

const (
	rounds   = 3
	duration = 700 * time.Millisecond // of each measurement
)

// sample is one round with the fast path off, or on.
type sample struct {
	tcp, udp float64
	latency  latency
}

func (s *scene) measure(ctx context.Context) (r Result, err error) {
	var off, on []sample
	for n := range rounds {
		offNow, err := s.round(ctx, false, &r)
		if err != nil {
			return r, err
		}
		onNow, err := s.round(ctx, true, &r)
		if err != nil {
			return r, err
		}
		s.say("round %d of %d: TCP %s off, %s on; UDP %s off, %s on", n+1, rounds,
			bits(offNow.tcp), bits(onNow.tcp), frames(offNow.udp), frames(onNow.udp))
		off, on = append(off, offNow), append(on, onNow)
	}
	r.take(off, on)
	s.say("sending numbered frames while the fast path is switched off and on")
	if err := s.stream(ctx, &r); err != nil {
		return r, err
	}
	s.say("sending numbered frames both ways while the uplink is exchanged")
	return r, s.exchange(ctx, &r)
}

// round measures all three kinds of traffic with the fast path off or on.
func (s *scene) round(ctx context.Context, on bool, r *Result) (m sample, err error) {
	if _, err := s.client.Switch(ctx, "", on); err != nil {
		return m, err
	}
	a, b := s.lab.Host.Hosts[0], s.lab.Host.Hosts[1]
	fast, slow, err := s.counters(ctx)
	if err != nil {
		return m, err
	}
	if m.tcp, err = traffic.TCPThroughput(ctx, a, b, duration); err != nil {
		return m, fmt.Errorf("measure TCP: %w", err)
	}
	if m.udp, err = udpRate(ctx, a, b, duration); err != nil {
		return m, fmt.Errorf("measure UDP: %w", err)
	}
	if m.latency, err = roundTrips(ctx, a, b, duration); err != nil {
		return m, fmt.Errorf("measure the latency: %w", err)
	}
	if !on {
		return m, nil
	}
	fastNow, slowNow, err := s.counters(ctx)
	r.FastFrames += fastNow - fast
	r.SlowFrames += slowNow - slow
	return m, err
}

func (s *scene) counters(ctx context.Context) (fast, slow uint64, err error) {
	status, err := s.client.Status(ctx, lab.BridgeName)
	if err != nil {
		return 0, 0, err
	}
	for _, b := range status.Bridges {
		fast, slow = fast+b.Fast, slow+b.Slow
	}
	return fast, slow, nil
}

// take fills in the medians of the rounds.
func (r *Result) take(off, on []sample) {
	r.Rounds = len(on)
	r.OffTCP = median(off, func(s sample) float64 { return s.tcp })
	r.OnTCP = median(on, func(s sample) float64 { return s.tcp })
	r.OffUDP = median(off, func(s sample) float64 { return s.udp })
	r.OnUDP = median(on, func(s sample) float64 { return s.udp })
	r.TCPRatio, r.UDPRatio = r.OnTCP/r.OffTCP, r.OnUDP/r.OffUDP
	r.OffP50 = median(off, func(s sample) float64 { return microseconds(s.latency.p50) })
	r.OnP50 = median(on, func(s sample) float64 { return microseconds(s.latency.p50) })
	r.OffP99 = median(off, func(s sample) float64 { return microseconds(s.latency.p99) })
	r.OnP99 = median(on, func(s sample) float64 { return microseconds(s.latency.p99) })
	r.FastShare = float64(r.FastFrames) / float64(r.FastFrames+r.SlowFrames)
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func median[T any](samples []T, value func(T) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, value(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

const (
	streamFrames   = 40_000
	streamRate     = 20_000 // frames per second
	streamSwitches = 20
)

// stream sends numbered frames from one host to the other and switches the fast
// path meanwhile, evenly over the stream.
func (s *scene) stream(ctx context.Context, r *Result) error {
	from, err := s.lab.Host.Hosts[0].Wire()
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := s.lab.Host.Hosts[1].Wire()
	if err != nil {
		return err
	}
	defer to.Close()
	sender := &lab.Sender{
		Wire:  from,
		Frame: lab.Frame{Source: s.lab.Host.Hosts[0].MAC, Destination: s.lab.Host.Hosts[1].MAC, Stream: 1},
		Pace:  lab.Pace{PerSecond: streamRate},
	}
	switched := make(chan error, 1)
	go func() { switched <- s.switchDuring(ctx, sender) }()
	report, err := lab.Run(ctx, sender, streamFrames, to)
	if err := errors.Join(err, <-switched, ctx.Err()); err != nil {
		return err
	}
	r.StreamFrames, r.StreamSwitches = streamFrames, streamSwitches
	r.StreamLost, r.StreamDoubled, r.StreamOutOfOrder = report.Lost(streamFrames), report.Doubled, report.Reordered
	if report.Drops > 0 {
		return fmt.Errorf("the receiving socket was too small for %d frames, so the stream shows nothing: run demo again", report.Drops)
	}
	return nil
}

func (s *scene) switchDuring(ctx context.Context, sender *lab.Sender) error {
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for n := range streamSwitches {
		for sender.Next.Load() < uint64(n+1)*streamFrames/(streamSwitches+1) {
			select {
			case <-again.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if _, err := s.client.Switch(ctx, "", n%2 == 1); err != nil {
			return err
		}
	}
	return nil
}

// print writes the result for people, with the trace of the last swap, at most 80 columns
// wide.
func (r Result) print(out io.Writer, swap *spantree.Tree) error {
	line := "%-26s %14s %14s %9s\n"
	text := fmt.Sprintf("\n"+line, "", "bridge", "shunt", "ratio")
	text += fmt.Sprintf(line, "TCP throughput", bits(r.OffTCP), bits(r.OnTCP), ratio(r.OnTCP, r.OffTCP))
	text += fmt.Sprintf(line, "UDP, frames of 60 bytes", frames(r.OffUDP), frames(r.OnUDP), ratio(r.OnUDP, r.OffUDP))
	text += fmt.Sprintf(line, "round trip, p50", trip(r.OffP50), trip(r.OnP50), ratio(r.OnP50, r.OffP50))
	text += fmt.Sprintf(line, "round trip, p99", trip(r.OffP99), trip(r.OnP99), ratio(r.OnP99, r.OffP99))
	text += fmt.Sprintf("\nMedians of %d rounds, off and on in turn. TCP goes over the bridge in frames of\n"+
		"up to 64 kB, so that the bridge matters little for it.\n", r.Rounds)
	text += fmt.Sprintf("\nFast path: %.2f %% of %d frames while it was on.\n", math.Floor(10_000*r.FastShare)/100, r.FastFrames+r.SlowFrames)
	text += fmt.Sprintf("Stream of %d numbered frames, the fast path switched %d times:\n%d lost, %d doubled, %d out of order.\n",
		r.StreamFrames, r.StreamSwitches, r.StreamLost, r.StreamDoubled, r.StreamOutOfOrder)
	text += fmt.Sprintf("\nUplink exchanged %d times under %d numbered frames, both ways:\n"+
		"%d lost, %d doubled, %d out of order. Each flip is one store: it took %s.\n",
		r.Swaps, r.SwapFrames, r.SwapLost, r.SwapDoubled, r.SwapOutOfOrder, trip(r.SwapFlip))
	text += fmt.Sprintf("\nThe last exchange is trace %s:\n", r.SwapTraceID) + swap.Outline()
	_, err := io.WriteString(out, text)
	return err
}

func bits(perSecond float64) string    { return fmt.Sprintf("%.2f Gbit/s", perSecond/1e9) }
func frames(perSecond float64) string  { return fmt.Sprintf("%.0f k/s", perSecond/1e3) }
func trip(microseconds float64) string { return fmt.Sprintf("%.1f µs", microseconds) }
func ratio(on, off float64) string     { return fmt.Sprintf("%.2fx", on/off) }
