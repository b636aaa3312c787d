package tcprog

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	tc "github.com/florianl/go-tc"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// The header and the Go table are two copies of one list.
func TestReasonsAreTheSameInCAndGo(t *testing.T) {
	header, err := os.ReadFile("bpf/reasons.h")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]accel.Reason)
	for _, r := range accel.Reasons() {
		names[r.String()] = r
	}
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^\t([A-Z_]+) = (\d+),$`).FindAllStringSubmatch(string(header), -1) {
		number, _ := strconv.Atoi(m[2])
		if m[1] == "NUM_REASONS" {
			if number != accel.NumReasons {
				t.Errorf("NUM_REASONS is %d in C, %d in Go", number, accel.NumReasons)
			}
			continue
		}
		found++
		if got, ok := names[strings.ToLower(m[1])]; !ok || int(got) != number {
			t.Errorf("%s is %d in C, %d in Go (known there: %v)", m[1], number, got, ok)
		}
	}
	if found < 20 {
		t.Errorf("only %d reasons were found in the header: has its form changed?", found)
	}
}

func TestSizesAreTheSameInCAndGo(t *testing.T) {
	spec, err := loadSpec(16, true)
	if err != nil {
		t.Fatal(err)
	}
	if n := spec.Maps[shuntMapPorts].MaxEntries; n != maxSlots {
		t.Errorf("MAX_SLOTS is %d, maxSlots %d", n, maxSlots)
	}
	if accel.NumReasons > 1<<reasonsBits {
		t.Errorf("there are %d reasons, and room for %d", accel.NumReasons, 1<<reasonsBits)
	}
	compiled, err := loadShunt()
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]uintptr{
		"flows": unsafe.Sizeof(shuntFlow{}), "counters": unsafe.Sizeof(shuntCount{}), "images": unsafe.Sizeof(portImage{}),
	} {
		if n := compiled.Variables[name].Size(); uintptr(n) != size {
			t.Errorf("%s is compiled with %d bytes, and enlarged by values of %d", name, n, size)
		}
	}
}

const (
	loopback   = 1  // the port that frames come in on
	otherPort  = 77 // a port without a device, known by its record only
	testBridge = 4242
)

var (
	alice = accel.MAC{2, 0, 0, 8, 6, 1}
	bob   = accel.MAC{2, 0, 0, 7, 5, 2}
	carol = accel.MAC{2, 0, 0, 9, 3, 3}
	host  = accel.MAC{2, 0, 0, 0, 0, 9}
)

// lab is a data plane in a network namespace of its own. Its bridge has the
// loopback device as a port, whose program the tests run with frames of their
// own, and a second port that exists in the maps only.
type lab struct {
	t  *testing.T
	d  *Dataplane
	ns accel.Namespace
}

func newLab(t *testing.T, attach string) *lab {
	t.Helper()
	enterNamespace(t)
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	// What is pinned for a bridge that is gone would be removed.
	add := exec.Command("ip", "link", "add", "name", "br0", "index", strconv.Itoa(testBridge), "type", "bridge")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", add, err, out)
	}
	l := &lab{t: t, ns: accel.Namespace{Inode: st.Ino}}
	t.Cleanup(func() { // wires stay, and the next namespace may get this one's number
		if err := os.RemoveAll(pinRoot(l.ns)); err != nil {
			t.Error(err)
		}
	})
	l.d = l.newDataplane(attach)
	t.Cleanup(func() {
		if err := l.d.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lab) newDataplane(attach string) *Dataplane {
	l.t.Helper()
	d := new(Dataplane)
	host := &accel.Host{
		Logger:    slog.New(slog.DiscardHandler),
		Tracer:    noop.NewTracerProvider().Tracer("tcprog"),
		Config:    &accel.Config{Attach: attach, Redirect: accel.RedirectEgress, MaxStations: 16},
		Namespace: l.ns,
	}
	if err := d.Provision(l.t.Context(), host); err != nil {
		l.t.Fatal(err)
	}
	if err := d.Start(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	// The ports of these tests are no bridge ports: there is nothing to read.
	l.must(d.noticeChanges())
	d.changes.mode = modeNetlink
	return d
}

// enterNamespace puts the test's goroutine into a new network namespace. The
// thread is not given back: it ends with the test.
func enterNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace: %v (the tests need root)", err)
	}
	// Its devices send nothing of their own, which a program would take for a frame.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// open opens the bridge with both ports, three stations and an open gate.
func (l *lab) open() *bridge {
	l.t.Helper()
	l.must(l.d.OpenBridge(accel.Bridge{Name: "br0", Ifindex: testBridge}))
	br := l.d.bridges[testBridge]
	l.stopRevokers(br)
	l.must(l.d.AttachPort(testBridge, accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500, Flags: accel.FlagLearning}))
	l.addPort(br, accel.Port{Name: "other", Ifindex: otherPort, MTU: 1500, Flags: accel.FlagLearning})
	l.learn(accel.Station{StationKey: key(alice), Port: loopback})
	l.learn(accel.Station{StationKey: key(bob), Port: otherPort})
	l.learn(accel.Station{StationKey: key(host), Local: true})
	l.openGate(accel.Gate{Keepalive: time.Hour})
	l.send(frame(alice, bob)) // the first frame is the keepalive
	return br
}

// addPort makes a port that exists in the maps only.
func (l *lab) addPort(br *bridge, p accel.Port) {
	l.t.Helper()
	slot, err := br.slots.next()
	l.must(err)
	l.must(l.d.changes.watch(p.Ifindex, false))
	br.ports[p.Ifindex] = br.newPort(p.Ifindex, slot)
	br.ports[p.Ifindex].hook = noHook{}
	p.Seen = l.d.Version(p.Ifindex)
	l.must(l.d.SetPort(testBridge, p))
}

// stopRevokers leaves moves to the port programs: no bridge is there that would
// tell of them.
func (l *lab) stopRevokers(br *bridge) {
	l.t.Helper()
	if !br.isRevoked() {
		l.t.Fatal("the programs at the bridge's tracepoints are not attached")
	}
	for _, r := range br.revokers {
		l.must(r.Close())
	}
	br.revokers = nil
}

// noHook stands in for the hook of a port that has no device.
type noHook struct{}

func (noHook) name() string                 { return "none" }
func (noHook) foreign() (bool, error)       { return false, nil }
func (noHook) shared() (bool, error)        { return false, nil }
func (noHook) exchange(*ebpf.Program) error { return nil }
func (noHook) remove() error                { return nil }

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) openGate(g accel.Gate) {
	l.t.Helper()
	l.must(l.d.SetGate(testBridge, g))
	l.must(l.d.Renew(testBridge, time.Hour))
}

func (l *lab) learn(s accel.Station) {
	l.t.Helper()
	l.admit(s)
	lost, err := l.d.Activate(testBridge, []accel.Station{s})
	l.must(err)
	if len(lost) != 0 {
		l.t.Fatalf("%v was lost between Admit and Activate", lost)
	}
}

func (l *lab) admit(s accel.Station) {
	l.t.Helper()
	unmirrored, err := l.d.Admit(testBridge, []accel.Station{s})
	l.must(err)
	if unmirrored != 0 {
		l.t.Fatal("the map is full")
	}
}

// send runs the loopback port's program on the frame and returns what the
// program counted and what it did.
func (l *lab) send(data []byte) (accel.Reason, int) {
	l.t.Helper()
	before := l.counts()
	action, err := l.d.bridges[testBridge].ports[loopback].program.Run(&ebpf.RunOptions{Data: data})
	l.must(err)
	for reason, n := range l.counts() {
		if n.Packets != before[reason].Packets {
			if n.Packets != before[reason].Packets+1 || n.Bytes != before[reason].Bytes+uint64(len(data)) {
				l.t.Fatalf("%s went from %+v to %+v for one frame of %d bytes", reason, before[reason], n, len(data))
			}
			return reason, int(int32(action))
		}
	}
	l.t.Fatal("the frame was not counted")
	return 0, 0
}

func (l *lab) counts() map[accel.Reason]accel.Count {
	l.t.Helper()
	counts, err := l.d.bridges[testBridge].ports[loopback].counts()
	l.must(err)
	return counts
}

const (
	passUp     = -1
	tcRedirect = 7 // TC_ACT_REDIRECT
)

// expect sends the frame and wants this reason, and the action that goes with it.
func (l *lab) expect(data []byte, want accel.Reason) {
	l.t.Helper()
	action := passUp
	if want == accel.Fast {
		action = tcRedirect
	}
	if reason, did := l.send(data); reason != want || did != action {
		l.t.Errorf("the program counted %s and did %d, want %s and %d", reason, did, want, action)
	}
}

func key(m accel.MAC) accel.StationKey { return accel.StationKey{MAC: m} }

const testEtherType = 0x88b5

func frame(src, dst accel.MAC) []byte { return frameOf(src, dst, testEtherType, make([]byte, 46)) }

func frameOf(src, dst accel.MAC, etherType uint16, payload []byte) []byte {
	data := append(dst[:], src[:]...)
	data = binary.BigEndian.AppendUint16(data, etherType)
	return append(data, payload...)
}

func ipv4(change func([]byte)) []byte { return ipv4Of(20+26, change) }

// ipv4Of is a packet of so many bytes in a frame.
func ipv4Of(size int, change func([]byte)) []byte {
	h := make([]byte, size)
	h[0], h[8], h[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	copy(h[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	change(h)
	return frameOf(alice, bob, 0x0800, h)
}

func ipv6(change func([]byte)) []byte {
	h := make([]byte, 40+8)
	h[0], h[6], h[7], h[5] = 0x60, 17, 64, 8
	change(h)
	return frameOf(alice, bob, 0x86dd, h)
}

func unchanged([]byte) {}

func TestEveryFrameHasItsReason(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	l.openGate(accel.Gate{Keepalive: time.Hour, CheckIP: true})
	zero, group := accel.MAC{}, accel.MAC{1, 0, 0x5e, 0, 0, 1}
	broadcast := accel.MAC{255, 255, 255, 255, 255, 255}
	linkLocal := accel.MAC{1, 0x80, 0xc2, 0, 0, 0}
	long := frameOf(alice, bob, testEtherType, make([]byte, 1500+vlanHeaderLen+1))
	for name, c := range map[string]struct {
		data []byte
		want accel.Reason
	}{
		"known unicast":        {frame(alice, bob), accel.Fast},
		"broadcast":            {frame(alice, broadcast), accel.Multicast},
		"multicast":            {frame(alice, group), accel.Multicast},
		"BPDU":                 {frameOf(alice, linkLocal, 38, make([]byte, 46)), accel.Multicast},
		"source multicast":     {frame(group, bob), accel.SourceMulticast},
		"source zero":          {frame(zero, bob), accel.SourceZero},
		"ARP, unicast":         {frameOf(alice, bob, 0x0806, make([]byte, 46)), accel.ARP},
		"RARP, unicast":        {frameOf(alice, bob, 0x8035, make([]byte, 46)), accel.ARP},
		"CFM":                  {frameOf(alice, bob, 0x8902, make([]byte, 46)), accel.CFM},
		"MRP":                  {frameOf(alice, bob, 0x88e3, make([]byte, 46)), accel.MRP},
		"LLC":                  {frameOf(alice, bob, 46, make([]byte, 46)), accel.LLC},
		"LLC, longest":         {frameOf(alice, bob, 0x5ff, make([]byte, 0x5ff)), accel.LLC},
		"first EtherType":      {frameOf(alice, bob, 0x600, make([]byte, 46)), accel.Fast},
		"unknown source":       {frame(carol, bob), accel.SourceUnknown},
		"unknown destination":  {frame(alice, carol), accel.DestinationUnknown},
		"the host's address":   {frame(alice, host), accel.DestinationLocal},
		"from the host":        {frame(host, bob), accel.SourceLocal},
		"same port":            {frame(alice, alice), accel.SamePort},
		"longest":              {long[:len(long)-1], accel.Fast},
		"too long":             {long, accel.MTU},
		"IPv4":                 {ipv4(unchanged), accel.Fast},
		"IPv4, wrong checksum": {ipv4(func(h []byte) { h[10] ^= 1 }), accel.IPHeader},
		"IPv4, padded":         {append(ipv4(unchanged), 0), accel.IPHeader},
		"IPv4, options":        {ipv4(func(h []byte) { h[0]++; h[10] -= 1 }), accel.IPHeader},
		"IPv4, version 6":      {ipv4(func(h []byte) { h[0] = 0x65; h[10] -= 0x20 }), accel.IPHeader},
		"IPv4, longest":        {ipv4Of(1500, unchanged), accel.Fast},
		"IPv4, too long":       {ipv4Of(1501, unchanged), accel.MTU}, // br_netfilter cuts it
		"IPv6":                 {ipv6(unchanged), accel.Fast},
		"IPv6, version 4":      {ipv6(func(h []byte) { h[0] = 0x40 }), accel.IPHeader},
		"IPv6, padded":         {append(ipv6(unchanged), 0), accel.IPHeader},
		"IPv6, hop-by-hop":     {ipv6(func(h []byte) { h[6] = 0 }), accel.IPHeader},
		"PPPoE":                {frameOf(alice, bob, 0x8864, make([]byte, 46)), accel.PPPoE},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lab{t: t, d: l.d}
			l.expect(c.data, c.want) // decided
			l.expect(c.data, c.want) // from the cache, where it is kept
		})
	}
	l.openGate(accel.Gate{Keepalive: time.Hour})
	l.expect(ipv4(func(h []byte) { h[10] ^= 1 }), accel.Fast) // without br_netfilter nobody looks
}

// The frames above run on one locked thread; t.Run gives each a goroutine of
// its own, which needs no namespace since it makes no interface.

func TestStationThatMovedIsForgottenAtItsFirstFrame(t *testing.T) {
	l := newLab(t, "auto")
	br := l.open()
	l.expect(frame(alice, bob), accel.Fast)
	revoked := br.control.revoked()

	l.expect(frame(bob, carol), accel.SourceMoved) // bob now sends from loopback
	if got := br.control.revoked() - revoked; got != 1 {
		t.Errorf("%d entries were revoked, want 1", got)
	}
	l.expect(frame(alice, bob), accel.DestinationUnknown)
	l.expect(frame(bob, carol), accel.SourceUnknown)
}

func TestMoveIsSeenWhateverTheFrameAndTheGate(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	broadcast := accel.MAC{255, 255, 255, 255, 255, 255}
	for name, shut := range map[string]func(){
		"gate open": func() { l.openGate(accel.Gate{Keepalive: time.Hour}) },
		"off":       func() { l.must(l.d.SetGate(testBridge, accel.Gate{Reason: accel.Off})) },
		"port not eligible": func() {
			l.must(l.d.SetPort(testBridge, accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500, Flags: accel.FlagLearning, In: accel.PortBlocked}))
		},
	} {
		l.learn(accel.Station{StationKey: key(bob), Port: otherPort})
		shut()
		l.expect(frameOf(bob, broadcast, 0x0806, make([]byte, 46)), accel.SourceMoved)
		for _, s := range l.stations() {
			if s.MAC == bob {
				t.Errorf("%s: the entry is still there", name)
			}
		}
	}
}

func TestCandidateDecidesNothing(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	l.admit(accel.Station{StationKey: key(carol), Port: otherPort})
	l.expect(frame(alice, carol), accel.Unverified)
	_, err := l.d.Activate(testBridge, []accel.Station{{StationKey: key(carol), Port: otherPort}})
	l.must(err)
	l.expect(frame(alice, carol), accel.Fast)
}

func TestAdmitLeavesAnActiveEntryAlone(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	l.admit(accel.Station{StationKey: key(bob), Port: loopback})
	l.expect(frame(alice, bob), accel.Fast)
	l.openGate(accel.Gate{Keepalive: time.Hour}) // empties the flow cache
	l.expect(frame(alice, bob), accel.Fast)
}

func TestCandidateThatMovedIsNotActivated(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	s := accel.Station{StationKey: key(carol), Port: otherPort}
	l.admit(s)
	l.expect(frame(carol, bob), accel.SourceMoved)
	lost, err := l.d.Activate(testBridge, []accel.Station{s})
	l.must(err)
	if len(lost) != 1 || lost[0] != key(carol) {
		t.Errorf("lost is %v, want carol", lost)
	}
	l.expect(frame(alice, carol), accel.DestinationUnknown)
}

func TestChangesReachCachedFlows(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	lo := accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500, Flags: accel.FlagLearning}
	other := accel.Port{Name: "other", Ifindex: otherPort, MTU: 1500, Flags: accel.FlagLearning}
	changed := func(p accel.Port, change func(*accel.Port)) func() {
		return func() { change(&p); l.must(l.d.SetPort(testBridge, p)) }
	}
	for _, c := range []struct {
		name   string
		change func()
		want   accel.Reason
	}{
		{"destination revoked", func() { l.must(l.d.Revoke(testBridge, []accel.StationKey{key(bob)})) }, accel.DestinationUnknown},
		{"source revoked", func() { l.must(l.d.Revoke(testBridge, []accel.StationKey{key(alice)})) }, accel.SourceUnknown},
		{"off", func() { l.must(l.d.SetGate(testBridge, accel.Gate{Reason: accel.Off})) }, accel.Off},
		{"lease over", func() { l.must(l.d.Renew(testBridge, -time.Second)) }, accel.Lease},
		{"ingress blocked", changed(lo, func(p *accel.Port) { p.In = accel.PortBlocked }), accel.PortBlocked},
		{"egress blocked", changed(other, func(p *accel.Port) { p.Out = accel.PortBlocked }), accel.PortEgress},
		{"MTU", changed(other, func(p *accel.Port) { p.MTU = 10 }), accel.MTU},
		{"egress isolated only", changed(other, func(p *accel.Port) { p.Flags |= accel.FlagIsolated }), accel.Fast},
		{"both isolated", func() {
			changed(other, func(p *accel.Port) { p.Flags |= accel.FlagIsolated })()
			changed(lo, func(p *accel.Port) { p.Flags |= accel.FlagIsolated })()
		}, accel.Isolated},
	} {
		l.must(l.d.SetPort(testBridge, lo))
		l.must(l.d.SetPort(testBridge, other))
		l.learn(accel.Station{StationKey: key(alice), Port: loopback})
		l.learn(accel.Station{StationKey: key(bob), Port: otherPort})
		l.openGate(accel.Gate{Keepalive: time.Hour})
		l.send(frame(alice, bob)) // may be the keepalive
		l.expect(frame(alice, bob), accel.Fast)
		c.change()
		if reason, _ := l.send(frame(alice, bob)); reason != c.want {
			t.Errorf("%s: the next frame counted as %s, want %s", c.name, reason, c.want)
		}
	}
	l.must(l.d.DetachPort(testBridge, otherPort))
	l.openGate(accel.Gate{Keepalive: time.Hour})
	l.expect(frame(alice, bob), accel.PortUnknown)
}

func TestSourceIsShownToTheBridgeNowAndThen(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	l.openGate(accel.Gate{Keepalive: time.Nanosecond})
	for range 3 {
		// The coarse clock stands still between ticks: wait for the next.
		for at := coarseNow(t); coarseNow(t) == at; {
			runtime.Gosched()
		}
		l.expect(frame(alice, bob), accel.Keepalive)
	}
}

func coarseNow(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano()
}

// stations returns what the map holds.
func (l *lab) stations() (all []accel.Station) {
	next := l.d.Stations(testBridge)
	for more := true; more; {
		var err error
		more, err = next(func(s accel.Station) { all = append(all, s) })
		l.must(err)
	}
	return all
}

func TestFullMapIsSaidAndHarmless(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	var many []accel.Station
	for i := range byte(100) {
		many = append(many, accel.Station{StationKey: key(accel.MAC{6, 0, 0, 0, 0, i}), Port: otherPort})
	}
	unmirrored, err := l.d.Admit(testBridge, many)
	l.must(err)
	stored := l.stations()
	if unmirrored == 0 || len(stored)+unmirrored != len(many)+3 {
		t.Errorf("%d stored and %d not, of %d", len(stored), unmirrored, len(many)+3)
	}
	l.expect(frame(alice, bob), accel.Fast)
}

// kill forgets a data plane as a SIGKILL does: what is not pinned is gone.
func (l *lab) kill() {
	br := l.d.bridges[testBridge]
	for _, p := range br.ports {
		if p.program == nil {
			continue
		}
		p.program.Close()
		p.counters.Close()
		if h, ok := p.hook.(*tcx); ok {
			h.link.Close()
		}
	}
	br.control.unmap()
	closeMaps(br.maps)
	l.d.changes.close()
}

func TestNextDaemonTakesOver(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newLab(t, attach)
			l.open()
			l.expect(frame(alice, bob), accel.Fast)
			before, epoch := l.counts(), l.d.bridges[testBridge].control.shared.Epoch[0]
			l.kill()

			l.d = l.newDataplane(attach)
			l.must(l.d.OpenBridge(accel.Bridge{Name: "br0", Ifindex: testBridge}))
			// The next daemon counts changes from the beginning: no sum may come out the same.
			if now := l.d.bridges[testBridge].control.shared.Epoch[0]; now-epoch < 1<<32 {
				t.Errorf("the epoch went from %d to %d: flows of the earlier daemon may count again", epoch, now)
			}
			left := l.stations()
			if len(left) != 0 {
				t.Errorf("%d stations are left over, which nobody verified", len(left))
			}
			l.must(l.d.AttachPort(testBridge, accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500, Flags: accel.FlagLearning}))
			if got := l.counts(); got[accel.Fast] != before[accel.Fast] {
				t.Errorf("the counters did not go on: %v, then %v", before, got)
			}
			if n := programsOnLoopback(t, attach); n != 1 {
				t.Errorf("%d programs are on the port, want 1", n)
			}
			l.expect(frame(alice, bob), accel.Syncing)
			l.openGate(accel.Gate{Keepalive: time.Hour})
			l.learn(accel.Station{StationKey: key(alice), Port: loopback})
			l.expect(frame(alice, bob), accel.DestinationUnknown)
		})
	}
}

// What was pinned for a bridge that was deleted meanwhile, or by an older schema,
// does not stay.
func TestOldPinsAreRemoved(t *testing.T) {
	l := newLab(t, "auto")
	dead := filepath.Join(bridgeDir(pinRoot(l.ns), 9999), Schema)
	older := filepath.Join(bridgeDir(pinRoot(l.ns), testBridge), "v0")
	for _, dir := range []string{dead, older} {
		l.must(makeDir(dir))
		m, err := newPinnedMap(filepath.Join(dir, "m"), &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		l.must(err)
		m.Close()
	}
	l.d = l.newDataplane("auto")
	l.open()
	for _, dir := range []string{dead, older} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", dir, err)
		}
	}
}

func programsOnLoopback(t *testing.T, attach string) int {
	t.Helper()
	if attach == "clsact" {
		filters, err := filtersAt(place{ifindex: loopback})
		if err != nil {
			t.Fatal(err)
		}
		return len(filters)
	}
	q, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	return len(q.Programs)
}

func TestStopLeavesNothing(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newLab(t, attach)
			l.open()
			l.must(l.d.Stop(t.Context()))
			l.expectNothingLeft(attach)
			l.must(l.d.Stop(t.Context())) // twice is as good as once
		})
	}
}

func TestCleanRemovesWhatADeadDaemonLeft(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newLab(t, attach)
			l.open()
			l.kill()
			l.d = new(Dataplane)
			removed, err := l.d.Clean(t.Context(), l.ns)
			l.must(err)
			if len(removed) == 0 {
				t.Error("nothing was said to be removed")
			}
			l.expectNothingLeft(attach)
		})
	}
}

func (l *lab) expectNothingLeft(attach string) {
	l.t.Helper()
	if n := programsOnLoopback(l.t, attach); n != 0 {
		l.t.Errorf("%d programs are left on the port", n)
	}
	if qdiscs := clsactQdiscs(l.t); qdiscs != 0 {
		l.t.Errorf("%d clsact qdiscs are left", qdiscs)
	}
	if _, err := os.Stat(pinRoot(l.ns)); !os.IsNotExist(err) {
		l.t.Errorf("pins are left in %s (%v)", pinRoot(l.ns), err)
	}
}

func clsactQdiscs(t *testing.T) (n int) {
	t.Helper()
	err := withTC(func(c *tc.Tc) error {
		all, err := c.Qdisc().Get()
		for _, q := range all {
			if q.Kind == "clsact" {
				n++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestForeignFilterIsLeftAloneAndCloses(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newLab(t, attach)
			l.must(withTC(func(c *tc.Tc) error { return c.Qdisc().Add(clsactQdisc(loopback)) }))
			l.open()
			if r, err := l.d.Coexist(testBridge, loopback); err != nil || r != accel.Fast {
				t.Errorf("an empty qdisc makes the port %s (%v)", r, err)
			}
			l.must(addForeignFilter(place{ifindex: loopback}))
			before, err := filtersAt(place{ifindex: loopback})
			l.must(err)
			if r, err := l.d.Coexist(testBridge, loopback); err != nil || r != accel.PortForeignTC {
				t.Errorf("with a foreign filter the port is %s (%v)", r, err)
			}
			l.must(l.d.Stop(t.Context()))
			after, err := filtersAt(place{ifindex: loopback})
			l.must(err)
			foreign := slices.DeleteFunc(before, ours)
			if !cmp.Equal(foreign, after) || clsactQdiscs(t) != 1 {
				t.Errorf("the foreign filter or its qdisc changed: %s", cmp.Diff(foreign, after))
			}
		})
	}
}

// addForeignFilter adds a u32 filter without an action, as an operator might.
func addForeignFilter(at place) error {
	filter := filterObject(at)
	filter.Handle = 0
	filter.Info = 1<<16 | uint32(htons(unix.ETH_P_ALL))
	filter.Kind = "u32"
	classID := uint32(1)
	filter.U32 = &tc.U32{ClassID: &classID, Sel: &tc.U32Sel{NKeys: 1}}
	filter.U32.Sel.Keys = []tc.U32Key{{}}
	return withTC(func(c *tc.Tc) error { return c.Filter().Add(filter) })
}

func TestProgramBehindOursCloses(t *testing.T) {
	l := newLab(t, "tcx")
	br := l.open()
	foreign, err := br.loadProgram(br.ports[loopback])
	l.must(err)
	defer foreign.Close()
	for _, c := range []struct {
		anchor link.Anchor
		want   accel.Reason
	}{{link.Head(), accel.Fast}, {link.Tail(), accel.PortForeignTC}} {
		at, err := link.AttachTCX(link.TCXOptions{Interface: loopback, Program: foreign, Attach: ebpf.AttachTCXIngress, Anchor: c.anchor})
		l.must(err)
		if r, err := l.d.Coexist(testBridge, loopback); err != nil || r != c.want {
			t.Errorf("with a program at %T the port is %s (%v), want %s", c.anchor, r, err, c.want)
		}
		at.Close()
	}
}

func TestAttachFailsCleanlyWhereThePortIsGone(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newLab(t, attach)
			br := l.open()
			err := l.d.AttachPort(testBridge, accel.Port{Name: "gone", Ifindex: 999, MTU: 1500})
			if err == nil {
				t.Fatal("a port that does not exist was attached")
			}
			if _, err := os.Stat(br.newPort(999, 0).dir); !os.IsNotExist(err) {
				t.Errorf("pins are left: %v", err)
			}
			l.expect(frame(alice, bob), accel.Fast)
		})
	}
}

func TestStopKeepsAForeignQdisc(t *testing.T) {
	l := newLab(t, "clsact")
	l.must(withTC(func(c *tc.Tc) error { return c.Qdisc().Add(clsactQdisc(loopback)) }))
	l.open()
	l.must(l.d.Stop(t.Context()))
	if n := clsactQdiscs(t); n != 1 {
		t.Errorf("%d clsact qdiscs are left, want the one that was there before", n)
	}
}
