package tcprog

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	tc "github.com/florianl/go-tc"
	"github.com/florianl/go-tc/core"
	"golang.org/x/sys/unix"
)

// clsact is the hook of kernels before 6.6: a cls_bpf filter in direct-action
// mode, which stays without the daemon and is replaced in place.
type clsact struct {
	place
}

var _ hook = (*clsact)(nil)

const (
	// The last priority there is, so that every other filter runs first.
	filterPriority = 0xffff

	// The filter's name tells whose it is, and whether the qdisc came with it:
	// that must be known to whoever removes it, also after a crash.
	portFilter = "shunt"
	wireFilter = "shunt-wire"
	withQdisc  = "-and-qdisc"
)

func (at place) filterName() string {
	if at.wire != 0 {
		return wireFilter
	}
	return portFilter
}

// filterHandle is another for every wire: a device that becomes a member may still
// have the filter of the bridge that it left, which goes later.
func (at place) filterHandle() uint32 { return 1 + at.wire }

// has says whether the filter is the one of this place.
func (at place) has(f tc.Object) bool {
	return isFilter(f, at.filterName()) && f.Handle == at.filterHandle()
}

// attachClsact adds the filter behind all others at the place, or replaces the one
// that an earlier daemon left.
func attachClsact(at place, program *ebpf.Program) (hook, error) {
	c := &clsact{at}
	return c, c.exchange(program)
}

func (c *clsact) exchange(program *ebpf.Program) error {
	name, err := filterNameFor(c.place)
	if err != nil {
		return err
	}
	filter := filterObject(c.place)
	fd, flags := uint32(program.FD()), uint32(tc.BpfActDirect)
	filter.BPF = &tc.Bpf{FD: &fd, Name: &name, Flags: &flags}
	if err := withTC(func(t *tc.Tc) error { return t.Filter().Replace(filter) }); err != nil {
		return fmt.Errorf("add the cls_bpf filter: %w", err)
	}
	return nil
}

// filterNameFor makes sure of a clsact qdisc and returns the name that says
// who made it. Where several filters of shunt share one, all of them say so: the
// last to go removes it.
func filterNameFor(at place) (string, error) {
	filters, err := filtersAt(at)
	if err != nil {
		return "", err
	}
	for _, f := range filters {
		if at.has(f) {
			return *f.BPF.Name, nil
		}
	}
	err = withTC(func(t *tc.Tc) error { return t.Qdisc().Add(clsactQdisc(at.ifindex)) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return "", fmt.Errorf("add the clsact qdisc: %w", err)
	}
	isOurs := err == nil
	if !isOurs {
		isOurs, err = cameWithOurs(at, filters)
	}
	if !isOurs || err != nil {
		return at.filterName(), err
	}
	return at.filterName() + withQdisc, nil
}

// cameWithOurs says whether the device's qdisc came with a filter of shunt's, in
// either direction.
func cameWithOurs(at place, filters []tc.Object) (bool, error) {
	others, err := filtersAt(at.opposite())
	return slices.ContainsFunc(append(filters, others...), bringsQdisc), err
}

func bringsQdisc(f tc.Object) bool { return ours(f) && strings.HasSuffix(*f.BPF.Name, withQdisc) }

func (at place) opposite() place {
	at.egress = !at.egress
	return at
}

func (c *clsact) name() string { return "clsact" }

// foreign finds any other filter at the place. Programs of tcx have had their
// say before clsact runs.
func (c *clsact) foreign() (bool, error) {
	filters, err := filtersAt(c.place)
	if err != nil {
		return false, err
	}
	found := false
	for _, f := range filters {
		if !ours(f) {
			return true, nil
		}
		found = found || c.has(f)
	}
	return !found, nil // somebody removed ours
}

func (c *clsact) shared() (bool, error) { return c.hasOthers(nil) }

func (c *clsact) remove() error { return removeFilter(c.place) }

// removeFilter removes the place's filter, and the qdisc if it came
// with it and nobody else uses it by now.
func removeFilter(at place) error {
	filters, err := filtersAt(at)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	others, hasQdisc, found := 0, false, false
	for _, f := range filters {
		if !at.has(f) {
			others++
			continue
		}
		found, hasQdisc = true, bringsQdisc(f)
	}
	if !found {
		return nil
	}
	if err := deleteFilter(at); err != nil {
		return fmt.Errorf("remove the cls_bpf filter: %w", err)
	}
	if !hasQdisc || others > 0 {
		return nil
	}
	return removeQdisc(at)
}

func deleteFilter(at place) error {
	return withTC(func(t *tc.Tc) error { return t.Filter().Delete(filterObject(at)) })
}

// removeQdisc removes the clsact qdisc unless somebody filters in the other
// direction.
func removeQdisc(at place) error {
	filters, err := filtersAt(at.opposite())
	if err != nil || len(filters) > 0 {
		return err
	}
	return withTC(func(t *tc.Tc) error { return t.Qdisc().Delete(clsactQdisc(at.ifindex)) })
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

func filterObject(at place) *tc.Object {
	return &tc.Object{
		Msg: tc.Msg{
			Family:  unix.AF_UNSPEC,
			Ifindex: uint32(at.ifindex),
			Handle:  at.filterHandle(),
			Parent:  at.filterParent(),
			Info:    filterPriority<<16 | uint32(htons(unix.ETH_P_ALL)),
		},
		Attribute: tc.Attribute{Kind: "bpf"},
	}
}

func (at place) filterParent() uint32 {
	if at.egress {
		return core.BuildHandle(tc.HandleRoot, tc.HandleMinEgress)
	}
	return core.BuildHandle(tc.HandleRoot, tc.HandleMinIngress)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// ours says whether the filter is shunt's. Rows without a BPF part occur: the
// kernel lists a chain's head too.
func ours(f tc.Object) bool { return isFilter(f, portFilter) || isFilter(f, wireFilter) }

func isFilter(f tc.Object, name string) bool {
	return f.BPF != nil && f.BPF.Name != nil && strings.TrimSuffix(*f.BPF.Name, withQdisc) == name
}

// filtersAt returns the filters at the place, those of a block that it shares among
// them.
func filtersAt(at place) (filters []tc.Object, err error) {
	var rows []tc.Object
	err = withTC(func(t *tc.Tc) error {
		rows, err = t.Filter().Get(&tc.Msg{
			Family:  unix.AF_UNSPEC,
			Ifindex: uint32(at.ifindex),
			Parent:  at.filterParent(),
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
