package tcprog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// tcx is the hook of kernels from 6.6 on: a link, pinned, which stays while the
// programs under it are exchanged.
type tcx struct {
	ifindex int
	link    link.Link
	program *ebpf.Program
}

var _ hook = (*tcx)(nil)

const linkPin = "link"

// attachTCX puts the program behind all others at the port's tcx ingress.
func attachTCX(p *port) (hook, error) {
	path := filepath.Join(p.dir, linkPin)
	l, err := adoptTCX(path, p)
	if err != nil {
		l, err = newTCX(path, p)
	}
	if err != nil {
		return nil, err
	}
	return &tcx{ifindex: p.ifindex, link: l, program: p.program}, nil
}

// adoptTCX exchanges the program under a link that an earlier daemon pinned. A
// link whose device is gone has ifindex 0.
func adoptTCX(path string, p *port) (link.Link, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil, err
	}
	info, err := l.Info()
	if err == nil && (info.TCX() == nil || int(info.TCX().Ifindex) != p.ifindex) {
		err = errors.New("the pinned link is not on this port")
	}
	if err == nil {
		err = l.Update(p.program)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func newTCX(path string, p *port) (link.Link, error) {
	if err := removePinnedLink(path); err != nil {
		return nil, err
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: p.ifindex,
		Program:   p.program,
		Attach:    ebpf.AttachTCXIngress,
		Anchor:    link.Tail(),
	})
	if err != nil {
		return nil, err
	}
	if err := l.Pin(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("pin the link: %w", err)
	}
	return l, nil
}

// haveTCX asks the kernel, since a version number says little.
func haveTCX() bool {
	const loopback = 1
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	return err == nil
}

func (t *tcx) name() string { return "tcx" }

// foreign finds clsact filters, which a redirect from tcx would skip, and tcx
// programs that were put behind this one. Those before it are no matter: they
// have had their say when it runs.
func (t *tcx) foreign() (bool, error) {
	filters, err := ingressFilters(t.ifindex)
	if err != nil {
		return false, err
	}
	for _, f := range filters {
		if !ours(f) {
			return true, nil
		}
	}
	last, err := t.isLast()
	return !last, err
}

func (t *tcx) isLast() (bool, error) {
	attached, err := link.QueryPrograms(link.QueryOptions{Target: t.ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return false, err
	}
	n := len(attached.Programs)
	if n == 0 {
		return false, nil
	}
	info, err := t.program.Info()
	if err != nil {
		return false, err
	}
	id, ok := info.ID()
	return ok && attached.Programs[n-1].ID == id, nil
}

func (t *tcx) remove() error {
	return errors.Join(t.link.Detach(), t.link.Unpin(), t.link.Close())
}

// removePinnedLink takes the program of an earlier daemon off its port. To
// remove the pin alone would do that too, but some time later.
func removePinnedLink(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the pinned link %s: %w", path, err)
	}
	return errors.Join(l.Detach(), l.Unpin(), l.Close())
}
