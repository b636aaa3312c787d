package integration

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// The bridge learns from frames that it sees, and forgets a station whose
// frames it does not see: shunt must show it enough of them.
func TestTrap14_StationsInUseDoNotAge(t *testing.T) {
	const ageing, frames = 2 * time.Second, 20_000 // of each host, 2,000 a second
	o := lab.Options{Hosts: 2, Ageing: ageing}
	with, without := newLab(t, o), newLab(t, o)
	d := startDaemon(t, with)
	deleted := watchDeletes(t, with)
	senders, stop := talk(t, with, without)

	// All go on while it is looked, so that none ages because it was done first.
	for _, s := range senders {
		awaitWithin(t, 3*time.Minute, "every host has sent for long enough", func() bool { return s.Next.Load() >= frames })
	}
	inUse := []string{lab.MACOf(1).String(), lab.MACOf(2).String()}
	for _, mac := range deleted() {
		if slices.Contains(inUse, mac) {
			t.Errorf("the bridge forgot %s, which was in use", mac)
		}
	}
	got, want := entriesOf(t, with, inUse), entriesOf(t, without, inUse)
	stop()
	if !slices.Equal(got, want) {
		t.Errorf("the bridge has %+v, and without shunt it has %+v", got, want)
	}
	if len(want) != len(inUse) {
		t.Errorf("the bare bridge has %d of the %d stations", len(want), len(inUse))
	}
	if b := d.bridge(); b.Fast < 49*b.Slow || b.Fast < frames {
		t.Errorf("only %d frames were fast (%d slow): the test shows nothing", b.Fast, b.Slow)
	}
}

// talk lets both hosts of each lab send to each other until stop.
func talk(t *testing.T, labs ...*lab.Lab) (senders []*lab.Sender, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	for _, l := range labs {
		a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
		for stream, pair := range [][2]station{{a, b}, {b, a}} {
			s := &lab.Sender{
				Wire:  pair[0].wire,
				Frame: lab.Frame{Source: pair[0].mac, Destination: pair[1].mac, Stream: uint32(stream)},
				Pace:  lab.Pace{PerSecond: 2000},
			}
			senders = append(senders, s)
			working.Go(func() {
				if err := s.Send(ctx, 1<<40); err != nil {
					t.Error(err)
				}
			})
		}
	}
	stop = func() {
		cancel()
		working.Wait()
	}
	t.Cleanup(stop)
	return senders, stop
}

// watchDeletes returns a function that ends the watch and returns the addresses
// of the entries that the bridge deleted.
func watchDeletes(t *testing.T, l *lab.Lab) func() []string {
	t.Helper()
	updates, done := make(chan netlink.NeighUpdate, 1024), make(chan struct{})
	err := l.Bridge.Do(func() error { return netlink.NeighSubscribe(updates, done) })
	if err != nil {
		t.Fatal(err)
	}
	var deleted []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for u := range updates {
			if u.Type == unix.RTM_DELNEIGH && u.Family == unix.AF_BRIDGE {
				deleted = append(deleted, u.HardwareAddr.String())
			}
		}
	}()
	return func() []string {
		close(done)
		<-ended
		return deleted
	}
}

// entriesOf returns the bridge's rows for these addresses.
func entriesOf(t *testing.T, l *lab.Lab, macs []string) []lab.Entry {
	t.Helper()
	rows, err := l.FDB()
	if err != nil {
		t.Fatal(err)
	}
	rows = slices.DeleteFunc(rows, func(e lab.Entry) bool { return !slices.Contains(macs, e.MAC) })
	slices.SortFunc(rows, func(a, b lab.Entry) int { return strings.Compare(a.MAC, b.MAC) })
	return rows
}
