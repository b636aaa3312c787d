package fdbsync

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// childOf tells a test binary which test it was started for.
const childOf = "SHUNT_FDBSYNC_TEST"

// inNamespace runs the test's body in a process of its own, in a new network
// namespace: the syncer's goroutines run on any thread, so that the whole
// process must be there.
func inNamespace(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv(childOf) == t.Name() {
		body(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=180s")
	cmd.Env = append(os.Environ(), childOf+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// The signal at the parent's death hangs on the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	if !bytes.Contains(out.Bytes(), []byte("PASS")) {
		t.Fatalf("nothing was run:\n%s", out.Bytes())
	}
}

// sh runs commands of ip(8) and others.
func sh(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("it never was so: %s", what)
		}
	}
}

// testBridge makes br0 with three ports, which forward when it is done: a port
// that does not takes no dynamic entries.
const testBridge = `
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
for i in 1 2 3; do
	ip link add p$i type veth peer name h$i
	ip link set p$i master br0 up
	ip link set h$i up
done
for i in 1 2 3; do
	until bridge link show dev p$i | grep -q "state forwarding"; do :; done
done
`

// bench is a syncer on a fake data plane.
type bench struct {
	*Syncer
	plane *fakePlane
	mu    sync.Mutex
	fatal error
}

func newBench(t *testing.T) *bench {
	b := &bench{Syncer: newSyncer(), plane: newFakePlane()}
	b.logger, b.lease, b.stations, b.names = testLogger(t), time.Second, 1<<16, []string{"br0"}
	b.Syncer.plane = b.plane
	b.fail = func(err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.fatal = err
	}
	return b
}

// start starts the syncer, and stops it when the test ends.
func (b *bench) start(t *testing.T) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.fatal != nil {
			t.Errorf("the syncer gave up: %v", b.fatal)
		}
	})
	return b
}

// startBench makes the bridge and a syncer that found everything fast.
func startBench(t *testing.T) *bench {
	t.Helper()
	sh(t, testBridge)
	b := newBench(t).start(t)
	b.awaitGate(t, accel.Fast)
	return b
}

func (b *bench) awaitGate(t *testing.T, want accel.Reason) {
	t.Helper()
	eventually(t, "the gate is "+want.String(), func() bool {
		br, ok := b.plane.named("br0")
		return ok && br.gate.Reason == want
	})
}

func (b *bench) awaitPort(t *testing.T, what string, name string, holds func(p accel.Port, attached bool) bool) {
	t.Helper()
	eventually(t, name+" "+what, func() bool {
		br, _ := b.plane.named("br0")
		for _, p := range br.ports {
			if p.Name == name {
				return holds(p, true)
			}
		}
		return holds(accel.Port{}, false)
	})
}

// awaitStation waits until the station is active behind a port; "" for nowhere.
func (b *bench) awaitStation(t *testing.T, mac string, port string) {
	t.Helper()
	address, err := accel.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("%s is behind %q", mac, port), func() bool {
		br, _ := b.plane.named("br0")
		s, ok := br.stations[accel.StationKey{MAC: address}]
		if port == "" {
			return !ok
		}
		return ok && s.Active && br.ports[s.Port].Name == port
	})
}

func TestSnapshot(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge+`
			bridge fdb add 02:00:00:00:00:01 dev p1 master static
			bridge fdb add 02:00:00:00:00:02 dev p2 master dynamic
			bridge fdb add 02:00:00:00:00:03 dev p3 master extern_learn
			bridge fdb add 02:00:00:00:00:04 dev br0 self local`)
		b := newBench(t).start(t)
		// Start returned: everything is there already.
		br, _ := b.plane.named("br0")
		for n, port := range []string{1: "p1", 2: "p2", 3: "p3"} {
			if s := br.stations[at(byte(n), 0).StationKey]; port != "" && (!s.Active || br.ports[s.Port].Name != port) {
				t.Errorf("station %d is %+v, want it active behind %s", n, s, port)
			}
		}
		if s := br.stations[at(4, 0).StationKey]; !s.Local || !s.Active {
			t.Errorf("the host's own is %+v", s)
		}
		states := b.Bridges()
		if len(states) != 1 || !states[0].Synced || !states[0].Present || len(states[0].Ports) != 3 {
			t.Errorf("the states are %+v", states)
		}
		fdb, err := b.FDB("br0")
		if err != nil || !slices.ContainsFunc(fdb, func(s accel.Station) bool { return s.MAC == at(2, 0).MAC && s.Active }) {
			t.Errorf("the FDB is %+v (%v)", fdb, err)
		}
		if _, err := b.FDB("br9"); err == nil {
			t.Error("an unknown bridge has an FDB")
		}
	})
}

