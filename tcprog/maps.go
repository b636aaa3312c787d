package tcprog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// Schema is the version of the maps' layout and meaning. Maps of another schema
// are not taken over.
const Schema = "v6"

const bpffs = "/sys/fs/bpf"

// The maps that are sections of the objects, of one value each.
const (
	mapBridge        = ".data.bridge"
	mapChanges       = ".data.changes"
	mapFlows         = ".data.flows"
	mapCounters      = ".data.counters"
	mapImagesSection = ".data.images"
)

// pinName is the name of a map's pin; bpffs takes no dots.
func pinName(name string) string { return strings.TrimPrefix(name, ".data.") }

// sharedMaps are the maps that the programs of one bridge share.
var sharedMaps = []string{mapBridge, shuntMapPorts, shuntMapStations, shuntMapVlans, mapFlows, mapImagesSection}

// pinRoot is the directory for the pins of a namespace.
func pinRoot(ns accel.Namespace) string {
	return filepath.Join(bpffs, "shunt", fmt.Sprintf("net-%d", ns.Inode))
}

// bridgeDir is the directory for the pins of a bridge; every schema has one of
// its own below it.
func bridgeDir(root string, ifindex int) string {
	return filepath.Join(root, fmt.Sprintf("bridge-%d", ifindex))
}

// portDir is the directory for the pins of a port, below those of its bridge.
func portDir(bridge string, ifindex int) string {
	return filepath.Join(bridge, fmt.Sprintf("port-%d", ifindex))
}

// ensureBPFFS mounts a bpffs where there is none, and says whether it did.
func ensureBPFFS() (mounted bool, err error) {
	have, err := isBPFFS(bpffs)
	if err != nil {
		return false, fmt.Errorf("the kernel has no BPF filesystem at %s: %w; shunt needs CONFIG_BPF_SYSCALL", bpffs, err)
	}
	if have {
		return false, nil
	}
	if err := unix.Mount("bpf", bpffs, "bpf", 0, "mode=0700"); err != nil {
		return false, fmt.Errorf("mount a bpffs at %s: %w; mount it by hand: mount -t bpf bpf %s", bpffs, err, bpffs)
	}
	return true, nil
}

func isBPFFS(path string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return false, err
	}
	return uint32(fs.Type) == unix.BPF_FS_MAGIC, nil
}

// loadSpec returns the compiled objects, with the sizes of the maps set. Images are there
// for ports whose state is read live.
func loadSpec(maxStations int, live bool) (*ebpf.CollectionSpec, error) {
	spec, err := loadShunt()
	if err != nil {
		return nil, fmt.Errorf("read the BPF objects: %w", err)
	}
	last, err := lastCPU()
	if err != nil {
		return nil, err
	}
	spec.Maps[shuntMapStations].MaxEntries = uint32(maxStations)
	for _, section := range []string{mapBridge, mapFlows, mapCounters, mapImagesSection} {
		spec.Maps[section].Flags |= unix.BPF_F_MMAPABLE // as the loader does
	}
	enlarge(spec, "flows", (last+1)<<flowsBits)
	enlarge(spec, "counters", (last+1)<<reasonsBits)
	if live {
		enlarge(spec, "images", maxSlots)
	}
	return spec, nil
}

// FLOWS_BITS and REASONS_BITS in bpf/flows.h.
const (
	flowsBits   = 12
	reasonsBits = 7
)

// enlarge makes room for so many values in the section of a variable, which is compiled
// with one. What the section's size would be compared with goes.
func enlarge(spec *ebpf.CollectionSpec, variable string, values uint32) {
	section := spec.Maps[spec.Variables[variable].SectionName]
	section.ValueSize *= values
	section.Key, section.Value, section.Contents = nil, nil, nil
	delete(spec.Variables, variable)
}

// lastCPU is last_cpu in bpf/flows.h.
func lastCPU() (uint32, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return 0, fmt.Errorf("ask for the number of CPUs: %w", err)
	}
	return 1<<bits.Len(uint(cpus-1)) - 1, nil
}

// openMaps returns the bridge's shared maps: those pinned in dir if all of them
// are there and fit, and else new ones, which it pins. Then everything else of the
// bridge goes, programs of another schema too.
func openMaps(dir string, spec *ebpf.CollectionSpec) (maps map[string]*ebpf.Map, adopted bool, err error) {
	maps, err = adoptMaps(dir, sharedMaps, spec)
	if err == nil {
		return maps, true, nil
	}
	if err := removePins(filepath.Dir(dir)); err != nil {
		return nil, false, err
	}
	maps, err = createMaps(dir, sharedMaps, spec)
	return maps, false, err
}

func adoptMaps(dir string, names []string, spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	maps := make(map[string]*ebpf.Map)
	for _, name := range names {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, pinName(name)), nil)
		if err == nil {
			maps[name] = m
			err = spec.Maps[name].Compatible(m)
		}
		if err != nil {
			closeMaps(maps)
			return nil, err
		}
	}
	return maps, nil
}

func createMaps(dir string, names []string, spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	maps := make(map[string]*ebpf.Map)
	for _, name := range names {
		m, err := newPinnedMap(filepath.Join(dir, pinName(name)), spec.Maps[name])
		if err != nil {
			closeMaps(maps)
			return nil, errors.Join(err, removePins(dir))
		}
		maps[name] = m
	}
	return maps, nil
}

func newPinnedMap(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("make the map %s: %w", spec.Name, err)
	}
	if err := m.Pin(path); err != nil {
		m.Close()
		return nil, fmt.Errorf("pin the map %s: %w", spec.Name, err)
	}
	return m, nil
}

// memoryOf maps an array map, whole, into the daemon's memory. Values are of multiples of
// eight bytes, so they lie side by side (kernel/bpf/arraymap.c: array_map_alloc).
func memoryOf(m *ebpf.Map) ([]byte, error) {
	page := os.Getpagesize()
	size := (int(m.ValueSize()*m.MaxEntries()) + page - 1) / page * page
	return unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// removePins removes a directory of pins, and first takes the programs of the
// links in it off their ports. The kernel frees what nobody else holds.
func removePins(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != linkPin {
			return err
		}
		return removePinnedLink(path)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the links in %s: %w", dir, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the pins in %s: %w", dir, err)
	}
	return nil
}

// removeDeadBridges removes the pins of bridges that were deleted while no daemon
// ran: tracing programs hang on them, of which a function takes only so many.
func removeDeadBridges(root string) error {
	dirs, err := filepath.Glob(filepath.Join(root, "bridge-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		var ifindex int
		if _, err := fmt.Sscanf(filepath.Base(dir), "bridge-%d", &ifindex); err != nil {
			continue
		}
		if _, err := net.InterfaceByIndex(ifindex); err != nil {
			errs = append(errs, removePins(dir))
		}
	}
	return errors.Join(errs...)
}

// removeEmptyParents removes dir and the shunt directories above it, as far as
// they are empty.
func removeEmptyParents(dir string) {
	for dir != bpffs && os.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for the pins: %w", err)
	}
	return nil
}
