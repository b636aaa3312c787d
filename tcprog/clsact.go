package tcprog

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	tc "github.com/florianl/go-tc"
	"github.com/florianl/go-tc/core"
	"golang.org/x/sys/unix"
)

// clsact is the hook of kernels before 6.6: a cls_bpf filter in direct-action
// mode, which stays without the daemon and is replaced in place.
type clsact struct {
	ifindex int
	program *ebpf.Program
}

var _ hook = (*clsact)(nil)

const (
	// The last priority there is, so that every other filter runs first.
	filterPriority = 0xffff
	filterHandle   = 1

	// The filter's name tells whose it is, and whether the qdisc came with it:
	// that must be known to whoever removes it, also after a crash.
	filterName          = "shunt"
	filterNameWithQdisc = "shunt-and-qdisc"
)

// attachClsact adds the filter behind all others at the port's clsact ingress,
// or replaces the one that an earlier daemon left.
func attachClsact(p *port) (hook, error) {
	name, err := filterNameFor(p.ifindex)
	if err != nil {
		return nil, err
	}
	filter := filterObject(p.ifindex)
	fd, flags := uint32(p.program.FD()), uint32(tc.BpfActDirect)
	filter.BPF = &tc.Bpf{FD: &fd, Name: &name, Flags: &flags}
	err = withTC(func(t *tc.Tc) error { return t.Filter().Replace(filter) })
	if err != nil {
		return nil, fmt.Errorf("add the cls_bpf filter: %w", err)
	}
	return &clsact{ifindex: p.ifindex, program: p.program}, nil
}

// filterNameFor makes sure of a clsact qdisc and returns the name that says
// who made it.
func filterNameFor(ifindex int) (string, error) {
	filters, err := ingressFilters(ifindex)
	if err != nil {
		return "", err
	}
	for _, f := range filters {
		if ours(f) {
			return *f.BPF.Name, nil
		}
	}
	err = withTC(func(t *tc.Tc) error { return t.Qdisc().Add(clsactQdisc(ifindex)) })
	if errors.Is(err, unix.EEXIST) {
		return filterName, nil
	}
	if err != nil {
		return "", fmt.Errorf("add the clsact qdisc: %w", err)
	}
	return filterNameWithQdisc, nil
}

func (c *clsact) name() string { return "clsact" }

// foreign finds any other filter at the ingress. Filters of tcx have had their
// say before clsact runs.
func (c *clsact) foreign() (bool, error) {
	filters, err := ingressFilters(c.ifindex)
	if err != nil {
		return false, err
	}
	found := false
	for _, f := range filters {
		if !ours(f) {
			return true, nil
		}
		found = true
	}
	return !found, nil // somebody removed ours
}

func (c *clsact) remove() error { return removeFilter(c.ifindex) }

// removeFilter removes shunt's filter from the port, and the qdisc if it came
// with it and nobody else uses it by now.
func removeFilter(ifindex int) error {
	filters, err := ingressFilters(ifindex)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	others, withQdisc, found := 0, false, false
	for _, f := range filters {
		if !ours(f) {
			others++
			continue
		}
		found = true
		withQdisc = *f.BPF.Name == filterNameWithQdisc
	}
	if !found {
		return nil
	}
	if err := deleteFilter(ifindex); err != nil {
		return fmt.Errorf("remove the cls_bpf filter: %w", err)
	}
	if !withQdisc || others > 0 {
		return nil
	}
	return removeQdisc(ifindex)
}

func deleteFilter(ifindex int) error {
	return withTC(func(t *tc.Tc) error { return t.Filter().Delete(filterObject(ifindex)) })
}

// removeQdisc removes the clsact qdisc unless somebody filters at its egress.
func removeQdisc(ifindex int) error {
	egress, err := filtersAt(ifindex, tc.HandleMinEgress)
	if err != nil || len(egress) > 0 {
		return err
	}
	return withTC(func(t *tc.Tc) error { return t.Qdisc().Delete(clsactQdisc(ifindex)) })
}

func clsactQdisc(ifindex int) *tc.Object {
	return &tc.Object{
		Msg: tc.Msg{
			Family:  unix.AF_UNSPEC,
			Ifindex: uint32(ifindex),
			Handle:  core.BuildHandle(tc.HandleRoot, 0),
			Parent:  tc.HandleIngress,
		},
		Attribute: tc.Attribute{Kind: "clsact"},
	}
}

func filterObject(ifindex int) *tc.Object {
	return &tc.Object{
		Msg: tc.Msg{
			Family:  unix.AF_UNSPEC,
			Ifindex: uint32(ifindex),
			Handle:  filterHandle,
			Parent:  core.BuildHandle(tc.HandleRoot, tc.HandleMinIngress),
			Info:    filterPriority<<16 | uint32(htons(unix.ETH_P_ALL)),
		},
		Attribute: tc.Attribute{Kind: "bpf"},
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// ours says whether the filter is shunt's. Rows without a BPF part occur: the
// kernel lists a chain's head too.
func ours(f tc.Object) bool {
	return f.BPF != nil && f.BPF.Name != nil &&
		(*f.BPF.Name == filterName || *f.BPF.Name == filterNameWithQdisc)
}

// ingressFilters returns the filters at the port's clsact or ingress qdisc,
// those of a block that it shares among them.
func ingressFilters(ifindex int) ([]tc.Object, error) {
	return filtersAt(ifindex, tc.HandleMinIngress)
}

func filtersAt(ifindex int, direction uint32) (filters []tc.Object, err error) {
	var rows []tc.Object
	err = withTC(func(t *tc.Tc) error {
		rows, err = t.Filter().Get(&tc.Msg{
			Family:  unix.AF_UNSPEC,
			Ifindex: uint32(ifindex),
			Parent:  core.BuildHandle(tc.HandleRoot, direction),
		})
		return err
	})
	for _, row := range rows {
		if row.Handle != 0 || !strings.EqualFold(row.Kind, "bpf") {
			filters = append(filters, row)
		}
	}
	return filters, err
}

// withTC gives f a socket of its own: one shared between goroutines gives the
// one the answers of the other.
func withTC(f func(*tc.Tc) error) error {
	t, err := tc.Open(nil)
	if err != nil {
		return fmt.Errorf("open a tc socket: %w", err)
	}
	defer t.Close()
	return f(t)
}
