package tcprog

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// WireSchema is the version of the layout and the meaning of the maps of wires.
const WireSchema = "w1"

// The sizes in bpf/wire.h.
const (
	maxWires = 256
	lanes    = 256
)

// wires are the stable ports of a network namespace and their members. Maps and
// programs are pinned below wires/SCHEMA and stay without the daemon.
type wires struct {
	dir    string
	hook   string // tcx or clsact
	maps   map[string]*ebpf.Map
	page   []byte
	table  *[maxWires]shuntWire // the map of wires, mapped
	guards *guards

	mu     sync.Mutex // of byPort and of the wires' members; held for a moment only, since flips wait for it
	byPort map[int]*wire
}

// wire is one stable port.
type wire struct {
	place
	number  uint32
	shared  *shuntWire // in the table
	out     hook       // at the port's egress
	sender  *ebpf.Program
	plain   *ebpf.Program // at the members' ingress while nobody judges there
	judge   *ebpf.Program // nil while nobody does
	members map[int]hook
}

// openWires opens the maps of the namespace's wires. Those wires that an earlier
// daemon left go on, without a fast path until their ports are attached.
func openWires(root, hook string) (*wires, error) {
	spec, err := loadWire()
	if err != nil {
		return nil, fmt.Errorf("read the BPF objects: %w", err)
	}
	w := &wires{dir: filepath.Join(root, "wires", WireSchema), hook: hook, byPort: make(map[int]*wire)}
	if w.maps, err = openWireMaps(w.dir, spec); err != nil {
		return nil, err
	}
	if w.page, err = memoryOf(w.maps[wireMapWires]); err != nil {
		closeMaps(w.maps)
		return nil, fmt.Errorf("map the wires: %w", err)
	}
	w.table = (*[maxWires]shuntWire)(unsafe.Pointer(&w.page[0]))
	if w.guards, err = openGuards(w.dir, spec); err != nil {
		closeMaps(w.maps)
		return nil, errors.Join(err, unix.Munmap(w.page))
	}
	w.maps[wireMapGuards] = w.guards.m
	if err := w.takeOverAll(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// takeOverAll opens every wire that was left, and clears those whose port is gone.
func (ws *wires) takeOverAll() error {
	var errs []error
	for n := range ws.table {
		port := int(ws.table[n].Port)
		if port == 0 {
			continue
		}
		isLeft, err := ws.portPlace(uint32(n), port).hasProgram()
		switch {
		case err != nil:
		case isLeft:
			_, err = ws.open(port)
		default:
			err = ws.clear(uint32(n))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sharedWireMaps are the maps that all wires of a namespace share.
var sharedWireMaps = []string{wireMapWires, wireMapLanes, wireMapSent, wireMapDelivered, wireMapWireCounts}

func openWireMaps(dir string, spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	found, err := adoptMaps(dir, sharedWireMaps, spec)
	if err == nil {
		return found, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ebpf.ErrMapIncompatible) {
		return nil, fmt.Errorf("open the maps of the wires, on which traffic hangs: %w", err)
	}
	if err := removePins(dir); err != nil {
		return nil, err
	}
	return createMaps(dir, sharedWireMaps, spec)
}

// close lets go of the wires, which stay as they are. Where there are none nothing
// is left.
func (ws *wires) close() error {
	var errs []error
	for _, w := range ws.byPort {
		errs = append(errs, w.closePrograms())
	}
	isEmpty := true
	for n := range ws.table {
		isEmpty = isEmpty && ws.table[n].Port == 0
	}
	errs = append(errs, unix.Munmap(ws.page), ws.guards.close())
	closeMaps(ws.maps)
	if isEmpty {
		errs = append(errs, removePins(ws.dir))
		removeEmptyParents(filepath.Dir(ws.dir))
	}
	return errors.Join(errs...)
}

// find returns the wire of a stable port; nil of any other.
func (ws *wires) find(port int) *wire {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.byPort[port]
}

var errNoWires = errors.New("the data plane is not running")

func (ws *wires) get(port int) (*wire, error) {
	if ws == nil {
		return nil, errNoWires
	}
	if w := ws.find(port); w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("device %d is no stable port", port)
}

// open puts the wire's program on the port, or takes over what is there.
func (ws *wires) open(port int) (*wire, error) {
	if w := ws.find(port); w != nil {
		return w, nil
	}
	number, isLeft, err := ws.numberOf(port)
	if err != nil {
		return nil, err
	}
	w := &wire{
		place: ws.portPlace(number, port), number: number, shared: &ws.table[number],
		members: make(map[int]hook),
	}
	if err := ws.start(w); err != nil {
		err = errors.Join(fmt.Errorf("wire device %d: %w", port, err), w.closePrograms())
		if !isLeft {
			err = errors.Join(err, ws.clear(number))
		}
		return nil, err
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.byPort[port] = w
	return w, nil
}

// numberOf returns the number of the wire that an earlier daemon left on the port, or a
// cleared one. A wire is the port's only while its program is on the port: ifindexes
// are used again.
func (ws *wires) numberOf(port int) (number uint32, isLeft bool, err error) {
	free := uint32(0)
	for n := uint32(maxWires - 1); n > 0; n-- {
		switch int(ws.table[n].Port) {
		case port:
			isLeft, err := ws.portPlace(n, port).hasProgram()
			if isLeft || err != nil {
				return n, isLeft, err
			}
			free = n
		case 0:
			free = n
		}
	}
	if free == 0 {
		return 0, false, fmt.Errorf("all %d wires are taken", maxWires-1)
	}
	return free, false, ws.clear(free)
}

// hasProgram says whether a program of shunt's is at the place. Traffic hangs on the
// answer: where the kernel gives none, there is none.
func (at place) hasProgram() (bool, error) {
	if at.hasLink() {
		return true, nil
	}
	has, err := at.hasFilter()
	if isGone(err) {
		return false, nil
	}
	return has, err
}

func (ws *wires) wireDir(number uint32) string {
	return filepath.Join(ws.dir, fmt.Sprintf("wire-%d", number))
}

func (ws *wires) portPlace(number uint32, ifindex int) place {
	return place{ifindex: ifindex, egress: true, wire: number, dir: filepath.Join(ws.wireDir(number), "out")}
}

func (ws *wires) memberPlace(number uint32, ifindex int) place {
	dir := filepath.Join(ws.wireDir(number), fmt.Sprintf("member-%d", ifindex))
	return place{ifindex: ifindex, wire: number, dir: dir}
}

// leftMembers are the ifindexes of the members that have pins.
func (ws *wires) leftMembers(number uint32) (ifindexes []int, err error) {
	dirs, err := filepath.Glob(filepath.Join(ws.wireDir(number), "member-*"))
	for _, dir := range dirs {
		var ifindex int
		if _, err := fmt.Sscanf(filepath.Base(dir), "member-%d", &ifindex); err == nil {
			ifindexes = append(ifindexes, ifindex)
		}
	}
	return ifindexes, err
}

// clear makes the number one of a new wire: nothing is left of an earlier one.
func (ws *wires) clear(number uint32) error {
	members, err := ws.leftMembers(number)
	errs := []error{err}
	for _, ifindex := range members {
		errs = append(errs, removeFilter(ws.memberPlace(number, ifindex)))
	}
	errs = append(errs, removePins(ws.wireDir(number)))
	ws.table[number] = shuntWire{}
	zero := make([]shuntCount, ebpf.MustPossibleCPU())
	for reason := range uint32(accel.NumReasons) {
		errs = append(errs, ws.maps[wireMapWireCounts].Put(number*accel.NumReasons+reason, zero))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clear wire %d: %w", number, err)
	}
	return nil
}

// start loads the wire's programs and attaches them to the port and to the members
// that there were.
func (ws *wires) start(w *wire) (err error) {
	if err := ws.load(w); err != nil {
		return err
	}
	if err := makeDir(w.dir); err != nil {
		return err
	}
	w.shared.Port = uint32(w.ifindex)
	if w.out, err = attachHook(ws.hook, w.place, w.sender); err != nil {
		return err
	}
	left, err := ws.leftMembers(w.number)
	if err != nil {
		return err
	}
	for _, ifindex := range left {
		if err := ws.takeOver(w, ifindex); err != nil {
			return err
		}
	}
	w.forgetAbsent()
	return nil
}

// takeOver exchanges the program of a member that an earlier daemon left. One that
// is gone, or another by now, is forgotten.
func (ws *wires) takeOver(w *wire, ifindex int) error {
	at := ws.memberPlace(w.number, ifindex)
	has, err := at.hasProgram()
	if err != nil {
		return err
	}
	if !has {
		return removePins(at.dir)
	}
	return ws.add(w, ifindex)
}

// forgetAbsent takes members out of the wire's state that are none. A flip that an
// earlier daemon prepared and did not do is none either.
func (w *wire) forgetAbsent() {
	_, draining := w.change(func(active, draining int) (int, int) {
		if w.members[active] == nil {
			active = 0
		}
		if w.members[draining] == nil {
			draining = 0
		}
		return active, draining
	})
	if draining == 0 {
		atomic.StoreUint32(&w.shared.Marking, 0)
	}
}

// load loads the two programs that make a wire.
func (ws *wires) load(w *wire) error {
	var objects struct {
		Out *ebpf.Program `ebpf:"shunt_wire_out"`
		In  *ebpf.Program `ebpf:"shunt_wire_in"`
	}
	if err := ws.loadInto(w, &objects); err != nil {
		return err
	}
	w.sender, w.plain = objects.Out, objects.In
	return nil
}

// loadLeave loads the program for the port's own ingress. Nothing is on its way
// yet that it will count.
func (ws *wires) loadLeave(w *wire) (*ebpf.Program, error) {
	for n := range uint32(lanes) {
		if err := ws.maps[wireMapLanes].Put(w.number*lanes+n, shuntLane{}); err != nil {
			return nil, fmt.Errorf("clear the lanes: %w", err)
		}
	}
	var objects struct {
		Leave *ebpf.Program `ebpf:"shunt_wire_leave"`
	}
	return objects.Leave, ws.loadInto(w, &objects)
}

func (ws *wires) loadInto(w *wire, objects any) error {
	spec, err := loadWire()
	if err != nil {
		return fmt.Errorf("read the BPF objects: %w", err)
	}
	err = errors.Join(
		spec.Variables["wire_number"].Set(w.number),
		spec.Variables["reads_devices"].Set(ws.guards.readsDevices()))
	if err != nil {
		return fmt.Errorf("set the constants of the wire's programs: %w", err)
	}
	if err := spec.LoadAndAssign(objects, &ebpf.CollectionOptions{MapReplacements: ws.maps}); err != nil {
		return fmt.Errorf("load the programs of the wire: %w", err)
	}
	return nil
}

// add puts the program on a member. The program of one that was away, in another
// network namespace or deleted, may have gone with it: then it is put there again.
func (ws *wires) add(w *wire, ifindex int) error {
	at := ws.memberPlace(w.number, ifindex)
	if w.members[ifindex] != nil {
		if has, err := at.hasProgram(); has || err != nil {
			return err
		}
	}
	if err := ws.refuse(w, ifindex); err != nil {
		return err
	}
	if err := makeDir(at.dir); err != nil {
		return err
	}
	h, err := attachHook(ws.hook, at, w.program())
	if err != nil {
		return errors.Join(fmt.Errorf("attach member %d: %w", ifindex, err), removePins(at.dir))
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w.members[ifindex] = h
	return nil
}

// refuse says why a device cannot be a member of the wire. What two wires deliver
// goes around in the bridge, and so does what a stable port sends to itself.
func (ws *wires) refuse(w *wire, ifindex int) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byPort[ifindex] != nil || ifindex == w.ifindex {
		return fmt.Errorf("device %d is a stable port", ifindex)
	}
	for _, other := range ws.byPort {
		if other != w && other.members[ifindex] != nil {
			return fmt.Errorf("device %d is a member of stable port %d", ifindex, other.ifindex)
		}
	}
	return nil
}

// program is the one for the ingress of members.
func (w *wire) program() *ebpf.Program {
	if w.judge != nil {
		return w.judge
	}
	return w.plain
}

// judgeBy gives all members the program that judges for the port, and takes it.
func (w *wire) judgeBy(program *ebpf.Program) error {
	before := w.judge
	w.judge = program
	err := w.exchange()
	if before != nil {
		err = errors.Join(err, before.Close())
	}
	return err
}

// judgeByNone gives the members the plain program back, if they are judged by this
// one: every frame of theirs goes to the bridge. Where the port went to another bridge
// that one's judges by now.
func (w *wire) judgeByNone(program *ebpf.Program) error {
	if program == nil || w.judge != program {
		return nil
	}
	w.judge = nil
	return errors.Join(w.exchange(), program.Close())
}

// exchange gives every member the program that is right now. A device that is gone
// needs none.
func (w *wire) exchange() error {
	var errs []error
	for _, ifindex := range slices.Sorted(maps.Keys(w.members)) {
		err := w.members[ifindex].exchange(w.program())
		if err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("exchange the program of member %d: %w", ifindex, err))
		}
	}
	return errors.Join(errs...)
}

// isGone says whether an error comes of a device that is gone.
func isGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOLINK) || errors.Is(err, unix.ENXIO)
}

// removeMember takes the program off a member.
func (ws *wires) removeMember(w *wire, ifindex int) error {
	h, err := ws.take(w, ifindex)
	if h == nil {
		return err
	}
	if err = h.remove(); isGone(err) {
		err = nil
	}
	return errors.Join(err, removePins(ws.memberPlace(w.number, ifindex).dir))
}

// take takes a member that carries nothing off the list: no flip can make it active
// from here on, nor a program that saw it as the standby a moment ago. Flips of the
// daemon's do not wait for those.
func (ws *wires) take(w *wire, ifindex int) (hook, error) {
	h, err := ws.strike(w, ifindex)
	if h == nil || !ws.guards.readsDevices() {
		return h, err
	}
	awaitPrograms()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.carriesBy(ifindex) {
		w.members[ifindex] = h
		return nil, fmt.Errorf("member %d carries traffic since a moment ago", ifindex)
	}
	return h, nil
}

func (ws *wires) strike(w *wire, ifindex int) (hook, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	h := w.members[ifindex]
	if h != nil && w.carriesBy(ifindex) {
		return nil, fmt.Errorf("member %d carries traffic", ifindex)
	}
	delete(w.members, ifindex)
	ws.guards.forget(w.number, ifindex)
	return h, nil
}

// carriesBy says whether the member is active or draining.
func (w *wire) carriesBy(ifindex int) bool {
	active, draining := w.state()
	return ifindex == active || ifindex == draining
}

// remove takes the wire's programs off all devices.
func (ws *wires) remove(w *wire) error {
	ws.mu.Lock()
	delete(ws.byPort, w.ifindex)
	w.change(func(int, int) (int, int) { return 0, 0 })
	ws.mu.Unlock()
	var errs []error
	for _, ifindex := range slices.Sorted(maps.Keys(w.members)) {
		errs = append(errs, ws.removeMember(w, ifindex))
	}
	if err := w.out.remove(); !isGone(err) {
		errs = append(errs, err)
	}
	*w.shared = shuntWire{}
	ws.guards.table[w.number] = shuntGuarded{}
	return errors.Join(append(errs, w.closePrograms(), removePins(filepath.Dir(w.dir)))...)
}

func (w *wire) closePrograms() error {
	var errs []error
	for _, p := range []*ebpf.Program{w.sender, w.plain, w.judge} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// state returns the ifindexes of the active and the draining member.
func (w *wire) state() (active, draining int) {
	members := atomic.LoadUint64(&w.shared.Members)
	return int(uint32(members)), int(members >> 32)
}

// packMembers is struct wire's word of members.
func packMembers(active, draining int) uint64 { return uint64(uint32(active)) | uint64(draining)<<32 }

// change exchanges the members by one store, and returns which there are then. Programs
// may exchange them too, at any moment.
func (w *wire) change(to func(active, draining int) (int, int)) (active, draining int) {
	for {
		before := atomic.LoadUint64(&w.shared.Members)
		active, draining = to(int(uint32(before)), int(before>>32))
		if atomic.CompareAndSwapUint64(&w.shared.Members, before, packMembers(active, draining)) {
			return active, draining
		}
	}
}

// flip makes a member active and the one that was draining, by one store. Where none
// was active, the one that is draining goes on to: what was sent over it may come back.
// Marks of an earlier flip mean nothing for one that nobody prepared.
func (ws *wires) flip(w *wire, to int) (from int, err error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byPort[w.ifindex] != w || to != 0 && w.members[to] == nil {
		return 0, fmt.Errorf("device %d is no member of stable port %d", to, w.ifindex)
	}
	if active, draining := w.state(); active == to {
		return draining, nil // a program was first
	}
	if atomic.LoadUint32(&w.shared.Marking) == 0 {
		atomic.AddUint64(&w.shared.Generation, 1)
	}
	_, from = w.change(func(active, draining int) (int, int) {
		switch {
		case active == to || active == 0 && draining != to:
			return to, draining
		case active == 0:
			return to, 0
		}
		return to, active
	})
	return from, nil
}

// endDrain leaves the active member alone, if it is this one: the drain behind a flip of
// a program is not over.
func (ws *wires) endDrain(w *wire, of int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	active, _ := w.change(func(active, draining int) (int, int) {
		if active != of {
			return active, draining
		}
		return active, 0
	})
	if active == of {
		atomic.StoreUint32(&w.shared.Marking, 0)
	}
}

// guard makes the wire's programs know the active member and its standby.
func (ws *wires) guard(w *wire, members [2]accel.Guard) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, m := range members {
		if m.Member != 0 && w.members[m.Member] == nil {
			err := ws.guards.set(w.number, [2]accel.Guard{})
			return errors.Join(fmt.Errorf("device %d is no member of stable port %d", m.Member, w.ifindex), err)
		}
	}
	return ws.guards.set(w.number, members)
}

// cutWires takes the fast path off all wires that are left in the namespace and
// says which there are. Nobody may work on them.
func cutWires(root string) (kept []string, err error) {
	if _, err := os.Stat(filepath.Join(root, "wires", WireSchema)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	hook, err := chooseHook("auto")
	if err != nil {
		return nil, err
	}
	ws, err := openWires(root, hook)
	if err != nil {
		return nil, err
	}
	for _, ifindex := range slices.Sorted(maps.Keys(ws.byPort)) {
		if port, err := net.InterfaceByIndex(ifindex); err == nil {
			kept = append(kept, "the fast path of stable port "+port.Name+"; its members go on to carry it")
		}
	}
	return kept, ws.close()
}