func TestStationsFollowTheKernel(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		const mac = "02:00:00:00:00:01"
		sh(t, "bridge fdb add "+mac+" dev p1 master dynamic")
		b.awaitStation(t, mac, "p1")
		// One NEWNEIGH and no DELNEIGH, as for a station that moves.
		sh(t, "bridge fdb replace "+mac+" dev p2 master dynamic")
		b.awaitStation(t, mac, "p2")
		sh(t, "bridge fdb add 02:00:00:00:00:02 dev p2 master dynamic; bridge fdb del 02:00:00:00:00:02 dev p2 master")
		b.awaitStation(t, "02:00:00:00:00:02", "")
		sh(t, "ip link set p2 type bridge_slave fdb_flush")
		b.awaitStation(t, mac, "")
	})
}

func TestPortsFollowTheKernel(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		sh(t, "bridge fdb add 02:00:00:00:00:03 dev p3 master static")
		b.awaitStation(t, "02:00:00:00:00:03", "p3")

		sh(t, "bridge link set dev p1 isolated on")
		b.awaitPort(t, "is isolated", "p1", func(p accel.Port, _ bool) bool { return p.Flags.Isolated() && p.In == accel.Fast })
		sh(t, "ip link set p1 mtu 1400")
		b.awaitPort(t, "has its MTU", "p1", func(p accel.Port, _ bool) bool { return p.MTU == 1400 })
		sh(t, "bridge link set dev p1 state 1")
		b.awaitPort(t, "is blocked", "p1", func(p accel.Port, _ bool) bool { return p.In == accel.PortBlocked })
		sh(t, "ip link set h2 down")
		b.awaitPort(t, "has no carrier", "p2", func(p accel.Port, _ bool) bool { return p.Out == accel.PortDown })

		sh(t, "ip link set p3 nomaster")
		b.awaitPort(t, "left", "p3", func(_ accel.Port, attached bool) bool { return !attached })
		b.awaitStation(t, "02:00:00:00:00:03", "")
		sh(t, "ip link set p3 master br0")
		b.awaitPort(t, "is back", "p3", func(p accel.Port, attached bool) bool { return attached && p.In == accel.Fast })
		sh(t, "ip link del p3")
		b.awaitPort(t, "is gone", "p3", func(_ accel.Port, attached bool) bool { return !attached })
		b.awaitGate(t, accel.Fast)
	})
}

func TestGateFollowsTheKernel(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		for _, c := range []struct {
			do, undo string
			want     accel.Reason
		}{
			{"ip link set br0 promisc on", "ip link set br0 promisc off", accel.Promiscuous},
			{"ip link set br0 down", "ip link set br0 up", accel.BridgeDown},
			{"ip link set br0 type bridge ageing_time 0", "ip link set br0 type bridge ageing_time 30000", accel.Hub},
			// No event tells of this one (the address goes into br0's list).
			{"ip link add m0 link br0 type macvlan; ip link set m0 up", "ip link del m0", accel.Promiscuous},
			{"nft add table bridge t; nft 'add chain bridge t c { type filter hook forward priority 0; }'",
				"nft delete table bridge t", accel.BridgeNetfilter},
		} {
			sh(t, c.do)
			b.awaitGate(t, c.want)
			sh(t, c.undo)
			b.awaitGate(t, accel.Fast)
		}
	})
}

func TestNetdevChainShutsItsPort(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		sh(t, "nft add table netdev t; nft 'add chain netdev t c { type filter hook ingress device p1 priority 0; }'")
		b.awaitPort(t, "has a chain", "p1", func(p accel.Port, _ bool) bool { return p.In == accel.PortNetfilter })
		b.awaitPort(t, "has none", "p2", func(p accel.Port, _ bool) bool { return p.In == accel.Fast })
		sh(t, "nft delete table netdev t")
		b.awaitPort(t, "has none any more", "p1", func(p accel.Port, _ bool) bool { return p.In == accel.Fast })
	})
}

