package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

const (
	// patience bounds every wait, in the machine's time, which jumps over idle time.
	patience = 2 * time.Minute
	// rate is that of each stream, in frames per second.
	rate = 1000
	// group is the name of the stable port, and of its group.
	group = "uplink"
)

// rig is a bridge with three hosts in the machine's own namespace. The third is
// behind the port that becomes a stable one.
type rig struct {
	lab    *lab.Lab
	client *accel.Client
	stream uint32 // the number of the last
}

func newRig() (*rig, error) {
	l, err := lab.New(lab.Options{Hosts: 3, Here: true})
	if err != nil {
		return nil, err
	}
	return &rig{lab: l, client: accel.NewClient(accel.DefaultSocket)}, addClsact(l.Hosts)
}

// addClsact gives the ports the qdisc that programs need where there is no tcx (Linux
// 6.6). While the kernel adds or removes one it stops the device's own queues, and
// what leaves by it just then is lost, with shunt or without (net/sched/sch_api.c:
// qdisc_graft): that is not what is asked here.
func addClsact(hosts []*lab.Host) error {
	release, err := output("uname", "-r")
	if err != nil || !strings.HasPrefix(release, "6.1.") {
		return err
	}
	for _, h := range hosts {
		if _, err := output("tc", "qdisc", "add", "dev", h.Port, "clsact"); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) stablePort() string { return r.lab.Hosts[2].Port }

// pairs are the hosts that talk, by their numbers in the lab.
var pairs = [][2]int{{0, 1}, {1, 0}, {0, 2}, {2, 0}}

// underTraffic runs a step while all hosts talk, and wants every frame to arrive.
func (r *rig) underTraffic(step func() error) func() error {
	return func() error {
		ctx, enough := context.WithCancel(context.Background())
		defer enough()
		var running sync.WaitGroup
		results := make([]result, len(pairs))
		begun := make(chan struct{}, len(pairs))
		for i, p := range pairs {
			from, to := r.lab.Hosts[p[0]], r.lab.Hosts[p[1]]
			r.stream++
			stream := r.stream
			running.Go(func() { results[i] = talk(ctx, from, to, stream, begun) })
		}
		for range pairs {
			<-begun
		}
		err := step()
		enough()
		running.Wait()
		return errors.Join(err, judge(results))
	}
}

// result is what became of a stream.
type result struct {
	sent   uint64
	report lab.Report
	err    error
}

// talk sends numbered frames until ctx ends.
func talk(ctx context.Context, from, to *lab.Host, stream uint32, begun chan<- struct{}) (r result) {
	out, err := from.SendingWire()
	if err != nil {
		begun <- struct{}{}
		return result{err: err}
	}
	defer out.Close()
	in, err := to.Wire()
	begun <- struct{}{}
	if err != nil {
		return result{err: err}
	}
	defer in.Close()
	s := &lab.Sender{
		Wire:  out,
		Frame: lab.Frame{Source: from.MAC, Destination: to.MAC, Stream: stream},
		Pace:  lab.Pace{PerSecond: rate, Gentle: true},
	}
	const never = 1 << 40
	r.report, r.err = lab.Run(ctx, s, never, in)
	r.sent = s.Next.Load()
	return r
}

// judge prints what became of all streams; a frame that is lost is a failure.
func judge(results []result) error {
	var sent, lost, doubled, reordered uint64
	var errs []error
	for _, r := range results {
		sent += r.sent
		lost += r.report.Lost(r.sent)
		doubled += r.report.Doubled
		reordered += r.report.Reordered
		errs = append(errs, r.err)
		if r.report.Drops > 0 {
			errs = append(errs, fmt.Errorf("the receiver dropped %d frames by itself", r.report.Drops))
		}
	}
	fmt.Printf("guest: %d frames, %d lost, %d twice, %d out of order\n", sent, lost, doubled, reordered)
	if lost > 0 {
		errs = append(errs, fmt.Errorf("%d of %d frames were lost", lost, sent))
	}
	return errors.Join(errs...)
}

func (r *rig) status() (accel.StatusV1, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.client.Status(ctx, "")
}

// awaitFast waits until a thousand frames more have taken the fast path.
func (r *rig) awaitFast() error {
	before, err := r.status()
	if err != nil {
		return err
	}
	return await("frames take the fast path", func() bool {
		now, err := r.status()
		return err == nil && now.Bridges[0].Fast > before.Bridges[0].Fast+1000
	})
}

func await(what string, holds func() bool) error {
	late := time.After(patience)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-late:
			return fmt.Errorf("it never was so: %s", what)
		}
	}
	return nil
}

// apt shows what it prints: that is what the operator sees.
func apt(what string, args ...string) error {
	text, err := output("apt-get", append([]string{what, "--yes", "--quiet", "--option=Dpkg::Use-Pty=0", "--no-install-recommends"}, args...)...)
	for line := range strings.Lines(text) {
		fmt.Print("apt: ", line[strings.LastIndex(line, "\r")+1:]) // what stays of a line
	}
	return err
}

// output is what a command prints on both, without the last newline.
func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, text)
	}
	return strings.TrimRight(string(text), "\n"), err
}

// wantOutput looks at what a command prints, whatever its exit code is.
func wantOutput(want, name string, args ...string) error {
	got, _ := output(name, args...)
	if got != want {
		return fmt.Errorf("%s %s: %q, want %q", name, strings.Join(args, " "), got, want)
	}
	return nil
}

// property is one of the service.
func property(name string) (string, error) {
	return output("systemctl", "show", "--property="+name, "--value", "shunt.service")
}
