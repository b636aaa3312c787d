package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/beside"
	"github.com/shunt-dev/shunt/integration/lab"
)

// bench is two equal labs, each a bridge with two hosts, and a daemon beside one of them.
type bench struct {
	probes   []probe
	rounds   int
	duration time.Duration
	redirect string // how frames leave the bridge with shunt; "" is egress
	progress *progress

	sides  [2]*side
	daemon *beside.Daemon // beside sides[served]
	served int
	status accel.BridgeV1 // of the bridge with shunt, when it was ready
	attach string         // of its ports
	// brNetfilter says whether the bridges ask it about each frame of IP.
	brNetfilter bool

	// series are what was measured, by probe and round, and repeated is how many
	// measurements were not taken and made again.
	series   [][]pair
	repeated int
}

// side is one lab with the meters of the probes.
type side struct {
	lab    *lab.Lab
	meters []meter
}

// pair is what was measured of a probe in one round, by metric. Another way to forward,
// such as straight to the far end of a veth, would be a third column here.
type pair struct {
	off, on []float64
	// sending is the rate of sending by itself; 0 for what is not frames.
	sending    float64
	fast, slow uint64 // frames, with shunt
}

func (b *bench) build() error {
	b.progress.say("building two bridges")
	for n := range b.sides {
		b.sides[n] = &side{}
		if err := b.sides[n].build(b.probes); err != nil {
			return fmt.Errorf("build a bridge with hosts: %w", err)
		}
	}
	b.series = make([][]pair, len(b.probes))
	return b.sides[0].lab.Bridge.Do(func() error {
		_, err := os.Stat("/proc/sys/net/bridge")
		b.brNetfilter = err == nil
		return nil
	})
}

func (s *side) build(probes []probe) (err error) {
	if s.lab, err = lab.New(lab.Options{Hosts: 2}); err != nil {
		return err
	}
	for _, p := range probes {
		m, err := p.open(s.lab)
		if err != nil {
			return err
		}
		s.meters = append(s.meters, m)
	}
	return nil
}

// remove ends the daemon, which takes its programs along, and the namespaces.
func (b *bench) remove() error {
	b.progress.end()
	errs := []error{b.stop()}
	for _, s := range b.sides {
		if s == nil {
			continue
		}
		for _, m := range s.meters {
			errs = append(errs, m.close())
		}
		if s.lab != nil {
			errs = append(errs, s.lab.Close())
		}
	}
	return errors.Join(errs...)
}

// turn is how a round is done.
type turn struct {
	served     int // beside which lab shunt is
	shuntFirst bool
}

// schedule alternates who is first, so that what comes and goes hits both, and lets the
// labs change places half way: no two are quite alike to the CPU's caches.
func schedule(rounds int) (turns []turn) {
	for n := range rounds {
		turns = append(turns, turn{served: 2 * n / rounds, shuntFirst: n%2 == 1})
	}
	return turns
}

// compare makes all rounds.
func (b *bench) compare(ctx context.Context) error {
	for n, t := range schedule(b.rounds) {
		if b.daemon == nil || t.served != b.served {
			b.progress.say("starting shunt")
			if err := b.serve(ctx, t.served); err != nil {
				return err
			}
		}
		if err := b.announce(); err != nil {
			return err
		}
		for i, p := range b.probes {
			b.progress.say("round %d of %d: %s", n+1, b.rounds, p.metrics[0].title)
			measured, err := b.pairOnFastPath(ctx, i, b.duration, t.shuntFirst)
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", n+1, p.metrics[0].title, err)
			}
			b.series[i] = append(b.series[i], measured)
		}
	}
	return nil
}

// tries are how often a measurement is tried. What others do to the host, such as a
// firewall that starts, may keep the fast path shut for a moment.
const tries = 3

