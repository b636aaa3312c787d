package tcprog

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/shunt-dev/shunt/accel"
)

// peering is what the programs of a bridge need where frames may go straight to the far
// end of a veth, and the program that says of a device whether they may.
type peering struct {
	layout  shuntLayout
	program *ebpf.Program
	ends    *ebpf.Map
}

// openPeering finds out whether this kernel lets frames go straight and tells when they
// would overtake others.
func openPeering(spec *ebpf.CollectionSpec, types *btf.Cache) (*peering, error) {
	layout, err := findLayout(types)
	if err != nil {
		return nil, err
	}
	p := &peering{layout: layout}
	spec = spec.Copy()
	if err := p.configure(spec, false); err != nil {
		return nil, err
	}
	var objects struct {
		Program *ebpf.Program `ebpf:"shunt_end"`
		Ends    *ebpf.Map     `ebpf:"ends"`
	}
	if err := spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{Cache: types}); err != nil {
		return nil, fmt.Errorf("load the program that looks at far ends: %w", err)
	}
	p.program, p.ends = objects.Program, objects.Ends
	return p, nil
}

// configure sets the constants of the programs. traced says that what makes a port
// unfit is announced.
func (p *peering) configure(spec *ebpf.CollectionSpec, traced bool) error {
	return errors.Join(
		spec.Variables["peers"].Set(true),
		spec.Variables["peers_traced"].Set(traced),
		spec.Variables["kernel_layout"].Set(p.layout))
}

// look asks for a device: where the kernel has it, and why its far end is not reached
// straight. The caller holds the lock of the data plane.
func (p *peering) look(ifindex int) (end shuntEnd, err error) {
	if _, err := runOn(p.program, ifindex, make([]byte, minFrame)); err != nil {
		return end, err
	}
	return end, p.ends.Lookup(uint32(0), &end)
}

func (p *peering) close() error {
	if p == nil {
		return nil
	}
	return errors.Join(p.program.Close(), p.ends.Close())
}

// The values of enum unfit in bpf/peer.h.
var unfitNames = [...]string{
	1: "no_veth", 2: "same_namespace", 3: "qdisc", 4: "tc_egress", 5: "capture",
	6: "offloads", 7: "rps", 8: "napi", 9: "queues",
}

// redirectOf says how frames leave by a port, and why they do not go straight where
// that was asked for.
func (br *bridge) redirectOf(p *port) (how, why string) {
	if br.redirect == accel.RedirectEgress {
		return accel.RedirectEgress, ""
	}
	if br.peering == nil {
		return accel.RedirectEgress, "kernel"
	}
	if p.wire != nil {
		return accel.RedirectEgress, "stable_port"
	}
	end, err := br.peering.look(p.ifindex)
	if err != nil {
		return accel.RedirectEgress, "unknown"
	}
	if end.Unfit != 0 {
		return accel.RedirectEgress, unfitNames[end.Unfit]
	}
	return accel.RedirectPeer, ""
}

// deviceOf is where the kernel has a port whose far end may be reached straight; 0 of
// any other. What makes it unfit is for the programs to see.
func (br *bridge) deviceOf(p *port) uint64 {
	if br.peering == nil || p.wire != nil {
		return 0
	}
	end, err := br.peering.look(p.ifindex)
	if err != nil || end.Unfit == noVeth {
		return 0
	}
	return end.Device
}

const noVeth = 1
