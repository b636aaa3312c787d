package integration

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

func TestNothingIsLostWhileShuntComesAndGoes(t *testing.T) {
	for _, attach := range hooks() {
		t.Run(attach, func(t *testing.T) { testRestarts(t, attach) })
	}
}

func testRestarts(t *testing.T, attach string) {
	l := newLab(t, lab.Options{Hosts: 2})
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	if attach == "clsact" {
		addClsact(t, l, a.port, b.port)
	}
	d := startDaemon(t, l, "--attach", attach)
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	d.awaitActive(a.mac, b.mac)

	s := &lab.Sender{
		Wire:  a.wire,
		Frame: lab.Frame{Source: a.mac, Destination: b.mac, Stream: 3},
		Pace:  lab.Pace{PerSecond: 20_000},
	}
	ctx, enough := context.WithCancel(t.Context())
	report, failed := make(chan lab.Report, 1), make(chan error, 1)
	go func() {
		const never = 1 << 40
		r, err := lab.Run(ctx, s, never, b.wire)
		failed <- err
		report <- r
	}()

	fast := disturb(t, l, d, attach)
	const least = 50_000
	await(t, "enough frames are sent", func() bool { return s.Next.Load() >= least })
	enough()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	got := <-report
	if want := (lab.Report{Received: s.Next.Load()}); got != want {
		t.Errorf("of %d frames: %+v and %d lost", s.Next.Load(), got, got.Lost(s.Next.Load()))
	}
	t.Logf("%d frames whole; %d were fast before the last start", s.Next.Load(), fast)
}

// addClsact gives the ports the qdisc that clsact needs before the stream
// begins: while the kernel adds or removes one it stops the device's own queues,
// and frames that leave by it are lost, with shunt or without
// (net/sched/sch_api.c: qdisc_graft).
func addClsact(t *testing.T, l *lab.Lab, ports ...string) {
	t.Helper()
	err := l.Bridge.Do(func() error {
		for _, port := range ports {
			link, err := netlink.LinkByName(port)
			if err != nil {
				return err
			}
			qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
				LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
			}}
			if err := netlink.QdiscAdd(qdisc); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// disturb switches off and on, stops, kills and starts shunt under the stream.
// It returns how many frames the last of the killed daemons' programs sent fast.
func disturb(t *testing.T, l *lab.Lab, d *daemon, attach string) (fast uint64) {
	for range 20 {
		d.shunt("off")
		expectMoving(t, d, func(b accel.BridgeV1) uint64 { return b.Slow })
		d.shunt("on")
		expectMoving(t, d, func(b accel.BridgeV1) uint64 { return b.Fast })
	}
	for range 5 {
		d.stop()
		d = startDaemon(t, l, "--attach", attach)
		expectMoving(t, d, func(b accel.BridgeV1) uint64 { return b.Fast })
	}
	for range 5 {
		before := d.bridge()
		d.kill()
		d = startDaemon(t, l, "--attach", attach)
		expectMoving(t, d, func(b accel.BridgeV1) uint64 { return b.Fast })
		after := d.bridge()
		if after.Fast <= before.Fast {
			t.Errorf("the counters did not go on over SIGKILL: %d fast, then %d", before.Fast, after.Fast)
		}
		fast = after.Fast
	}
	return fast
}

// expectMoving waits until the counter grows.
func expectMoving(t *testing.T, d *daemon, counter func(accel.BridgeV1) uint64) {
	t.Helper()
	before := counter(d.bridge())
	await(t, "frames take the path that they should", func() bool { return counter(d.bridge()) > before })
}

// The lease is what stands between a daemon that died and a table that nobody
// keeps any more.
func TestLeaseEndsTheFastPathOfADeadDaemon(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	config := filepath.Join(t.TempDir(), "shunt.yaml")
	if err := os.WriteFile(config, []byte("lease: 2s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, l, "--config", config)
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	d.awaitActive(a.mac, b.mac)
	d.kill()

	const perSecond, lease = 20_000, 2 * time.Second
	s := &lab.Sender{
		Wire:  a.wire,
		Frame: lab.Frame{Source: a.mac, Destination: b.mac, Stream: 4},
		Pace:  lab.Pace{PerSecond: perSecond},
	}
	// Three seconds by the sender's clock, which is the lease's too.
	const frames = 3 * perSecond
	report, err := lab.Run(t.Context(), s, frames, b.wire)
	if err != nil {
		t.Fatal(err)
	}
	if want := (lab.Report{Received: frames}); report != want {
		t.Errorf("%+v, want %+v", report, want)
	}
	d = startDaemon(t, l)
	counted := d.reasons()
	t.Logf("%d fast within the lease, %d on the bridge after it", counted[accel.Fast], counted[accel.Lease])
	if most := uint64(perSecond * lease / time.Second); counted[accel.Fast] > most {
		t.Errorf("%d frames were fast, more than the %d of a lease", counted[accel.Fast], most)
	}
	if counted[accel.Fast] == 0 || counted[accel.Lease] == 0 {
		t.Errorf("the program counted %v, want frames both within the lease and after it", counted)
	}
}

// Where the kernel revokes by itself there is no lease: a daemon that was killed
// leaves the fast path, and what watches over it.
func TestDeadDaemonsFastPathIsRevoked(t *testing.T) {
	for name, change := range map[string]func(bridge, port netlink.Link) error{
		"state": func(_, port netlink.Link) error { return netlink.LinkSetDown(port) },
		"entry": func(_, port netlink.Link) error { return netlink.LinkSetNoMaster(port) },
		"bridge": func(bridge, _ netlink.Link) error {
			return netlink.LinkSetDown(bridge)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 2})
			at := []station{hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])}
			d := startDaemon(t, l)
			introduce(t, at[0].wire, at[0].mac, at[1].wire, at[1].mac)
			d.awaitActive(at[0].mac, at[1].mac)
			if weaker := d.bridge().Weaker; !d.bridge().Revocation.AtOnce() {
				t.Fatalf("this kernel needs a lease: %s", weaker)
			}
			d.kill()
			probe := lab.Frame{Source: at[0].mac, Destination: at[1].mac, Stream: 32}
			const frames = 10
			for range frames {
				expectAt(t, probe, at, []int{2})
			}
			err := l.Bridge.Do(func() error {
				bridge, err := netlink.LinkByName(lab.BridgeName)
				if err != nil {
					return err
				}
				port, err := netlink.LinkByName(at[1].port)
				if err != nil {
					return err
				}
				return change(bridge, port)
			})
			if err != nil {
				t.Fatal(err)
			}
			expectAt(t, probe, at, nil)

			// Only the next daemon can read what the programs counted.
			if fast := startDaemon(t, l).bridge().Fast; fast < frames-1 {
				t.Errorf("%d of %d frames were fast without the daemon: the test shows little", fast, frames)
			}
		})
	}
}
