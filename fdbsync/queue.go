package fdbsync

import "github.com/shunt-dev/shunt/accel"

// queue holds the keys that wait for their turn, first come, first served. Keys of
// stations that need no turn any more are left in it, and are passed over by who takes
// them out.
type queue struct {
	keys   []accel.StationKey
	marked int // how many of them were there when mark was called
}

func (q *queue) put(k accel.StationKey) { q.keys = append(q.keys, k) }

// take returns the next key; false if there is none.
func (q *queue) take() (k accel.StationKey, ok bool) {
	if len(q.keys) == 0 {
		return k, false
	}
	k, q.keys, q.marked = q.keys[0], q.keys[1:], max(q.marked-1, 0)
	if len(q.keys) == 0 {
		q.keys = nil // a long queue is seldom
	}
	return k, true
}

// mark lets whoever looks at marked see when those that are in the queue now had their
// turn.
func (q *queue) mark() { q.marked = len(q.keys) }

// slack is how many keys that are passed over a queue may hold, beside as many as there
// are others.
const slack = 1024

// tidy drops the keys that are not needed, where they are many: a station that comes and
// goes while nobody has a turn would make the queue longer every time.
func (q *queue) tidy(needed int, isNeeded func(accel.StationKey) bool) {
	if len(q.keys) <= 2*needed+slack {
		return
	}
	kept, marked := make([]accel.StationKey, 0, needed), 0
	for i, k := range q.keys {
		if !isNeeded(k) {
			continue
		}
		if kept = append(kept, k); i < q.marked {
			marked++
		}
	}
	q.keys, q.marked = kept, marked
}
