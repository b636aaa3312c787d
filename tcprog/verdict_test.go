package tcprog

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-dev/shunt/accel"
)

// ask explains the frame, with this tag if protocol is not 0.
func (l *lab) ask(data []byte, vid, protocol uint16) accel.Explanation {
	l.t.Helper()
	x, err := l.d.Explain(accel.Question{
		Bridge: testBridge, In: loopback, Frame: data, Tag: vid, TagProtocol: protocol,
	})
	l.must(err)
	return x
}

const (
	dot1q  = 0x8100
	dot1ad = 0x88a8
)

func TestVLANs(t *testing.T) {
	l := newLab(t, "auto")
	l.d.changes.mode = modeTraced // tagged frames are left to the bridge without
	l.open()
	in := accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500, Flags: accel.FlagLearning, PVID: 10,
		VLANs: accel.NewVLANs([]accel.VLAN{
			{VID: 10, Untagged: true, Forwarding: true}, {VID: 20, Forwarding: true}, {VID: 30}, {VID: 40, Forwarding: true},
		})}
	out := accel.Port{Name: "other", Ifindex: otherPort, MTU: 1500, Flags: accel.FlagLearning,
		VLANs: accel.NewVLANs([]accel.VLAN{
			{VID: 10, Forwarding: true}, {VID: 20, Untagged: true, Forwarding: true}, {VID: 30, Forwarding: true},
		})}
	l.setBoth(in, out)
	for _, vid := range []uint16{10, 20, 30, 40} {
		l.learn(accel.Station{StationKey: accel.StationKey{MAC: alice, VID: vid}, Port: loopback})
		l.learn(accel.Station{StationKey: accel.StationKey{MAC: bob, VID: vid}, Port: otherPort})
	}
	gate := accel.Gate{Keepalive: time.Hour, VLANProtocol: dot1q, Seen: l.d.Version(testBridge)}
	l.openGate(gate)
	l.showAll(10, 20)

	for name, c := range map[string]struct {
		vid, protocol uint16
		want          accel.Explanation // its reason, VID and tag
	}{
		"untagged takes the PVID, and its tag is put on": {0, 0, accel.Explanation{Reason: accel.Fast, VID: 10, Push: 10}},
		"tagged with the PVID stays tagged":              {10, dot1q, accel.Explanation{Reason: accel.Fast, VID: 10}},
		"the tag is taken off":                           {20, dot1q, accel.Explanation{Reason: accel.Fast, VID: 20, Pop: true}},
		"the VLAN does not forward at ingress":           {30, dot1q, accel.Explanation{Reason: accel.VLANIngress, VID: 30}},
		"no member at egress":                            {40, dot1q, accel.Explanation{Reason: accel.VLANEgress, VID: 40}},
		"no member at ingress":                           {50, dot1q, accel.Explanation{Reason: accel.VLANIngress, VID: 50}},
		"priority-tagged":                                {0, dot1q, accel.Explanation{Reason: accel.PriorityTagged}},
		"of another protocol":                            {20, dot1ad, accel.Explanation{Reason: accel.ForeignTag}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lab{t: t, d: l.d}
			got := l.ask(frame(alice, bob), c.vid, c.protocol)
			got.Source, got.Destination, got.Out = nil, nil, 0
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}

	in.PVID = 0
	l.setBoth(in, out)
	l.expect(frame(alice, bob), accel.VLANIngress)
	in.PVID, in.VLANs = 10, ""
	l.setBoth(in, out)
	l.expect(frame(alice, bob), accel.VLANIngress)

	gate.VLANProtocol = dot1ad
	l.openGate(gate)
	if r := l.ask(frame(alice, bob), 20, dot1q).Reason; r != accel.ForeignTag {
		t.Errorf("a tag of 802.1Q on a bridge of 802.1ad is %s", r)
	}
}

// setBoth stores both ports as they are now.
func (l *lab) setBoth(in, out accel.Port) {
	l.t.Helper()
	for _, p := range []accel.Port{in, out} {
		p.Seen = l.d.Version(p.Ifindex)
		l.must(l.d.SetPort(testBridge, p))
	}
}

// showAll marks the stations of these VLANs as shown to the bridge.
func (l *lab) showAll(vids ...uint16) {
	l.t.Helper()
	br := l.d.bridges[testBridge]
	for _, vid := range vids {
		k := keyOf(accel.StationKey{MAC: alice, VID: vid})
		var rec shuntStation
		l.must(br.maps[shuntMapStations].Lookup(k, &rec))
		rec.SeenNs = uint64(coarseNow(l.t))
		l.must(br.maps[shuntMapStations].Put(k, rec))
	}
}

