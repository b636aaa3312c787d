package integration

import (
	"context"
	"flag"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

var (
	scaleFlush = flag.Int("scale.flush", 5000, "entries that TestScaleFlush flushes")
	scaleFlood = flag.Int("scale.flood", 20_000, "frames of each flood in TestScaleFlood")
	scalePace  = flag.Int("scale.pace", 20_000, "frames of a flood a second: a million in a minute are 16,667")
)

// TestScaleFlush flushes a large table at once. While the daemon still reads of what is
// gone, a station of it comes back elsewhere, and frames to it go where the bridge sends
// them.
func TestScaleFlush(t *testing.T) {
	x := wired(t, lab.Options{Hosts: 3, Ageing: 24 * time.Hour})
	table := openTable(t, x.l)
	x.d = launch(t, x.l.Bridge, "--config", stationsConfig(t, *scaleFlush+100))
	x.d.awaitReady()
	f := flow{from: 1, to: 2}
	for _, c := range []struct {
		name, does, undoes string
		flooded            []int
	}{
		{"flush", "ip link set br0 type bridge fdb_flush", "", []int{2, 3}},
		{"port down", "ip link set p2 down", "ip link set p2 up", []int{3}},
		{"flush, once more", "ip link set br0 type bridge fdb_flush", "", []int{2, 3}},
	} {
		x.warm(f)
		for i := range *scaleFlush {
			must(t, table.Set(crowdMAC(i), 1, lab.Dynamic))
		}
		must(t, table.Flush())
		awaitWithin(t, startTimeout, "the table is mirrored", func() bool { return x.d.bridge().Stations > *scaleFlush })
		x.awaitFast(f)

		must(t, x.l.Bridge.Run(c.does))
		x.expect(f, c.flooded...)
		x.send(flow{from: 3, to: 1, src: lab.MACOf(2)})
		checked := 0
		for behind := true; behind; checked++ {
			x.expect(f, 3)
			behind = x.d.bridge().Stations > 100
		}
		x.expect(f, 3)
		t.Logf("%s: %d entries are gone, and %d bursts went where the bridge sends them", c.name, *scaleFlush, checked+1)
		if c.undoes != "" {
			must(t, x.l.Bridge.Run(c.undoes))
			must(t, x.l.AwaitForwarding())
		}
	}
}

// TestScaleFlood sends from one port what fills tables and what moves stations, as fast
// as a guest may, while two others talk.
func TestScaleFlood(t *testing.T) {
	const known = 1000
	for _, c := range []struct {
		name   string
		source func(n int) accel.MAC
	}{
		{"random addresses", func(n int) accel.MAC { return crowdMAC(known + n) }},
		{"addresses of known stations", func(n int) accel.MAC { return crowdMAC(n % known) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, lab.Options{Hosts: 3})
			flood(t, l, startDaemon(t, l), known, c.source)
		})
	}
}

// TestScaleFloodOfABoundedTable: where the operator bounds how many entries the bridge
// learns (fdb_max_learned), that holds, and bounds shunt too.
func TestScaleFloodOfABoundedTable(t *testing.T) {
	const known, most = 1000, 2000
	l := newLab(t, lab.Options{Hosts: 3})
	limitLearning(t, l, most)
	d := startDaemon(t, l)
	before := d.figures()
	flood(t, l, d, known, func(n int) accel.MAC { return crowdMAC(known + n) })
	await(t, "nothing waits", func() bool { return d.bridge().Pending == 0 })
	if n := learned(t, l); n > most {
		t.Errorf("the bridge learned %d entries, of %d at most", n, most)
	} else if n < most {
		t.Errorf("the bridge learned %d entries: the flood did not fill the table", n)
	}
	if grown := d.figures().rss - before.rss; grown > 20<<20 {
		t.Errorf("the daemon grew by %d MB for %d entries", grown>>20, most)
	}
	expectMirrored(t, l, d)
}

// TestScaleFloodThatAges: entries of a flood that the bridge ages leave the data plane's
// map with them, while others come, and the daemon's memory is bounded by those that are
// there.
func TestScaleFloodThatAges(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 3, Ageing: 2 * time.Second})
	d := startDaemon(t, l)
	before := d.figures()
	flood(t, l, d, 0, func(n int) accel.MAC { return crowdMAC(n) })
	grown := d.figures()
	awaitWithin(t, startTimeout, "the bridge has aged all of it", func() bool { return learned(t, l) <= len(l.Hosts) })
	await(t, "the mirror has too", func() bool { s := d.bridge(); return s.Stations+s.Pending+s.FDBFull < 20 })
	expectMirrored(t, l, d)
	expectHeld(t, l)
	if bytes := grown.rss - before.rss; bytes > 20<<20 {
		t.Errorf("the daemon grew by %d MB for entries that the bridge had no more", bytes>>20)
	}
}

