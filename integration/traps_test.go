package integration

import (
	endian "encoding/binary"
	"maps"
	"net"
	"testing"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// The traps: each is a way in which a bypass beside a bridge has gone wrong. In
// each a flow is on the fast path, something changes, and the very next frames
// must have the kernel's fate. Most of them hold the daemon still meanwhile, so
// that it cannot help.

// trap is a lab, a daemon, and a wire at every host that sees all.
type trap struct {
	t    *testing.T
	l    *lab.Lab
	d    *daemon
	at   []lab.Wire
	sent uint64
}

func newTrap(t *testing.T, o lab.Options, args ...string) *trap {
	t.Helper()
	x := wired(t, o)
	x.d = startDaemon(t, x.l, args...)
	return x
}

// wired is a trap without a daemon.
func wired(t *testing.T, o lab.Options) *trap {
	t.Helper()
	x := &trap{t: t, l: newLab(t, o)}
	for _, h := range x.l.Hosts {
		x.at = append(x.at, closing(t)(h.WireOfAll()))
	}
	return x
}

// closing wants a wire to be open, and closes it with the test.
func closing(t *testing.T) func(lab.Wire, error) lab.Wire {
	return func(w lab.Wire, err error) lab.Wire {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return w
	}
}

// flow is frames from a station behind one host's port to one behind another's.
type flow struct {
	from, to int              // hosts, counted from 1
	src, dst net.HardwareAddr // the hosts' own if nil
	tag, out lab.Tag          // as it is sent, and as it arrives
	size     int              // bytes without tag; the lab's own if 0
	ip       bool             // an IPv4 packet
}

func (f flow) source() net.HardwareAddr {
	if f.src != nil {
		return f.src
	}
	return lab.MACOf(f.from)
}

func (f flow) destination() net.HardwareAddr {
	if f.dst != nil {
		return f.dst
	}
	return lab.MACOf(f.to)
}

// back is the flow of the answers.
func (f flow) back() flow {
	return flow{
		from: f.to, to: f.from, src: f.destination(), dst: f.source(),
		tag: f.out, out: f.tag, size: f.size, ip: f.ip,
	}
}

// bytes is frame number n of the flow with a tag.
func (f flow) bytes(n uint64, tag lab.Tag) []byte {
	b := lab.Frame{Source: f.source(), Destination: f.destination(), Tag: tag, Stream: 40, Sequence: n}.Bytes()
	b = append(b, make([]byte, max(f.size-len(untagged(b)), 0))...)
	if f.ip {
		f.becomeIP(b)
	}
	return b
}

// becomeIP makes a frame without a tag an IPv4 packet of UDP that fills it. The
// frame's number stands behind the headers from then on. No host has the
// addresses (RFC 2544), so that none answers.
func (f flow) becomeIP(b []byte) {
	const header = 20
	number := endian.BigEndian.Uint64(b[18:])
	endian.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[14:]
	copy(ip, []byte{0x45, 0, byte(len(ip) >> 8), byte(len(ip)), 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, byte(f.from), 198, 18, 0, byte(f.to)})
	var sum uint32
	for i := 0; i < header; i += 2 {
		sum += uint32(endian.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	endian.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := ip[header:]
	copy(udp, []byte{0x80, 0, 0x80, 1, 0, 0, 0, 0})
	endian.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	endian.BigEndian.PutUint64(udp[8:], number)
}

// untagged returns the frame from its addresses on as if it had no tag: a copy
// if it has one.
func untagged(b []byte) []byte {
	if tagOf(b).Protocol == 0 {
		return b
	}
	return append(append([]byte(nil), b[:12]...), b[16:]...)
}

func tagOf(b []byte) lab.Tag {
	protocol := endian.BigEndian.Uint16(b[12:])
	if protocol != lab.Dot1Q && protocol != lab.Dot1AD {
		return lab.Tag{}
	}
	tci := endian.BigEndian.Uint16(b[14:])
	return lab.Tag{Protocol: protocol, VID: tci & 0xfff, PCP: uint8(tci >> 13)}
}

// shots are the frames that are sent at once: one of them may be shown to the
// bridge to keep its entry fresh, so that it would have the kernel's fate anyhow.
const shots = 3

// expect sends frames of the flow and wants each to arrive at these hosts, and
// at no other, as the flow's frames arrive.
func (x *trap) expect(f flow, hosts ...int) {
	x.t.Helper()
	want := make(map[int]lab.Tag)
	for _, h := range hosts {
		want[h] = f.out
	}
	x.expectAs(f, want)
}

// expectAs sends frames of the flow and wants each to arrive once at each of
// these hosts, with this tag, and at no other.
func (x *trap) expectAs(f flow, want map[int]lab.Tag) {
	x.t.Helper()
	var frames [][]byte
	for range shots {
		x.sent++
		frames = append(frames, f.bytes(x.sent, f.tag))
	}
	for i, got := range x.deliver(f.from, frames...) {
		if !maps.Equal(got, want) {
			x.t.Errorf("frame %d of %d arrived at %v, want %v (host: tag)", i+1, shots, got, want)
		}
	}
}

// deliver sends frames from a host and returns to which hosts each came, and
// with which tag.
func (x *trap) deliver(from int, frames ...[]byte) []map[int]lab.Tag {
	x.t.Helper()
	x.drain()
	if err := x.l.Deliver(x.at[from-1], frames...); err != nil {
		x.t.Fatal(err)
	}
	number, fates := make(map[string]int), make([]map[int]lab.Tag, len(frames))
	for i, b := range frames {
		number[string(untagged(b))], fates[i] = i, make(map[int]lab.Tag)
	}
	for host, w := range x.at {
		arrived, err := lab.Arrived(w)
		if err != nil {
			x.t.Fatal(err)
		}
		for _, b := range arrived {
			i, ours := number[string(untagged(b))]
			if !ours {
				continue
			}
			if _, twice := fates[i][host+1]; twice {
				x.t.Errorf("frame %d came twice to host %d", i+1, host+1)
			}
			fates[i][host+1] = tagOf(b)
		}
	}
	return fates
}

// drain reads what waits at the wires.
func (x *trap) drain() {
	x.t.Helper()
	for _, w := range x.at {
		if _, err := lab.Arrived(w); err != nil {
			x.t.Fatal(err)
		}
	}
}

// send sends one frame of the flow, wherever it goes.
func (x *trap) send(f flow) {
	x.t.Helper()
	x.sent++
	x.deliver(f.from, f.bytes(x.sent, f.tag))
}

// learn lets the bridge and shunt learn both stations.
func (x *trap) learn(f flow) {
	x.t.Helper()
	x.send(f)
	x.send(f.back())
	x.d.awaitActive(f.source(), f.destination())
}

// warm puts the flow on the fast path: the test would show nothing otherwise.
func (x *trap) warm(f flow) {
	x.t.Helper()
	x.learn(f)
	x.awaitFast(f)
}

// awaitFast sends until all but one of the frames of a burst were fast. Whatever
// their path, every one of them must arrive.
func (x *trap) awaitFast(f flow) {
	x.t.Helper()
	await(x.t, "the flow is fast", func() bool {
		before := x.fast(f)
		x.expect(f, f.to)
		return x.t.Failed() || x.fast(f) >= before+shots-1
	})
	if x.t.Failed() {
		x.t.FailNow()
	}
}

// fast is the number of fast frames from the flow's ingress port.
func (x *trap) fast(f flow) uint64 {
	x.t.Helper()
	return x.port(x.l.Hosts[f.from-1].Port).Fast
}

func (x *trap) port(name string) (found accel.PortV1) {
	x.t.Helper()
	var ports []accel.PortV1
	x.d.decode(&ports, "ports")
	for _, p := range ports {
		if p.Port == name {
			found = p
		}
	}
	return found
}

// run runs command lines in the bridge's namespace.
func (x *trap) run(lines ...string) {
	x.t.Helper()
	for _, line := range lines {
		if err := x.l.Bridge.Run(line); err != nil {
			x.t.Fatal(err)
		}
	}
}

// inHost runs command lines in a host.
func (x *trap) inHost(n int, lines ...string) {
	x.t.Helper()
	for _, line := range lines {
		if err := x.l.Hosts[n-1].Run(line); err != nil {
			x.t.Fatal(err)
		}
	}
}

// stopped runs f while the daemon stands still.
func (x *trap) stopped(f func()) {
	x.t.Helper()
	x.d.pause()
	defer x.d.resume()
	f()
}

// awaitBridge waits until the bridge is on the slow path for a reason; Fast is
// the fast path.
func (x *trap) awaitBridge(r accel.Reason) {
	x.t.Helper()
	await(x.t, "the bridge's reason is "+r.String(), func() bool { return x.d.bridge().Reason == r })
}
