package fdbsync

import (
	"context"
	"encoding/binary"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// ForeignOn is what Coexist says, as tcprog's is.
func (d *fakePlane) ForeignOn(bridge, port int) (accel.Reason, []string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.bridges[bridge]; b != nil {
		if r := d.foreign[b.ports[port].Name]; r != accel.Fast {
			return r, []string{"filter bpf, preference 1"}, nil
		}
	}
	return accel.Fast, nil, nil
}

func (d *fakePlane) Ability() accel.Revocation { return d.can }

// examinerOf looks at the world of a fake syncer.
func examinerOf(t *testing.T, s *Syncer, w *world) *examiner {
	t.Helper()
	links, err := lookAtAll(nil, w, nil)
	must(t, err)
	e := &examiner{kernel: w, plane: w.fakePlane, links: links}
	e.fw, e.fwErr = s.firewall()
	return e
}

// TestDoctorAndDaemonAgree on every state of a bridge, a port and the firewall
// that the tests of eligibility know.
func TestDoctorAndDaemonAgree(t *testing.T) {
	type scene struct {
		bridge, p1, p2 link
		others         []link
	}
	bridge := func(change func(*link)) func(*scene, *world) {
		return func(s *scene, _ *world) { change(&s.bridge) }
	}
	port := func(change func(*link)) func(*scene, *world) {
		return func(s *scene, _ *world) { change(&s.p2) }
	}
	filters := func(f firewall) func(*scene, *world) { return func(_ *scene, w *world) { w.filters = f } }
	vlanDevice := link{ifindex: 9, name: "p1.5", kind: "vlan", lower: 4, known: true}
	for name, c := range map[string]struct {
		change      func(*scene, *world)
		gate        accel.Reason
		in2, out2   accel.Reason
		vlanDevices bool
	}{
		"plain":          {change: bridge(func(*link) {})},
		"unknown":        {change: bridge(func(l *link) { l.known = false }), gate: accel.Unchecked},
		"down":           {change: bridge(func(l *link) { l.flags = 0 }), gate: accel.BridgeDown},
		"mst":            {change: bridge(func(l *link) { l.bridge.mst = true }), gate: accel.MST},
		"vlan stats":     {change: bridge(func(l *link) { l.bridge.vlanStats = true }), gate: accel.VLANStats},
		"hub":            {change: bridge(func(l *link) { l.bridge.ageing = 0 }), gate: accel.Hub},
		"promiscuous":    {change: bridge(func(l *link) { l.promiscuity = 1 }), gate: accel.Promiscuous},
		"filtering":      {change: bridge(func(l *link) { *l = filteringBridge() }), in2: accel.PortUnknown, out2: accel.PortUnknown},
		"bridge chains":  {change: filters(firewall{bridge: true}), gate: accel.BridgeNetfilter},
		"IP chains":      {change: filters(firewall{ip: true})},
		"br_netfilter":   {change: filters(firewall{brNetfilter: true})},
		"both":           {change: filters(firewall{ip: true, brNetfilter: true}), gate: accel.BrNetfilter},
		"netdev chain":   {change: filters(firewall{devices: map[string]bool{"p2": true}}), in2: accel.PortNetfilter, out2: accel.PortNetfilter},
		"any netdev":     {change: filters(firewall{devices: map[string]bool{"": true}}), in2: accel.PortNetfilter, out2: accel.PortNetfilter},
		"port unknown":   {change: port(func(l *link) { l.port.known = false }), in2: accel.PortUnknown, out2: accel.PortUnknown},
		"port down":      {change: port(func(l *link) { l.flags = 0 }), in2: accel.PortDown, out2: accel.PortDown},
		"blocked":        {change: port(func(l *link) { l.port.state = 4 }), in2: accel.PortBlocked, out2: accel.PortBlocked},
		"tunnel":         {change: port(func(l *link) { l.port.flags |= accel.FlagVLANTunnel }), in2: accel.PortVLANTunnel, out2: accel.PortVLANTunnel},
		"no ethernet":    {change: port(func(l *link) { l.ethernet = false }), in2: accel.PortNotEthernet, out2: accel.PortNotEthernet},
		"switch":         {change: port(func(l *link) { l.inSwitch = true }), in2: accel.PortSwitch, out2: accel.PortSwitch},
		"backup":         {change: port(func(l *link) { l.port.backup = true }), out2: accel.PortBackup},
		"suppression":    {change: port(func(l *link) { l.port.flags |= accel.FlagNeighSuppress })},
		"isolated":       {change: port(func(l *link) { l.port.flags |= accel.FlagIsolated })},
		"VLAN device":    {change: func(s *scene, _ *world) { s.others = append(s.others, vlanDevice) }, vlanDevices: true},
		"tc of others":   {change: func(_ *scene, w *world) { w.foreign["p2"] = accel.PortForeignTC }, in2: accel.PortForeignTC, out2: accel.PortForeignTC},
		"tc and a chain": {change: func(_ *scene, w *world) { w.foreign["p2"] = accel.PortForeignTC; w.filters.bridge = true }, gate: accel.BridgeNetfilter, in2: accel.PortForeignTC, out2: accel.PortForeignTC},
	} {
		s, w := newFakeSyncer(t, "br0")
		now := scene{bridge: plainBridge(), p1: plainPort(4, "p1"), p2: plainPort(6, "p2")}
		c.change(&now, w)
		startFake(t, s, w, append(now.others, now.bridge, now.p1, now.p2)...)
		must(t, s.settle(true))
		daemon := s.Bridges()[0]
		j := examinerOf(t, s, w).judge(s.links[2])
		if j.gate.Reason != daemon.Reason || j.gate.Reason != c.gate {
			t.Errorf("%s: doctor says %v, daemon %v, want %v", name, j.gate.Reason, daemon.Reason, c.gate)
		}
		if told := w.bridges[2].gate; j.gate != told {
			t.Errorf("%s: the gates are\n\t%+v\n\t%+v", name, j.gate, told)
		}
		for _, p := range daemon.Ports {
			got := j.ports[p.Ifindex]
			if got != p.Port {
				t.Errorf("%s: doctor has\n\t%+v, the daemon\n\t%+v", name, got, p.Port)
			}
			if p.Name == "p2" && (got.In != c.in2 || got.Out != c.out2) || p.Name == "p1" && got.HasVLANDevices != c.vlanDevices {
				t.Errorf("%s: %+v", name, got)
			}
		}
		if len(daemon.Ports) != len(j.ports) {
			t.Errorf("%s: %d ports, the daemon has %d", name, len(j.ports), len(daemon.Ports))
		}
	}
}

// TestBypassCounts as the daemon has it.
func TestBypassCountsForTheDoctor(t *testing.T) {
	s, w := newFakeSyncer(t, "br0")
	s.bypass = []string{"br0"}
	w.filters = firewall{bridge: true, devices: map[string]bool{"": true}}
	startFake(t, s, w, plainBridge(), plainPort(4, "p1"))
	must(t, s.settle(true))
	e := examinerOf(t, s, w)
	e.Served = map[string]accel.BridgeV1{"br0": {Name: "br0", Netfilter: "bypass"}}
	if j := e.judge(s.links[2]); j.gate != w.bridges[2].gate || j.gate.Reason != accel.Fast || j.ports[4].In != accel.Fast {
		t.Errorf("doctor has %+v, the daemon %+v", j.gate, w.bridges[2].gate)
	}
}

// examineFake runs the whole doctor, without a sample, on a world.
func examineFake(t *testing.T, x accel.Examination, change func(*world), links ...link) []accel.Finding {
	t.Helper()
	s, w := newFakeSyncer(t)
	w.known = linksOf(links...)
	w.can = accel.Revocation{Entries: true, State: accel.StateLive}
	change(w)
	e := examinerOf(t, s, w)
	e.Examination = x
	return e.examine(t.Context())
}

func textOf(findings []accel.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s %s %s: %s (%s)\n", f.Bridge, f.Level, f.Check, f.Text, f.Advice)
	}
	return b.String()
}

