package tcprog

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// The kinds of changes, enum change_kind in bpf/batch.c.
const (
	changeAdmit    = 0
	changeActivate = 1
	changeRevoke   = 2
)

// batch makes many changes of a bridge's map of stations in one system call.
type batch struct {
	program *ebpf.Program
	table   *ebpf.Map
	page    []byte
	changes []batchChange // shared with the program
	used    int
}

// mostChanges is MAX_CHANGES in bpf/batch.c.
const mostChanges = 1024

func openBatch(maps map[string]*ebpf.Map) (*batch, error) {
	spec, err := loadBatch()
	if err != nil {
		return nil, fmt.Errorf("read the BPF objects: %w", err)
	}
	spec.Maps[batchMapStations].MaxEntries = maps[shuntMapStations].MaxEntries()
	var objects struct {
		Program *ebpf.Program `ebpf:"shunt_batch"`
		Table   *ebpf.Map     `ebpf:"batch"`
	}
	err = spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		mapBridge: maps[mapBridge], batchMapStations: maps[shuntMapStations],
	}})
	if err != nil {
		return nil, fmt.Errorf("load the program that changes stations: %w", err)
	}
	b := &batch{program: objects.Program, table: objects.Table}
	if b.page, err = memoryOf(b.table); err != nil {
		b.close()
		return nil, fmt.Errorf("map the changes of stations: %w", err)
	}
	b.changes = unsafe.Slice((*batchChange)(unsafe.Pointer(&b.page[0])), mostChanges)
	return b, nil
}

// put adds a change to those that run makes.
func (b *batch) put(kind uint32, k accel.StationKey, rec shuntStation) {
	b.changes[b.used] = batchChange{
		Key: batchStationKey{Mac: k.MAC, Vid: k.VID}, Record: batchStation(rec), Kind: kind,
	}
	b.used++
}

// run makes the changes, and calls f for each with the error of the map: 0 is none.
func (b *batch) run(f func(accel.StationKey, unix.Errno) error) error {
	used := b.used
	b.used = 0
	if used == 0 {
		return nil
	}
	if _, err := b.program.Run(&ebpf.RunOptions{Context: batchRequest{Changes: uint32(used)}}); err != nil {
		return fmt.Errorf("run the program that changes stations: %w", err)
	}
	for _, c := range b.changes[:used] {
		k := accel.StationKey{MAC: c.Key.Mac, VID: c.Key.Vid}
		if err := f(k, unix.Errno(-c.Result)); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) close() {
	if b == nil {
		return
	}
	if b.page != nil {
		unix.Munmap(b.page)
	}
	b.program.Close()
	b.table.Close()
}
