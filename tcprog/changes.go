package tcprog

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// changes notices what the kernel itself changes of ports, bridges and netfilter
// hooks: it gives every device a version. Programs at the exit of the kernel's
// functions raise it (trace.c); where the kernel refuses those, the port programs
// read the kernel's state with every frame and the version stands for that state
// (images.h); where it refuses that too, versions stand still.
//
// Nothing is taken over from an earlier daemon. Its tracing programs live as long
// as the pins in the directories of its bridges, and so as the port programs
// that hang on them.
type changes struct {
	mode    uint32 // as in shunt.c
	watched *ebpf.Map
	number  *ebpf.Map            // of all changes
	links   map[string]link.Link // by the name of the program
	holders map[int]int          // of a device's watch: bridges that have it as a port, and itself
	peers   bool                 // what concerns the far ends of ports is noticed too

	mu    sync.Mutex // of what is below
	look  *ebpf.Program
	looks *ebpf.Map
	past  past
}

// How changes are noticed, as in shunt.c.
const (
	modeNetlink = 0
	modeTraced  = 1
	modeLive    = 2
)

// openChanges finds out what the kernel can do and starts to notice. With peers frames
// may go straight to the far ends of ports.
func openChanges(ns accel.Namespace, types *btf.Cache, peers bool, logger *slog.Logger) (*changes, error) {
	spec, err := loadTrace()
	if err != nil {
		return nil, fmt.Errorf("read the BPF objects: %w", err)
	}
	c := &changes{links: make(map[string]link.Link), holders: make(map[int]int), peers: peers}
	if c.watched, err = ebpf.NewMap(spec.Maps[traceMapWatched]); err != nil {
		return nil, fmt.Errorf("make the map of watched devices: %w", err)
	}
	spec.Maps[mapChanges].Flags |= unix.BPF_F_MMAPABLE // as the loader does
	if c.number, err = ebpf.NewMap(spec.Maps[mapChanges]); err != nil {
		return nil, errors.Join(fmt.Errorf("make the map of changes: %w", err), c.watched.Close())
	}
	traced := c.trace(ns, spec, types)
	if traced == nil {
		c.mode = modeTraced
		return c, nil
	}
	live := c.readLive(types)
	if live == nil {
		logger.Debug("the kernel's state is read with every frame, since its functions cannot be traced", "error", traced)
		c.mode = modeLive
		return c, nil
	}
	logger.Warn("changes of ports, VLANs and netfilter take effect when netlink tells of them, and not at once",
		"traced", traced, "live", live)
	return c, nil
}

// maps are what the port programs share with the tracing programs.
func (c *changes) maps() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{traceMapWatched: c.watched, mapChanges: c.number}
}

// trace attaches the programs of trace.c. All of them, or none counts.
func (c *changes) trace(ns accel.Namespace, spec *ebpf.CollectionSpec, types *btf.Cache) error {
	programs, err := loadTracePrograms(ns, spec, types, c.peers, c.maps())
	if err != nil {
		return err
	}
	defer programs.Close()
	if err := c.attach(programs); err != nil {
		return errors.Join(err, c.closeLinks())
	}
	return nil
}

func (c *changes) attach(programs *ebpf.Collection) error {
	for name, program := range programs.Programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: program, AttachType: ebpf.AttachTraceFExit})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		c.links[name] = l
	}
	return nil
}

func loadTracePrograms(ns accel.Namespace, spec *ebpf.CollectionSpec, types *btf.Cache, peers bool, maps map[string]*ebpf.Map) (*ebpf.Collection, error) {
	err := errors.Join(spec.Variables["netns_inode"].Set(uint32(ns.Inode)), spec.Variables["peers"].Set(peers))
	if err != nil {
		return nil, fmt.Errorf("set the constants of the tracing programs: %w", err)
	}
	if !peers {
		for _, name := range ofPeers {
			delete(spec.Programs, name)
		}
	}
	if err := dropAbsent(spec, types); err != nil {
		return nil, err
	}
	all, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps, Cache: types})
	if err != nil {
		return nil, fmt.Errorf("load the tracing programs: %w", err)
	}
	return all, nil
}

// dispensable are the functions of parts that a kernel may lack; then they cannot
// change anything either.
var dispensable = map[string]bool{
	"tcx_prog_attach": true, "tcx_link_attach": true, "mini_qdisc_pair_swap": true, "vlan_vid_add": true,
	"br_vlan_notify": true, "br_vlan_process_options": true, "nbp_vlan_add": true,
	"nbp_vlan_delete": true, "nbp_vlan_flush": true, "__br_vlan_set_proto": true,
}

// ofPeers are the programs that notice only what concerns the far ends of ports.
var ofPeers = []string{"shunt_dev_add_pack", "shunt_dev_activate"}

// dropAbsent takes out the programs for functions that this kernel does not have
// and need not have.
func dropAbsent(spec *ebpf.CollectionSpec, types *btf.Cache) error {
	own, err := functions(types.Kernel())
	if err != nil {
		return fmt.Errorf("look for the kernel's functions: %w", err)
	}
	bridges, err := functions(types.Module("bridge"))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // no module: it is built in
		return fmt.Errorf("look for the bridge's functions: %w", err)
	}
	if !own["tcx_prog_attach"] {
		// shunt is the last of clsact's filters there, so none can come behind.
		own["mini_qdisc_pair_swap"] = false
	}
	for name, program := range spec.Programs {
		if dispensable[program.AttachTo] && !own[program.AttachTo] && !bridges[program.AttachTo] {
			delete(spec.Programs, name)
		}
	}
	return nil
}