func TestWhatTheDoctorSaysOfBridges(t *testing.T) {
	second := plainBridge()
	second.ifindex, second.name, second.promiscuity = 3, "br1", 1
	macvlan := link{ifindex: 20, name: "mv0", kind: "macvlan", lower: 3, known: true}
	down := plainPort(6, "p2")
	down.flags = 0
	other := plainPort(8, "p3")
	other.flags = 0
	backup := plainPort(10, "p4")
	backup.port.backup = true
	nothing := func(*world) {}
	for name, c := range map[string]struct {
		x     accel.Examination
		links []link
		want  []string
		not   string
	}{
		"none":        {want: []string{" note bridges: there is none"}},
		"plain":       {links: []link{plainBridge(), plainPort(4, "p1")}, want: []string{"br0 ok eligible: yes; 1 ports", "br0 ok ports: all are eligible", "br0 ok guarantees: live: what the kernel deletes, moves or changes takes effect with the next frame; no lease is needed"}, not: "note"},
		"portless":    {links: []link{plainBridge()}, want: []string{"br0 note ports: the bridge has none"}},
		"filtering":   {links: []link{filteringBridge(), memberOf(4, "p1")}, want: []string{"br0 ok eligible: yes; 1 ports, filters VLANs", "br0 note guarantees: live: changes of VLAN memberships take effect when netlink tells of them, milliseconds later, and by the lease if the daemon hangs; the lease is 2s"}},
		"promiscuous": {links: []link{second, macvlan}, want: []string{"br1 note eligible: no: promiscuous: ", "on top of it: mv0 (macvlan)"}},
		"both":        {links: []link{second, plainBridge()}, want: []string{"br0 ok eligible", "br1 note eligible"}},
		"one of both": {x: accel.Examination{Bridge: "br0"}, links: []link{second, plainBridge()}, want: []string{"br0 ok eligible"}, not: "br1"},
		"no bridge":   {x: accel.Examination{Bridge: "p1"}, links: []link{plainPort(4, "p1")}, want: []string{"p1 fail bridge: p1 is not a bridge (it is a veth)"}},
		"absent":      {x: accel.Examination{Bridge: "br9"}, links: []link{plainBridge()}, want: []string{"br9 fail bridge: there is no interface br9"}},
		"ports":       {links: []link{plainBridge(), plainPort(4, "p1"), down, other, backup}, want: []string{"br0 note ports: p2, p3: port_down: ", "br0 note ports: p4: as egress, port_backup: "}, not: "all are"},
		"VLAN device": {links: []link{plainBridge(), plainPort(4, "p1"), {ifindex: 9, name: "p1.5", kind: "vlan", lower: 4}}, want: []string{"br0 ok ports: all are", "br0 note ports: p1: tagged: VLAN devices"}},
	} {
		got := textOf(examineFake(t, c.x, nothing, c.links...))
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is not in\n%s", name, want, got)
			}
		}
		if c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%s: %q is in\n%s", name, c.not, got)
		}
	}
}

