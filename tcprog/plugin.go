package tcprog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/shunt-dev/shunt/accel"
)

func init() {
	accel.Register(accel.Plugin{
		Name:  "tcprog",
		After: []string{"telemetry"},
		New:   func() accel.Component { return new(Dataplane) },
	})
}

// Dataplane serves the bridges of one network namespace. Its methods may be
// called from several goroutines. Minimum kernel: 6.1 with BTF; tcx needs 6.6.
type Dataplane struct {
	logger      *slog.Logger
	tracer      trace.Tracer
	namespace   accel.Namespace
	maxStations int
	attach      string // auto, tcx or clsact
	redirect    func(bridge string) string
	straight    bool // some bridge may have frames go straight to far ends

	mu      sync.Mutex
	flips   sync.RWMutex // of wires too: a flip must not wait for mu
	wires   *wires
	changes *changes
	peering *peering        // nil before a bridge asks for it
	bridges map[int]*bridge // by ifindex
	types   kernelTypes

	trying sync.Once // for shunt doctor
	trial  trial
}

var (
	_ accel.Component     = (*Dataplane)(nil)
	_ accel.CounterSource = (*Dataplane)(nil)
	_ accel.Explainer     = (*Dataplane)(nil)
	_ accel.Cleaner       = (*Dataplane)(nil)
	_ accel.Checker       = (*Dataplane)(nil)
)

// Provision reads the configuration.
func (d *Dataplane) Provision(_ context.Context, h *accel.Host) error {
	d.logger, d.tracer = h.Logger, h.Tracer
	d.namespace = h.Namespace
	d.maxStations = h.Config.MaxStations
	d.attach = h.Config.Attach
	d.redirect, d.straight = h.Config.RedirectOf, h.Config.RedirectsToPeers()
	return nil
}

