package tcprog

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// port is an attached port.
type port struct {
	place
	slot     uint32
	wire     *wire       // of a stable port; nil of any other
	record   shuntPort   // as it was last stored
	vlans    accel.VLANs // as they were last stored
	counters *ebpf.Map
	program  *ebpf.Program
	judge    *ebpf.Program // of a stable port: what its members got
	hook     hook
}

// attachPort puts the program on the port, in place of one that an earlier
// daemon left there.
func (br *bridge) attachPort(p accel.Port) error {
	if br.ports[p.Ifindex] != nil {
		return br.setPort(p)
	}
	slot, claimed, err := br.claimSlot(p.Ifindex)
	if err != nil {
		return fmt.Errorf("attach port %s: %w", p.Name, err)
	}
	at := br.newPort(p.Ifindex, slot)
	at.wire = br.wires.find(p.Ifindex)
	if !claimed {
		// Pins of an earlier device with this number.
		if err := removePins(at.dir); err != nil {
			br.slots.give(slot)
			return err
		}
	}
	if err := br.load(at); err != nil {
		br.slots.give(slot)
		return fmt.Errorf("attach port %s: %w", p.Name, errors.Join(err, br.changes.unwatch(at.ifindex), br.leave(at)))
	}
	br.ports[p.Ifindex] = at
	return br.setPort(p)
}

func (br *bridge) claimSlot(ifindex int) (slot uint32, claimed bool, err error) {
	if slot, ok := br.unclaimed[ifindex]; ok {
		delete(br.unclaimed, ifindex)
		return slot, true, nil
	}
	slot, err = br.slots.next()
	return slot, false, err
}

// load makes the port's counters and program and attaches it.
func (br *bridge) load(p *port) (err error) {
	if err := br.changes.watch(p.ifindex, false); err != nil {
		return err
	}
	if p.counters, err = br.openCounters(p.dir); err != nil {
		return err
	}
	if p.program, err = br.loadProgram(p); err != nil {
		return err
	}
	if p.hook, err = attachHook(br.hook, p.place, p.program); err != nil || p.wire == nil {
		return err
	}
	return br.loadMembers(p)
}

// loadProgram loads the program with the port's slot as a constant. A stable port's
// frames are judged at its members, so that it only sees them leave the wire.
func (br *bridge) loadProgram(p *port) (*ebpf.Program, error) {
	if p.wire != nil {
		return br.wires.loadLeave(p.wire)
	}
	spec, options, err := br.programSpec(p.slot)
	if err != nil {
		return nil, err
	}
	options.MapReplacements[mapCounters] = p.counters
	if br.changes.mode == modeLive {
		spec.Programs["shunt_ingress"] = spec.Programs["shunt_ingress_live"]
	}
	var objects struct {
		Ingress *ebpf.Program `ebpf:"shunt_ingress"`
	}
	if err := spec.LoadAndAssign(&objects, options); err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	return objects.Ingress, nil
}

// loadMembers gives the members of a stable port the program that judges for it.
func (br *bridge) loadMembers(p *port) error {
	spec, options, err := br.programSpec(p.slot)
	if err != nil {
		return err
	}
	if err := spec.Variables["wire_number"].Set(p.wire.number); err != nil {
		return fmt.Errorf("name the wire: %w", err)
	}
	options.MapReplacements[mapCounters] = p.counters
	var objects struct {
		Member *ebpf.Program `ebpf:"shunt_member"`
	}
	if err := spec.LoadAndAssign(&objects, options); err != nil {
		return fmt.Errorf("load the program of the members: %w", err)
	}
	p.judge = objects.Member
	return p.wire.judgeBy(objects.Member)
}

// programSpec is the objects for a program of the bridge, and how they are loaded: with
// its maps.
func (br *bridge) programSpec(slot uint32) (*ebpf.CollectionSpec, *ebpf.CollectionOptions, error) {
	tick, err := tickLength()
	if err != nil {
		return nil, nil, err
	}
	last, err := lastCPU()
	if err != nil {
		return nil, nil, err
	}
	spec := br.spec.Copy()
	err = errors.Join(
		spec.Variables["slot"].Set(uint64(slot)),
		spec.Variables["tick_ns"].Set(uint32(tick)),
		spec.Variables["last_cpu"].Set(last),
		spec.Variables["revocation"].Set(br.changes.mode),
		spec.Variables["reads_devices"].Set(br.wires.guards.readsDevices()),
		spec.Variables["entries_traced"].Set(br.isRevoked()))
	if br.peering != nil {
		err = errors.Join(err, br.peering.configure(spec, br.changes.tracesPeers()))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("set the constants of the program: %w", err)
	}
	replacements := maps.Clone(br.maps)
	maps.Copy(replacements, br.changes.maps())
	maps.Copy(replacements, br.wires.maps)
	return spec, &ebpf.CollectionOptions{MapReplacements: replacements, Cache: br.types.get()}, nil
}

// setPort stores what the programs know of the port and makes flows that were
// decided by the old record invalid.
func (br *bridge) setPort(p accel.Port) error {
	at := br.ports[p.Ifindex]
	if at == nil {
		return fmt.Errorf("port %s is not attached: %w", p.Name, unix.ENOENT)
	}
	return br.store(at, br.recordOf(p), p.VLANs)
}