func TestBridgeGoesAndComes(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		sh(t, "ip link del br0")
		eventually(t, "it is closed", func() bool { _, ok := b.plane.named("br0"); return !ok })
		if s := b.Bridges()[0]; s.Present || s.Reason != accel.Absent {
			t.Errorf("it is shown as %+v", s)
		}
		if fdb, err := b.FDB("br0"); err != nil || fdb != nil {
			t.Errorf("the FDB is %v (%v)", fdb, err)
		}
		if err := b.Switch(t.Context(), "br0", false); err != nil {
			t.Error(err)
		}
		sh(t, "ip link add br0 type bridge; ip link set br0 up; ip link set p1 master br0; bridge fdb add 02:00:00:00:00:01 dev p1 master static")
		b.awaitGate(t, accel.Off)
		if err := b.Switch(t.Context(), "br0", true); err != nil {
			t.Error(err)
		}
		b.awaitGate(t, accel.Fast)
		b.awaitStation(t, "02:00:00:00:00:01", "p1")
	})
}

// TestHaste deletes bridge and ports at any moment: the daemon must live.
func TestHaste(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		for range 15 {
			sh(t, `ip link del br0; ip link add br0 type bridge; ip link set br0 up; ip link set p1 master br0
				ip link del p3; ip link add p3 type veth peer name h3; ip link set p3 master br0 up
				for i in 1 2 3 4 5 6 7 8; do bridge fdb add 02:00:00:00:00:0$i dev p1 master static; done`)
		}
		sh(t, "ip link set h3 up; ip link set p2 master br0; bridge fdb replace 02:00:00:00:00:01 dev p3 master static")
		b.awaitStation(t, "02:00:00:00:00:01", "p3")
		b.awaitStation(t, "02:00:00:00:00:02", "p1")
		b.awaitGate(t, accel.Fast)
	})
}

// awaitBridges waits until the data plane has exactly these bridges and all are
// fast.
func (b *bench) awaitBridges(t *testing.T, names ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the bridges are %v", names), func() bool {
		b.plane.mu.Lock()
		defer b.plane.mu.Unlock()
		for _, br := range b.plane.bridges {
			if !slices.Contains(names, br.Name) || br.gate.Reason != accel.Fast {
				return false
			}
		}
		return len(b.plane.bridges) == len(names)
	})
}

func TestEveryBridgeThatAppears(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := newBench(t)
		b.names, b.all = nil, true
		b.start(t) // there is none yet
		sh(t, testBridge+"ip link add br1 type bridge; ip link set br1 up")
		b.awaitBridges(t, "br0", "br1")
		sh(t, "ip link set br1 down; ip link set br1 name br2; ip link set br2 up; ip link set p1 master br2")
		b.awaitBridges(t, "br0", "br2")
		eventually(t, "p1 is behind br2", func() bool {
			br2, _ := b.plane.named("br2")
			br0, _ := b.plane.named("br0")
			return len(br2.ports) == 1 && len(br0.ports) == 2
		})
		sh(t, "ip link del br0; ip link add br0 type bridge; ip link set br0 up; ip link del br2")
		b.awaitBridges(t, "br0")
		sh(t, "ip link del br0")
		b.awaitBridges(t)
	})
}

// TestBridgesInHaste lets bridges and ports come and go, change places and names
// as fast as ip(8) can: the daemon must live, and have what is left.
func TestBridgesInHaste(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := newBench(t)
		b.names, b.all = nil, true
		b.start(t)
		var batch strings.Builder
		for range 40 {
			batch.WriteString(`link add b1 type bridge
link add b2 type bridge
link add v1 type veth peer name w1
link set v1 master b1 up
link set b1 up
link set v1 master b2
link set b1 down
link set b1 name b3
link del b2
link add b2 type bridge
link set v1 master b2
link del v1
link del b3
link del b2
`)
		}
		batch.WriteString("link add b1 type bridge\nlink set b1 up\nlink add b9 type bridge\nlink set b9 up\n")
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(batch.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip: %v: %s", err, out)
		}
		b.awaitBridges(t, "b1", "b9")
	})
}

func TestRenamedBridge(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		sh(t, "ip link set br0 down; ip link set br0 name br1; ip link set br1 up")
		b.awaitBridges(t)
		sh(t, "ip link set br1 down; ip link set br1 name br0; ip link set br0 up")
		b.awaitBridges(t, "br0")
	})
}

// TestPortThatMovesAway: in another namespace a port is none of the bridge's.
func TestPortThatMovesAway(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		sh(t, "bridge fdb add 02:00:00:00:00:01 dev p1 master static")
		b.awaitStation(t, "02:00:00:00:00:01", "p1")
		other := exec.Command("unshare", "--net", "sh", "-c", "echo; exec cat")
		in, err := other.StdinPipe()
		must(t, err)
		out, err := other.StdoutPipe()
		must(t, err)
		must(t, other.Start())
		defer func() { in.Close(); other.Wait() }()
		_, err = out.Read(make([]byte, 1)) // it is there
		must(t, err)
		sh(t, fmt.Sprintf("ip link set p1 netns %d", other.Process.Pid))
		b.awaitPort(t, "moved away", "p1", func(_ accel.Port, attached bool) bool { return !attached })
		b.awaitStation(t, "02:00:00:00:00:01", "")
		b.awaitGate(t, accel.Fast)
	})
}

