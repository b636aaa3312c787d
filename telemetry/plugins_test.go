package telemetry_test

import (
	"github.com/shunt-dev/shunt/fdbsync"
	"github.com/shunt-dev/shunt/nicswap"
	"github.com/shunt-dev/shunt/telemetry"
)

// The plugins find the Exporter by these, and measure nothing if it does not serve.
var (
	_ nicswap.Meters = (*telemetry.Exporter)(nil)
	_ fdbsync.Meters = (*telemetry.Exporter)(nil)
)