// The flags of struct port in bpf/maps.h.
const (
	portIsolated    = 1
	portLearns      = 2
	portVLANDevices = 4
)

// recordOf is the port as the programs read it. VLAN devices on it that netlink
// does not show are seen in the kernel.
func (br *bridge) recordOf(p accel.Port) shuntPort {
	rec := shuntPort{
		Seen:    p.Seen,
		Ifindex: uint32(p.Ifindex),
		MaxLen:  uint32(p.MTU) + ethHeaderLen + vlanHeaderLen,
		Pvid:    p.PVID,
		In:      uint16(p.In),
		Out:     uint16(p.Out),
	}
	if p.Flags.Isolated() {
		rec.Flags |= portIsolated
	}
	if p.Flags&accel.FlagLearning != 0 {
		rec.Flags |= portLearns
	}
	now := br.changes.ofPort(p.Ifindex)
	if p.HasVLANDevices || now.vlanDevices {
		rec.Flags |= portVLANDevices
	}
	rec.Device = br.deviceOf(br.ports[p.Ifindex])
	if w := br.ports[p.Ifindex].wire; w != nil {
		rec.Wire = uint16(w.number)
	}
	return rec
}

// A frame may be as long as the MTU and these, in bytes
// (include/linux/netdevice.h: __is_skb_forwardable).
const (
	ethHeaderLen  = 14
	vlanHeaderLen = 4
)

// store exchanges the record of a port, its image and its VLANs as struct port in
// bpf/maps.h asks for: nobody may use the slot while they change.
func (br *bridge) store(p *port, rec shuntPort, vlans accel.VLANs) error {
	barred := func(r shuntPort) shuntPort {
		r.In, r.Out = uint16(accel.PortChanged), uint16(accel.PortChanged)
		return r
	}
	err := br.put(p.slot, barred(p.record))
	br.control.bumpAll()
	if err == nil {
		br.storeImage(p.slot, &rec)
		err = errors.Join(br.put(p.slot, barred(rec)), br.storeVLANs(p.slot, p.vlans, vlans))
	}
	br.control.bumpAll() // who read half of each must not meet the open record
	if err == nil {
		err = br.put(p.slot, rec)
	}
	if err != nil {
		br.control.shut(accel.Syncing)
		return fmt.Errorf("store port slot %d: %w", p.slot, err)
	}
	p.record, p.vlans = rec, vlans
	return nil
}

func (br *bridge) put(slot uint32, rec shuntPort) error {
	return br.maps[shuntMapPorts].Update(slot, rec, ebpf.UpdateAny)
}

// clearSlot makes every station that names the port's slot dead, and frees the
// slot.
func (br *bridge) clearSlot(p *port) error {
	err := br.store(p, shuntPort{}, "")
	br.slots.give(p.slot)
	return err
}

func (br *bridge) detachPort(ifindex int) error {
	p := br.ports[ifindex]
	if p == nil {
		return nil
	}
	delete(br.ports, ifindex)
	if err := errors.Join(br.clearSlot(p), br.changes.unwatch(ifindex), br.leave(p)); err != nil {
		return fmt.Errorf("detach port %d: %w", ifindex, err)
	}
	return nil
}

func (br *bridge) coexist(ifindex int) (accel.Reason, error) {
	p := br.ports[ifindex]
	if p == nil {
		return accel.PortUnattached, nil
	}
	foreign, err := p.foreign()
	if errors.Is(err, unix.ENODEV) {
		return accel.PortUnattached, nil
	}
	if err != nil {
		return accel.PortForeignTC, fmt.Errorf("look for other tc programs on port %d: %w", ifindex, err)
	}
	if foreign {
		return accel.PortForeignTC, nil
	}
	return accel.Fast, nil
}

// foreign says whether other programs mean that the port must be left to the kernel.
// The fast path skips all that is on a stable port, in both directions: its frames
// are judged at the members.
func (p *port) foreign() (bool, error) {
	foreign, err := p.hook.foreign()
	if foreign || err != nil || p.wire == nil {
		return foreign, err
	}
	if foreign, err = p.hook.shared(); foreign || err != nil {
		return foreign, err
	}
	return p.wire.out.shared()
}

// leave takes the program off a port that is not watched for the bridge any more and
// removes its pins. It works on a port that an earlier daemon attached too. A filter
// is exchanged in place: where another bridge has the port by now, it is that one's.
func (br *bridge) leave(p *port) error {
	var errs []error
	if p.wire != nil {
		errs = append(errs, p.wire.judgeByNone(p.judge))
	}
	if t, ok := p.hook.(*tcx); ok {
		errs = append(errs, t.remove())
	} else if br.changes.holders[p.ifindex] == 0 {
		errs = append(errs, removeFilter(p.place))
	}
	if p.program != nil {
		p.program.Close()
	}
	if p.counters != nil {
		p.counters.Close()
	}
	errs = append(errs, removePins(p.dir))
	return errors.Join(errs...)
}

// openCounters returns the port's counters; they go on where an earlier daemon
// left some.
func (br *bridge) openCounters(dir string) (*ebpf.Map, error) {
	spec := br.spec.Maps[mapCounters]
	path := filepath.Join(dir, pinName(mapCounters))
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil {
		if err = spec.Compatible(m); err == nil {
			return m, nil
		}
		m.Close()
	}
	if err := removePins(path); err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	return newPinnedMap(path, spec)
}
