package accel

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// What the host asks of its components, for the control API and the command
// line. A component serves an interface by having its methods.

// BridgeSource knows the bridges and their tables; fdbsync serves it.
type BridgeSource interface {
	// Bridges returns the configured bridges in the order of their names.
	Bridges() []BridgeState
	// FDB returns the mirrored stations of a bridge, by VLAN and address; an
	// error if the bridge is not configured.
	FDB(bridge string) ([]Station, error)
	// Switch turns the fast path of a bridge on or off; when it returns, the
	// next frame obeys. An error if the bridge is not configured.
	Switch(ctx context.Context, bridge string, on bool) error
}

// CounterSource reads the data plane's counters; tcprog serves it.
type CounterSource interface {
	// PortStats returns the counters of a bridge's ports; none if the data
	// plane does not have the bridge.
	PortStats(bridge int) ([]PortStats, error)
}

// Explainer asks the data plane what it would do with a frame; tcprog serves it.
type Explainer interface {
	// Explain changes no map, counter or FDB entry. An error if the data plane
	// does not have the bridge or the port.
	Explain(Question) (Explanation, error)
}

// Cleaner removes what a daemon that is gone left in the kernel; tcprog serves
// it. It is called without Provision and Start.
type Cleaner interface {
	// Clean removes every program, map, pin, filter and qdisc of shunt in the
	// namespace and says, a line each, what it removed.
	Clean(ctx context.Context, ns Namespace) ([]string, error)
}

// Checker adds findings to shunt doctor. It is called without Provision and
// Start and changes nothing.
type Checker interface {
	Check(ctx context.Context) []Finding
}

// BridgeChecker adds findings about bridges to shunt doctor. As with Checker,
// nothing is changed or attached.
type BridgeChecker interface {
	// CheckBridges is called without Provision and Start. The host finds the other
	// components, which are as little provisioned.
	CheckBridges(ctx context.Context, h *Host, x Examination) []Finding
}

// Examination is what shunt doctor shall look at.
type Examination struct {
	// Bridge is the name of the only one; "" for all.
	Bridge string
	// Sample is for how long the arriving frames of a bridge are looked at; 0 is
	// not at all.
	Sample time.Duration
	// Served are the bridges that a daemon of this network namespace works on, by
	// name. Its counters say more than a sample.
	Served map[string]BridgeV1
}

// Telemetry has the providers for the tracers and meters of the components that
// are provisioned after it; telemetry serves it.
type Telemetry interface {
	TracerProvider() trace.TracerProvider
	MeterProvider() metric.MeterProvider
	// LogHandler takes what those components and the host log too, beside stderr;
	// nil where logs go nowhere else.
	LogHandler() slog.Handler
}

// Observer wants to look at the other components a last time before they stop;
// telemetry serves it.
type Observer interface {
	// Settle is called when nothing is asked of the components any more, before the
	// first of them stops. It is quick.
	Settle(ctx context.Context)
}

// GroupSource knows the stable ports; nicswap serves it.
type GroupSource interface {
	// GroupStates returns every group in the order of their names.
	GroupStates() []GroupState
}

// Keeper knows what stays in the kernel when the daemon ends, because traffic
// hangs on it: the wires of stable ports. nicswap serves it.
type Keeper interface {
	// Kept says, a line each, what stays and how it is removed. It is called while
	// the component works, before Stop.
	Kept() []string
}

// Heart is served by a component with a loop that everything hangs on: while it
// beats, the daemon works. fdbsync serves it.
type Heart interface {
	// Beats returns a number that changes at least once a second while the
	// component works, and stands still when it hangs. It waits for nothing.
	Beats() uint64
}
