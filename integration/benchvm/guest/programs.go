package main

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/shunt-dev/shunt/integration/benchvm/rows"
)

// What a program at tc says of a frame (linux/bpf.h: enum tcx_action_base).
const (
	next = -1
	drop = 2
)

// say is a program that says the same of every frame.
func say(what int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, what), asm.Return()}
}

// redirectBy is a program that gives every frame to a device.
func redirectBy(helper asm.BuiltinFunc, ifindex int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(ifindex)), asm.Mov.Imm(asm.R2, 0), helper.Call(), asm.Return(),
	}
}

func instructionsOf(p rows.Program) (asm.Instructions, error) {
	out, err := net.InterfaceByName("p2")
	if err != nil {
		return nil, err
	}
	switch p {
	case rows.Drop:
		return say(drop), nil
	case rows.Pass:
		return say(next), nil
	case rows.Redirect:
		return redirectBy(asm.FnRedirect, out.Index), nil
	case rows.RedirectPeer:
		return redirectBy(asm.FnRedirectPeer, out.Index), nil
	}
	return nil, fmt.Errorf("there is no program %q", p)
}

// attached is a program at a device's ingress.
type attached struct {
	program *ebpf.Program
	link    io.Closer // at tcx; nil where it is a filter of clsact
	device  string
	pin     string // where tc(8) finds it
}

// attach puts a program at the ingress of p1.
func attach(p rows.Program) (*attached, error) {
	code, err := instructionsOf(p)
	if err != nil {
		return nil, err
	}
	return attachTo("p1", code)
}

// attachTo puts a program at the ingress of a device in the namespace of this thread:
// at tcx, or at clsact on a kernel without.
func attachTo(device string, code asm.Instructions) (*attached, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: code, License: "Dual BSD/GPL"})
	if err != nil {
		return nil, err
	}
	a := &attached{program: program, device: device}
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	a.link, err = link.AttachTCX(link.TCXOptions{Interface: ifc.Index, Program: program, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		return a, nil
	}
	a.link, a.pin = nil, "/sys/fs/bpf/"+device
	if err := program.Pin(a.pin); err != nil {
		return nil, err
	}
	return a, shell(fmt.Sprintf(`tc qdisc add dev %s clsact
tc filter add dev %[1]s ingress bpf direct-action pinned %s`, device, a.pin))
}

func (a *attached) detach() error {
	defer a.program.Close()
	if a.link != nil {
		return a.link.Close()
	}
	return errors.Join(shell("tc qdisc del dev "+a.device+" clsact"), a.program.Unpin())
}

// ending is the program at the end of every frame's way: it drops what comes to host
// 2, so that the end costs the same whatever the frame and the way were.
type ending struct{ *attached }

func newEnding() (e *ending, err error) {
	err = inNamespace("h2", func() error {
		a, err := attachTo("eth0", say(drop))
		e = &ending{a}
		return err
	})
	return e, err
}

// arrivals returns how many frames came while send ran. The kernel counts the runs of
// programs only meanwhile.
func (e *ending) arrivals(send func() error) (uint64, error) {
	counting, err := ebpf.EnableStats(0 /* BPF_STATS_RUN_TIME */)
	if err != nil {
		return 0, err
	}
	defer counting.Close()
	before, err := e.program.Stats()
	if err != nil {
		return 0, err
	}
	if err := send(); err != nil {
		return 0, err
	}
	after, err := e.program.Stats()
	if err != nil {
		return 0, err
	}
	return after.RunCount - before.RunCount, nil
}
