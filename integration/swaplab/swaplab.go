// Package swaplab builds the network around a stable port: on one side a bridge
// with guests, on the other the members' far ends, all ports of one switch outside,
// with a station behind it. Numbered frames go both ways, and meters say what
// became of them. It needs root and nothing else.
package swaplab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// Lab is the host with its bridge br0, and the outside with its switch, which is
// named br0 too.
type Lab struct {
	// Host has guests behind its ports p1, p2 ...; the stable port is for shunt to
	// make.
	Host *lab.Lab
	// Outside is the switch. The members' far ends are its ports, and stations are
	// behind others, p101 ...
	Outside *lab.Lab

	others  []*lab.Lab // further switches
	members []*Member

	lastIndex int // ifindex of the last cable
}

// firstStation is the number of the first station outside.
const firstStation = 101

// New builds a lab with so many guests, one station outside, and no member.
func New(guests int) (l *Lab, err error) {
	l = &Lab{}
	if l.Host, err = lab.New(lab.Options{Hosts: guests}); err != nil {
		return nil, err
	}
	if l.Outside, err = lab.New(lab.Options{Hosts: 1, First: firstStation}); err != nil {
		return nil, errors.Join(err, l.Host.Close())
	}
	return l, nil
}

// AddOutside builds another switch with one station, with nothing between it and
// the first.
func (l *Lab) AddOutside() (*lab.Lab, error) {
	const step = 100
	other, err := lab.New(lab.Options{Hosts: 1, First: firstStation + step*(len(l.others)+1)})
	if err == nil {
		l.others = append(l.others, other)
	}
	return other, err
}

// Guest is the first host behind the bridge.
func (l *Lab) Guest() *lab.Host { return l.Host.Hosts[0] }

// Station is the host behind the switch outside.
func (l *Lab) Station() *lab.Host { return l.Outside.Hosts[0] }

// Member returns the member of that name; nil if there is none.
func (l *Lab) Member(name string) *Member {
	for _, m := range l.members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// newIndex returns an ifindex that no device of the lab has or had.
func (l *Lab) newIndex() int {
	const first = 1000
	l.lastIndex = max(l.lastIndex+1, first)
	return l.lastIndex
}

// SpreadFrames lets the kernel spread the frames of every device over the CPUs
// (RPS), those of the named devices of the host too.
func (l *Lab) SpreadFrames(devices ...string) error {
	type place struct {
		at     *lab.Namespace
		device string
	}
	var places []place
	for _, side := range append([]*lab.Lab{l.Host, l.Outside}, l.others...) {
		for _, h := range side.Hosts {
			places = append(places, place{side.Bridge, h.Port}, place{h.Namespace, "eth0"})
		}
	}
	for _, m := range l.members {
		places = append(places, place{m.outside.Bridge, m.Far})
		devices = append(devices, m.devices()...)
	}
	for _, d := range devices {
		places = append(places, place{l.Host.Bridge, d})
	}
	for _, p := range places {
		if err := spread(p.at, p.device); err != nil {
			return fmt.Errorf("spread the frames of %s: %w", p.device, err)
		}
	}
	return nil
}

func spread(ns *lab.Namespace, device string) error {
	every := uint64(1)<<min(runtime.NumCPU(), 63) - 1
	return ns.WriteSys("/sys/class/net/"+device+"/queues/rx-0/rps_cpus", strconv.FormatUint(every, 16))
}

// Close removes everything.
func (l *Lab) Close() error {
	errs := []error{l.removePins()}
	for _, m := range l.members {
		errs = append(errs, m.Delete())
	}
	for _, side := range append([]*lab.Lab{l.Host, l.Outside}, l.others...) {
		errs = append(errs, side.Close())
	}
	return errors.Join(errs...)
}

// removePins removes what stays of wires when their daemon ends: the next namespace may
// get this one's inode number, and would find them.
func (l *Lab) removePins() error {
	var st unix.Stat_t
	if err := unix.Stat(l.Host.Bridge.Path(), &st); err != nil {
		return err
	}
	return os.RemoveAll(fmt.Sprintf("/sys/fs/bpf/shunt/net-%d", st.Ino))
}

// StationMAC is the address of one of many stations: of crowd number c, station
// number n.
func StationMAC(c byte, n int) net.HardwareAddr {
	return net.HardwareAddr{2, 1, c, byte(n >> 16), byte(n >> 8), byte(n)}
}

var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Introduce lets the host send one frame to everybody from each of so many
// addresses of a crowd, so that bridges learn them behind its port. It returns
// when all are sent.
func Introduce(h *lab.Host, crowd byte, stations int) error {
	w, err := h.Wire()
	if err != nil {
		return err
	}
	defer w.Close()
	const aStream = 0xfffffffe // nobody looks at it
	for n := range stations {
		f := lab.Frame{Source: StationMAC(crowd, n), Destination: everybody, Stream: aStream}
		if _, err := w.Write(f.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// Behind returns how many addresses of a crowd the bridge of a lab has behind each
// of its ports.
func Behind(l *lab.Lab, crowd byte) (map[string]int, error) {
	rows, err := l.FDB()
	if err != nil {
		return nil, err
	}
	at := make(map[string]int)
	for _, row := range rows {
		mac, err := net.ParseMAC(row.MAC)
		if err != nil {
			return nil, err
		}
		if slices.Equal(mac[:3], StationMAC(crowd, 0)[:3]) {
			at[row.Port]++
		}
	}
	return at, nil
}
