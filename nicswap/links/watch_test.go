package links

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watch runs the watcher until the test ends, and returns its events.
func watch(t *testing.T, w *Watcher) <-chan Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, done := make(chan Event, 10000), make(chan error, 1)
	go func() { done <- w.Run(ctx, func(e Event) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return events
}

// await takes events until one is as it should be.
func await(t *testing.T, events <-chan Event, what string, is func(Event) bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case e := <-events:
			if is(e) {
				return
			}
		case <-timeout:
			t.Fatalf("there is no event: %s", what)
		}
	}
}

func TestWatch(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	run(t, "ip link add br0 type bridge")
	w, err := l.Subscribe()
	must(t, err)
	run(t, "ip link set v1 up") // before it runs
	events := watch(t, w)
	v1 := l.named(t, "v1").Ifindex
	is := func(name string, up, carrier, gone bool) func(Event) bool {
		want := Event{Ifindex: v1, Name: name, Up: up, Carrier: carrier, Gone: gone}
		return func(e Event) bool {
			want.Running = e.Running // which follows later
			return e == want
		}
	}
	await(t, events, "up without a carrier", is("v1", true, false, false))
	must(t, l.SetUp(l.named(t, "v2").Ifindex, true))
	await(t, events, "carrier, and the kernel acted on it", func(e Event) bool {
		return e == Event{Ifindex: v1, Name: "v1", Up: true, Carrier: true, Running: true}
	})
	if got := l.named(t, "v1"); !got.Running {
		t.Errorf("it is running, and not: %+v", got)
	}
	must(t, l.SetUp(l.named(t, "v2").Ifindex, false))
	await(t, events, "no carrier", is("v1", true, false, false))
	must(t, l.SetUp(v1, false))
	await(t, events, "down", is("v1", false, false, false))
	must(t, l.Rename(v1, "v7"))
	await(t, events, "renamed", is("v7", false, false, false))
	must(t, l.SetMaster(v1, l.named(t, "br0").Ifindex))
	must(t, l.SetMaster(v1, 0))
	must(t, l.SetMTU(v1, 1400)) // after it left the bridge
	await(t, events, "deleted, and not when it left the bridge", func(e Event) bool {
		if e.Ifindex == v1 && e.Gone {
			t.Error("it was gone when it left the bridge")
		}
		return e.Ifindex == v1 && e.Name == "v7" && l.mtu(t, v1) == 1400
	})
	for len(events) > 0 {
		if e := <-events; e.Gone {
			t.Errorf("gone: %+v", e)
		}
	}
	must(t, l.Delete(v1))
	await(t, events, "deleted", is("v7", false, false, true))
}

func (l *Links) mtu(t *testing.T, ifindex int) int {
	t.Helper()
	link, err := l.ByIndex(ifindex)
	must(t, err)
	return link.MTU
}

// TestOverrun: after events were lost one says so, and what happens later is told.
func TestOverrun(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	v1 := l.named(t, "v1").Ifindex
	w, err := subscribe(4096)
	must(t, err)
	for i := range 100 { // nobody takes them
		must(t, l.SetMTU(v1, 1000+i))
	}
	events := watch(t, w)
	all := 0
	await(t, events, "events were lost", func(e Event) bool {
		if e.All {
			all++
		} else {
			t.Errorf("of an incomplete queue comes %+v", e)
		}
		return e.All
	})
	must(t, l.SetUp(v1, true))
	await(t, events, "up, later", func(e Event) bool {
		if e.All {
			all++
		}
		return e.Ifindex == v1 && e.Up
	})
	if all != 1 {
		t.Errorf("it is said %d times", all)
	}
}

func TestWatchEnds(t *testing.T) {
	l := newLinks(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	must(t, l.Watch(ctx, func(e Event) { t.Errorf("an event: %+v", e) }))

	w, err := l.Subscribe()
	must(t, err)
	must(t, w.Close())
	if err := w.Run(context.Background(), func(Event) {}); err == nil {
		t.Error("a closed one runs")
	}
}

// TestEventThatCannotBeRead may have been about anything.
func TestEventThatCannotBeRead(t *testing.T) {
	m := question(t)
	m.Header.Type = unix.RTM_NEWLINK
	m.Data = m.Data[:unix.SizeofIfInfomsg-1]
	if e := decodeEvent(m); e != (Event{All: true}) {
		t.Errorf("it is %+v", e)
	}
}

func TestWatchSeesWhatLeavesTheNamespace(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	v1 := l.named(t, "v1").Ifindex
	w, err := l.Subscribe()
	must(t, err)
	events := watch(t, w)
	run(t, "ip link set v1 netns "+otherNamespace(t))
	await(t, events, "gone", func(e Event) bool { return e.Ifindex == v1 && e.Gone })
	if got := l.named(t, "v2"); got.Lower != 0 {
		t.Errorf("an ifindex of another namespace is taken: %+v", got)
	}
}
