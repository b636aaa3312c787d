package integration

import (
	"fmt"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

// What a tap's queue costs in order is not the swap's to mend. So the swaps of
// TestSwapsLoseNothing that have a tap are made once more by a bare flip: one program
// in place of another, and nothing else. What it loses, doubles and reorders is
// reported; nothing is asserted on it.
func TestBareFlips(t *testing.T) {
	for _, kinds := range [][]swaplab.Kind{{swaplab.Veth, swaplab.Tap}, {swaplab.Tap, swaplab.Macvlan}} {
		t.Run(fmt.Sprintf("%s and %s", kinds[0], kinds[1]), func(t *testing.T) {
			flipBarely(t, kinds, max(*swaps/4, 2))
		})
	}
}

func flipBarely(t *testing.T, kinds []swaplab.Kind, count int) {
	x := newSwapLab(t, rigOptions{})
	w := x.newBareWire(kinds)
	x.must(x.l.SpreadFrames(stable))
	x.must(x.l.Host.AwaitForwarding())
	traffic := x.trafficAt(swaplab.Pace)
	// As far apart as swaps are: a flip before the frames of the one before have
	// come would make their order worse.
	const between = 4000
	for n := range count {
		w.flipTo(1 - n%2)
		x.must(traffic.AwaitFlow(between))
	}
	x.stopTraffic(traffic)
	t.Logf("%d bare flips", count)
}

// bareWire is a stable port whose wire is two instructions each way.
type bareWire struct {
	x       *swapRig
	members []int
	out     link.Link // at the stable port's egress
	in      link.Link // at the active member's ingress
	port    int
}

func (x *swapRig) newBareWire(kinds []swaplab.Kind) *bareWire {
	x.t.Helper()
	w := &bareWire{x: x}
	for _, line := range []string{
		"ip link add " + stable + " type veth peer name stub", "ip link set stub up",
		"ip link set " + stable + " master " + lab.BridgeName + " up",
	} {
		x.must(x.l.Host.Bridge.Run(line))
	}
	for n, kind := range kinds {
		m := x.addMember(n+1, kind)
		x.must(x.l.Host.Bridge.Run("ip link set " + m.Name + " promisc on"))
		w.members = append(w.members, x.ifindex(m.Name))
	}
	w.port = x.ifindex(stable)
	w.flipTo(0)
	x.t.Cleanup(func() { w.in.Close(); w.out.Close() })
	return w
}

func (x *swapRig) ifindex(device string) int {
	x.t.Helper()
	var found *net.Interface
	x.must(x.l.Host.Bridge.Do(func() (err error) {
		found, err = net.InterfaceByName(device)
		return err
	}))
	return found.Index
}

// flipTo sends by a member from now on, and hears that one only.
func (w *bareWire) flipTo(member int) {
	w.x.t.Helper()
	const ingress = 1 // BPF_F_INGRESS
	out := w.redirect(w.members[member], 0)
	defer out.Close()
	in := w.redirect(w.port, ingress)
	defer in.Close()
	before := w.in
	w.in = w.attach(in, w.members[member], ebpf.AttachTCXIngress)
	if w.out == nil {
		w.out = w.attach(out, w.port, ebpf.AttachTCXEgress)
		return
	}
	w.x.must(w.out.Update(out))
	w.x.must(before.Close())
}

func (w *bareWire) attach(p *ebpf.Program, ifindex int, at ebpf.AttachType) (l link.Link) {
	w.x.t.Helper()
	w.x.must(w.x.l.Host.Bridge.Do(func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: at})
		return err
	}))
	return l
}

// redirect is a program that sends every frame on to a device.
func (w *bareWire) redirect(ifindex int, flags int32) *ebpf.Program {
	w.x.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(ifindex)), asm.Mov.Imm(asm.R2, flags),
			asm.FnRedirect.Call(), asm.Return(),
		},
	})
	w.x.must(err)
	return p
}