// Without VLAN filtering a tag is kept and means nothing, unless a VLAN device on
// the port may take the frame.
func TestTagOnABridgeWithoutFiltering(t *testing.T) {
	l := newLab(t, "auto")
	l.d.changes.mode = modeTraced
	l.open()
	p := accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500, Flags: accel.FlagLearning}
	other := accel.Port{Name: "other", Ifindex: otherPort, MTU: 1500}
	l.setBoth(p, other)
	l.openGate(accel.Gate{Keepalive: time.Hour, Seen: l.d.Version(testBridge)})
	l.showAll(0)
	if x := l.ask(frame(alice, bob), 5, dot1q); x.Reason != accel.Fast || x.VID != 0 || x.Pop || x.Push != 0 {
		t.Errorf("a tagged frame is %+v", x)
	}
	p.HasVLANDevices = true
	l.setBoth(p, other)
	if r := l.ask(frame(alice, bob), 5, dot1q).Reason; r != accel.Tagged {
		t.Errorf("with a VLAN device on the port a tagged frame is %s", r)
	}
	l.expect(frame(alice, bob), accel.Fast)

	// A VLAN device that only the kernel's own programs saw.
	p.HasVLANDevices = false
	w := shuntWatch{Version: 5, VlanDevices: 1}
	l.must(l.d.changes.watched.Put(uint32(loopback), w))
	l.setBoth(p, other)
	if r := l.ask(frame(alice, bob), 5, dot1q).Reason; r != accel.Tagged {
		t.Errorf("with a VLAN device out of sight a tagged frame is %s", r)
	}
}

func TestTagIsLeftToTheBridgeWhereNobodyWatches(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	if r := l.ask(frame(alice, bob), 5, dot1q).Reason; r != accel.Tagged {
		t.Errorf("a tagged frame is %s", r)
	}
}

// What the kernel's programs saw since the daemon looked voids the record, in
// the flow cache too.
func TestVersionsVoidRecords(t *testing.T) {
	l := newLab(t, "auto")
	l.d.changes.mode = modeTraced
	br := l.open()
	in := accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500, Flags: accel.FlagLearning}
	out := accel.Port{Name: "other", Ifindex: otherPort, MTU: 1500}
	for _, c := range []struct {
		name    string
		ifindex int
		want    accel.Reason
	}{
		{"ingress", loopback, accel.PortChanged},
		{"egress", otherPort, accel.PortChanged},
		{"bridge", testBridge, accel.BridgeChanged},
	} {
		l.setBoth(in, out)
		l.openGate(accel.Gate{Keepalive: time.Hour, Seen: l.d.Version(testBridge)})
		l.showAll(0)
		l.expect(frame(alice, bob), accel.Fast)
		l.expect(frame(alice, bob), accel.Fast)
		seen := l.d.Version(c.ifindex)
		l.raise(c.ifindex)
		l.expect(frame(alice, bob), c.want)
		// A record for the version before is of no use.
		if c.ifindex == testBridge {
			l.openGate(accel.Gate{Keepalive: time.Hour, Seen: seen})
		} else {
			in.Seen, out.Seen = seen, seen
			l.must(br.setPort(map[int]accel.Port{loopback: in, otherPort: out}[c.ifindex]))
		}
		l.expect(frame(alice, bob), c.want)
	}
}

// raise does what the programs of trace.c do.
func (l *lab) raise(ifindex int) {
	l.t.Helper()
	var w shuntWatch
	var n uint64
	l.must(l.d.changes.watched.Lookup(uint32(ifindex), &w))
	w.Version++
	l.must(l.d.changes.watched.Put(uint32(ifindex), w))
	l.must(l.d.changes.number.Lookup(uint32(0), &n))
	l.must(l.d.changes.number.Put(uint32(0), n+1))
}

