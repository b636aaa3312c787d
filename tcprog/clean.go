package tcprog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/shunt-dev/shunt/accel"
)

// Clean removes what a daemon that is gone left in the namespace: filters and
// the qdiscs that came with them, and all pins, whose links go with them. The
// wires of stable ports stay, since traffic hangs on them, without a fast path.
func (d *Dataplane) Clean(_ context.Context, ns accel.Namespace) (removed []string, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var errs []error
	for _, ifc := range interfaces {
		at := place{ifindex: ifc.Index}
		had, err := at.hasFilter()
		if err == nil && had {
			err = removeFilter(at)
			removed = append(removed, "the cls_bpf filter on "+ifc.Name)
		}
		errs = append(errs, err)
	}
	root := pinRoot(ns)
	if _, err := os.Stat(root); err != nil {
		return removed, errors.Join(errs...)
	}
	kept, err := cutWires(root)
	errs = append(errs, err)
	dirs, err := filepath.Glob(filepath.Join(root, "bridge-*"))
	errs = append(errs, err)
	for _, dir := range dirs {
		errs = append(errs, removePins(dir))
		removed = append(removed, "the programs, maps and pins in "+dir)
	}
	removeEmptyParents(root)
	return append(removed, kept...), errors.Join(errs...)
}

func (at place) hasFilter() (bool, error) {
	filters, err := filtersAt(at)
	return slices.ContainsFunc(filters, at.has), err
}
