package integration

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// The bridge learns from frames that it sees, and forgets a station whose
// frames it does not see: shunt must show it enough of them.
func TestTrap14_StationsInUseDoNotAge(t *testing.T) {
	const ageing, duration, perSecond = 2 * time.Second, 10 * time.Second, 2000
	o := lab.Options{Hosts: 2, Ageing: ageing}
	with, without := newLab(t, o), newLab(t, o)
	d := startDaemon(t, with)

	deleted := watchDeletes(t, with)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	bareDone := make(chan error, 1)
	go func() { bareDone <- talk(ctx, t, without, perSecond*uint64(duration/time.Second)) }()
	if err := talk(ctx, t, with, perSecond*uint64(duration/time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := <-bareDone; err != nil {
		t.Fatal(err)
	}

	if b := d.bridge(); b.Fast < 2*perSecond*uint64(duration/time.Second)*98/100 {
		t.Errorf("only %d frames were fast (%d slow): the test shows nothing", b.Fast, b.Slow)
	}
	inUse := []string{lab.MACOf(1).String(), lab.MACOf(2).String()}
	for _, mac := range deleted() {
		if slices.Contains(inUse, mac) {
			t.Errorf("the bridge forgot %s, which was in use", mac)
		}
	}
	got, want := entriesOf(t, with, inUse), entriesOf(t, without, inUse)
	if !slices.Equal(got, want) {
		t.Errorf("the bridge has %+v, and without shunt it has %+v", got, want)
	}
	if len(want) != len(inUse) {
		t.Errorf("the bare bridge has %d of the %d stations", len(want), len(inUse))
	}
}

// talk lets both hosts of a lab send to each other at once.
func talk(ctx context.Context, t *testing.T, l *lab.Lab, frames uint64) error {
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	send := func(from, to station, stream uint32) error {
		s := &lab.Sender{
			Wire:  from.wire,
			Frame: lab.Frame{Source: from.mac, Destination: to.mac, Stream: stream},
			Pace:  lab.Pace{PerSecond: 2000},
		}
		return s.Send(ctx, frames)
	}
	back := make(chan error, 1)
	go func() { back <- send(b, a, 2) }()
	if err := send(a, b, 1); err != nil {
		return err
	}
	return <-back
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