// An entry that the bridge would not move is not forgotten for a frame from
// elsewhere, which takes the bridge.
func TestEntryThatStaysIsKept(t *testing.T) {
	l := newLab(t, "auto")
	br := l.open()
	l.must(l.d.Revoke(testBridge, []accel.StationKey{key(bob)}))
	l.learn(accel.Station{StationKey: key(bob), Port: otherPort, Sticky: true})
	l.expect(frame(bob, alice), accel.SourceElsewhere)
	l.expect(frame(alice, bob), accel.Fast)

	l.must(l.d.Revoke(testBridge, []accel.StationKey{key(bob)}))
	l.learn(accel.Station{StationKey: key(bob), Port: otherPort})
	l.must(l.d.SetPort(testBridge, accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500})) // does not learn
	l.expect(frame(bob, alice), accel.SourceElsewhere)
	l.expect(frame(alice, bob), accel.Fast)
	if n := br.control.revoked(); n != 0 {
		t.Errorf("%d entries were revoked", n)
	}
}

func TestNeighbourDiscoveryIsLeftToTheBridge(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	discovery := ipv6(func(h []byte) { h[6], h[40] = 58, 135 })
	advertisement := ipv6(func(h []byte) { h[6], h[40] = 58, 136 })
	echo := ipv6(func(h []byte) { h[6], h[40] = 58, 128 })
	for _, data := range [][]byte{discovery, advertisement, echo} {
		l.expect(data, accel.Fast)
	}
	l.openGate(accel.Gate{Keepalive: time.Hour, CheckND: true})
	l.expect(discovery, accel.Neighbour)
	l.expect(advertisement, accel.Neighbour)
	l.expect(echo, accel.Fast)
}

// To explain is to change nothing, and to say what the program then does.
func TestExplainChangesNothing(t *testing.T) {
	l := newLab(t, "auto")
	br := l.open()
	l.openGate(accel.Gate{Keepalive: time.Millisecond, CheckIP: true, CheckND: true})
	l.must(br.maps[shuntMapStations].Put(keyOf(key(alice)), shuntStation{Slot: br.ports[loopback].slot, Flags: stationActive}))
	before := l.snapshot(br)
	frames := map[string][]byte{
		"known": frame(alice, bob), "moved": frame(bob, alice), "unknown": frame(carol, bob),
	}
	said := make(map[string]accel.Reason)
	for name, data := range frames {
		said[name] = l.ask(data, 0, 0).Reason
	}
	if after := l.snapshot(br); !cmp.Equal(before, after) {
		t.Errorf("explain changed something: %s", cmp.Diff(before, after))
	}
	if said["known"] != accel.Keepalive {
		t.Errorf("a source that the bridge has not seen is %s", said["known"])
	}
	for _, name := range []string{"known", "unknown", "moved"} {
		if reason, _ := l.send(frames[name]); reason != said[name] {
			t.Errorf("%s: explained as %s, and counted as %s", name, said[name], reason)
		}
	}
}

// snapshot is every shared map, the flow cache and the counters.
func (l *lab) snapshot(br *bridge) map[string]any {
	l.t.Helper()
	all := map[string]any{"control": *br.control.shared, "counters": l.counts()}
	stations := make(map[shuntStationKey]shuntStation)
	l.must(br.eachStation(func(k shuntStationKey, s shuntStation) { stations[k] = s }))
	all["stations"] = stations
	var flows []uint64
	for _, f := range l.flows(br) {
		flows = append(flows, f.Head, f.Rest, f.Age)
	}
	all["flows"] = flows
	return all
}

// flows is the flow cache of all CPUs, one after the other.
func (l *lab) flows(br *bridge) []shuntFlow {
	l.t.Helper()
	m := br.maps[mapFlows]
	all := make([]shuntFlow, m.ValueSize()/uint32(unsafe.Sizeof(shuntFlow{})))
	l.must(m.Lookup(uint32(0), all))
	return all
}

// What every frame must pass is explained too, cached or not.
func TestExplainLooksAtTheFrame(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	l.openGate(accel.Gate{Keepalive: time.Hour, CheckIP: true, CheckND: true})
	for _, data := range [][]byte{
		ipv4(unchanged), ipv4(func(h []byte) { h[10] ^= 1 }),
		ipv6(func(h []byte) { h[6], h[40] = 58, 135 }),
		frameOf(alice, bob, testEtherType, make([]byte, 1600)),
	} {
		l.expect(data, l.ask(data, 0, 0).Reason)
	}
}

func TestExplainSaysThatTheKernelRefuses(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	_, err := l.d.Explain(accel.Question{Bridge: testBridge, In: loopback, Frame: frame(alice, bob)[:13]})
	if err == nil || !strings.Contains(err.Error(), "too short") {
		t.Errorf("a frame of 13 bytes: %v", err)
	}
}

