package twin

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// filter is a tc filter of the script's: a program that drops every frame, or
// lets every frame pass.
type filter struct {
	program *ebpf.Program
	tc      *netlink.BpfFilter
}

// tcActions are what the programs return.
var tcActions = map[string]int32{"drop": 2, "pass": -1} // TC_ACT_SHOT, TC_ACT_UNSPEC

func (s *Side) changeFilter(args []string) error {
	p, err := s.port(args[0])
	if err != nil {
		return err
	}
	at := args[0] + " " + args[1]
	if args[2] == "off" {
		return s.removeFilter(at)
	}
	if s.filter[at] != nil {
		return unix.EEXIST
	}
	action, ok := tcActions[args[2]]
	if !ok {
		return fmt.Errorf("filters cannot be told to %q", args[2])
	}
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if args[1] == "egress" {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	return s.addFilter(at, p.ifindex, parent, action)
}

func (s *Side) addFilter(at string, ifindex int, parent uint32, action int32) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, action), asm.Return()},
		License:      "GPL",
	})
	if err != nil {
		return err
	}
	f := &filter{program, &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: parent, Handle: 1, Priority: 50000, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: "twin", DirectAction: true,
	}}
	if err := s.handle.FilterAdd(f.tc); err != nil {
		program.Close()
		return err
	}
	s.filter[at] = f
	return nil
}

func (s *Side) removeFilter(at string) error {
	f := s.filter[at]
	if f == nil {
		return unix.ENOENT
	}
	if err := s.handle.FilterDel(f.tc); err != nil {
		return err
	}
	delete(s.filter, at)
	return f.program.Close()
}
