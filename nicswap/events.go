package nicswap

import (
	"fmt"
	"sync"
	"time"
)

// The events. A follower that was too slow is told of it with eventLost.
const (
	eventFollow = "follow"
	eventPhase  = "phase"
	eventSwap   = "swap"
	eventMember = "member"
	eventGroup  = "group"
	eventLost   = "lost"
)

// followerRoom is how many events a follower may be behind.
const followerRoom = 256

// hub hands events to those who follow them, and waits for none.
type hub struct {
	mu        sync.Mutex
	followers map[*follower]struct{}
}

type follower struct {
	events chan EventV1
	lost   int
}

// Follow returns the events from now on, and what ends that. A follower that is
// too slow loses events and is told how many, by an event "lost".
func (e *Engine) Follow() (<-chan EventV1, func()) {
	f := &follower{events: make(chan EventV1, followerRoom)}
	e.events.mu.Lock()
	defer e.events.mu.Unlock()
	if e.events.followers == nil {
		e.events.followers = make(map[*follower]struct{})
	}
	e.events.followers[f] = struct{}{}
	return f.events, sync.OnceFunc(func() { e.events.leave(f) })
}

func (h *hub) leave(f *follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.followers[f]; ok {
		delete(h.followers, f)
		close(f.events)
	}
}

// tell hands an event to every follower.
func (h *hub) tell(event EventV1) {
	h.mu.Lock()
	defer h.mu.Unlock()
	event.Time = time.Now()
	for f := range h.followers {
		f.take(event)
	}
}

// take leaves the event out where there is no room, and says so when there is
// room for both again.
func (f *follower) take(event EventV1) {
	room := cap(f.events) - len(f.events)
	if f.lost > 0 && room >= 2 {
		f.events <- EventV1{Time: event.Time, Event: eventLost, Text: fmt.Sprintf("%d events were lost: they came faster than they were read", f.lost)}
		f.lost, room = 0, room-1
	}
	if f.lost > 0 || room == 0 {
		f.lost++
		return
	}
	f.events <- event
}

// end closes every follower's channel.
func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.followers {
		close(f.events)
	}
	h.followers = nil
}