// functions says which of the dispensable functions there are.
func functions(types *btf.Spec, err error) (map[string]bool, error) {
	if err != nil {
		return nil, err
	}
	have := make(map[string]bool)
	for name := range dispensable {
		var f *btf.Func
		err := types.TypeByName(name, &f)
		if err != nil && !errors.Is(err, btf.ErrNotFound) {
			return nil, err
		}
		have[name] = err == nil
	}
	return have, nil
}

// pin makes the tracing programs outlive the daemon for as long as dir does, in
// place of those of an earlier daemon.
func (c *changes) pin(dir string) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	for name, l := range c.links {
		if err := pinAgain(l, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pin the tracing program %s: %w", name, err)
		}
	}
	return nil
}

// pinAgain gives a link one more pin, which a link.Link by itself would move.
func pinAgain(l link.Link, path string) error {
	fd, err := unix.FcntlInt(uintptr(l.(interface{ FD() int }).FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	other, err := link.NewFromFD(fd)
	if err != nil {
		return err
	}
	defer other.Close()
	return pinInPlace(other, path)
}

// readLive loads the program that reads a port as the port programs do, and tries one of
// those.
func (c *changes) readLive(types *btf.Cache) error {
	spec, err := loadSpec(1, true)
	if err != nil {
		return err
	}
	if err := spec.Variables["revocation"].Set(uint32(modeLive)); err != nil {
		return err
	}
	var objects struct {
		Ingress *ebpf.Program `ebpf:"shunt_ingress_live"`
		Look    *ebpf.Program `ebpf:"shunt_look"`
		Looks   *ebpf.Map     `ebpf:"looks"`
	}
	if err := spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{Cache: types}); err != nil {
		return fmt.Errorf("load the program that reads the kernel's state: %w", err)
	}
	c.look, c.looks = objects.Look, objects.Looks
	return objects.Ingress.Close()
}

// tracesPeers says whether programs notice all that makes a port unfit for frames that
// go straight to its far end.
func (c *changes) tracesPeers() bool { return c.peers && c.mode == modeTraced }

// state is the mode in the words of accel.Revocation.
func (c *changes) state() string {
	switch c.mode {
	case modeTraced:
		return accel.StateTraced
	case modeLive:
		return accel.StateLive
	}
	return accel.StateNetlink
}

// watch begins to count the changes of a device. Its first version is one that
// no device with this number had before.
func (c *changes) watch(ifindex int, isBridge bool) error {
	w := shuntWatch{Version: monotonicNow()}
	if isBridge {
		w.IsBridge = 1
	}
	if err := c.watched.Update(uint32(ifindex), w, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("watch device %d: %w", ifindex, err)
	}
	c.holders[ifindex]++
	return nil
}

// unwatch undoes one watch. A port that went from one bridge to another has two
// for a while.
func (c *changes) unwatch(ifindex int) error {
	if c.holders[ifindex]--; c.holders[ifindex] > 0 {
		return nil
	}
	delete(c.holders, ifindex)
	err := c.watched.Delete(uint32(ifindex))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// seen is what is known of a port at one moment.
type seen struct {
	version       uint64
	bridge        uint64 // version of its bridge, where it is read live
	bridgeIfindex int
	vlanDevices   bool
}

// ofDevice returns the version of a device that is watched; 0 of any other.
func (c *changes) ofDevice(ifindex int) seen {
	var w shuntWatch
	if c.watched.Lookup(uint32(ifindex), &w) != nil {
		return seen{}
	}
	return seen{version: w.Version, vlanDevices: w.VlanDevices != 0}
}

// ofPort returns a port as it is now.
func (c *changes) ofPort(ifindex int) seen {
	switch c.mode {
	case modeTraced:
		return c.ofDevice(ifindex)
	case modeLive:
		return c.ofLivePort(ifindex)
	}
	return seen{}
}

// ofLivePort runs the program on the port. A device that is gone, or is no port
// any more, has no version.
func (c *changes) ofLivePort(ifindex int) seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	var look shuntLook
	if _, err := runOn(c.look, ifindex, make([]byte, minFrame)); err != nil {
		return seen{}
	}
	if err := c.looks.Lookup(uint32(0), &look); err != nil || look.BridgeIfindex == 0 {
		return seen{}
	}
	return seen{
		version: c.past.keep(portImage(look.Port)), bridge: c.past.keep(bridgeImage(look.Bridge)),
		bridgeIfindex: int(look.BridgeIfindex), vlanDevices: look.Port.VlanDevices != 0,
	}
}

// imageOf is the state, of a port or a bridge, that the version stands for; false if that
// is not known.
func imageOf[T portImage | bridgeImage](c *changes, version uint64) (image T, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	image, known = c.past.find(version).(T)
	return image, known
}

// minFrame is the shortest frame of a test run, in bytes
// (net/bpf/test_run.c: bpf_prog_test_run_skb).
const minFrame = ethHeaderLen

// runOn gives the program a frame as if it had come in on the device, which must
// be in the namespace of the calling thread. What the program wrote is in the frame.
func runOn(program *ebpf.Program, ifindex int, frame []byte) (result uint32, err error) {
	var context struct { // struct __sk_buff
		_       [40]byte
		Ifindex uint32
		_       [148]byte
	}
	context.Ifindex = uint32(ifindex)
	return program.Run(&ebpf.RunOptions{Data: frame, DataOut: frame, Context: &context})
}

func (c *changes) closeLinks() error {
	var errs []error
	for _, l := range c.links {
		errs = append(errs, l.Close())
	}
	clear(c.links)
	return errors.Join(errs...)
}

func (c *changes) close() error {
	errs := []error{c.closeLinks(), c.watched.Close(), c.number.Close()}
	if c.look != nil {
		errs = append(errs, c.look.Close(), c.looks.Close())
	}
	return errors.Join(errs...)
}
