package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// A macvlan on the bridge takes the frames for its address, wherever the bridge
// learned that address. It makes the bridge promiscuous, and nobody is told.
func TestTrap16_MacvlanOnTheBridge(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	x.warm(f)
	x.stopped(func() {
		x.run("ip link add link br0 name mv0 address "+f.destination().String()+" type macvlan mode bridge",
			"ip link set dev mv0 up")
		x.expectSeen(f, closing(t)(x.l.Bridge.WireOn("mv0")))
	})
	x.awaitBridge(accel.Promiscuous)
	x.stopped(func() {
		x.run("ip link del mv0")
		x.expect(f, 2)
	})
	x.awaitFast(f)
}

// A capture on the bridge sees every frame.
func TestTrap17_CaptureOnTheBridge(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	x.warm(f)
	x.stopped(func() {
		capture := closing(t)(x.l.Bridge.Capture("br0"))
		x.expectSeen(f, capture)
		if err := capture.Close(); err != nil {
			t.Fatal(err)
		}
		x.expect(f, 2)
	})
	x.awaitFast(f)
	capture := closing(t)(x.l.Bridge.Capture("br0"))
	x.awaitBridge(accel.Promiscuous)
	x.expectSeen(f, capture)
}

// expectSeen wants frames of the flow at their host and at the wire.
func (x *trap) expectSeen(f flow, w lab.Wire) {
	x.t.Helper()
	x.expect(f, f.to)
	frames, err := lab.Arrived(w)
	if err != nil {
		x.t.Fatal(err)
	}
	frames = slices.DeleteFunc(frames, func(b []byte) bool {
		return !bytes.Equal(b[:6], f.destination()) || !bytes.Equal(b[6:12], f.source())
	})
	if len(frames) != shots {
		x.t.Errorf("%d frames are seen on the bridge, want %d", len(frames), shots)
	}
}