// TestTheDoctorNamesEveryReason in the order in which the daemon would meet them.
func TestTheDoctorNamesEveryReason(t *testing.T) {
	troubled := plainBridge()
	troubled.flags, troubled.bridge.ageing, troubled.promiscuity = 0, 0, 1
	for what, c := range map[string]struct {
		served map[string]accel.BridgeV1
		want   string
	}{
		"as it is": {nil, "no: bridge_down, and: hub, and: promiscuous, and: bridge_netfilter, and: br_netfilter"},
		"bypassed": {map[string]accel.BridgeV1{"br0": {Name: "br0", Netfilter: "bypass"}}, "no: bridge_down, and: hub, and: promiscuous"},
	} {
		findings := examineFake(t, accel.Examination{Served: c.served}, func(w *world) {
			w.filters = firewall{bridge: true, ip: true, brNetfilter: true}
		}, troubled)
		var got []string
		for _, f := range findings {
			if f.Check == "eligible" {
				about, rest, _ := strings.Cut(f.Text, ": ")
				reason, _, _ := strings.Cut(rest, ":")
				got = append(got, about+": "+reason)
				if f.Reason.String() != reason || f.Advice == "" {
					t.Errorf("%s: the finding is %+v", what, f)
				}
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: got %s", what, strings.Join(got, ", "))
		}
	}
}

func TestAdviceNamesTheOnlyPort(t *testing.T) {
	if got := onlyOne([]string{"p1 (filter bpf, preference 1)"}); got != "p1" {
		t.Errorf("got %q", got)
	}
	if got := onlyOne([]string{"p1", "p2"}); got != "" {
		t.Errorf("got %q", got)
	}
}

// judgeOf is a judge of a bridge with two ports, and a third that is isolated from
// the first; behind port n is station n.
func judgeOf(change func(*judge)) *judge {
	ports := make(map[int]accel.Port)
	stations := make(map[accel.StationKey]accel.Station)
	for n := 1; n <= 3; n++ {
		ports[n] = accel.Port{Ifindex: n, MTU: 1500, Flags: accel.FlagLearning}
		k := accel.StationKey{MAC: macOf(n)}
		stations[k] = accel.Station{StationKey: k, Port: n}
	}
	local := accel.StationKey{MAC: macOf(9)}
	stations[local] = accel.Station{StationKey: local, Local: true}
	j := &judge{
		judgement: &judgement{ports: ports, can: accel.Revocation{State: accel.StateLive}},
		gate:      accel.Gate{Keepalive: time.Second}, stations: stations,
	}
	change(j)
	return j
}

func macOf(n int) accel.MAC { return accel.MAC{2, 0, 0, 0, 0, byte(n)} }

// frameFrom is a frame from station 1 to station 2.
func frameFrom(change func(*arrival)) arrival {
	a := arrival{port: 1, source: macOf(1), destination: macOf(2), protocol: 0x88b5, length: 60}
	change(&a)
	return a
}

func TestReasonsOfFrames(t *testing.T) {
	nothing := func(*judge) {}
	port := func(n int, change func(*accel.Port)) func(*judge) {
		return func(j *judge) {
			p := j.ports[n]
			change(&p)
			j.ports[n] = p
		}
	}
	station := func(n int, change func(*accel.Station)) func(*judge) {
		return func(j *judge) {
			k := accel.StationKey{MAC: macOf(n)}
			s := j.stations[k]
			change(&s)
			j.stations[k] = s
		}
	}
	filtering := func(in, out []accel.VLAN, pvid uint16) func(*judge) {
		return func(j *judge) {
			j.gate.VLANProtocol = unix.ETH_P_8021Q
			for n, vlans := range map[int][]accel.VLAN{1: in, 2: out} {
				port(n, func(p *accel.Port) { p.PVID, p.VLANs = pvid, accel.NewVLANs(vlans) })(j)
				k := accel.StationKey{MAC: macOf(n), VID: 7}
				j.stations[k] = accel.Station{StationKey: k, Port: n}
			}
		}
	}
	seven := []accel.VLAN{{VID: 7, Untagged: true, Forwarding: true}}
	stopped := []accel.VLAN{{VID: 7}}
	tag := func(protocol, vid uint16) func(*arrival) {
		return func(a *arrival) { a.tagProtocol, a.tag = protocol, vid }
	}
	plain := func(*arrival) {}
	for _, c := range []struct {
		judge func(*judge)
		frame func(*arrival)
		want  accel.Reason
	}{
		{nothing, plain, accel.Fast},
		{nothing, func(a *arrival) { a.destination = accel.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }, accel.Multicast},
		{nothing, func(a *arrival) { a.source[0] |= 1 }, accel.SourceMulticast},
		{nothing, func(a *arrival) { a.source = accel.MAC{} }, accel.SourceZero},
		{nothing, func(a *arrival) { a.protocol = unix.ETH_P_ARP }, accel.ARP},
		{nothing, func(a *arrival) { a.protocol = ethPRARP }, accel.ARP},
		{nothing, func(a *arrival) { a.protocol = ethPCFM }, accel.CFM},
		{nothing, func(a *arrival) { a.protocol = ethPMRP }, accel.MRP},
		{nothing, func(a *arrival) { a.protocol = unix.ETH_P_8021Q }, accel.DoubleTagged},
		{nothing, func(a *arrival) { a.protocol = 46 }, accel.LLC},
		{nothing, func(a *arrival) { a.source = macOf(8) }, accel.SourceUnknown},
		{nothing, func(a *arrival) { a.source = macOf(9) }, accel.SourceLocal},
		{nothing, func(a *arrival) { a.source = macOf(3) }, accel.SourceMoved},
		{nothing, func(a *arrival) { a.source, a.protocol = macOf(3), unix.ETH_P_ARP }, accel.SourceMoved},
		{station(3, func(s *accel.Station) { s.Sticky = true }), func(a *arrival) { a.source = macOf(3) }, accel.SourceElsewhere},
		{port(1, func(p *accel.Port) { p.Flags = 0 }), func(a *arrival) { a.source = macOf(3) }, accel.SourceElsewhere},
		{station(1, func(s *accel.Station) { s.NoSource = true }), plain, accel.SourceLocked},
		{nothing, func(a *arrival) { a.destination = macOf(8) }, accel.DestinationUnknown},
		{nothing, func(a *arrival) { a.destination = macOf(9) }, accel.DestinationLocal},
		{nothing, func(a *arrival) { a.destination = macOf(1) }, accel.SamePort},
		{station(2, func(s *accel.Station) { s.Port = 77 }), plain, accel.PortUnknown},
		{func(j *judge) { j.gate.Reason = accel.Hub }, plain, accel.Hub},
		{func(j *judge) { j.gate.Reason = accel.Hub }, func(a *arrival) { a.protocol = unix.ETH_P_ARP }, accel.ARP},
		{port(1, func(p *accel.Port) { p.In = accel.PortForeignTC }), plain, accel.PortForeignTC},
		{port(2, func(p *accel.Port) { p.Out = accel.PortDown }), plain, accel.PortEgress},
		{port(1, func(p *accel.Port) { p.Flags |= accel.FlagIsolated }), plain, accel.Fast},
		{func(j *judge) {
			for n := 1; n <= 2; n++ {
				port(n, func(p *accel.Port) { p.Flags |= accel.FlagIsolated })(j)
			}
		}, plain, accel.Isolated},
		{nothing, tag(unix.ETH_P_8021Q, 5), accel.Fast},
		{port(1, func(p *accel.Port) { p.HasVLANDevices = true }), tag(unix.ETH_P_8021Q, 5), accel.Tagged},
		{func(j *judge) { j.can.State = accel.StateNetlink }, tag(unix.ETH_P_8021Q, 5), accel.Tagged},
		{filtering(seven, seven, 7), plain, accel.Fast},
		{filtering(seven, seven, 0), plain, accel.VLANIngress},
		{filtering(seven, seven, 0), tag(unix.ETH_P_8021Q, 7), accel.Fast},
		{filtering(seven, seven, 0), tag(unix.ETH_P_8021AD, 7), accel.ForeignTag},
		{filtering(seven, seven, 7), tag(unix.ETH_P_8021Q, 0), accel.PriorityTagged},
		{filtering(stopped, seven, 7), plain, accel.VLANIngress},
		{filtering(nil, seven, 7), plain, accel.VLANIngress},
		{filtering(seven, stopped, 7), plain, accel.VLANEgress},
		{nothing, func(a *arrival) { a.at = time.Second }, accel.Keepalive},
		{port(2, func(p *accel.Port) { p.MTU = 1000 }), func(a *arrival) { a.length = 1018 }, accel.Fast},
		{port(2, func(p *accel.Port) { p.MTU = 1000 }), func(a *arrival) { a.length = 1019 }, accel.MTU},
		{nothing, func(a *arrival) { a.length = 60000 }, accel.Fast}, // put together by the kernel
		{nothing, func(a *arrival) { a.oddIP = accel.IPHeader }, accel.Fast},
		{func(j *judge) { j.gate.CheckIP = true }, func(a *arrival) { a.oddIP = accel.IPHeader }, accel.IPHeader},
		{nothing, func(a *arrival) { a.nd = true }, accel.Fast},
		{func(j *judge) { j.gate.CheckND = true }, func(a *arrival) { a.nd = true }, accel.Neighbour},
	} {
		a := frameFrom(c.frame)
		if got := judgeOf(c.judge).reason(a); got != c.want {
			t.Errorf("%+v: %v, want %v", a, got, c.want)
		}
	}
}

// TestKeepalivesAreForeseen once a second for each source.
func TestKeepalivesAreForeseen(t *testing.T) {
	j := judgeOf(func(*judge) {})
	keepalives := 0
	for ms := range 3500 {
		if j.reason(frameFrom(func(a *arrival) { a.at = time.Duration(ms) * time.Millisecond })) == accel.Keepalive {
			keepalives++
		}
	}
	if keepalives != 3 {
		t.Errorf("%d in 3.5 s", keepalives)
	}
}

// TestThoseLookedAtStandForAll where the kernel counted more.
func TestThoseLookedAtStandForAll(t *testing.T) {
	j := judgeOf(func(*judge) {})
	j.judgement.gate = j.gate
	busy := &portSample{total: 1000, arrivals: []arrival{frameFrom(func(*arrival) {}), frameFrom(func(a *arrival) { a.destination = macOf(8) })}}
	idle := &portSample{total: 1, arrivals: []arrival{frameFrom(func(a *arrival) { a.port, a.source, a.destination = 2, macOf(2), macOf(1) })}}
	unseen := &portSample{total: 5}
	f := j.forecast(&sample{took: 2 * time.Second, ports: map[int]*portSample{1: busy, 2: idle, 3: unseen}}, j.stations)
	if f.Frames != 1001 || f.Looked != 3 || f.Fast != 501 || f.FastIfEligible != 501 || len(f.Reasons) != 2 || f.Reasons[1].Frames != 500 {
		t.Errorf("got %+v", f)
	}
	j.judgement.gate = accel.Gate{Reason: accel.Hub, Keepalive: time.Second}
	if f := j.forecast(&sample{ports: map[int]*portSample{1: busy, 2: idle, 3: unseen}}, j.stations); f.Fast != 0 || f.FastIfEligible != 501 {
		t.Errorf("of a hub: %+v", f)
	}
}

func ipv4(change func([]byte)) []byte {
	b := make([]byte, 46)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	change(b)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[10:], binary.BigEndian.Uint16(b[10:])+^uint16(sum))
	return b
}