// TestVLANsFollowTheKernel holds what is read of VLANs against the kernel; on one
// without them, that the question costs nothing.
func TestVLANsFollowTheKernel(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		p1, err := net.InterfaceByName("p1")
		must(t, err)
		if exec.Command("ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", "1").Run() != nil {
			b.Syncer.mu.Lock()
			vlans, err := b.kernel.vlans(p1.Index)
			b.Syncer.mu.Unlock()
			if err != nil || vlans.known {
				t.Errorf("a kernel without VLANs says %+v (%v)", vlans, err)
			}
			return
		}
		awaitVLANs := func(what string, protocol, pvid uint16, vlans ...accel.VLAN) {
			t.Helper()
			b.awaitPort(t, what, "p1", func(p accel.Port, _ bool) bool {
				br, _ := b.plane.named("br0")
				return p.PVID == pvid && p.VLANs == accel.NewVLANs(vlans) && p.In == accel.Fast &&
					br.gate.VLANProtocol == protocol && br.gate.Reason == accel.Fast
			})
		}
		vlan := func(vid uint16, untagged, forwarding bool) accel.VLAN {
			return accel.VLAN{VID: vid, Untagged: untagged, Forwarding: forwarding}
		}
		awaitVLANs("has the default", 0x8100, 1, vlan(1, true, true))
		sh(t, "bridge vlan add dev p1 vid 10-12")
		awaitVLANs("has a range", 0x8100, 1, vlan(1, true, true), vlan(10, false, true), vlan(11, false, true), vlan(12, false, true))
		sh(t, "bridge vlan del dev p1 vid 11; bridge vlan add dev p1 vid 12 pvid untagged; bridge vlan set dev p1 vid 10 state blocking")
		awaitVLANs("has another PVID", 0x8100, 12, vlan(1, true, true), vlan(10, false, false), vlan(12, true, true))
		sh(t, "ip link set br0 type bridge vlan_protocol 802.1ad; bridge vlan del dev p1 vid 10; bridge vlan del dev p1 vid 12")
		awaitVLANs("has no PVID", 0x88a8, 0, vlan(1, true, true))
		sh(t, "bridge vlan add dev p1 vid 1 pvid untagged; ip link set br0 type bridge vlan_default_pvid 5")
		awaitVLANs("has another default", 0x88a8, 5, vlan(5, true, true))
		sh(t, "for v in $(seq 100 2 900); do echo vlan add dev p1 vid $v; done | bridge -batch -")
		var many []accel.VLAN
		many = append(many, vlan(5, true, true))
		for vid := uint16(100); vid <= 900; vid += 2 {
			many = append(many, vlan(vid, false, true))
		}
		awaitVLANs("has many", 0x88a8, 5, many...)
		sh(t, "bridge vlan del dev p1 vid 1-4094")
		awaitVLANs("has none", 0x88a8, 0)
		sh(t, "ip link set br0 type bridge vlan_filtering 0")
		awaitVLANs("does not filter", 0, 0)
	})
}

func TestSwitch(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		for on, want := range map[bool]accel.Reason{false: accel.Off, true: accel.Fast} {
			if err := b.Switch(t.Context(), "br0", on); err != nil {
				t.Fatal(err)
			}
			if br, _ := b.plane.named("br0"); br.gate.Reason != want {
				t.Errorf("switched %v, the gate is %v", on, br.gate.Reason)
			}
		}
		if err := b.Switch(t.Context(), "br9", true); err == nil {
			t.Error("an unknown bridge is switched")
		}
	})
}