// The bridge answers for a station behind a port that suppresses its neighbours;
// whether it does so where the question goes to one station only is the kernel's
// own affair, which newer ones changed: what comes of it is as without shunt.
func TestTrap19_UnicastARPWithSuppression(t *testing.T) {
	x, bare := newTrap(t, lab.Options{Hosts: 3}), wired(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	for _, y := range []*trap{x, bare} {
		y.send(f)
		y.send(f.back())
		y.run("bridge link set dev p2 neigh_suppress on",
			"ip neigh add 10.99.0.77 lladdr "+f.destination().String()+" dev br0 nud permanent")
	}
	x.warm(f)
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for _, destination := range []net.HardwareAddr{f.destination(), everybody} {
		question := arp(f.source(), destination, [2]byte{1, 77}) // no host has this address
		got, want := x.answers(question), bare.answers(question)
		if got != want {
			t.Errorf("%v came of the question, and without shunt %v", got, want)
		}
		if want == "" {
			t.Errorf("nothing comes of a question to %v: the test shows nothing", destination)
		}
	}
}

// answers sends the frame thrice from host 1 and returns what ARP came to the
// hosts.
func (x *trap) answers(question []byte) (seen string) {
	x.t.Helper()
	x.drain()
	if err := x.l.Deliver(x.at[0], question, question, question); err != nil {
		x.t.Fatal(err)
	}
	for host, w := range x.at {
		arrived, err := lab.Arrived(w)
		if err != nil {
			x.t.Fatal(err)
		}
		for _, b := range arrived {
			if b[12] == 8 && b[13] == 6 {
				seen += fmt.Sprintf("host %d: % x\n", host+1, b[:42])
			}
		}
	}
	return seen
}

// arp is a question of one of the addresses 10.99.0.X for another.
func arp(source, destination net.HardwareAddr, who [2]byte) []byte {
	b := make([]byte, 60)
	copy(b, destination)
	copy(b[6:], source)
	copy(b[12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1})
	copy(b[22:], source)
	copy(b[28:], []byte{10, 99, 0, who[0]})
	copy(b[38:], []byte{10, 99, 0, who[1]})
	return b
}

// The kernel's counters of every port and every host, and the flags of its
// table, are those of a lab without shunt. The bridge device itself counts no
// forwarded frame either way.
func TestTrap23_CountersAndFlagsOfATwin(t *testing.T) {
	const rounds = 200
	with, without := newTrap(t, lab.Options{Hosts: 4}), wired(t, lab.Options{Hosts: 4})
	flows := []flow{{from: 1, to: 2}, {from: 2, to: 1}, {from: 3, to: 1, size: 1514}, {from: 4, to: 3, ip: true, size: 200}}
	for _, f := range flows {
		with.warm(f)
	}
	without.sent = with.sent
	entries := []string{lab.MACOf(1).String(), lab.MACOf(2).String(), lab.MACOf(3).String(), lab.MACOf(4).String()}
	for _, f := range flows {
		without.send(f)
		without.send(f.back())
	}
	before, bare := with.hostCounters(), without.hostCounters()
	fast := with.d.bridge().Fast
	for range rounds {
		for _, f := range flows {
			with.expect(f, f.to)
			without.expect(f, f.to)
		}
		everybody := flow{from: 1, dst: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		with.expect(everybody, 2, 3, 4)
		without.expect(everybody, 2, 3, 4)
	}
	if fast := with.d.bridge().Fast - fast; fast < rounds*shots*uint64(len(flows))*9/10 {
		t.Errorf("only %d frames were fast: the test shows little", fast)
	}
	got, want := since(before, with.hostCounters()), since(bare, without.hostCounters())
	for device, c := range want {
		c.RxDropped = got[device].RxDropped // the copies of a keepalive count there
		if got[device] != c {
			t.Errorf("%s counted %+v, and without shunt %+v", device, got[device], c)
		}
	}
	if got, want := entriesOf(t, with.l, entries), entriesOf(t, without.l, entries); !slices.Equal(got, want) || len(want) != len(entries) {
		t.Errorf("the table has %+v, and without shunt %+v", got, want)
	}
}

// hostCounters returns the counters of every port, and of every host's device.
func (x *trap) hostCounters() map[string]lab.PortCounters {
	x.t.Helper()
	all := make(map[string]lab.PortCounters)
	for n, h := range x.l.Hosts {
		port, err := x.l.Counters(h.Port)
		if err != nil {
			x.t.Fatal(err)
		}
		eth0, err := h.Counters("eth0")
		if err != nil {
			x.t.Fatal(err)
		}
		all[h.Port], all[fmt.Sprintf("host %d", n+1)] = port, eth0
	}
	return all
}

func since(before, after map[string]lab.PortCounters) map[string]lab.PortCounters {
	grown := make(map[string]lab.PortCounters)
	for device, a := range after {
		b := before[device]
		grown[device] = lab.PortCounters{
			RxPackets: a.RxPackets - b.RxPackets, TxPackets: a.TxPackets - b.TxPackets,
			RxDropped: a.RxDropped - b.RxDropped, TxDropped: a.TxDropped - b.TxDropped,
			RxBytes: a.RxBytes - b.RxBytes, TxBytes: a.TxBytes - b.TxBytes,
		}
	}
	return grown
}

// A bridge that forwards the link-local group of the keepalive's copies must not
// forward those: no host may see a frame that nobody sent.
func TestTrap25_KeepalivesAndGroupForwarding(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 3})
	x.run("ip link set dev br0 type bridge group_fwd_mask 0x4000")
	f := flow{from: 1, to: 2}
	x.warm(f)
	before := x.d.reasons()[accel.Keepalive]
	await(t, "three keepalives went to the bridge", func() bool {
		x.drain()
		x.sent++
		frame := f.bytes(x.sent, lab.Tag{})
		if err := x.l.Deliver(x.at[0], frame); err != nil {
			t.Fatal(err)
		}
		for host, w := range x.at {
			arrived, err := lab.Arrived(w)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range arrived {
				if host != f.to-1 || !bytes.Equal(b, frame) {
					t.Fatalf("host %d has a frame that nobody sent: % x", host+1, b)
				}
			}
		}
		return x.d.reasons()[accel.Keepalive] >= before+3
	})
}

// Where the kernel spreads a port's frames over CPUs and they come in batches, a
// frame that goes to the bridge is not overtaken by those that do not.
func TestTrap28_OrderWithRPSAndBursts(t *testing.T) {
	const frames, least = 50_000, 45_000
	l := newLab(t, lab.Options{Hosts: 2})
	for _, port := range []string{"p1", "p2"} {
		if err := l.Bridge.WriteSys("/sys/class/net/"+port+"/queues/rx-0/rps_cpus", "3"); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, l)
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	d.awaitActive(a.mac, b.mac)
	before := d.reasons()
	s := &lab.Sender{
		Wire:  a.wire,
		Frame: lab.Frame{Source: a.mac, Destination: b.mac, Stream: 41},
		Pace:  lab.Pace{PerSecond: 15_000, Burst: 32},
	}
	report, err := lab.Run(t.Context(), s, frames, b.wire)
	if err != nil {
		t.Fatal(err)
	}
	if want := (lab.Report{Received: frames}); report != want {
		t.Errorf("%+v, want %+v", report, want)
	}
	after := d.reasons()
	fast, kept := after[accel.Fast]-before[accel.Fast], after[accel.Keepalive]-before[accel.Keepalive]
	t.Logf("%d fast, %d keepalives", fast, kept)
	if fast < least || kept == 0 {
		t.Errorf("%d frames were fast and %d keepalives: the test shows nothing", fast, kept)
	}
}

