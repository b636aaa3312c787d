package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// stopwatch measures in the kernel how long an entry of the bridge takes to be in the data
// plane's map. One program notes when the bridge is told to add it; another looks into the
// map whenever a system call of anybody ends, that of the daemon that put it there among
// them. So nobody waits in a loop, who would take a CPU from those who are measured, and
// nobody has to be woken before the watch stops.
type stopwatch struct {
	state *ebpf.Map // one stopped
	// admitted and activated are what was measured so far.
	admitted, activated latencies
}

// stopped is what the programs share with the test. Times are of CLOCK_MONOTONIC, in
// nanoseconds; 0 is not yet.
type stopped struct {
	Key                        [8]byte // of the entry that is watched (bpf/maps.h: struct station_key)
	Added, Admitted, Activated uint64
}

// The offsets of its parts.
const (
	atAdded     = 8
	atAdmitted  = 16
	atActivated = 24
)

// newStopwatch watches the daemon's map of stations until the test ends.
func newStopwatch(t *testing.T, l *lab.Lab) *stopwatch {
	t.Helper()
	stations, err := ebpf.LoadPinnedMap(stationsPin(t, l), nil)
	must(t, err)
	t.Cleanup(func() { stations.Close() })
	state, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 32, MaxEntries: 1})
	must(t, err)
	t.Cleanup(func() { state.Close() })
	for _, at := range []struct {
		tracepoint string
		program    asm.Instructions
	}{
		{"br_fdb_add", noteAddition(state)},
		{"sys_exit", noteStation(state, stations)},
	} {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.RawTracepoint, License: "Dual BSD/GPL", Instructions: at.program,
		})
		must(t, err)
		t.Cleanup(func() { program.Close() })
		attached, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: at.tracepoint, Program: program})
		must(t, err)
		t.Cleanup(func() { attached.Close() })
	}
	return &stopwatch{state: state}
}

// stationsPin is where the daemon's map of stations is.
func stationsPin(t *testing.T, l *lab.Lab) string {
	t.Helper()
	inode, err := l.Bridge.Inode()
	must(t, err)
	found, err := filepath.Glob(fmt.Sprintf("/sys/fs/bpf/shunt/net-%d/bridge-*/*/stations", inode))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("there are %d maps of stations: %v", len(found), found)
	}
	return found[0]
}

// loadState makes R7 point to the state, or ends the program.
func loadState(state *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, state.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.Mov.Reg(asm.R7, asm.R0),
	}
}

// noteTime stores the time in the state, at the offset.
func noteTime(at int16) asm.Instructions {
	return asm.Instructions{asm.FnKtimeGetNs.Call(), asm.StoreMem(asm.R7, at, asm.R0, asm.DWord)}
}

func endProgram() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return()}
}

// noteAddition is called with the arguments of the bridge's br_fdb_add: the third is the
// address. It takes in the first addition of the entry that is watched.
func noteAddition(state *ebpf.Map) asm.Instructions {
	return slices.Concat(
		asm.Instructions{asm.LoadMem(asm.R6, asm.R1, 2*8, asm.DWord)},
		loadState(state),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R7, atAdded, asm.DWord),
			asm.JNE.Imm(asm.R1, 0, "end"),
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -16),
			asm.Mov.Imm(asm.R2, 6),
			asm.Mov.Reg(asm.R3, asm.R6),
			asm.FnProbeReadKernel.Call(),
			asm.LoadMem(asm.R1, asm.RFP, -16, asm.DWord),
			asm.LoadMem(asm.R2, asm.R7, 0, asm.DWord),
			asm.JNE.Reg(asm.R1, asm.R2, "end"),
		},
		noteTime(atAdded), endProgram())
}

// noteStation looks for the station from its addition on, until it is active.
func noteStation(state, stations *ebpf.Map) asm.Instructions {
	const flagsOffset, flagActive = 4, 1 // bpf/maps.h: struct station
	return slices.Concat(
		loadState(state),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R7, atAdded, asm.DWord),
			asm.JEq.Imm(asm.R1, 0, "end"),
			asm.LoadMem(asm.R1, asm.R7, atActivated, asm.DWord),
			asm.JNE.Imm(asm.R1, 0, "end"),
			asm.LoadMem(asm.R1, asm.R7, 0, asm.DWord),
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -16),
			asm.LoadMapPtr(asm.R1, stations.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "end"),
			asm.LoadMem(asm.R8, asm.R0, flagsOffset, asm.Word),
			asm.LoadMem(asm.R1, asm.R7, atAdmitted, asm.DWord),
			asm.JNE.Imm(asm.R1, 0, "known"),
		},
		noteTime(atAdmitted),
		asm.Instructions{
			asm.And.Imm(asm.R8, flagActive).WithSymbol("known"),
			asm.JEq.Imm(asm.R8, 0, "end"),
		},
		noteTime(atActivated), endProgram())
}

// start watches for an entry that will be added; the one before is given up if it was
// not found.
func (w *stopwatch) start(t *testing.T, mac accel.MAC) {
	t.Helper()
	var s stopped
	copy(s.Key[:], mac[:])
	must(t, w.state.Put(uint32(0), s))
}

// isIdle says whether the entry was found, and takes in how long it took.
func (w *stopwatch) isIdle(t *testing.T) bool {
	t.Helper()
	var s stopped
	must(t, w.state.Lookup(uint32(0), &s))
	if s.Activated == 0 {
		return s.Key == [8]byte{} // none was watched yet
	}
	w.admitted = append(w.admitted, time.Duration(s.Admitted-s.Added))
	w.activated = append(w.activated, time.Duration(s.Activated-s.Added))
	return true
}

// latencies are how long something took, each time.
type latencies []time.Duration

func (l latencies) String() string {
	if len(l) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(l))
	at := func(share float64) time.Duration {
		return sorted[int(share*float64(len(sorted)-1))].Round(time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, most %v, of %d", at(0.5), at(0.9), at(0.99), at(1), len(sorted))
}
