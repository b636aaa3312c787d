package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

func TestOffHoldsFromTheNextFrameOn(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	d := startDaemon(t, l)
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	d.awaitActive(a.mac, b.mac)
	s := &lab.Sender{
		Wire:  a.wire,
		Frame: lab.Frame{Source: a.mac, Destination: b.mac, Stream: 6},
		Pace:  lab.Pace{PerSecond: 20_000},
	}
	ctx, stop := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := lab.Run(ctx, s, 1<<40, b.wire)
		failed <- err
	}()

	for range 5 {
		expectMoving(t, d, func(b accel.BridgeV1) uint64 { return b.Fast })
		d.shunt("off")
		off := d.bridge()
		if off.On || off.Reason != accel.Off {
			t.Errorf("after off the status says on=%v and %s", off.On, off.Reason)
		}
		expectMoving(t, d, func(b accel.BridgeV1) uint64 { return b.Slow })
		if later := d.bridge(); later.Fast != off.Fast {
			t.Errorf("%d frames were fast after off", later.Fast-off.Fast)
		}
		d.shunt("on")
	}
	stop()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

func TestDetachLeavesNothingOfShuntAndEverythingElse(t *testing.T) {
	for _, attach := range hooks() {
		for _, how := range []string{"running", "stopped", "killed"} {
			t.Run(attach+", "+how, func(t *testing.T) { testDetach(t, attach, how) })
		}
	}
}

func testDetach(t *testing.T, attach, how string) {
	l := newLab(t, lab.Options{Hosts: 3})
	addForeign(t, l)
	before := traces(t, l)
	d := startDaemon(t, l, "--attach", attach)
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	d.awaitActive(a.mac, b.mac)
	if slices.Equal(traces(t, l), before) {
		t.Fatal("a running shunt leaves no trace: the test sees nothing")
	}

	switch how {
	case "running":
		d.shunt("detach")
		<-d.exited
		if code := d.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("the daemon ended with exit code %d", code)
		}
	case "stopped":
		d.stop()
	case "killed":
		d.kill()
		r := runShunt(t, l.Bridge, "detach", "--socket", d.socket)
		if r.code != 0 {
			t.Errorf("detach without a daemon: exit code %d: %s", r.code, r.stderr)
		}
	}
	if after := traces(t, l); !slices.Equal(after, before) {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if _, err := os.Stat(d.socket); how != "killed" && !os.IsNotExist(err) {
		t.Errorf("the socket is left (%v)", err)
	}
}

// hooks are those that the kernel has.
func hooks() []string {
	if haveTCX() {
		return []string{"tcx", "clsact"}
	}
	return []string{"clsact"}
}

func haveTCX() bool {
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
	return err == nil
}

// addForeign puts somebody else's things on the ports: a tcx program on p1, a
// clsact qdisc without filters on p2, one with a filter on p3.
func addForeign(t *testing.T, l *lab.Lab) {
	t.Helper()
	addClsact(t, l, "p2", "p3")
	if haveTCX() {
		addForeignTCX(t, l, "p1")
	}
	err := l.Bridge.Do(func() error {
		p3, err := netlink.LinkByName("p3")
		if err != nil {
			return err
		}
		return netlink.FilterAdd(&netlink.U32{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: p3.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS,
				Priority: 7, Protocol: unix.ETH_P_IP,
			},
			ClassId: netlink.MakeHandle(1, 1),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addForeignTCX attaches a program that lets everything pass, until the test
// ends.
func addForeignTCX(t *testing.T, l *lab.Lab, port string) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
		License:      "GPL",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	err = l.Bridge.Do(func() error {
		dev, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		at, err := link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: program, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			t.Cleanup(func() { at.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// traces lists everything that shunt could leave in the namespace: programs and
// filters on devices, qdiscs, pins.
func traces(t *testing.T, l *lab.Lab) (found []string) {
	t.Helper()
	err := l.Bridge.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, dev := range links {
			of, err := tracesOn(dev)
			if err != nil {
				return err
			}
			found = append(found, of...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	inode := namespaceInode(t, l.Bridge)
	err = filepath.WalkDir(fmt.Sprintf("/sys/fs/bpf/shunt/net-%d", inode), func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			found = append(found, "pin "+path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func tracesOn(dev netlink.Link) (found []string, err error) {
	name := dev.Attrs().Name
	if haveTCX() {
		programs, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return nil, err
		}
		for _, p := range programs.Programs {
			found = append(found, fmt.Sprintf("%s: tcx program %d", name, p.ID))
		}
	}
	qdiscs, err := netlink.QdiscList(dev)
	if err != nil {
		return nil, err
	}
	for _, q := range qdiscs {
		found = append(found, fmt.Sprintf("%s: qdisc %s", name, q.Type()))
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(dev, parent)
		if err != nil {
			return nil, err
		}
		for _, f := range filters {
			found = append(found, fmt.Sprintf("%s: filter %s %+v", name, f.Type(), *f.Attrs()))
		}
	}
	return found, nil
}

func namespaceInode(t *testing.T, n *lab.Namespace) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(n.Path(), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