// Start finds out whether the kernel takes the program and which hook there is,
// and makes sure of a bpffs. Bridges come later, by OpenBridge.
func (d *Dataplane) Start(ctx context.Context) error {
	hook, err := d.probe(ctx)
	if err != nil {
		return err
	}
	if err := removeDeadBridges(pinRoot(d.namespace)); err != nil {
		d.logger.Warn("could not remove what is left of bridges that are gone", "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attach = hook
	d.bridges = make(map[int]*bridge)
	ws, err := openWires(pinRoot(d.namespace), hook)
	d.setWires(ws)
	return err
}

// probe asks the kernel what it takes, and returns the hook to attach to.
func (d *Dataplane) probe(ctx context.Context) (hook string, err error) {
	ctx, span := d.tracer.Start(ctx, "probe")
	defer func() {
		span.SetAttributes(attribute.String("shunt.attach", hook))
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	if err := tryProgram(); err != nil {
		return "", fmt.Errorf("this kernel does not take the program (%w); shunt needs Linux 6.1 or later, and \"shunt doctor\" says what is missing", err)
	}
	if hook, err = chooseHook(d.attach); err != nil {
		return "", err
	}
	mounted, err := ensureBPFFS()
	if mounted {
		d.logger.InfoContext(ctx, "mounted a bpffs for the pins", "path", bpffs)
	}
	return hook, err
}

func (d *Dataplane) setWires(ws *wires) {
	d.flips.Lock()
	defer d.flips.Unlock()
	d.wires = ws
}

// Stop closes every bridge that is still open and removes its programs, maps
// and pins. Wires stay.
func (d *Dataplane) Stop(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, ifindex := range slices.Sorted(maps.Keys(d.bridges)) {
		errs = append(errs, d.closeLocked(ifindex))
	}
	if d.changes != nil {
		errs = append(errs, d.changes.close())
		d.changes = nil
	}
	errs = append(errs, d.peering.close())
	d.peering = nil
	if d.wires != nil {
		ws := d.wires
		d.setWires(nil)
		errs = append(errs, ws.close())
	}
	return errors.Join(errs...)
}

// OpenBridge prepares an empty table for the bridge, its gate shut. What an
// earlier daemon left for the bridge is taken over: programs stay attached,
// counters go on, stations are forgotten.
func (d *Dataplane) OpenBridge(b accel.Bridge) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bridges[b.Ifindex] != nil {
		return nil
	}
	if err := d.noticeChanges(); err != nil {
		return fmt.Errorf("open bridge %s: %w", b.Name, err)
	}
	redirect := d.redirect(b.Name)
	peering, err := d.peeringFor(b.Name, redirect)
	if err != nil {
		return fmt.Errorf("open bridge %s: %w", b.Name, err)
	}
	br, err := openBridge(d.namespace, b, d.maxStations, d.attach, d.changes, d.wires, &d.types, redirect, peering, d.logger)
	if err != nil {
		return fmt.Errorf("open bridge %s: %w", b.Name, err)
	}
	d.bridges[b.Ifindex] = br
	return nil
}

// peeringFor is what a bridge needs whose frames may go straight to far ends. It is nil
// where that was not asked for, and where this kernel lets none and the operator left it
// to shunt.
func (d *Dataplane) peeringFor(bridge, redirect string) (*peering, error) {
	if redirect == accel.RedirectEgress {
		return nil, nil
	}
	if d.peering == nil {
		spec, err := loadSpec(d.maxStations, false)
		if err != nil {
			return nil, err
		}
		p, err := openPeering(spec, d.types.get())
		if err != nil && redirect == accel.RedirectPeer {
			return nil, fmt.Errorf("redirect: %s: %w", redirect, err)
		}
		if err != nil {
			d.logger.Info("frames leave by the ports' own devices", "bridge", bridge, "because", err)
			return nil, nil
		}
		d.peering = p
	}
	return d.peering, nil
}

// noticeChanges begins with the first bridge: before, the module that has the
// functions to trace may not be there.
func (d *Dataplane) noticeChanges() (err error) {
	if d.changes == nil {
		d.changes, err = openChanges(d.namespace, d.types.get(), d.straight, d.logger)
	}
	return err
}

// CloseBridge shuts the gate, detaches every port and removes all maps and
// pins of the bridge. Closing a bridge that is not open is no error.
func (d *Dataplane) CloseBridge(ifindex int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closeLocked(ifindex)
}

func (d *Dataplane) closeLocked(ifindex int) error {
	br := d.bridges[ifindex]
	if br == nil {
		return nil
	}
	delete(d.bridges, ifindex)
	if err := br.close(); err != nil {
		return fmt.Errorf("close bridge %s: %w", br.Name, err)
	}
	return nil
}

// with runs f on an open bridge.
func (d *Dataplane) with(ifindex int, f func(*bridge) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	br := d.bridges[ifindex]
	if br == nil {
		return fmt.Errorf("bridge %d is not open", ifindex)
	}
	return f(br)
}

// Revocation says how changes in the kernel reach the bridge's programs.
func (d *Dataplane) Revocation(ifindex int) (r accel.Revocation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if br := d.bridges[ifindex]; br != nil {
		return br.revocation()
	}
	return accel.Revocation{State: accel.StateNetlink}
}

// Version changes whenever the kernel changed the device, a bridge that is open
// or a port; for a bridge also with the namespace's netfilter hooks. It is 0 for
// a device that is not watched.
func (d *Dataplane) Version(ifindex int) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if br := d.bridges[ifindex]; br != nil {
		return br.version()
	}
	if d.changes == nil {
		return 0
	}
	return d.changes.ofPort(ifindex).version
}

// Explain asks the programs of the question's bridge what they would do with a
// frame. It changes no map that they decide by.
func (d *Dataplane) Explain(q accel.Question) (x accel.Explanation, err error) {
	err = d.with(q.Bridge, func(br *bridge) error {
		x, err = br.explain(q)
		return err
	})
	return x, err
}

// SetGate opens or shuts the fast path of the bridge; the next frame obeys. An
// open gate lets nothing through before the first Renew.
func (d *Dataplane) SetGate(ifindex int, g accel.Gate) error {
	return d.with(ifindex, func(br *bridge) error {
		if g.Reason == accel.Fast {
			br.forgetUnclaimed()
		}
		br.setGate(g)
		return nil
	})
}

// Renew lets the fast path live on for lease from now, and for ever if that is
// 0. It has no effect while the gate is shut.
func (d *Dataplane) Renew(ifindex int, lease time.Duration) error {
	return d.with(ifindex, func(br *bridge) error {
		br.control.renew(lease)
		return nil
	})
}

// Revocations counts the entries that the programs revoked since the bridge
// was opened, or by a daemon before.
func (d *Dataplane) Revocations(ifindex int) (n uint64, err error) {
	err = d.with(ifindex, func(br *bridge) error {
		n = br.control.revoked()
		return nil
	})
	return n, err
}

// AttachPort puts the program on the port's tc ingress and sets the port. The
// error is syscall.ENODEV where the port is gone.
func (d *Dataplane) AttachPort(ifindex int, p accel.Port) error {
	return d.with(ifindex, func(br *bridge) error { return br.attachPort(p) })
}

// SetPort changes what the programs know of an attached port. The error is
// syscall.ENOENT where it is not attached any more, as after CloseWire.
func (d *Dataplane) SetPort(ifindex int, p accel.Port) error {
	return d.with(ifindex, func(br *bridge) error { return br.setPort(p) })
}

// DetachPort takes the program off the port; stations that still name the port
// are dead from then on. Detaching a port that is gone is no error.
func (d *Dataplane) DetachPort(ifindex, port int) error {
	return d.with(ifindex, func(br *bridge) error { return br.detachPort(port) })
}

// Coexist says what other tc programs on the port mean for it: Fast, or
// PortForeignTC where the port must be left to the kernel.
func (d *Dataplane) Coexist(ifindex, port int) (reason accel.Reason, err error) {
	err = d.with(ifindex, func(br *bridge) error {
		reason, err = br.coexist(port)
		return err
	})
	return reason, err
}

// Admit inserts candidates, and only where no entry exists. It returns how many
// did not fit into the map.
func (d *Dataplane) Admit(ifindex int, stations []accel.Station) (unmirrored int, err error) {
	err = d.with(ifindex, func(br *bridge) error {
		unmirrored, err = br.admit(stations)
		return err
	})
	return unmirrored, err
}

// Activate makes candidates active, and only those that still exist. It returns
// those that were revoked meanwhile.
func (d *Dataplane) Activate(ifindex int, stations []accel.Station) (lost []accel.StationKey, err error) {
	err = d.with(ifindex, func(br *bridge) error {
		lost, err = br.activate(stations)
		return err
	})
	return lost, err
}

// Revoke removes entries; when it returns, no later frame uses them.
func (d *Dataplane) Revoke(ifindex int, keys []accel.StationKey) error {
	return d.with(ifindex, func(br *bridge) error { return br.revoke(keys) })
}

// stationsPiece is how many stations are read at a time.
const stationsPiece = 512

// Stations begins to read the map: each call of what it returns calls f for the next
// piece, and says whether there is more. What comes or goes meanwhile may be shown or not.
func (d *Dataplane) Stations(ifindex int) (next func(f func(accel.Station)) (more bool, err error)) {
	r := newStationReader(stationsPiece)
	return func(f func(accel.Station)) (more bool, err error) {
		err = d.with(ifindex, func(br *bridge) (err error) { more, err = br.list(r, f); return err })
		return more, err
	}
}

// PortStats returns the counters of a bridge's ports; none if the bridge is not
// open.
func (d *Dataplane) PortStats(ifindex int) ([]accel.PortStats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	br := d.bridges[ifindex]
	if br == nil {
		return nil, nil
	}
	return br.stats()
}
