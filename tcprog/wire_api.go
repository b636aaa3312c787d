package tcprog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/shunt-dev/shunt/accel"
)

// withWire runs f on an open wire, alone with the bridges.
func (d *Dataplane) withWire(port int, f func(*wires, *wire) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w, err := d.wires.get(port)
	if err != nil {
		return err
	}
	return f(d.wires, w)
}

// flipping runs f on an open wire, beside whatever else the data plane does.
func (d *Dataplane) flipping(port int, f func(*wires, *wire) error) error {
	d.flips.RLock()
	defer d.flips.RUnlock()
	w, err := d.wires.get(port)
	if err != nil {
		return err
	}
	return f(d.wires, w)
}

// OpenWire puts the programs on a stable port, which is not attached as a port of
// a bridge yet, or takes over those that are there, with members, active one and
// drain. Members that are gone are forgotten.
func (d *Dataplane) OpenWire(port int) (accel.WireState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, br := range d.bridges {
		if p := br.ports[port]; p != nil && p.wire == nil {
			return accel.WireState{}, fmt.Errorf("device %d is a port of bridge %s already, without a wire", port, br.Name)
		}
	}
	if d.wires == nil {
		return accel.WireState{}, errNoWires
	}
	w, err := d.wires.open(port)
	if err != nil {
		return accel.WireState{}, err
	}
	return w.describe(), nil
}

// CloseWire takes all programs of a wire off the stable port and its members. The
// port stays attached as any other, if it is, but for what the wire did.
func (d *Dataplane) CloseWire(port int) error {
	return d.withWire(port, func(ws *wires, w *wire) error {
		for _, br := range d.bridges {
			if p := br.ports[port]; p != nil && p.wire == w {
				if err := br.detachPort(port); err != nil {
					return err
				}
			}
		}
		return ws.remove(w)
	})
}

// AddMember puts the program on a member, which then carries nothing until it is
// made active. The error is syscall.ENODEV where it is gone.
func (d *Dataplane) AddMember(port, member int) error {
	return d.withWire(port, func(ws *wires, w *wire) error { return ws.add(w, member) })
}

// RemoveMember takes the program off a member that is neither active nor draining.
// Removing one that is gone is no error.
func (d *Dataplane) RemoveMember(port, member int) error {
	return d.withWire(port, func(ws *wires, w *wire) error { return ws.removeMember(w, member) })
}

// PrepareFlip begins a new generation: from here on the programs remember what the
// port sends, so that they know it when the outside floods it back.
func (d *Dataplane) PrepareFlip(port int) error {
	return d.flipping(port, func(_ *wires, w *wire) error {
		atomic.AddUint64(&w.shared.Generation, 1)
		atomic.StoreUint32(&w.shared.Marking, 1)
		return nil
	})
}

// Flip makes a member active (0: none) and the one that was active draining, by one
// store, and returns the one that drains from then on. It waits for nothing else that
// the data plane does.
func (d *Dataplane) Flip(port, to int) (from int, err error) {
	err = d.flipping(port, func(ws *wires, w *wire) error {
		from, err = ws.flip(w, to)
		return err
	})
	return from, err
}

// Guard makes the wire's programs know the active member and its standby, in any order:
// where the active one has lost its carrier they flip to the other with the next frame,
// without anybody's help. Linux 6.2 or later; on an earlier one nothing happens. The
// error is syscall.ENODEV where a device is gone; with an error they know nobody.
// Programs that run meanwhile may still act on what they knew: see Settle.
func (d *Dataplane) Guard(port int, members [2]accel.Guard) error {
	return d.flipping(port, func(ws *wires, w *wire) error { return ws.guard(w, members) })
}

// Settle returns when no program acts any more on what Guard said before the last time.
// It takes some 20 ms.
func (d *Dataplane) Settle() { awaitPrograms() }

