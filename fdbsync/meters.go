package fdbsync

import (
	"context"
	"time"
)

// Meters measures the mirroring; telemetry serves it. There may be none, or
// several. No method waits for anything.
type Meters interface {
	// EntryApplied is told how long after the kernel's event about an entry the data
	// plane's map had it: change is "revoked", "admitted" (as a candidate) or
	// "activated" (after the grace period). Entries that were read
	// and not told of are not measured.
	EntryApplied(bridge, change string, took time.Duration)
	// EventsLost is told when the kernel had to drop events.
	EventsLost()
	// MessageSkipped is told of every message that could not be read.
	MessageSkipped()
	// Resynced is told when all tables were read again, for a cause: "overrun" or
	// "periodic".
	Resynced(ctx context.Context, cause string)
}

// What becomes of an entry in the data plane's map, in EntryApplied.
const (
	changeRevoked   = "revoked"
	changeAdmitted  = "admitted"
	changeActivated = "activated"
)

// Why all tables are read again.
const (
	causeOverrun  = "overrun"
	causePeriodic = "periodic"
)

// meters are all that there are.
type meters []Meters

func (all meters) entryApplied(bridge, change string, took time.Duration) {
	for _, m := range all {
		m.EntryApplied(bridge, change, took)
	}
}

func (all meters) eventsLost() {
	for _, m := range all {
		m.EventsLost()
	}
}

func (all meters) messageSkipped() {
	for _, m := range all {
		m.MessageSkipped()
	}
}

func (all meters) resynced(ctx context.Context, cause string) {
	for _, m := range all {
		m.Resynced(ctx, cause)
	}
}