func ipv6(change func([]byte)) []byte {
	b := make([]byte, 46)
	b[0], b[6] = 0x60, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	change(b)
	return b
}

func TestIPHeaders(t *testing.T) {
	nothing := func([]byte) {}
	for name, c := range map[string]struct {
		protocol uint16
		packet   []byte
		odd      accel.Reason
		nd       bool
	}{
		"IPv4":             {unix.ETH_P_IP, ipv4(nothing), accel.Fast, false},
		"IPv4 options":     {unix.ETH_P_IP, ipv4(func(b []byte) { b[0] = 0x46 }), accel.IPHeader, false},
		"IPv4 padding":     {unix.ETH_P_IP, ipv4(func(b []byte) { b[3]-- }), accel.IPHeader, false},
		"IPv4 checksum":    {unix.ETH_P_IP, append(ipv4(nothing)[:10], make([]byte, 36)...), accel.IPHeader, false},
		"IPv4 cut off":     {unix.ETH_P_IP, ipv4(nothing)[:19], accel.IPHeader, false},
		"IPv6":             {unix.ETH_P_IPV6, ipv6(nothing), accel.Fast, false},
		"IPv6 hop-by-hop":  {unix.ETH_P_IPV6, ipv6(func(b []byte) { b[6] = 0 }), accel.IPHeader, false},
		"IPv6 padding":     {unix.ETH_P_IPV6, ipv6(func(b []byte) { b[5]-- }), accel.IPHeader, false},
		"a solicitation":   {unix.ETH_P_IPV6, ipv6(func(b []byte) { b[6], b[40] = unix.IPPROTO_ICMPV6, 135 }), accel.Fast, true},
		"a ping over IPv6": {unix.ETH_P_IPV6, ipv6(func(b []byte) { b[6], b[40] = unix.IPPROTO_ICMPV6, 128 }), accel.Fast, false},
		"PPPoE":            {0x8864, ipv4(nothing), accel.PPPoE, false},
		"another":          {0x88b5, nil, accel.Fast, false},
	} {
		odd, nd := lookAtIP(arrival{protocol: c.protocol, length: len(c.packet) + ethernetHeader}, c.packet)
		if odd != c.odd || nd != c.nd {
			t.Errorf("%s: %v %v", name, odd, nd)
		}
	}
}

