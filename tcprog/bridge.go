package tcprog

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/shunt-dev/shunt/accel"
)

// bridge is one bridge in the data plane.
type bridge struct {
	accel.Bridge
	dir     string // pins of this schema
	hook    string // tcx or clsact
	spec    *ebpf.CollectionSpec
	maps    map[string]*ebpf.Map
	control *control
	images  *images // of ports; nil unless their state is read live
	batch   *batch
	slots   *slots
	ports   map[int]*port // attached, by ifindex
	// unclaimed are the ports that an earlier daemon left and that were not
	// attached again yet.
	unclaimed map[int]uint32
	revokers  []link.Link
	changes   *changes // of the whole namespace
	wires     *wires   // of the whole namespace
	redirect  string   // accel.RedirectEgress and so on
	peering   *peering // of the whole namespace; nil where no frame goes straight
	types     *kernelTypes
	explainer *explainer // nil until somebody asks
	logger    *slog.Logger
}

// openBridge opens the bridge's maps with the gate shut and no station in them.
func openBridge(ns accel.Namespace, b accel.Bridge, maxStations int, hook string, changes *changes, wires *wires, types *kernelTypes, redirect string, peering *peering, logger *slog.Logger) (*bridge, error) {
	spec, err := loadSpec(maxStations, changes.mode == modeLive)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(bridgeDir(pinRoot(ns), b.Ifindex), Schema)
	maps, adopted, err := openMaps(dir, spec)
	if err != nil {
		return nil, err
	}
	br := &bridge{
		Bridge: b, dir: dir, hook: hook, spec: spec, maps: maps,
		slots: newSlots(), ports: make(map[int]*port), unclaimed: make(map[int]uint32),
		changes: changes, wires: wires, types: types, redirect: redirect, peering: peering, logger: logger.With("bridge", b.Name),
	}
	if err := br.prepare(adopted); err != nil {
		br.batch.close()
		err = errors.Join(err, br.images.unmap(), br.control.unmap())
		closeMaps(maps)
		return nil, err
	}
	if err := changes.pin(filepath.Join(dir, tracingDir)); err != nil {
		return nil, errors.Join(err, br.close())
	}
	if err := br.attachRevokers(ns); err != nil {
		br.logger.Warn("what the kernel deletes is revoked when netlink tells of it, and not at once", "error", err)
	}
	return br, nil
}

func (br *bridge) prepare(adopted bool) (err error) {
	br.control, err = mapControl(br.maps[mapBridge])
	if err != nil {
		return err
	}
	br.control.shut(accel.Syncing)
	br.control.shared.Ifindex = uint32(br.Ifindex)
	if br.images, err = mapImages(br.maps[mapImagesSection], br.changes.mode); err != nil {
		return err
	}
	if br.batch, err = openBatch(br.maps); err != nil {
		return err
	}
	if err := br.changes.watch(br.Ifindex, true); err != nil {
		return err
	}
	if !adopted {
		return nil
	}
	br.logger.Info("took over what an earlier shunt left")
	br.control.leap()
	if err := errors.Join(br.clearStations(), br.clearVLANs()); err != nil {
		return err
	}
	return br.findLeftPorts()
}

// findLeftPorts remembers the slots of ports that an earlier daemon attached.
func (br *bridge) findLeftPorts() error {
	var slot uint32
	var rec shuntPort
	rows := br.maps[shuntMapPorts].Iterate()
	for rows.Next(&slot, &rec) {
		if rec.Ifindex != 0 {
			br.unclaimed[int(rec.Ifindex)] = slot
			br.slots.take(slot)
		}
	}
	return rows.Err()
}

// forgetUnclaimed detaches the ports that an earlier daemon left and that are
// no longer ports of this bridge.
func (br *bridge) forgetUnclaimed() {
	for ifindex, slot := range br.unclaimed {
		delete(br.unclaimed, ifindex)
		p := br.newPort(ifindex, slot)
		if err := errors.Join(br.clearSlot(p), br.leave(p)); err != nil {
			br.logger.Warn("could not remove what an earlier shunt left on a port", "ifindex", ifindex, "error", err)
		}
	}
}

// close ends the fast path and removes everything of the bridge.
func (br *bridge) close() error {
	br.control.shut(accel.Off)
	br.forgetUnclaimed()
	var errs []error
	for ifindex := range br.ports {
		if err := br.detachPort(ifindex); err != nil {
			errs = append(errs, err)
		}
	}
	for _, l := range br.revokers {
		errs = append(errs, l.Close())
	}
	errs = append(errs, br.changes.unwatch(br.Ifindex), br.explainer.close(), br.images.unmap(), br.control.unmap())
	br.batch.close()
	closeMaps(br.maps)
	errs = append(errs, removePins(filepath.Dir(br.dir)))
	removeEmptyParents(filepath.Dir(filepath.Dir(br.dir)))
	return errors.Join(errs...)
}

// revocation says how the kernel's changes reach the bridge's programs.
func (br *bridge) revocation() accel.Revocation {
	return accel.Revocation{
		Entries: br.isRevoked(), State: br.changes.state(),
		VLANs: br.changes.mode == modeTraced || br.control.shared.VlanProtocol == 0,
	}
}

// isRevoked says whether programs revoke what the kernel deletes or moves.
func (br *bridge) isRevoked() bool { return len(br.revokers) == len(revokerNames) }

// version is the bridge's version. Read live it is seen from any of its ports;
// without one no frame comes.
func (br *bridge) version() uint64 {
	switch br.changes.mode {
	case modeNetlink:
		return 0
	case modeTraced:
		return br.changes.ofDevice(br.Ifindex).version
	}
	for port := range br.ports {
		if s := br.changes.ofLivePort(port); s.bridgeIfindex == br.Ifindex {
			return s.bridge
		}
	}
	return 0
}

func (br *bridge) newPort(ifindex int, slot uint32) *port {
	return &port{place: place{ifindex: ifindex, dir: portDir(br.dir, ifindex)}, slot: slot}
}

// slots hands out the numbers of port slots. A number that was given back is
// used again as late as possible, so that a station that still names it does
// not meet another port.
type slots struct {
	free []uint32
}

func newSlots() *slots {
	s := &slots{}
	for n := uint32(1); n < maxSlots; n++ {
		s.free = append(s.free, n)
	}
	return s
}

// maxSlots is MAX_SLOTS in bpf/maps.h.
const maxSlots = 2048

func (s *slots) next() (uint32, error) {
	if len(s.free) == 0 {
		return 0, fmt.Errorf("all %d port slots are taken", maxSlots-1)
	}
	n := s.free[0]
	s.free = s.free[1:]
	return n, nil
}

func (s *slots) take(slot uint32) {
	for i, n := range s.free {
		if n == slot {
			s.free = append(s.free[:i:i], s.free[i+1:]...)
			return
		}
	}
}

func (s *slots) give(slot uint32) { s.free = append(s.free, slot) }