// TestLostEvents fills the event socket while nobody reads it.
func TestLostEvents(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge)
		b := newBench(t)
		b.buffer = 1 // the kernel makes it the least that there is
		b.start(t)
		b.awaitGate(t, accel.Fast)
		sh(t, "bridge fdb add 02:00:00:00:00:01 dev p1 master dynamic")
		b.awaitStation(t, "02:00:00:00:00:01", "p1")

		var batch strings.Builder
		for n := range 3000 {
			fmt.Fprintf(&batch, "fdb add 02:00:00:01:%02x:%02x dev p2 master dynamic\n", n>>8, n&0xff)
		}
		batch.WriteString("fdb del 02:00:00:00:00:01 dev p1 master\n")
		file := t.TempDir() + "/batch"
		if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		b.Syncer.mu.Lock() // the loop takes in nothing
		sh(t, "bridge -batch "+file)
		b.Syncer.mu.Unlock()

		b.awaitStation(t, "02:00:00:00:00:01", "")
		b.awaitStation(t, "02:00:00:01:0b:b7", "p2")
		eventually(t, "all are active", func() bool { s := b.Bridges()[0]; return s.Synced && s.Pending == 0 && s.Stations >= 3000 })
		b.awaitGate(t, accel.Fast)
		log := b.plane.log()
		if i := slices.Index(log, "gate fast"); !slices.Contains(log[i+1:], "gate syncing") {
			t.Errorf("the gate stayed open: %q", log)
		}
	})
}

func TestStartRefusesWhatIsNoBridge(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge)
		for _, name := range []string{"p1", "br9"} {
			b := newBench(t)
			b.names = []string{"br0", name}
			if err := b.Start(t.Context()); err == nil {
				t.Errorf("%s is taken for a bridge", name)
			}
			if len(b.plane.bridges) != 0 {
				t.Errorf("%s: something is left open", name)
			}
		}
	})
}

func TestStopLeavesNothing(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge)
		before := runtime.NumGoroutine()
		b := newBench(t).start(t)
		for range 2 {
			if err := b.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.plane.bridges) != 0 {
			t.Error("a bridge is still open")
		}
		if s := b.Bridges()[0]; s.Present {
			t.Errorf("it is shown as %+v", s)
		}
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	})
}

func TestStopWithoutStart(t *testing.T) {
	if err := newBench(t).Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := newSyncer().Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartThatIsCalledOff(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b := newBench(t)
		if err := b.Start(ctx); err == nil {
			if err := b.Stop(t.Context()); err != nil { // it was faster
				t.Error(err)
			}
		}
		if len(b.plane.bridges) != 0 {
			t.Error("a bridge is still open")
		}
	})
}

// restless has a list of links that does not hold still as often as that.
type restless struct {
	*world
	changing *int
}

func (r restless) links() (map[int]link, error) {
	if *r.changing > 0 {
		*r.changing--
		return nil, fmt.Errorf("list the interfaces: %w", errChanging)
	}
	return r.world.links()
}

func TestLinksThatDoNotHoldStill(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	changing := 1
	s.kernel = restless{w, &changing}
	if err := s.reconcile(); err != nil {
		t.Errorf("the daemon would end: %v", err)
	}
	if b := w.bridges[2]; b.gate.Reason != accel.Fast || len(b.ports) != 1 {
		t.Errorf("the bridge is %+v", b)
	}
}

// A burst that is longer than what is taken in at once loses none of its events.
func TestEveryEventOfABurstIsTakenIn(t *testing.T) {
	const events = 3*maxEvents + 7
	s := newSyncer()
	s.changed = newChanges()
	s.inbox = make(chan event, events)
	taken := 0
	for range events {
		s.inbox <- func(*Syncer) error { taken++; return nil }
	}
	for e := s.nextEvent(); e != nil; e = s.nextEvent() {
		if err := s.handle(e); err != nil {
			t.Fatal(err)
		}
	}
	if taken != events {
		t.Errorf("%d of %d events were taken in", taken, events)
	}
}

func TestLoopThatHangsDoesNotBeat(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		before := b.Beats()
		eventually(t, "the loop beats though nothing happens", func() bool { return b.Beats() > before })
		b.Syncer.mu.Lock() // whatever the loop does, it needs this
		before = b.Beats()
		<-time.After(3 * tickInterval)
		after := b.Beats()
		b.Syncer.mu.Unlock()
		if after > before+1 { // the turn that hangs
			t.Errorf("%d beats of a loop that hangs", after-before)
		}
		eventually(t, "the loop goes on", func() bool { return b.Beats() > after })
	})
}

// A stable port that is released loses its program before it leaves the bridge.
func TestPortThatLostItsProgramDoesNotEndTheDaemon(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		b.plane.mu.Lock()
		for _, bridge := range b.plane.bridges {
			for ifindex, p := range bridge.ports {
				if p.Name == "p3" {
					delete(bridge.ports, ifindex)
				}
			}
		}
		b.plane.mu.Unlock()
		sh(t, "ip link set p3 mtu 1400")
		b.awaitPort(t, "p3 has its program again", "p3", func(p accel.Port, attached bool) bool { return attached && p.MTU == 1400 })
		b.awaitGate(t, accel.Fast)
	})
}