// TestSampleSeesWhatArrives and nothing that is sent; it leaves the ports as they
// were.
func TestSampleSeesWhatArrives(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, "sysctl -qw net.ipv6.conf.default.disable_ipv6=1; ip link add va type veth peer name vb; ip link set va up; ip link set vb up")
		state := func() string { // but for the operational state, which the kernel sets late
			out, err := exec.Command("sh", "-c", "ip -d -o link | sed 's/ state [A-Z]*//'; tc qdisc; tc filter show dev va ingress").Output()
			must(t, err)
			return string(out)
		}
		before := state()
		k, err := askingKernel()
		must(t, err)
		defer k.close()
		links, err := k.links()
		must(t, err)
		a, b := named(links, "va"), named(links, "vb")
		tap, err := openTap(a, time.Now(), tapBuffer)
		must(t, err)
		if now := state(); now != before {
			t.Errorf("the sample changed\n%s\nto\n%s", before, now)
		}
		long := make([]byte, 300)
		copy(long, slices.Concat(macBytes(2), macBytes(1), []byte{0x88, 0xb5}))
		tagged := slices.Concat(macBytes(2), macBytes(1), []byte{0x81, 0, 0x20, 7, 0x88, 0xb5}, make([]byte, 50))
		for _, frame := range [][]byte{long, tagged} {
			send(t, b, frame)
		}
		send(t, a, long) // is sent there, and does not arrive
		for len(tap.seen.arrivals) < 2 {
			_, err := tap.read(tapTurn)
			must(t, err)
		}
		must(t, tap.finish(tapTurn))
		send(t, b, long)
		must(t, tap.finish(tapTurn))
		unix.Close(tap.fd)
		got := tap.seen.arrivals
		if len(got) != 2 || got[0].length != 300 || got[0].protocol != 0x88b5 || got[0].source != macOf(1) || got[1].tagProtocol != unix.ETH_P_8021Q || got[1].tag&0xfff != 7 || got[1].protocol != 0x88b5 {
			t.Errorf("got %+v", got)
		}
		if now := state(); now != before {
			t.Errorf("the sample changed\n%s\nto\n%s", before, now)
		}
	})
}

