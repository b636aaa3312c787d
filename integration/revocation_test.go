package integration

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// What the kernel takes back is taken back at once, by programs in the kernel:
// the daemon is stopped throughout, and the next frame counts.
func TestRevocationNeedsNoDaemon(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dst *netlink.Neigh, ports []netlink.Link) error
		// arrives are the hosts, counted from 1, that the next frame reaches.
		arrives []int
	}{
		"delete": {func(dst *netlink.Neigh, _ []netlink.Link) error {
			return netlink.NeighDel(dst)
		}, []int{2, 3}},
		"replace on another port": {func(dst *netlink.Neigh, ports []netlink.Link) error {
			dst.LinkIndex = ports[2].Attrs().Index
			return netlink.NeighSet(dst)
		}, []int{3}},
		"made an address of the host": {func(dst *netlink.Neigh, _ []netlink.Link) error {
			if err := netlink.NeighDel(dst); err != nil {
				return err
			}
			dst.State = unix.NUD_PERMANENT
			return netlink.NeighAppend(dst)
		}, nil},
		"port down": {func(_ *netlink.Neigh, ports []netlink.Link) error {
			return netlink.LinkSetDown(ports[1])
		}, []int{3}},
	} {
		t.Run(name, func(t *testing.T) { testRevocation(t, c.change, c.arrives) })
	}
}

func testRevocation(t *testing.T, change func(*netlink.Neigh, []netlink.Link) error, arrives []int) {
	l := newLab(t, lab.Options{Hosts: 3})
	var at []station
	for _, h := range l.Hosts {
		at = append(at, hostStation(t, h))
	}
	d := startDaemon(t, l)
	introduce(t, at[0].wire, at[0].mac, at[1].wire, at[1].mac)
	d.awaitActive(at[0].mac, at[1].mac)
	probe := lab.Frame{Source: at[0].mac, Destination: at[1].mac, Stream: 30}
	expectAt(t, probe, at, []int{2}) // the keepalive
	fast := d.bridge().Fast
	expectAt(t, probe, at, []int{2}) // decided, and kept in the flow cache
	if d.bridge().Fast == fast {
		t.Fatal("the frame was not fast: the test shows nothing")
	}

	d.pause()
	err := l.Bridge.Do(func() error {
		var ports []netlink.Link
		for _, s := range at {
			port, err := netlink.LinkByName(s.port)
			if err != nil {
				return err
			}
			ports = append(ports, port)
		}
		dst := &netlink.Neigh{
			LinkIndex: ports[1].Attrs().Index, Family: unix.AF_BRIDGE, State: unix.NUD_REACHABLE,
			Flags: netlink.NTF_MASTER, HardwareAddr: at[1].mac,
		}
		return change(dst, ports)
	})
	if err != nil {
		t.Fatal(err)
	}
	expectAt(t, probe, at, arrives)
	d.resume()
}

var probes uint64

// expectAt sends the frame and wants it to arrive at these hosts, counted from
// 1, and at no other.
func expectAt(t *testing.T, f lab.Frame, at []station, want []int) {
	t.Helper()
	probes++
	f.Sequence = probes
	if _, err := at[0].wire.Write(f.Bytes()); err != nil {
		t.Fatal(err)
	}
	wanted := make(map[int]bool)
	for _, n := range want {
		wanted[n] = true
	}
	for i, s := range at {
		// What shall come is waited for; the rest has come by then, since
		// one CPU delivers to all.
		wait := time.Millisecond
		if wanted[i+1] {
			wait = 5 * time.Second
		}
		if got := arrived(t, s, f, wait); got != wanted[i+1] {
			t.Errorf("frame %d at host %d: %v, want %v", f.Sequence, i+1, got, wanted[i+1])
		}
	}
}

func arrived(t *testing.T, s station, f lab.Frame, wait time.Duration) bool {
	t.Helper()
	if err := s.wire.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 2048)
	for {
		n, err := s.wire.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := lab.ParseFrame(buffer[:n]); ok && got.Stream == f.Stream && got.Sequence == f.Sequence {
			return true
		}
	}
}
