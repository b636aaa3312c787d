package accel

import "time"

// Config is the whole configuration, after defaults and command line.
type Config struct {
	// Bridges are the names of the bridges to accelerate.
	Bridges []string
	// Attach is "auto", "tcx" or "clsact".
	Attach string
	// MaxStations is the size of a bridge's station map, in entries.
	MaxStations int
	// Lease is how long the fast path outlives a daemon that hangs or dies.
	Lease time.Duration
	// Socket is the control socket's path.
	Socket string
}
