package integration

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// station is a wire with its address and the port that it is behind.
type station struct {
	wire lab.Wire
	mac  net.HardwareAddr
	port string
}

func hostStation(t *testing.T, h *lab.Host) station {
	t.Helper()
	return station{newWire(t, h), h.MAC, h.Port}
}

func TestKnownUnicastIsFast(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	tap, err := l.AddTap("tap0", lab.MACOf(9))
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, l)
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	vm := station{tap, tap.MAC, tap.Port}
	for _, c := range []struct {
		name     string
		from, to station
	}{{"veth to veth", a, b}, {"tap to veth", vm, a}, {"veth to tap", b, vm}} {
		t.Run(c.name, func(t *testing.T) { expectFast(t, l, d, c.from, c.to) })
	}
}

// expectFast sends a steady stream, and wants at least 99 % of it counted as
// fast and the kernel's counters of the ports to agree.
func expectFast(t *testing.T, l *lab.Lab, d *daemon, from, to station) {
	const frames = 100_000
	introduce(t, from.wire, from.mac, to.wire, to.mac)
	d.awaitActive(from.mac, to.mac)
	drain(t, to.wire) // a tap counts a frame when it is read
	before := countersOf(t, l, d, from, to)
	s := &lab.Sender{
		Wire:  from.wire,
		Frame: lab.Frame{Source: from.mac, Destination: to.mac, Stream: 1},
		Pace:  lab.Pace{PerSecond: 40_000},
	}
	report, err := lab.Run(t.Context(), s, frames, to.wire)
	if err != nil {
		t.Fatal(err)
	}
	if want := (lab.Report{Received: frames}); report != want {
		t.Errorf("%+v, want %+v", report, want)
	}
	after := countersOf(t, l, d, from, to)
	fast, slow := after.Fast-before.Fast, after.Slow-before.Slow
	t.Logf("%d fast, %d slow: %.2f %% fast", fast, slow, 100*float64(fast)/frames)
	if fast < frames*99/100 {
		t.Errorf("%d of %d frames were fast, want 99 %%", fast, frames)
	}
	if fast+slow != frames {
		t.Errorf("%d fast and %d slow were counted, and %d were sent", fast, slow, frames)
	}
	if rx := after.in.RxPackets - before.in.RxPackets; rx != frames {
		t.Errorf("the kernel counted %d frames received on %s, want %d", rx, from.port, frames)
	}
	if tx := after.out.TxPackets - before.out.TxPackets; tx != frames {
		t.Errorf("the kernel counted %d frames sent on %s, want %d", tx, to.port, frames)
	}
}

type counters struct {
	accel.TrafficV1
	in, out lab.PortCounters
}

// countersOf returns shunt's counters of the port where frames come in, and the
// kernel's of both.
func countersOf(t *testing.T, l *lab.Lab, d *daemon, from, to station) (c counters) {
	t.Helper()
	var err error
	if c.in, err = l.Counters(from.port); err != nil {
		t.Fatal(err)
	}
	if c.out, err = l.Counters(to.port); err != nil {
		t.Fatal(err)
	}
	var ports []accel.PortV1
	d.decode(&ports, "ports")
	for _, p := range ports {
		if p.Port == from.port {
			c.TrafficV1 = p.TrafficV1
		}
	}
	return c
}

// To a bridge that does not filter VLANs a tag means nothing, and stays.
func TestTaggedFramesAreFast(t *testing.T) {
	x := newTrap(t, lab.Options{Hosts: 2})
	tag := lab.Tag{Protocol: lab.Dot1Q, VID: 5, PCP: 3}
	x.warm(flow{from: 1, to: 2, tag: tag, out: tag})
}

// drain reads what waits at the wire.
func drain(t *testing.T, w lab.Wire) {
	t.Helper()
	buffer := make([]byte, 2048)
	for {
		if err := w.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Read(buffer); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