// pairOnFastPath repeats a pair in which frames did not take the path that they should.
func (b *bench) pairOnFastPath(ctx context.Context, probe int, d time.Duration, shuntFirst bool) (p pair, err error) {
	for range tries {
		var astray *astrayError
		if p, err = b.pair(ctx, probe, d, shuntFirst); !errors.As(err, &astray) {
			return p, err
		}
		b.repeated++
		if late := b.awaitReady(ctx); late != nil {
			return p, errors.Join(err, late)
		}
	}
	return p, err
}

// astrayError is that frames did not take the fast path.
type astrayError struct{ why string }

func (e *astrayError) Error() string { return e.why + ": their figure says nothing" }

// pair measures a probe over both bridges, one right after the other.
func (b *bench) pair(ctx context.Context, probe int, d time.Duration, shuntFirst bool) (p pair, err error) {
	bridge := func() (err error) {
		p.off, err = b.sides[1-b.served].measure(ctx, probe, d)
		return err
	}
	shunt := func() (err error) {
		p.fast, p.slow, err = b.watch(ctx, func() (err error) {
			p.on, err = b.sides[b.served].measure(ctx, probe, d)
			return err
		})
		return err
	}
	first, second := bridge, shunt
	if shuntFirst {
		first, second = shunt, bridge
	}
	if err := first(); err != nil {
		return p, err
	}
	if err := second(); err != nil {
		return p, err
	}
	if m, ok := b.sides[1-b.served].meters[probe].(*frameMeter); ok {
		p.sending, err = m.sending(ctx, d)
	}
	return p, err
}

func (s *side) measure(ctx context.Context, probe int, d time.Duration) ([]float64, error) {
	figures, err := s.meters[probe].measure(ctx, d)
	if err != nil {
		return nil, err
	}
	return figures, checkFigures(figures)
}

// checkFigures wants all to be above 0: with others there is no ratio.
func checkFigures(figures []float64) error {
	for _, figure := range figures {
		if !(figure > 0) {
			return errors.New("nothing arrived")
		}
	}
	return nil
}

// watch counts the frames that took either path while f ran, and wants them to have taken
// the fast one.
func (b *bench) watch(ctx context.Context, f func() error) (fast, slow uint64, err error) {
	before, err := b.daemon.Client().Snapshot(ctx, lab.BridgeName)
	if err != nil {
		return 0, 0, err
	}
	if err := f(); err != nil {
		return 0, 0, err
	}
	after, err := b.daemon.Client().Snapshot(ctx, lab.BridgeName)
	if err != nil {
		return 0, 0, err
	}
	return checkPath(framesBy(before), framesBy(after))
}

// framesBy are the frames that were counted, by reason.
func framesBy(s accel.SnapshotV1) map[accel.Reason]uint64 {
	frames := make(map[accel.Reason]uint64)
	for _, r := range s.Reasons {
		frames[r.Reason] = r.Frames
	}
	return frames
}

// allowedSlow is how many frames of a short measurement may take the bridge: one of each
// station is due there now and then, and so is what asks for addresses. Of a long one it
// is one in a hundred.
const allowedSlow = 16

// checkPath returns how many frames took each path between two counts. If those are not
// what they should be, the fast path is not what was measured.
func checkPath(before, after map[accel.Reason]uint64) (fast, slow uint64, err error) {
	var most accel.Reason
	var frames uint64
	for reason, n := range after {
		n -= before[reason]
		if reason == accel.Fast {
			fast = n
			continue
		}
		if slow += n; n > frames {
			most, frames = reason, n
		}
	}
	switch {
	case fast == 0 && slow == 0:
		return 0, 0, &astrayError{"shunt saw no frame at all"}
	case slow > max(allowedSlow, (fast+slow)/100) || fast == 0:
		return fast, slow, &astrayError{fmt.Sprintf("with shunt only %s of %d frames took the fast path; the most frequent reason of the others is %s (%s)",
			accel.FormatShare(fast, fast+slow), fast+slow, most, most.Text())}
	}
	return fast, slow, nil
}

// configuration is that of the daemon, in YAML.
func (b *bench) configuration() string {
	return fmt.Sprintf("bridges: [%s]\nredirect: %s\n", lab.BridgeName, cmp.Or(b.redirect, accel.RedirectEgress))
}