func TestExplainNamesTheEntries(t *testing.T) {
	l := newLab(t, "auto")
	l.open()
	x := l.ask(frame(alice, bob), 0, 0)
	want := accel.Explanation{
		Reason:      accel.Fast,
		Source:      &accel.Station{StationKey: key(alice), Port: loopback, Active: true},
		Destination: &accel.Station{StationKey: key(bob), Port: otherPort, Active: true},
		Out:         otherPort,
	}
	if diff := cmp.Diff(want, x); diff != "" {
		t.Error(diff)
	}
	if _, err := l.d.Explain(accel.Question{Bridge: testBridge, In: 12345, Frame: frame(alice, bob)}); err == nil {
		t.Error("a port that is not there was asked")
	}
}

// A record is never read half: while it changes it says so.
func TestRecordIsBarredWhileItChanges(t *testing.T) {
	l := newLab(t, "auto")
	br := l.open()
	l.expect(frame(alice, bob), accel.Fast)
	other := br.ports[otherPort]
	rec := other.record
	rec.In, rec.Out = uint16(accel.PortChanged), uint16(accel.PortChanged)
	l.must(br.put(other.slot, rec))
	br.control.bumpAll()
	l.expect(frame(alice, bob), accel.PortEgress)
	l.must(br.store(other, other.record, other.vlans))
	l.expect(frame(alice, bob), accel.Fast)
}

// A decision that fails leaves alone what the cache holds in its place: another
// flow's, with its tag.
func TestFailedDecisionLeavesTheCacheAlone(t *testing.T) {
	l := newLab(t, "auto")
	l.d.changes.mode = modeTraced
	br := l.open()
	member := accel.NewVLANs([]accel.VLAN{{VID: 10, Untagged: true, Forwarding: true}})
	trunk := accel.NewVLANs([]accel.VLAN{{VID: 10, Forwarding: true}})
	l.setBoth(
		accel.Port{Name: "lo", Ifindex: loopback, MTU: 1500, Flags: accel.FlagLearning, PVID: 10, VLANs: member},
		accel.Port{Name: "other", Ifindex: otherPort, MTU: 1500, VLANs: trunk})
	const access = 78
	l.addPort(br, accel.Port{Name: "access", Ifindex: access, MTU: 1500, VLANs: member})
	l.stayOnOneCPU()
	dave := collidingSource(alice, bob, carol)
	for mac, port := range map[accel.MAC]int{alice: loopback, dave: loopback, bob: otherPort, carol: access} {
		l.learn(accel.Station{StationKey: accel.StationKey{MAC: mac, VID: 10}, Port: port})
	}
	l.openGate(accel.Gate{Keepalive: time.Hour, VLANProtocol: dot1q, Seen: l.d.Version(testBridge)})
	l.showAll(10)
	l.expect(frame(alice, bob), accel.Fast)

	l.expect(frame(dave, carol), accel.Keepalive)
	for range mostRefused - 2 { // that was one; the place is dave's next
		l.expect(frame(dave, carol), accel.Fast)
	}
	k := keyOf(accel.StationKey{MAC: dave, VID: 10})
	l.openKeepalive(br, k)
	l.expect(frame(dave, carol), accel.Keepalive)
	for i, f := range l.flows(br) {
		if uint64(i%(1<<flowsBits)) == flowIndex(alice, bob) && f.Age != 0 && (f.Action != tagPush || f.Push != 10) {
			t.Errorf("alice's flow has action %d and pushes %d now", f.Action, f.Push)
		}
	}
}

// openKeepalive makes the bridge due to see the station.
func (l *lab) openKeepalive(br *bridge, k shuntStationKey) {
	l.t.Helper()
	var rec shuntStation
	l.must(br.maps[shuntMapStations].Lookup(k, &rec))
	rec.SeenNs = uint64(coarseNow(l.t)) + 1 // more than any keepalive ago, counted without a sign
	l.must(br.maps[shuntMapStations].Put(k, rec))
}

// flowIndex is flow_at in bpf/flows.h, for an untagged frame of the tests' EtherType.
func flowIndex(source, destination accel.MAC) uint64 {
	head := binary.LittleEndian.Uint64(append(destination[:], source[:2]...))
	rest := uint64(binary.LittleEndian.Uint32(source[2:]))<<16 | uint64(testEtherType>>8|testEtherType&0xff<<8)<<48
	return (rest*flowsSpread ^ head) * flowsSpread >> (64 - flowsBits)
}

