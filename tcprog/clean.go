package tcprog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/shunt-dev/shunt/accel"
)

// Clean removes what a daemon that is gone left in the namespace: filters and
// the qdiscs that came with them, and all pins, whose links go with them.
func (d *Dataplane) Clean(_ context.Context, ns accel.Namespace) (removed []string, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var errs []error
	for _, ifc := range interfaces {
		had, err := hasFilter(ifc.Index)
		if err == nil && had {
			err = removeFilter(ifc.Index)
			removed = append(removed, "the cls_bpf filter on "+ifc.Name)
		}
		errs = append(errs, err)
	}
	root := pinRoot(ns)
	if _, err := os.Stat(root); err == nil {
		errs = append(errs, removePins(root))
		removeEmptyParents(filepath.Dir(root))
		removed = append(removed, "the programs, maps and pins in "+root)
	}
	return removed, errors.Join(errs...)
}

func hasFilter(ifindex int) (bool, error) {
	filters, err := ingressFilters(ifindex)
	for _, f := range filters {
		if ours(f) {
			return true, nil
		}
	}
	return false, err
}