// Members returns which members are active and draining now, also if a program made
// them so. It waits for nothing that takes long.
func (d *Dataplane) Members(port int) (now accel.WireNow, err error) {
	err = d.flipping(port, func(ws *wires, w *wire) error {
		now.Failovers, now.FailedOver = ws.guards.failovers(w.number)
		now.Active, now.Draining = w.state()
		return nil
	})
	return now, err
}

// EndDrain ends the drain, or what PrepareFlip began, if this member is active: else a
// program has flipped meanwhile, and begun another.
func (d *Dataplane) EndDrain(port, active int) error {
	return d.flipping(port, func(ws *wires, w *wire) error {
		ws.endDrain(w, active)
		return nil
	})
}

// WireState returns how the port is wired now.
func (d *Dataplane) WireState(port int) (state accel.WireState, err error) {
	err = d.withWire(port, func(_ *wires, w *wire) error {
		state = w.describe()
		return nil
	})
	return state, err
}

func (w *wire) describe() accel.WireState {
	active, draining := w.state()
	return accel.WireState{
		Port: w.ifindex, Active: active, Draining: draining,
		Members: slices.Sorted(maps.Keys(w.members)), Generation: atomic.LoadUint64(&w.shared.Generation),
	}
}

// WireCounts returns what the wire's programs dropped, by reason, and what they
// delivered from a draining member.
func (d *Dataplane) WireCounts(port int) (counts map[accel.Reason]accel.Count, err error) {
	err = d.flipping(port, func(ws *wires, w *wire) error {
		counts, err = ws.counts(w)
		return err
	})
	return counts, err
}

func (ws *wires) counts(w *wire) (map[accel.Reason]accel.Count, error) {
	counts := make(map[accel.Reason]accel.Count)
	for _, reason := range wireReasons {
		var perCPU []shuntCount
		if err := ws.maps[wireMapWireCounts].Lookup(w.number*accel.NumReasons+uint32(reason), &perCPU); err != nil {
			return nil, fmt.Errorf("read the counters of the wire: %w", err)
		}
		if sum := sumOf(perCPU); sum.Packets != 0 {
			counts[reason] = sum
		}
	}
	return counts, nil
}

// wireReasons are those that bpf/wire.h counts.
var wireReasons = []accel.Reason{accel.OwnReturned, accel.Doubled, accel.Standby, accel.NoMember, accel.Drained}

// Carrier says whether a device is up and has its carrier in this instant. It waits
// for no lock. The error is errors.ErrUnsupported where the kernel lets no program
// read a device (before Linux 6.2).
func (d *Dataplane) Carrier(ifindex int) (bool, error) {
	d.flips.RLock()
	defer d.flips.RUnlock()
	ws := d.wires
	if ws == nil || !ws.guards.readsDevices() {
		return false, errors.ErrUnsupported
	}
	result, err := runOn(ws.guards.Carrier, ifindex, make([]byte, minFrame))
	return result == 1, err
}

// Foreign says whether programs or filters of somebody else are at the device's tc
// hooks.
func (d *Dataplane) Foreign(ifindex int) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	own, err := d.ownPrograms()
	if err != nil {
		return false, err
	}
	for _, egress := range []bool{false, true} {
		foreign, err := place{ifindex: ifindex, egress: egress}.hasOthers(own)
		if foreign || err != nil {
			return foreign, err
		}
	}
	return false, nil
}

// ownPrograms are all that this data plane attached.
func (d *Dataplane) ownPrograms() (map[ebpf.ProgramID]bool, error) {
	var programs []*ebpf.Program
	for _, br := range d.bridges {
		for _, p := range br.ports {
			programs = append(programs, p.program)
		}
	}
	if d.wires != nil {
		for _, w := range d.wires.byPort {
			programs = append(programs, w.sender, w.plain, w.judge)
		}
	}
	own := make(map[ebpf.ProgramID]bool)
	for _, p := range programs {
		if p == nil {
			continue
		}
		id, err := idOf(p)
		if err != nil {
			return nil, err
		}
		own[id] = true
	}
	return own, nil
}