func macBytes(n int) []byte { m := macOf(n); return m[:] }

func named(links map[int]link, name string) int {
	for ifindex, l := range links {
		if l.name == name {
			return ifindex
		}
	}
	return 0
}

// send sends a frame out of a device.
func send(t *testing.T, ifindex int, frame []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifindex}))
}

// TestSampleIsBounded by its room: the rest is counted only.
func TestSampleIsBounded(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, "sysctl -qw net.ipv6.conf.default.disable_ipv6=1; ip link add va type veth peer name vb; ip link set va up; ip link set vb up")
		k, err := askingKernel()
		must(t, err)
		defer k.close()
		links, err := k.links()
		must(t, err)
		a, b := named(links, "va"), named(links, "vb")
		tap, err := openTap(a, time.Now(), tapBuffer)
		must(t, err)
		defer unix.Close(tap.fd)
		frame := slices.Concat(macBytes(2), macBytes(1), []byte{0x88, 0xb5}, make([]byte, 50))
		second, err := openTap(a, time.Now(), tapBuffer)
		must(t, err)
		defer unix.Close(second.fd)
		for range 41 {
			send(t, b, frame)
		}
		// A second socket gets each frame in the same turn as the first.
		for len(second.seen.arrivals) < 41 {
			_, err := second.read(tapTurn)
			must(t, err)
		}
		must(t, tap.finish(10))
		if len(tap.seen.arrivals) != 10 || tap.seen.total < 40 || tap.seen.total > 41 {
			t.Errorf("looked at %d of %d", len(tap.seen.arrivals), tap.seen.total)
		}
	})
}

