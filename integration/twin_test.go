package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/twin"
)

// The size of the twin test. CI asks for more than the plain test.
var (
	twinSeed    = flag.Uint64("twin.seed", 1, "the first `seed` of the twin test")
	twinFrames  = flag.Int("twin.frames", 10_000, "how many frames the twin test sends")
	twinChanges = flag.Int("twin.changes", 150, "how many changes the twin test makes")
	twinVLAN    = flag.Bool("twin.vlan", false, "filter VLANs, which the kernel must be able to")
	twinFor     = flag.Duration("twin.for", 0, "go on with further seeds for so `long`")
	twinShare   = flag.Int("twin.share", 0, "the least share of fast frames among those of the eligible class, in `percent`")
	twinStop    = flag.Bool("twin.stop", true, "stop the daemon from before each change until the frames behind it have come")
	twinShrink  = flag.Int("twin.shrink", 100, "how `often` to try to make a failing script shorter; 0 keeps no case")
	twinWay     = flag.String("twin.redirect", "egress", "how shunt's frames leave: auto, egress or peer")
	twinHosts   = flag.Int("twin.hosts", 6, "how many hosts the twin test has")
)

// Nothing in what the hosts get, and nothing in the forwarding table, tells
// whether shunt is there.
func TestTwin(t *testing.T) {
	begin := time.Now()
	for seed := *twinSeed; ; seed++ {
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { testSeed(t, seed) })
		if !ok || time.Since(begin) >= *twinFor {
			return
		}
	}
}

func testSeed(t *testing.T, seed uint64) {
	mix := twin.Mix{Options: twinOptions(), Seed: seed, Changes: *twinChanges, Frames: *twinFrames}
	var done []twin.Step // to be shrunk
	var b *beside
	steps := func(yield func(twin.Step) bool) {
		for s := range twin.Generate(mix) {
			done = append(done, s)
			b.recount = b.recount || s[0] == "leave"
			if !yield(s) {
				return
			}
		}
	}
	b = startTwins(t, mix.Options)
	t.Logf("changes take effect with the next frame: %v", b.AtOnce)
	err := b.Run(steps)
	d, differ := errors.AsType[*twin.Difference](err)
	switch {
	case differ:
		t.Errorf("seed %d: the twins differ at %v", seed, d)
		keepCase(t, seed, mix.Options, done, d)
		return
	case err != nil:
		t.Fatalf("seed %d: %v", seed, err)
	}
	share := b.report(seed)
	if share < float64(*twinShare) {
		t.Errorf("only %.1f %% of the eligible class were fast: the test shows little", share)
	}
}

func twinOptions() twin.Options { return twin.Options{Hosts: *twinHosts, VLANs: *twinVLAN} }

// A script that once failed must not do so again.
func TestTwinCases(t *testing.T) {
	paths, err := filepath.Glob("testdata/twin/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no cases (%v)", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			steps, err := twin.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := startTwins(t, twinOptions()).Run(slices.Values(steps)); err != nil {
				t.Error(err)
			}
		})
	}
}

// beside is the twins with the daemon beside one of them.
type beside struct {
	*twin.Twins
	*daemon
	client *accel.Client

	// counted are the frames by reason since the start; last is what the daemon
	// said when it was asked last. A port that leaves takes its counters along:
	// recount.
	counted, last map[accel.Reason]uint64
	recount       bool
}

func startTwins(t *testing.T, o twin.Options) *beside {
	t.Helper()
	twins, err := twin.NewTwins(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := twins.Close(); err != nil {
			t.Error(err)
		}
	})
	d := launch(t, twins.With.Bridge, "--bridge", "br0", "--redirect", *twinWay)
	d.awaitReady()
	b := &beside{Twins: twins, daemon: d, client: accel.NewClient(d.socket), counted: make(map[accel.Reason]uint64)}
	twins.Daemon = b
	twins.Stopped = *twinStop
	twins.AtOnce = b.revokesAtOnce()
	return b
}

// revokesAtOnce asks the daemon whether every change takes effect with the next
// frame.
func (b *beside) revokesAtOnce() bool {
	b.t.Helper()
	status, err := b.client.Status(b.t.Context(), "br0")
	if err != nil || len(status.Bridges) != 1 || status.Bridges[0].Revocation == nil {
		b.t.Fatalf("the status %+v does not say how changes are noticed (%v)", status, err)
	}
	return status.Bridges[0].Revocation.AtOnce()
}

