package bench

import (
	"context"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

// metric is a figure that both bridges are compared by.
type metric struct {
	name  string // for scripts
	title string // for people
	unit  unit
}

// unit is what a figure is counted in.
type unit struct {
	name string // for scripts
	less bool   // the less, the better
}

var (
	framesPerSecond = unit{name: "frames/s"}
	bitsPerSecond   = unit{name: "bit/s"}
	microseconds    = unit{name: "us", less: true}
)

// probe is a kind of traffic.
type probe struct {
	group   string // as --only names it
	metrics []metric
	// open prepares the traffic between the hosts of a lab.
	open func(*lab.Lab) (meter, error)
}

// meter makes the traffic between the hosts of one lab, and measures it.
type meter interface {
	// measure takes about that long and returns the figures, in the order of the
	// probe's metrics.
	measure(ctx context.Context, d time.Duration) ([]float64, error)
	close() error
}

// groups are what --only knows.
var groups = []string{"frames", "tcp", "rr"}

// probes are all kinds of traffic, in the order in which they are shown.
var probes = []probe{
	framesProbe("frames_64", "64-byte frames", packet{size: 64}),
	framesProbe("frames_512", "512-byte frames", packet{size: 512}),
	framesProbe("frames_1514", "1514-byte frames", packet{size: 1514}),
	framesProbe("frames_gso", "64 kB frames (GSO)", packet{size: superFrame, segment: superSegment}),
	{"tcp", []metric{{"tcp", "TCP throughput", bitsPerSecond}}, openThroughput},
	{"rr", []metric{
		{"rr_p50", "round trip p50", microseconds},
		{"rr_p99", "round trip p99", microseconds},
	}, openTrips},
}
