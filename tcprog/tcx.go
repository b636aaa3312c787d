package tcprog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	tc "github.com/florianl/go-tc"
	"golang.org/x/sys/unix"
)

// tcx is the hook of kernels from 6.6 on: a link, pinned, which stays while the
// programs under it are exchanged.
type tcx struct {
	place
	link link.Link
	own  ebpf.ProgramID // of the program under it
}

var _ hook = (*tcx)(nil)

const linkPin = "link"

// attachTCX puts the program behind all others at the place.
func attachTCX(at place, program *ebpf.Program) (hook, error) {
	own, err := idOf(program)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(at.dir, linkPin)
	l, err := adoptTCX(path, at, program)
	if err != nil {
		l, err = newTCX(path, at, program)
	}
	if err != nil {
		return nil, err
	}
	return &tcx{at, l, own}, nil
}

// adoptTCX exchanges the program under a link that an earlier daemon pinned. A
// link whose device is gone has ifindex 0.
func adoptTCX(path string, at place, program *ebpf.Program) (link.Link, error) {
	if !at.hasLink() {
		return nil, errors.New("no link is pinned that is on this device")
	}
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil, err
	}
	if err := l.Update(program); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func newTCX(path string, at place, program *ebpf.Program) (link.Link, error) {
	if err := removePinnedLink(path); err != nil {
		return nil, err
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: at.ifindex,
		Program:   program,
		Attach:    at.tcxType(),
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

// hasLink says whether the link that is pinned for the place is still on its device.
// A device takes its links along into another network namespace, and may have its
// number there, too.
func (at place) hasLink() bool {
	l, err := link.LoadPinnedLink(filepath.Join(at.dir, linkPin), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil || info.TCX() == nil || int(info.TCX().Ifindex) != at.ifindex {
		return false
	}
	attached, err := at.attached()
	return err == nil && slices.Contains(attached, info.Program)
}

func (at place) tcxType() ebpf.AttachType {
	if at.egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// haveTCX asks the kernel, since a version number says little.
func haveTCX() bool {
	const loopback = 1
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	return err == nil
}

func (t *tcx) name() string { return "tcx" }

func (t *tcx) exchange(program *ebpf.Program) error {
	own, err := idOf(program)
	if err != nil {
		return err
	}
	if err := t.link.Update(program); err != nil {
		return err
	}
	t.own = own
	return nil
}

// foreign finds clsact filters, which a redirect from tcx would skip, and tcx
// programs that were put behind this one. Those before it are no matter: they
// have had their say when it runs.
func (t *tcx) foreign() (bool, error) {
	filters, err := filtersAt(t.place)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(filters, func(f tc.Object) bool { return !ours(f) }) {
		return true, nil
	}
	attached, err := t.attached()
	if err != nil {
		return false, err
	}
	n := len(attached)
	return n == 0 || attached[n-1] != t.own, nil
}

func (t *tcx) shared() (bool, error) { return t.hasOthers(map[ebpf.ProgramID]bool{t.own: true}) }

// hasOthers says whether there are filters of somebody else at the place, or tcx
// programs that are not in own.
func (at place) hasOthers(own map[ebpf.ProgramID]bool) (bool, error) {
	filters, err := filtersAt(at)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(filters, func(f tc.Object) bool { return !ours(f) }) {
		return true, nil
	}
	attached, err := at.attached()
	return slices.ContainsFunc(attached, func(id ebpf.ProgramID) bool { return !own[id] }), err
}

// attached are the programs at the place, in the order in which they run.
func (at place) attached() (ids []ebpf.ProgramID, err error) {
	found, err := link.QueryPrograms(link.QueryOptions{Target: at.ifindex, Attach: at.tcxType()})
	if errors.Is(err, unix.EINVAL) {
		return nil, nil // a kernel without tcx
	}
	if err != nil {
		return nil, err
	}
	for _, p := range found.Programs {
		ids = append(ids, p.ID)
	}
	return ids, nil
}

func idOf(program *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := program.Info()
	if err != nil {
		return 0, err
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("the kernel does not tell a program's number")
	}
	return id, nil
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