// Stop stops every thread of the daemon; the kernel tells its parent when the
// last one stands still.
func (b *beside) Stop() error {
	if err := b.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	for {
		err := unix.Waitid(unix.P_PID, b.cmd.Process.Pid, nil, unix.WSTOPPED, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Resume lets it go on.
func (b *beside) Resume() error { return b.cmd.Process.Signal(unix.SIGCONT) }

// settleTimeout bounds how long the daemon is waited for. It is not an error if
// it needs longer: then less is fast.
const settleTimeout = 20 * time.Second

// Settle gives the bridge an entry and waits until the daemon took it in, and
// with it everything before.
func (b *beside) Settle() error {
	if err := b.With.AddBarrier(); err != nil {
		return fmt.Errorf("add the barrier: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		rows, err := b.client.FDB(ctx, "br0")
		if err != nil {
			return fmt.Errorf("ask for the mirrored stations: %w\n%s", err, b.log)
		}
		if slices.ContainsFunc(rows, func(e accel.EntryV1) bool { return e.MAC == twin.BarrierMAC && e.Active }) {
			return errors.Join(b.With.RemoveBarrier(), b.count(ctx))
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the daemon did not take in the barrier within %v\n%s", settleTimeout, b.log)
		}
	}
}

// neverEligible are the reasons of frames that no bypass may take, however well it
// knows the table: the bridge drops them, keeps them, or they stay on their port.
var neverEligible = []accel.Reason{
	accel.SourceLocal, accel.DestinationLocal, accel.SamePort, accel.Isolated, accel.MTU,
	accel.SourceElsewhere, accel.VLANIngress, accel.VLANEgress,
}

// lastOfClass is the highest number of the reasons that are a frame's class.
const lastOfClass = accel.SourceUnknown - 1

// count adds up what became of the frames since it was asked last. What was sent
// around the leaving of a port is not counted: its counters are gone.
func (b *beside) count(ctx context.Context) error {
	rows, err := b.client.Reasons(ctx, "br0")
	if err != nil {
		return fmt.Errorf("ask for the reasons: %w", err)
	}
	now := make(map[accel.Reason]uint64)
	for _, r := range rows {
		now[r.Reason] = r.Frames
		if !b.recount {
			b.counted[r.Reason] += r.Frames - b.last[r.Reason]
		}
	}
	b.last, b.recount = now, false
	return nil
}

// report says what was done, and returns the share of fast frames among those of
// the eligible class, in percent.
func (b *beside) report(seed uint64) (share float64) {
	b.t.Helper()
	if err := b.Settle(); err != nil {
		b.t.Fatal(err)
	}
	var eligible uint64
	fast := b.counted[accel.Fast]
	for reason, frames := range b.counted {
		if reason == accel.Fast || reason > lastOfClass && !slices.Contains(neverEligible, reason) {
			eligible += frames
		}
	}
	if eligible > 0 {
		share = 100 * float64(fast) / float64(eligible)
	}
	b.t.Logf("seed %d: %d frames, %d delivered, %d changes (%d refused), %d fast of %d in the eligible class: %.1f %%",
		seed, b.Frames, b.Deliveries, b.Changes, b.Refused, fast, eligible, share)
	b.t.Logf("what became of them: %v", b.counted)
	return share
}

// shrinkTime bounds how long a failing script is made shorter.
const shrinkTime = 3 * time.Minute

// keepCase makes a failing script short and writes it where TestTwinCases finds
// it.
func keepCase(t *testing.T, seed uint64, o twin.Options, steps []twin.Step, d *twin.Difference) {
	t.Helper()
	if *twinShrink == 0 {
		return
	}
	begin := time.Now()
	words := d.Error()
	short := twin.Shrink(steps[:min(d.Step+1, len(steps))], *twinShrink, func(try []twin.Step) bool {
		if time.Since(begin) > shrinkTime {
			return false
		}
		d, failed := differs(t, o, slices.Values(try))
		if failed {
			words = d
		}
		return failed
	})
	text := twin.Format(short, fmt.Sprintf("seed %d", seed), words)
	path := filepath.Join("testdata", "twin", fmt.Sprintf("seed-%d.txt", seed))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Error(err)
	}
	t.Logf("made short, in %s:\n%s", path, text)
}

// differs runs a script in labs of its own and says how the twins differ, with
// the reasons that shunt counted for the last burst.
func differs(t *testing.T, o twin.Options, steps iter.Seq[twin.Step]) (words string, failed bool) {
	t.Run("shrink", func(t *testing.T) {
		b := startTwins(t, o)
		var d *twin.Difference
		if d, failed = errors.AsType[*twin.Difference](b.Run(steps)); failed {
			if err := b.Resume(); err != nil {
				t.Fatal(err)
			}
			words = fmt.Sprintf("%v\nshunt's reasons: %v", d, b.reasons())
		}
	})
	return words, failed
}
