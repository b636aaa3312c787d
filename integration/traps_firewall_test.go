package integration

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

const dropped = "priority 0 ; policy drop ; }"

// A rule of the bridge family counts from the next frame on.
func TestTrap01_BridgeForwardDrop(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	x.warm(f)
	x.stopped(func() {
		x.run("nft add table bridge t ; add chain bridge t c { type filter hook forward " + dropped)
		x.expect(f)
		x.run("nft delete table bridge t")
		x.expect(f, 2)
	})
	x.awaitFast(f)
}

// Docker's rule: br_netfilter shows bridged IP to the IP family's chains.
func TestTrap02_DockerForwardDrop(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	x.call(t, "1")
	f := flow{from: 1, to: 2, ip: true}
	x.warm(f)
	x.stopped(func() {
		x.run("nft add table ip t ; add chain ip t c { type filter hook forward " + dropped)
		x.expect(f)
	})
	x.awaitBridge(accel.BrNetfilter)
	x.expect(f)

	// Nobody is told of the sysctl.
	x.stopped(func() {
		x.call(t, "0")
		x.expect(f, 2)
		x.call(t, "1")
		x.expect(f)
		x.run("nft delete table ip t")
		x.expect(f, 2)
	})
	x.awaitFast(f)
}

// call sets bridge-nf-call-iptables in the bridge's namespace.
func (x *trap) call(t *testing.T, value string) {
	t.Helper()
	err := x.l.Bridge.Do(func() error {
		return os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte(value), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The kernel's egress hook of a device is not run for redirected frames.
func TestTrap09_EgressChain(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	x.warm(f)
	x.stopped(func() {
		x.run("nft add table netdev t ; add chain netdev t c { type filter hook egress device p2 " + dropped)
		x.expect(f)
		x.run("nft delete table netdev t")
		x.expect(f, 2)
	})
	x.awaitFast(f)
}

// Its ingress hook stands behind tc.
func TestTrap10_IngressChain(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	x.warm(f)
	x.stopped(func() {
		x.run("nft add table netdev t ; add chain netdev t c { type filter hook ingress device p1 " + dropped)
		x.expect(f)
		x.run("nft delete table netdev t")
		x.expect(f, 2)
	})
	x.awaitFast(f)
}

// A foreign program that comes behind shunt's has its way with the next frame, and
// is found out.
func TestTrap11_ForeignDrop(t *testing.T) {
	for _, attach := range hooks() {
		for _, foreign := range hooks() {
			t.Run(attach+" and "+foreign, func(t *testing.T) { testForeignDrop(t, attach, foreign) })
		}
	}
}

func testForeignDrop(t *testing.T, attach, foreign string) {
	x := newTrap(t, lab.Options{Hosts: 3}, "--attach", attach)
	f := flow{from: 1, to: 2}
	x.warm(f)
	var remove func() error
	x.stopped(func() {
		if foreign == "tcx" {
			remove = dropByTCX(t, x.l, "p1")
		} else {
			remove = dropByFilter(t, x.l, "p1")
		}
		x.expect(f)
	})
	if attach == "tcx" || foreign == "clsact" { // else it comes first, as it should
		await(t, "shunt sees the foreign program", func() bool { return x.port("p1").In == accel.PortForeignTC })
	}
	x.expect(f)
	x.expect(f.back(), 1)

	if err := remove(); err != nil {
		t.Fatal(err)
	}
	x.expect(f, 2)
	x.awaitFast(f)
}

const tcShot = 2 // TC_ACT_SHOT, include/uapi/linux/pkt_cls.h

func dropProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, tcShot), asm.Return()},
		License:      "GPL",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// dropByTCX attaches the program behind those that are there.
func dropByTCX(t *testing.T, l *lab.Lab, port string) (remove func() error) {
	t.Helper()
	program := dropProgram(t)
	var at link.Link
	err := l.Bridge.Do(func() error {
		dev, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		at, err = link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: program, Attach: ebpf.AttachTCXIngress})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.Close() })
	return at.Close
}

// dropByFilter adds a clsact filter behind those that are there.
func dropByFilter(t *testing.T, l *lab.Lab, port string) (remove func() error) {
	t.Helper()
	program := dropProgram(t)
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 50_000, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: "drop", DirectAction: true,
	}
	err := l.Bridge.Do(func() error {
		dev, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		filter.LinkIndex = dev.Attrs().Index
		if err := addQdisc(dev); err != nil {
			return err
		}
		return netlink.FilterAdd(filter)
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() error { return l.Bridge.Do(func() error { return netlink.FilterDel(filter) }) }
}

// addQdisc gives the device a clsact qdisc unless it has one.
func addQdisc(dev netlink.Link) error {
	qdiscs, err := netlink.QdiscList(dev)
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			return nil
		}
	}
	return netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
}
