package tcprog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/shunt-dev/shunt/accel"
)

// The programs at the bridge's tracepoints revoke a station in the instant in
// which the kernel deletes or moves its entry. They are pinned: what the port
// programs still take for true while the daemon is gone or stopped goes all the
// same.

const tracingDir = "tracing"

// revokerNames are the tracepoints, in the order of the programs.
var revokerNames = []string{"fdb_delete", "br_fdb_update", "br_fdb_add", "br_fdb_external_learn_add"}

// attachRevokers attaches the tracepoint programs of the bridge. Those of an
// earlier daemon are detached only when the new ones work: tracing programs
// cannot be exchanged in place, and two revoke as well as one.
func (br *bridge) attachRevokers(ns accel.Namespace) error {
	programs, err := br.loadRevokers(ns)
	if err != nil {
		return err
	}
	defer programs.Close()
	dir := filepath.Join(br.dir, tracingDir)
	if err := makeDir(dir); err != nil {
		return err
	}
	for i, program := range []*ebpf.Program{
		programs.ShuntFdbDelete, programs.ShuntFdbUpdate, programs.ShuntFdbAdd, programs.ShuntFdbExternal,
	} {
		name := revokerNames[i]
		l, err := attachRevoker(filepath.Join(dir, name), program)
		if err != nil {
			return fmt.Errorf("attach to the tracepoint %s: %w", name, err)
		}
		br.revokers = append(br.revokers, l)
	}
	return nil
}

func (br *bridge) loadRevokers(ns accel.Namespace) (*revokePrograms, error) {
	spec, err := loadRevoke()
	if err != nil {
		return nil, fmt.Errorf("read the BPF objects: %w", err)
	}
	spec.Maps[revokeMapStations].MaxEntries = br.spec.Maps[shuntMapStations].MaxEntries
	err = errors.Join(
		spec.Variables["bridge_ifindex"].Set(uint32(br.Ifindex)),
		spec.Variables["netns_inode"].Set(uint32(ns.Inode)))
	if err != nil {
		return nil, fmt.Errorf("name the bridge: %w", err)
	}
	var programs revokePrograms
	err = spec.LoadAndAssign(&programs, &ebpf.CollectionOptions{Cache: br.types.get(), MapReplacements: map[string]*ebpf.Map{
		mapBridge:         br.maps[mapBridge],
		revokeMapStations: br.maps[shuntMapStations],
	}})
	if err != nil {
		return nil, fmt.Errorf("load the tracepoint programs: %w", err)
	}
	return &programs, nil
}

// attachRevoker attaches the program, and then lets the pin name the new link.
func attachRevoker(pin string, program *ebpf.Program) (link.Link, error) {
	l, err := link.AttachTracing(link.TracingOptions{Program: program, AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		return nil, err
	}
	if err := pinInPlace(l, pin); err != nil {
		l.Close()
		return nil, fmt.Errorf("pin the link: %w", err)
	}
	return l, nil
}

// pinInPlace pins the link where an earlier daemon's may be pinned.
func pinInPlace(l link.Link, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return l.Pin(path)
}
