package tcprog

import (
	"errors"
	"fmt"
	"path/filepath"
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

// attachHook attaches the port's program and then takes away what an earlier
// daemon attached by the other hook.
func attachHook(name string, p *port) (hook, error) {
	if name == "tcx" {
		h, err := attachTCX(p)
		if err != nil {
			return nil, err
		}
		return h, removeFilter(p.ifindex)
	}
	h, err := attachClsact(p)
	if err != nil {
		return nil, err
	}
	return h, removePinnedLink(filepath.Join(p.dir, linkPin))
}
