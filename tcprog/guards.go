package tcprog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// guards tell the programs of wires where the kernel has the active member and its
// standby, so that they see a carrier that is lost with the next frame and move the
// traffic themselves. The map is pinned beside those of the wires: the programs of an
// earlier daemon are told of nobody any more when the next one opens it.
type guards struct {
	guardPrograms
	m     *ebpf.Map
	page  []byte
	table *[maxWires]shuntGuarded // the map, mapped
}

// guardPrograms read devices; they are nil where the kernel lets none (before Linux
// 6.2).
type guardPrograms struct {
	Carrier *ebpf.Program `ebpf:"shunt_carrier"` // a device's
	Device  *ebpf.Program `ebpf:"shunt_device"`  // where it is
}

func loadGuardPrograms(spec *ebpf.CollectionSpec) (p guardPrograms, err error) {
	err = spec.LoadAndAssign(&p, nil)
	return p, err
}

func (p guardPrograms) close() error { return errors.Join(p.Carrier.Close(), p.Device.Close()) }

// guardsPin is the name of the map's pin.
const guardsPin = "guards"

// openGuards opens the map that an earlier daemon left, or makes one, with nobody in it.
// Where the kernel takes no program that reads a device nobody is guarded.
func openGuards(dir string, spec *ebpf.CollectionSpec) (*guards, error) {
	m, err := openGuardsMap(filepath.Join(dir, guardsPin), spec.Maps[wireMapGuards])
	if err != nil {
		return nil, err
	}
	page, err := memoryOf(m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the guards: %w", err), m.Close())
	}
	g := &guards{m: m, page: page, table: (*[maxWires]shuntGuarded)(unsafe.Pointer(&page[0]))}
	if programs, err := loadGuardPrograms(spec); err == nil {
		g.guardPrograms = programs
	}
	return g, nil
}

// openGuardsMap clears what it takes over, and what it does not.
func openGuardsMap(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return newPinnedMap(path, spec)
	}
	if err != nil {
		return nil, fmt.Errorf("open the map %s: %w", spec.Name, err)
	}
	nothing := make([]byte, m.ValueSize())
	for wire := range m.MaxEntries() {
		if err := m.Put(wire, nothing); err != nil {
			return nil, errors.Join(fmt.Errorf("clear the map %s: %w", spec.Name, err), m.Close())
		}
	}
	awaitPrograms()
	if spec.Compatible(m) == nil {
		return m, nil
	}
	if err := errors.Join(m.Close(), os.Remove(path)); err != nil {
		return nil, fmt.Errorf("replace the map %s: %w", spec.Name, err)
	}
	return newPinnedMap(path, spec)
}

// readsDevices says whether the kernel lets a program read a device.
func (g *guards) readsDevices() bool { return g.Device != nil }

func (g *guards) close() error {
	return errors.Join(unix.Munmap(g.page), g.m.Close(), g.guardPrograms.close())
}

// set makes the programs of a wire know these members; nothing is known of one that
// has the number 0. Where a device cannot be found nobody is known: what they knew
// before was of another pair.
func (g *guards) set(wire uint32, members [2]accel.Guard) error {
	var records [2]shuntGuard
	var errs [2]error
	for n, m := range members {
		records[n], errs[n] = g.find(m)
	}
	err := errors.Join(errs[:]...)
	for n := range records {
		if err != nil {
			records[n] = shuntGuard{}
		}
		g.table[wire].Members[n].store(records[n])
	}
	return err
}

// store exchanges the record as bpf/wire.h asks for.
func (at *shuntGuard) store(record shuntGuard) {
	if *at == record {
		return
	}
	atomic.StoreUint32(&at.Ifindex, 0)
	atomic.StoreUint64(&at.Device, record.Device)
	atomic.StoreUint64(&at.Net, record.Net)
	atomic.StoreUint64(&at.Below, record.Below)
	atomic.StoreUint32(&at.BelowIfindex, record.BelowIfindex)
	atomic.StoreUint32(&at.Ifindex, record.Ifindex)
}

// find returns what the programs need of a member.
func (g *guards) find(m accel.Guard) (record shuntGuard, err error) {
	if m.Member == 0 || !g.readsDevices() {
		return shuntGuard{}, nil
	}
	if record.Device, record.Net, err = g.address(m.Member); err != nil {
		return shuntGuard{}, err
	}
	if m.Below != 0 {
		if record.Below, _, err = g.address(m.Below); err != nil {
			return shuntGuard{}, err
		}
	}
	record.Ifindex, record.BelowIfindex = uint32(m.Member), uint32(m.Below)
	return record, nil
}

// address is where the kernel has a device, and its network namespace.
func (g *guards) address(ifindex int) (device, net uint64, err error) {
	frame := make([]byte, 16)
	if _, err := runOn(g.Device, ifindex, frame); err != nil {
		return 0, 0, fmt.Errorf("find device %d in the kernel: %w", ifindex, err)
	}
	return binary.NativeEndian.Uint64(frame), binary.NativeEndian.Uint64(frame[8:]), nil
}

// forget takes a member out of what the programs of a wire know. Those that run now may
// still flip to it: see awaitPrograms.
func (g *guards) forget(wire uint32, ifindex int) {
	for n := range g.table[wire].Members {
		if at := &g.table[wire].Members[n]; int(at.Ifindex) == ifindex {
			at.store(shuntGuard{})
		}
	}
}

// awaitPrograms returns when every program that runs now is over: they hold RCU's lock,
// and MEMBARRIER_CMD_GLOBAL waits for all who do (kernel/sched/membarrier.c). Where
// CPUs run without a tick the kernel refuses it; a program takes microseconds.
func awaitPrograms() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		time.Sleep(programTime)
	}
}

// programTime is far longer than a program takes.
const programTime = 50 * time.Millisecond

// failovers is how often programs of the wire moved its traffic, or tried to, and when
// last.
func (g *guards) failovers(wire uint32) (n uint64, last time.Time) {
	n = atomic.LoadUint64(&g.table[wire].Failovers)
	at := atomic.LoadUint64(&g.table[wire].FailedOverNs)
	return n, time.Now().Add(-time.Duration(monotonicNow() - at))
}
