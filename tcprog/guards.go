package tcprog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// guards tell the programs of wires where the kernel has the active member and its
// standby, so that they see a carrier that is lost with the next frame and move the
// traffic themselves. They are not pinned: who loads the programs makes its own.
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

// openGuards makes the map. Where the kernel takes no program that reads a device
// nobody is guarded.
func openGuards(spec *ebpf.CollectionSpec) (*guards, error) {
	m, err := ebpf.NewMap(spec.Maps[wireMapGuards])
	if err != nil {
		return nil, fmt.Errorf("make the map %s: %w", wireMapGuards, err)
	}
	size := roundUp(int(m.ValueSize())*maxWires, os.Getpagesize())
	page, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the guards: %w", err), m.Close())
	}
	g := &guards{m: m, page: page, table: (*[maxWires]shuntGuarded)(unsafe.Pointer(&page[0]))}
	if programs, err := loadGuardPrograms(spec); err == nil {
		g.guardPrograms = programs
	}
	return g, nil
}

// readsDevices says whether the kernel lets a program read a device.
func (g *guards) readsDevices() bool { return g.Device != nil }

func (g *guards) close() error {
	return errors.Join(unix.Munmap(g.page), g.m.Close(), g.guardPrograms.close())
}

// set makes the programs of a wire know these members; nothing is known of one that
// has the number 0. Where a device cannot be found nothing changes.
func (g *guards) set(wire uint32, members [2]accel.Guard) error {
	var records [2]shuntGuard
	for n, m := range members {
		var err error
		if records[n], err = g.find(m); err != nil {
			return err
		}
	}
	for n := range records {
		g.table[wire].Members[n].store(records[n])
	}
	return nil
}

// store exchanges the record as bpf/wire.h asks for.
func (at *shuntGuard) store(record shuntGuard) {
	if *at == record {
		return
	}
	atomic.StoreUint32(&at.Ifindex, 0)
	atomic.StoreUint64(&at.Device, record.Device)
	atomic.StoreUint64(&at.Below, record.Below)
	atomic.StoreUint32(&at.BelowIfindex, record.BelowIfindex)
	atomic.StoreUint32(&at.Ifindex, record.Ifindex)
}

// find returns what the programs need of a member.
func (g *guards) find(m accel.Guard) (record shuntGuard, err error) {
	if m.Member == 0 || !g.readsDevices() {
		return shuntGuard{}, nil
	}
	if record.Device, err = g.address(m.Member); err != nil {
		return shuntGuard{}, err
	}
	if m.Below != 0 {
		if record.Below, err = g.address(m.Below); err != nil {
			return shuntGuard{}, err
		}
	}
	record.Ifindex, record.BelowIfindex = uint32(m.Member), uint32(m.Below)
	return record, nil
}

// address is where the kernel has a device.
func (g *guards) address(ifindex int) (uint64, error) {
	frame := make([]byte, minFrame)
	if _, err := runOn(g.Device, ifindex, frame); err != nil {
		return 0, fmt.Errorf("find device %d in the kernel: %w", ifindex, err)
	}
	return binary.NativeEndian.Uint64(frame), nil
}

// forget takes a member out of what the programs of a wire know, and says whether they
// knew it. Those that run now may still flip to it: see awaitPrograms.
func (g *guards) forget(wire uint32, ifindex int) (known bool) {
	for n := range g.table[wire].Members {
		if at := &g.table[wire].Members[n]; int(at.Ifindex) == ifindex {
			at.store(shuntGuard{})
			known = true
		}
	}
	return known
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

// failedOver is when a program of the wire moved its traffic last; the zero time if none
// did.
func (g *guards) failedOver(wire uint32) time.Time {
	at := atomic.LoadUint64(&g.table[wire].FailedOverNs)
	if at == 0 {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(monotonicNow() - at))
}