// serve moves the daemon to a side, and warms up.
func (b *bench) serve(ctx context.Context, which int) (err error) {
	if err := b.stop(); err != nil {
		return err
	}
	b.served = which
	if b.daemon, err = beside.Start(b.sides[which].lab.Bridge, b.configuration(), beside.Environment()); err != nil {
		return err
	}
	if err := b.announce(); err != nil {
		return err
	}
	if err := b.awaitReady(ctx); err != nil {
		return err
	}
	for i := range b.probes {
		if _, err := b.pairOnFastPath(ctx, i, b.duration/10, false); err != nil {
			return fmt.Errorf("warm up, %s: %w", b.probes[i].metrics[0].title, err)
		}
	}
	return nil
}

// awaitReady waits until frames would take the fast path.
func (b *bench) awaitReady(ctx context.Context) error {
	var why string
	err := b.daemon.AwaitReady(ctx, func(ctx context.Context) bool {
		why = b.notReady(ctx)
		return why == ""
	})
	if err != nil && why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}

// notReady says why frames would not take the fast path yet; empty if they would. It
// takes down how shunt works here.
func (b *bench) notReady(ctx context.Context) string {
	client := b.daemon.Client()
	s, err := client.Snapshot(ctx, lab.BridgeName)
	if err != nil {
		return err.Error()
	}
	if len(s.Status.Bridges) != 1 || len(s.Ports) != len(b.sides[b.served].lab.Hosts) {
		return fmt.Sprintf("it knows %d bridges and %d ports", len(s.Status.Bridges), len(s.Ports))
	}
	b.status, b.attach = s.Status.Bridges[0], s.Ports[0].Attach
	if !b.status.Eligible {
		return "the bridge is not eligible: " + b.status.Text + "; " + b.status.Advice
	}
	for _, p := range s.Ports {
		if p.In != accel.Fast || p.Out != accel.Fast {
			return fmt.Sprintf("port %s is not eligible: %s, %s", p.Port, p.In, p.Out)
		}
	}
	stations, err := client.FDB(ctx, lab.BridgeName)
	if err != nil {
		return err.Error()
	}
	missing := map[string]bool{lab.MACOf(1).String(): true, lab.MACOf(2).String(): true, station.String(): true}
	for _, s := range stations {
		if s.Active {
			delete(missing, s.MAC.String())
		}
	}
	for mac := range missing {
		return "station " + mac + " is not on the fast path"
	}
	return b.notFast(ctx)
}

// notFast asks the data plane itself, which may know of a change that the daemon has not
// looked at yet.
func (b *bench) notFast(ctx context.Context) string {
	e, err := b.daemon.Client().Explain(ctx, url.Values{
		"in": {b.sides[b.served].lab.Hosts[0].Port}, "src": {lab.MACOf(1).String()}, "dst": {station.String()},
	})
	if err != nil {
		return err.Error()
	}
	if e.Reason != accel.Fast && e.Reason != accel.Keepalive {
		return fmt.Sprintf("frames take the bridge: %s (%s)", e.Reason, e.Text)
	}
	return ""
}

func (b *bench) stop() error {
	if b.daemon == nil {
		return nil
	}
	daemon := b.daemon
	b.daemon = nil
	return daemon.Stop()
}

// announce lets both bridges hear of every station.
func (b *bench) announce() error {
	for _, s := range b.sides {
		first, second := s.lab.Hosts[0], s.lab.Hosts[1]
		for _, f := range []struct {
			from *lab.Host
			lab.Frame
		}{
			{first, lab.Frame{Source: first.MAC, Destination: second.MAC}},
			{second, lab.Frame{Source: second.MAC, Destination: first.MAC}},
			{second, lab.Frame{Source: station, Destination: first.MAC}},
		} {
			wire, err := f.from.SendingWire()
			if err != nil {
				return err
			}
			if err := s.lab.Deliver(wire, f.Bytes()); err != nil {
				return errors.Join(err, wire.Close())
			}
			if err := wire.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}