// TestWhatWaitsOfASampleIsBounded, however many ports there are: the kernel counts each
// byte twice, for what it takes to keep it.
func TestWhatWaitsOfASampleIsBounded(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		for _, ports := range []int{1, 8, 100, 1000} {
			tap, err := openTap(1, time.Now(), bufferOf(ports))
			must(t, err)
			each, err := unix.GetsockoptInt(tap.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
			unix.Close(tap.fd)
			must(t, err)
			if each < 2*leastTapBuffer || each*ports > 2*max(allBuffers, ports*leastTapBuffer) {
				t.Errorf("%d ports: %d bytes wait at each", ports, each)
			}
		}
	})
}

func TestSampleEndsWithItsContext(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		const whole = 20 * time.Second
		s, err := takeSample(ctx, []int{1}, whole)
		if err != nil || s.took >= whole {
			t.Errorf("took %v, %v", s.took, err)
		}
	})
}

// TestOffloads are read of a device that has some, and not of one that has none.
func TestOffloads(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, "ip link add va type veth peer name vb")
		on, err := offloadsOf("va")
		if err != nil || len(on) < 20 || !on["tx-scatter-gather"] || on[offloadLRO] || on[offloadTC] {
			t.Errorf("got %v, %v", on, err)
		}
		if _, known := on[offloadLRO]; !known {
			t.Error("the kernel has another name for", offloadLRO)
		}
		if _, known := on[offloadTC]; !known {
			t.Error("the kernel has another name for", offloadTC)
		}
		if _, err := offloadsOf("absent"); err == nil {
			t.Error("a device that is not there has offloads")
		}
	})
}