const flowsSpread = 1<<64 - 0x61C88647 // FLOWS_SPREAD in bpf/flows.h

// collidingSource finds an address whose flow to other has the place in the cache
// of the flow from source to destination.
func collidingSource(source, destination, other accel.MAC) accel.MAC {
	for i := uint32(0); ; i++ {
		m := accel.MAC{2, 0x44}
		binary.BigEndian.PutUint32(m[2:], i)
		if flowIndex(m, other) == flowIndex(source, destination) {
			return m
		}
	}
}

// A device that nobody watches has no version that a record could be true for.
func TestUnwatchedPortIsNotUsed(t *testing.T) {
	l := newLab(t, "auto")
	l.d.changes.mode = modeTraced
	l.open()
	delete(l.d.changes.holders, otherPort)
	l.must(l.d.changes.unwatch(otherPort))
	l.setBoth(plainPort(loopback), plainPort(otherPort))
	l.openGate(accel.Gate{Keepalive: time.Hour, Seen: l.d.Version(testBridge)})
	l.expect(frame(alice, bob), accel.PortChanged)
}

func plainPort(ifindex int) accel.Port {
	return accel.Port{Name: "p", Ifindex: ifindex, MTU: 1500, Flags: accel.FlagLearning}
}

// A port that went from one bridge to another while no daemon ran stays the
// other's when the first forgets it.
func TestPortOfAnotherBridgeIsLeftToIt(t *testing.T) {
	for _, attach := range []string{"tcx", "clsact"} {
		t.Run(attach, func(t *testing.T) {
			l := newLab(t, attach)
			l.open()
			l.must(l.d.OpenBridge(accel.Bridge{Name: "br1", Ifindex: testBridge + 1}))
			first := l.d.bridges[testBridge+1]
			first.unclaimed[loopback] = 9
			first.slots.take(9)
			first.forgetUnclaimed()
			if n := programsOnLoopback(t, attach); n != 1 {
				t.Errorf("%d programs are on the port, want 1", n)
			}
			if l.d.changes.ofDevice(loopback).version == 0 {
				t.Error("nobody watches the port any more")
			}
			l.expect(frame(alice, bob), accel.Fast)
		})
	}
}

func keyOf(k accel.StationKey) shuntStationKey {
	return shuntStationKey{Mac: k.MAC, Vid: k.VID}
}

// What was decided for a frame of one port is nothing to the same frame on another:
// the station has moved there.
func TestAFlowIsOfOnePort(t *testing.T) {
	l := newLab(t, "auto")
	br := l.open()
	const elsewhere = 79
	l.addPort(br, plainPort(elsewhere))
	at := br.ports[elsewhere]
	at.counters = br.ports[loopback].counters
	program, err := br.loadProgram(at)
	at.counters = nil
	l.must(err)
	defer program.Close()
	l.expect(frame(alice, bob), accel.Fast)
	if reason, action := l.send(frame(alice, bob)); reason != accel.Fast || action != tcRedirect {
		t.Errorf("a frame of the flow counted as %s, and the program did %d", reason, action)
	}
	if action := runAt(t, program, loopback, frame(alice, bob)); action != passUp {
		t.Errorf("the flow of another port was used: the program did %d", action)
	}
}

// A decision lasts until its source is due for the bridge, or the lease ends, whoever
// sleeps then.
func TestACachedFlowEnds(t *testing.T) {
	const soon = 100 * time.Millisecond
	for want, gate := range map[accel.Reason]struct{ keepalive, lease time.Duration }{
		accel.Keepalive: {soon, 0}, accel.Lease: {time.Hour, soon},
	} {
		l := newLab(t, "auto")
		l.open()
		l.openGate(accel.Gate{Keepalive: gate.keepalive})
		l.must(l.d.Renew(testBridge, gate.lease))
		l.send(frame(alice, bob)) // may be the keepalive
		l.expect(frame(alice, bob), accel.Fast)
		for over := time.Now().Add(2 * soon); time.Now().Before(over); {
			runtime.Gosched() // only the clock tells the end
		}
		if reason, _ := l.send(frame(alice, bob)); reason != want {
			t.Errorf("the flow ended as %s, want %s", reason, want)
		}
	}
}
