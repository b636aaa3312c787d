package fdbsync

import "github.com/shunt-dev/shunt/accel"

// queue holds the keys that wait for their turn, first come, first served. Keys of
// stations that need no turn any more are left in it, and are passed over by who takes
// them out.
type queue struct {
	places []place
	// kept are those that the tidying that goes on found needed: they come before places.
	kept   []place
	tidies bool
	marked int // how many of them were there when mark was called
}

// place is a key in a queue. A station that came again has another ticket, and only its
// last place counts.
type place struct {
	key    accel.StationKey
	ticket uint16
}

func (q *queue) len() int { return len(q.kept) + len(q.places) }

func (q *queue) put(k accel.StationKey, ticket uint16) { q.places = append(q.places, place{k, ticket}) }

// take returns the next place; false if there is none.
func (q *queue) take() (p place, ok bool) {
	from := &q.places
	if len(q.kept) > 0 {
		from = &q.kept
	}
	if len(*from) == 0 {
		return p, false
	}
	p, *from, q.marked = (*from)[0], (*from)[1:], max(q.marked-1, 0)
	if len(*from) == 0 {
		*from = nil // a long queue is seldom
	}
	return p, true
}

// mark lets whoever looks at marked see when those that are in the queue now had their
// turn.
func (q *queue) mark() { q.marked = q.len() }

// slack is how many places that are passed over a queue may hold, beside as many as there
// are others.
const slack = 1024

// tidyPiece is how many places are looked at with every put: while it is tidied, a queue
// grows by a third.
const tidyPiece = 4

// tidy drops the places that are not needed, where they are many: stations that come and
// go while nobody has a turn would make the queue longer every time. It looks at a few of
// them at a time, since it is called with every event.
func (q *queue) tidy(needed int, isNeeded func(place) bool) {
	if q.tidies = q.tidies || q.len() > 2*needed+slack; !q.tidies {
		return
	}
	for range tidyPiece {
		if len(q.places) == 0 {
			q.places, q.kept, q.tidies = q.kept, nil, false
			return
		}
		p := q.places[0]
		q.places = q.places[1:]
		if isNeeded(p) {
			q.kept = append(q.kept, p)
		} else if len(q.kept) < q.marked {
			q.marked--
		}
	}
}