// flood sends frames from the third host, each from a source of its own, while the first
// two, and a crowd that is known, are there before.
func flood(t *testing.T, l *lab.Lab, d *daemon, known int, source func(n int) accel.MAC) {
	t.Helper()
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	sendFromMany(t, l.Hosts[1], a.mac, known, 10_000, func(n int) accel.MAC { return crowdMAC(n) })
	await(t, "the stations are known", func() bool { s := d.bridge(); return s.Stations > known && s.Pending == 0 })
	before, port := d.figures(), d.port(a.port)
	calm, answered := converse(t, a, b, 5000), converse(t, b, a, 100)
	sendFromMany(t, l.Hosts[2], a.mac, *scaleFlood, *scalePace, source)
	sent := calm()
	answered()
	after, grown := d.port(a.port), d.figures()
	fast, slow := after.Fast-port.Fast, after.Slow-port.Slow
	share := float64(fast) / float64(fast+slow)
	s := d.bridge()
	t.Logf("%d frames of the flood, and %d of the others, of which %.2f %% were fast; %d stations mirrored, %d without room", *scaleFlood, sent, 100*share, s.Stations, s.FDBFull)
	t.Logf("the daemon: %v before, %v behind", before, grown)
	if share < 0.95 {
		t.Errorf("%.2f %% of the others' frames were fast, want 95", 100*share)
	}
	if !s.Eligible {
		t.Errorf("the bridge is %v", s.Reason)
	}
}

// limitLearning sets the bridge's fdb_max_learned, which kernels have from 6.7 on.
func limitLearning(t *testing.T, l *lab.Lab, most uint32) {
	t.Helper()
	must(t, l.Bridge.Do(func() error {
		bridge, err := net.InterfaceByName(lab.BridgeName)
		if err != nil {
			return err
		}
		about := nl.NewIfInfomsg(unix.AF_UNSPEC)
		about.Index = int32(bridge.Index)
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("bridge"))
		info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(unix.IFLA_BR_FDB_MAX_LEARNED, nl.Uint32Attr(most))
		r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		r.AddData(about)
		r.AddData(info)
		_, err = r.Execute(unix.NETLINK_ROUTE, 0)
		return err
	}))
}

// learned is how many entries the bridge has learned.
func learned(t *testing.T, l *lab.Lab) (n int) {
	t.Helper()
	rows, err := l.FDB()
	must(t, err)
	for _, r := range rows {
		if r.State&unix.NUD_PERMANENT == 0 {
			n++
		}
	}
	return n
}

// expectHeld wants the data plane's map to have no entry that the bridge has not.
func expectHeld(t *testing.T, l *lab.Lab) {
	t.Helper()
	held, err := ebpf.LoadPinnedMap(stationsPin(t, l), &ebpf.LoadPinOptions{ReadOnly: true})
	must(t, err)
	defer held.Close()
	rows, err := l.FDB()
	must(t, err)
	var key [8]byte // bpf/maps.h: struct station_key
	record := make([]byte, held.ValueSize())
	stations := held.Iterate()
	for stations.Next(&key, &record) {
		mac := net.HardwareAddr(key[:6]).String()
		if !slices.ContainsFunc(rows, func(r lab.Entry) bool { return r.MAC == mac }) {
			t.Errorf("%s is in the map, and not in the bridge's table", mac)
		}
	}
	must(t, stations.Err())
}

// port returns a port as the daemon shows it.
func (d *daemon) port(name string) accel.PortV1 {
	d.t.Helper()
	var ports []accel.PortV1
	d.decode(&ports, "ports")
	for _, p := range ports {
		if p.Port == name {
			return p
		}
	}
	d.t.Fatalf("there is no port %s", name)
	return accel.PortV1{}
}

// sendFromMany sends frames from a host to one station, each from a source of its own.
func sendFromMany(t *testing.T, h *lab.Host, to net.HardwareAddr, frames, perSecond int, source func(n int) accel.MAC) {
	t.Helper()
	wire, err := h.SendingWire()
	must(t, err)
	defer wire.Close()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for begin, n := time.Now(), 0; n < frames; <-pace.C {
		for due := int(time.Since(begin).Seconds() * float64(perSecond)); n < min(due, frames); n++ {
			mac := source(n)
			_, err := wire.Write(lab.Frame{Source: mac[:], Destination: to, Stream: 50}.Bytes())
			must(t, err)
		}
	}
}

// converse sends frames a second from one station to another until the returned function is
// called, which returns how many there were.
func converse(t *testing.T, a, b station, perSecond int) (calm func() uint64) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	s := &lab.Sender{
		Wire: a.wire, Frame: lab.Frame{Source: a.mac, Destination: b.mac, Stream: 1},
		Pace: lab.Pace{PerSecond: perSecond, Gentle: true},
	}
	done := make(chan error, 1)
	go func() { done <- s.Send(ctx, 1<<40) }()
	return func() uint64 {
		end()
		must(t, <-done)
		return s.Next.Load()
	}
}
