package integration

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// A port that leaves takes nothing with it and gives nothing more.
func TestTrap03_PortLeaves(t *testing.T) {
	for port, hosts := range map[string][]int{"p1": nil, "p2": {3}} {
		t.Run(port, func(t *testing.T) {
			x := newTrap(t, lab.Options{Hosts: 3})
			f := flow{from: 1, to: 2}
			x.warm(f)
			x.stopped(func() {
				x.run("ip link set dev " + port + " nomaster")
				x.expect(f, hosts...)
				x.run("ip link set dev " + port + " master br0")
				x.send(f.back()) // the bridge forgot the stations behind the port
				x.send(f)
				x.expect(f, 2)
			})
			x.awaitFast(f)
		})
	}
}

// Two ports that are both isolated do not reach each other; one of them does.
func TestTrap04_Isolated(t *testing.T) {
	for first, second := range map[string]string{"p1": "p2", "p2": "p1"} {
		t.Run("then "+second, func(t *testing.T) {
			x := newTrap(t, lab.Options{Hosts: 3})
			f := flow{from: 1, to: 2}
			x.warm(f)
			x.stopped(func() {
				x.run("bridge link set dev " + first + " isolated on")
				x.expect(f, 2)
			})
			x.awaitFast(f)
			x.stopped(func() {
				x.run("bridge link set dev " + second + " isolated on")
				x.expect(f)
				x.run("bridge link set dev " + first + " isolated off")
				x.expect(f, 2)
			})
			x.awaitFast(f)
		})
	}
}

// A locked port takes frames only from stations that are known behind it.
func TestTrap05_LockedUnknownSource(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	stranger := flow{from: 1, to: 2, src: lab.MACOf(0x50)}
	x.warm(f)
	x.warm(stranger)
	x.stopped(func() {
		x.run("bridge fdb del " + stranger.src.String() + " dev p1 master")
		x.run("bridge link set dev p1 locked on")
		x.expect(stranger)
		x.expect(f, 2)
	})
	x.awaitFast(f)
	x.expect(stranger)
	x.stopped(func() {
		x.run("bridge fdb del " + lab.MACOf(1).String() + " dev p1 master")
		x.expect(f)
	})
}

// A port in any other state than forwarding neither takes nor sends frames. The
// bridge itself ends the state blocking where there is no spanning tree
// (net/bridge/br_stp.c: br_port_state_selection), so it is listening here.
func TestTrap06_StateBlocking(t *testing.T) {
	for _, port := range []string{"p2", "p1"} {
		t.Run(port, func(t *testing.T) {
			x := newTrap(t, lab.Options{Hosts: 3})
			f := flow{from: 1, to: 2}
			x.warm(f)
			x.stopped(func() {
				x.run("bridge link set dev " + port + " state 1")
				x.expect(f)
				x.run("bridge link set dev " + port + " state 3")
				x.expect(f, 2)
			})
			x.awaitFast(f)
		})
	}
}

// A change of a port that fails half-way, with an error and without a message,
// leaves behind what it did before it failed.
func TestTrap15_PartlyFailedSetlink(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	x.run("bridge link set dev p1 isolated on")
	x.run("ip link set dev br0 type bridge forward_delay 200 stp_state 1")
	await(t, "the spanning tree forwards", func() bool {
		return x.port("p1").State == "forwarding" && x.port("p2").State == "forwarding" && x.port("p3").State == "forwarding"
	})
	f := flow{from: 1, to: 2}
	x.warm(f)
	x.stopped(func() {
		if err := x.l.Bridge.Run("bridge link set dev p2 isolated on state 3"); err == nil {
			t.Fatal("the kernel set the state under a spanning tree: the test shows nothing")
		}
		x.expect(f)
	})
	x.expect(f)
}

// A redirect checks no length (net/core/skbuff.c: is_skb_forwardable).
func TestTrap18_MTU(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	const mtu, headers = 1000, 14 + 4 // the kernel's room for a VLAN tag
	short, long := flow{from: 1, to: 2, size: mtu + headers}, flow{from: 1, to: 2, size: mtu + headers + 1}
	x.warm(long)
	x.stopped(func() {
		x.run("ip link set dev p2 mtu 1000")
		x.expect(long)
		x.expect(short, 2)
	})
	x.awaitFast(short)
	x.expect(long)
	x.stopped(func() {
		x.run("ip link set dev p2 mtu 1500")
		x.expect(long, 2)
	})
	x.awaitFast(long)
}

// What cannot leave by a port leaves by its backup.
func TestTrap21_BackupPort(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	x.warm(f)
	before := x.fast(f)
	x.stopped(func() {
		x.run("bridge link set dev p2 backup_port p3")
		x.expect(f, 2)
		x.inHost(2, "ip link set dev eth0 down")
		x.expectDiverted(f)
	})
	// The carrier may go at any time from then on, and nothing tells of it first.
	if fast := x.fast(f) - before; fast > 0 {
		t.Errorf("%d frames were fast to a port with a backup", fast)
	}
	x.inHost(2, "ip link set dev eth0 up")
	await(t, "the port forwards and shunt knows its backup", func() bool {
		p := x.port("p2")
		return p.State == "forwarding" && p.Out == accel.PortBackup
	})
	x.expect(f, 2)
	x.stopped(func() {
		x.inHost(2, "ip link set dev eth0 down")
		x.expectDiverted(f)
	})
}

// expectDiverted wants the flow at host 3. The bridge diverts it by the carrier,
// at once, and so before and after its port is disabled.
func (x *trap) expectDiverted(f flow) {
	x.t.Helper()
	x.expect(f, 3)
	if err := x.l.AwaitLinks("p2 has no carrier", func() (bool, error) {
		p2, err := netlink.LinkByName("p2")
		return err == nil && p2.Attrs().OperState != netlink.OperUp, err
	}); err != nil {
		x.t.Fatal(err)
	}
	x.expect(f, 3)
}
