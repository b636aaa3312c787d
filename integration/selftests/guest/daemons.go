package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

const (
	shunt = "/selftests/shunt"
	// patience bounds every wait for a daemon, in the machine's time.
	patience = 60 * time.Second
	// interval is how often the counters are read, beside when the wrapper says
	// so.
	interval = 200 * time.Millisecond
)

// daemons are those of all network namespaces.
type daemons struct {
	wanted bool
	mu     sync.Mutex
	in     map[string]*daemon // by the name of the namespace; "" is init's
	total  tally
	failed []error
}

// daemon is one of them.
type daemon struct {
	cmd    *exec.Cmd
	client *accel.Client
	log    bytes.Buffer
	ended  chan struct{}
	ports  map[port]traffic
}

// port is a port of a bridge as long as both are there.
type port struct {
	bridge  string
	ifindex int
}

// traffic is what the daemon counted for it.
type traffic struct{ fast, slow uint64 }

// tally is what is told in the end.
type tally struct {
	traffic
	reasons map[string]bool // why bridges were not eligible
}

func newDaemons(wanted bool) *daemons {
	d := &daemons{wanted: wanted, in: make(map[string]*daemon), total: tally{reasons: make(map[string]bool)}}
	if wanted {
		go func() {
			for range time.Tick(interval) {
				d.count()
			}
		}()
	}
	return d
}

// enter starts the namespace's daemon and returns when it is ready.
func (d *daemons) enter(namespace string) error {
	if !d.wanted {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.in[namespace] != nil {
		return nil
	}
	started, err := start(namespace)
	if err != nil {
		return fmt.Errorf("start shunt in namespace %q: %w", namespace, err)
	}
	d.in[namespace] = started
	return nil
}

// start uses nsenter, since ip netns exec hides the BPF filesystem.
func start(namespace string) (*daemon, error) {
	path := "/run/shunt-" + namespace + ".sock"
	args := []string{shunt, "run", "--all-bridges", "--socket", path}
	if namespace != "" {
		args = append([]string{"nsenter", "--net=/run/netns/" + namespace}, args...)
	}
	d := &daemon{
		cmd: exec.Command(args[0], args[1:]...), client: accel.NewClient(path),
		ended: make(chan struct{}), ports: make(map[port]traffic),
	}
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.ended)
		d.cmd.Wait()
	}()
	return d, d.awaitReady()
}

func (d *daemon) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if status, err := d.client.Status(ctx, ""); err == nil && status.Ready {
			return nil
		}
		select {
		case <-d.ended:
			return d.failure("it ended")
		case <-ctx.Done():
			return d.failure("it was not ready in time")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (d *daemon) failure(how string) error {
	if how != "it ended" {
		d.cmd.Process.Kill()
		<-d.ended
	}
	return fmt.Errorf("%s: %v: %s", how, d.cmd.ProcessState, bytes.TrimSpace(d.log.Bytes()))
}

// leave ends the namespace's daemon, if it has one.
func (d *daemons) leave(namespace string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	running := d.in[namespace]
	if running == nil {
		return nil
	}
	delete(d.in, namespace)
	err := running.end(&d.total)
	if err != nil {
		err = fmt.Errorf("shunt in namespace %q: %w", namespace, err)
		d.failed = append(d.failed, err)
	}
	return err
}

// end reads the counters for the last time and stops the daemon, which must
// have worked until now and end well.
func (d *daemon) end(total *tally) error {
	select {
	case <-d.ended:
		return d.failure("it ended")
	default:
	}
	d.count(total)
	for _, t := range d.ports {
		total.add(t)
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(patience):
		return d.failure("it did not stop in time")
	}
	if !d.cmd.ProcessState.Success() {
		return d.failure("it ended")
	}
	return nil
}

// count reads the counters of all daemons.
func (d *daemons) count() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, running := range d.in {
		running.count(&d.total)
	}
}

// count reads the daemon's counters. A port whose counters went back has
// become another one, and what it had is added up. One that went between two
// looks is missed: the sum is the least that it can be.
func (d *daemon) count(total *tally) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, err := d.client.Status(ctx, "")
	if err != nil {
		return // it has ended, which end finds, or is starting
	}
	for _, b := range status.Bridges {
		if !b.Eligible {
			total.reasons[b.Reason.String()] = true
		}
	}
	ports, err := d.client.Ports(ctx, "")
	if err != nil {
		return
	}
	for _, p := range ports {
		key, now := port{p.Bridge, p.Ifindex}, traffic{p.Fast, p.Slow}
		if before := d.ports[key]; now.fast < before.fast || now.slow < before.slow {
			total.add(before)
		}
		d.ports[key] = now
	}
}

func (t *tally) add(more traffic) {
	t.fast += more.fast
	t.slow += more.slow
}

// end stops all daemons and tells the host what they did.
func (d *daemons) end() error {
	if !d.wanted {
		return nil
	}
	for _, namespace := range d.names() {
		d.leave(namespace) // its error is among the failed
	}
	fmt.Println("guest: frames", d.total.fast, d.total.slow)
	fmt.Println("guest: reasons", slices.Sorted(maps.Keys(d.total.reasons)))
	return errors.Join(d.failed...)
}

func (d *daemons) names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.in))
}