// Two namespaces have bridges with the same ifindexes and the same stations.
// What changes in one leaves the other's frames fast.
func TestTrap29_TwoNamespaces(t *testing.T) {
	x, other := newTrap(t, lab.Options{Hosts: 3}), newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	x.warm(f)
	other.warm(f)
	before := x.fast(f)
	x.stopped(func() {
		other.stopped(func() {
			other.run("bridge fdb del "+f.destination().String()+" dev p2 master", "bridge link set dev p1 learning off")
			other.expect(f, 2, 3)
		})
		x.expect(f, 2)
	})
	if fast := x.fast(f) - before; fast < shots-1 {
		t.Errorf("%d of %d frames were fast: a change in another namespace reached this one", fast, shots)
	}
}

// To ask what would become of a frame does nothing to it, or to anything else.
func TestTrap30_ExplainChangesNothing(t *testing.T) {
	const questions = 1000
	x := newTrap(t, lab.Options{Hosts: 3})
	f := flow{from: 1, to: 2}
	x.warm(f)
	x.learn(flow{from: 3, to: 2})
	x.drain()
	before := x.everything()
	await(t, "the source is due to be shown to the bridge", func() bool {
		return strings.Contains(x.ask("p1", f.source(), f.destination()), `"keepalive"`)
	})
	for n := range questions {
		x.ask("p1", lab.MACOf(1+n%4), lab.MACOf(1+n/4%4))
	}
	x.d.shunt("explain", "--in", "p1", "--src", f.source().String(), "--dst", f.destination().String())
	if after := x.everything(); !maps.Equal(after, before) {
		for what := range after {
			if after[what] != before[what] {
				t.Errorf("%s was\n%s\nand is\n%s", what, before[what], after[what])
			}
		}
	}
	for host, w := range x.at {
		if arrived, err := lab.Arrived(w); err != nil || len(arrived) > 0 {
			t.Errorf("%d frames came to host %d (%v)", len(arrived), host+1, err)
		}
	}
	x.expect(f, 2)
}

// ask asks what would become of a frame, as shunt explain does.
func (x *trap) ask(in string, src, dst net.HardwareAddr) (answer string) {
	x.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", x.d.socket)
		},
	}}
	params := url.Values{"in": {in}, "src": {src.String()}, "dst": {dst.String()}}
	response, err := client.Get("http://shunt/v1/explain?" + params.Encode())
	if err != nil {
		x.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		x.t.Fatalf("%s (%v): %s", response.Status, err, text)
	}
	return string(text)
}

// everything is what an explain could change: every map of the bridge, the
// counters and the tables.
func (x *trap) everything() map[string]string {
	x.t.Helper()
	all := map[string]string{
		"reasons": x.d.shunt("reasons", "-j"), "ports": x.d.shunt("ports", "-j"), "shunt's table": x.d.shunt("fdb", "-j"),
	}
	rows, err := x.l.FDB()
	if err != nil {
		x.t.Fatal(err)
	}
	all["the bridge's table"] = fmt.Sprint(rows)
	for device, c := range x.hostCounters() {
		all[device] = fmt.Sprint(c)
	}
	maps.Copy(all, pinnedMaps(x.t, pinsOf(x.t, x.d.cmd.Process.Pid)))
	return all
}

// pinnedMaps returns the contents of the maps below a directory.
func pinnedMaps(t *testing.T, dir string) map[string]string {
	t.Helper()
	contents := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			return nil // a program or a link
		}
		defer m.Close()
		contents[path], err = contentsOf(m)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(contents) == 0 {
		t.Fatal("there are no maps: the test shows little")
	}
	return contents
}

func contentsOf(m *ebpf.Map) (string, error) {
	if m.Type() == ebpf.PerCPUArray || m.Type() == ebpf.PerCPUHash {
		return contentsAs[[][]byte](m)
	}
	return contentsAs[[]byte](m)
}

func contentsAs[V any](m *ebpf.Map) (string, error) {
	rows := make(map[string]string)
	var key []byte
	var value V
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		rows[fmt.Sprintf("%x", key)] = fmt.Sprint(value)
	}
	return fmt.Sprint(rows), entries.Err()
}
