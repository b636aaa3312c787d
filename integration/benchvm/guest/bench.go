package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/shunt-dev/shunt/integration/benchvm/rows"
)

const (
	// warmUp is the number of batches before the first that counts.
	warmUp = 8
	// batches is the number of those that count.
	batches = 101
	// rounds is how often a row is set up anew: where the kernel hashes by a random
	// number, as the bridge does, entries may share a bucket by chance.
	rounds = 5
)

// bench is the machine's two hosts.
type bench struct {
	there, back *sender // from host 1 and from host 2
	end         *ending // of host 2
}

func newBench() (*bench, error) {
	there, err := newSender("h1")
	if err != nil {
		return nil, err
	}
	back, err := newSender("h2")
	if err != nil {
		return nil, err
	}
	end, err := newEnding()
	return &bench{there, back, end}, err
}

// measure returns the median of all rounds. With shunt there is one: its fast path
// hashes by no random number. Slow rows have one too.
func (b *bench) measure(row rows.Row) (r rows.Result, err error) {
	wanted := rounds
	if row.Daemon != "" || row.Slow || row.Stations > 0 || os.Getenv("PROFILE") != "" {
		wanted = 1
	}
	r.Row = row.Key
	var counts []float64
	for range wanted {
		count, err := b.round(row)
		if err != nil {
			return r, err
		}
		counts = append(counts, count)
	}
	slices.Sort(counts)
	r.Count = counts[len(counts)/2]
	return r, nil
}

// round sets the row up, measures it and takes it away.
func (b *bench) round(row rows.Row) (count float64, err error) {
	if err := shell(row.Setup); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, shell(row.Undo)) }()
	if row.Datapath {
		o, err := newOpenVSwitch()
		if err != nil {
			return 0, err
		}
		defer o.close()
	}
	if row.Program != "" {
		p, err := attach(row.Program)
		if err != nil {
			return 0, err
		}
		defer p.detach()
	}
	if err := b.learn(row); err != nil {
		return 0, err
	}
	d, err := startDaemon(row)
	if err != nil {
		return 0, err
	}
	defer d.stop()
	if err := b.ready(row, d); err != nil {
		return 0, err
	}
	count, err = b.count(row, d)
	if err == nil && os.Getenv("PROFILE") != "" {
		err = b.profile(row.Key)
	}
	return count, err
}

// learn shows the hosts to what is between them: host 1, and all that are behind p2.
func (b *bench) learn(row rows.Row) error {
	back := row.Back
	if back == "" {
		back = row.Frame
	}
	for first := 0; first < max(row.Stations, 1); first += batch {
		n := min(batch, max(row.Stations, 1)-first)
		b.back.fill(func(i int) []byte { return frameOf(back, destination(first+i), source) })
		if _, err := b.back.send(n); err != nil {
			return err
		}
	}
	b.there.fill(func(int) []byte { return frameOf(row.Frame, source, destination(0)) })
	_, err := b.there.send(1)
	return err
}

// ready returns when frames go the way that the row is about.
func (b *bench) ready(row rows.Row, d *daemon) error {
	switch {
	case d == nil:
		return nil
	case row.Off:
		return d.turnOff()
	case row.Over != "":
		return d.await("attached", func() (bool, error) { return d.attached(2) })
	}
	return d.await("fast", func() (bool, error) {
		if row.Stations > 0 {
			mirrored, err := d.mirrored(row.Stations)
			if err != nil || !mirrored {
				return false, err
			}
		} else if err := b.learn(row); err != nil { // a stable port comes with the daemon
			return false, err
		}
		before, err := d.fast()
		if err != nil {
			return false, err
		}
		if _, err := b.there.send(1); err != nil {
			return false, err
		}
		after, err := d.fast()
		return after > before, err
	})
}

// count returns the median of the instructions for one frame.
func (b *bench) count(row rows.Row, d *daemon) (float64, error) {
	flows := max(row.Flows, 1)
	before, err := d.fast()
	if err != nil {
		return 0, err
	}
	var times []time.Duration
	skipped := max(warmUp, 2*flows/batch) // whoever remembers flows has met each twice
	for n := range skipped + batches {
		b.there.fill(func(i int) []byte { return frameOf(row.Frame, source, destination((n*batch+i)%flows)) })
		took, err := b.there.send(batch)
		if err != nil {
			return 0, fmt.Errorf("send batch %d: %w", n, err)
		}
		if n >= skipped {
			times = append(times, took)
		}
	}
	if row.IsFast() {
		if err := d.checkFast(before, uint64(skipped+batches)*batch); err != nil {
			return 0, err
		}
	}
	if err := b.checkArrival(row); err != nil {
		return 0, err
	}
	slices.Sort(times)
	return float64(times[len(times)/2].Nanoseconds()) / batch, nil
}

// checkArrival sends one more batch and looks that all of it comes to host 2, or
// nothing where it is dropped.
func (b *bench) checkArrival(row rows.Row) error {
	arrived, err := b.end.arrivals(func() error {
		_, err := b.there.send(batch)
		return err
	})
	if err != nil {
		return err
	}
	want := uint64(batch)
	if row.Program == rows.Drop {
		want = 0
	}
	if arrived != want {
		return fmt.Errorf("%d of %d frames arrived, want %d", arrived, batch, want)
	}
	return nil
}
