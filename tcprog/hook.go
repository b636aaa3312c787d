package tcprog

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// chooseHook returns the hook to use: tcx where the kernel has it, and else
// clsact, unless the operator asked for one of them.
func chooseHook(attach string) (string, error) {
	switch attach {
	case "clsact":
		return "clsact", nil
	case "tcx", "auto":
		if haveTCX() {
			return "tcx", nil
		}
		if attach == "auto" {
			return "clsact", nil
		}
		return "", errors.New("this kernel has no tcx (Linux 6.6 or later has); use --attach clsact or auto")
	}
	return "", fmt.Errorf("attach is %q, and may be auto, tcx or clsact", attach)
}

// hook is one way of having a program at a device's tc ingress or egress. It works
// until remove, also without the daemon.
type hook interface {
	name() string
	// foreign says whether somebody else's program there means that the port must
	// be left to the kernel.
	foreign() (bool, error)
	// shared says whether there is any program or filter of somebody else.
	shared() (bool, error)
	// exchange puts another program in the place of the one that is there.
	exchange(program *ebpf.Program) error
	remove() error
}

// place is where a program is attached: at a device's tc ingress or egress, with its
// link pinned in a directory of its own.
type place struct {
	ifindex int
	egress  bool
	wire    uint32 // number of the wire that it serves, which stays when the daemon goes; 0: none
	dir     string
}

// attachHook attaches the program and then takes away what an earlier daemon
// attached by the other hook.
func attachHook(name string, at place, program *ebpf.Program) (hook, error) {
	if name == "tcx" {
		h, err := attachTCX(at, program)
		if err != nil {
			return nil, err
		}
		return h, removeFilter(at)
	}
	h, err := attachClsact(at, program)
	if err != nil {
		return nil, err
	}
	return h, removePinnedLink(filepath.Join(at.dir, linkPin))
}
