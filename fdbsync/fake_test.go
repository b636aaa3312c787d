package fdbsync

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// fakePlane is a Dataplane that keeps everything in Go maps, and a log of the
// calls that set gates and ports.
type fakePlane struct {
	mu      sync.Mutex
	bridges map[int]*fakeBridge
	calls   []string
	leases  []time.Duration // of Renew
	version map[int]uint64  // of devices; those of closed bridges and free ports too
	can     accel.Revocation
	// These are called, where they are set: when Version was read, when a port
	// was attached, and before any other call, which fails with their error.
	answered  func(ifindex int)
	attaching func(ifindex int)
	breaks    func(call string) error
	refuse    map[string]error        // AttachPort fails for these ports
	foreign   map[string]accel.Reason // what Coexist says of these ports
	fail      error                   // OpenBridge fails
	piece     int                     // how many stations are shown at a time; 0: all
}

// fakeBridge is what the data plane has of one bridge.
type fakeBridge struct {
	accel.Bridge
	gate     accel.Gate
	ports    map[int]accel.Port
	stations map[accel.StationKey]accel.Station
	room     int
	revoked  uint64
}

func newFakePlane() *fakePlane {
	return &fakePlane{
		bridges: make(map[int]*fakeBridge),
		refuse:  make(map[string]error),
		foreign: make(map[string]accel.Reason),
		version: make(map[int]uint64),
	}
}

func (d *fakePlane) Revocation(int) accel.Revocation { return d.can }

// Version is 0 for what is not watched, as tcprog's.
func (d *fakePlane) Version(ifindex int) uint64 {
	version := d.watched(ifindex)
	if d.answered != nil {
		d.answered(ifindex)
	}
	return version
}

func (d *fakePlane) watched(ifindex int) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bridges[ifindex] != nil {
		return d.version[ifindex]
	}
	for _, b := range d.bridges {
		if _, ok := b.ports[ifindex]; ok {
			return d.version[ifindex]
		}
	}
	return 0
}

// with runs f on an open bridge, as tcprog does: any other is an error.
func (d *fakePlane) with(bridge int, call string, f func(*fakeBridge) error) error {
	if err := d.breaking(call); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.bridges[bridge]
	if b == nil {
		return fmt.Errorf("bridge %d is not open", bridge)
	}
	return f(b)
}

func (d *fakePlane) breaking(call string) error {
	if d.breaks == nil {
		return nil
	}
	return d.breaks(call)
}

func (d *fakePlane) note(format string, args ...any) {
	d.calls = append(d.calls, fmt.Sprintf(format, args...))
}

func (d *fakePlane) OpenBridge(b accel.Bridge) error {
	if err := d.breaking("open"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("open %s", b.Name)
	if d.fail != nil {
		return d.fail
	}
	d.bridges[b.Ifindex] = &fakeBridge{
		Bridge: b, gate: accel.Gate{Reason: accel.Syncing}, room: 1 << 20,
		ports: make(map[int]accel.Port), stations: make(map[accel.StationKey]accel.Station),
	}
	return nil
}

func (d *fakePlane) CloseBridge(bridge int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.bridges[bridge]; b != nil {
		d.note("close %s", b.Name)
	}
	delete(d.bridges, bridge)
	return nil
}

func (d *fakePlane) SetGate(bridge int, g accel.Gate) error {
	return d.with(bridge, "gate", func(b *fakeBridge) error {
		d.note("gate %s", g.Reason)
		b.gate = g
		return nil
	})
}

func (d *fakePlane) Renew(bridge int, lease time.Duration) error {
	return d.with(bridge, "renew", func(*fakeBridge) error { d.leases = append(d.leases, lease); return nil })
}

func (d *fakePlane) AttachPort(bridge int, p accel.Port) error {
	return d.with(bridge, "attach", func(b *fakeBridge) error {
		if err := d.refuse[p.Name]; err != nil {
			return err
		}
		d.note("attach %s", p.Name)
		b.ports[p.Ifindex] = p
		if d.attaching != nil {
			d.attaching(p.Ifindex)
		}
		return nil
	})
}

func (d *fakePlane) SetPort(bridge int, p accel.Port) error {
	return d.with(bridge, "port", func(b *fakeBridge) error {
		if _, ok := b.ports[p.Ifindex]; !ok {
			return fmt.Errorf("port %s is not attached: %w", p.Name, syscall.ENOENT)
		}
		d.note("port %s in %s out %s", p.Name, p.In, p.Out)
		b.ports[p.Ifindex] = p
		return nil
	})
}

func (d *fakePlane) DetachPort(bridge, port int) error {
	return d.with(bridge, "detach", func(b *fakeBridge) error {
		if p, ok := b.ports[port]; ok {
			d.note("detach %s", p.Name)
		}
		delete(b.ports, port)
		return nil
	})
}

func (d *fakePlane) Coexist(bridge, port int) (reason accel.Reason, err error) {
	err = d.with(bridge, "coexist", func(b *fakeBridge) error {
		reason = d.foreign[b.ports[port].Name]
		return nil
	})
	return reason, err
}

func (d *fakePlane) Admit(bridge int, stations []accel.Station) (unmirrored int, err error) {
	err = d.with(bridge, "admit", func(b *fakeBridge) error {
		for _, s := range stations {
			if _, ok := b.stations[s.StationKey]; ok {
				continue
			}
			if len(b.stations) >= b.room {
				unmirrored++
				continue
			}
			s.Active = false
			b.stations[s.StationKey] = s
		}
		return nil
	})
	return unmirrored, err
}

func (d *fakePlane) Activate(bridge int, stations []accel.Station) (lost []accel.StationKey, err error) {
	err = d.with(bridge, "activate", func(b *fakeBridge) error {
		for _, s := range stations {
			if _, ok := b.stations[s.StationKey]; !ok {
				lost = append(lost, s.StationKey)
				continue
			}
			s.Active = true
			b.stations[s.StationKey] = s
		}
		return nil
	})
	return lost, err
}

func (d *fakePlane) Revoke(bridge int, keys []accel.StationKey) error {
	return d.with(bridge, "revoke", func(b *fakeBridge) error {
		for _, k := range keys {
			delete(b.stations, k)
		}
		return nil
	})
}

// revoke is what the program in the kernel does by itself.
func (b *fakeBridge) revoke(k accel.StationKey) {
	if _, ok := b.stations[k]; ok {
		delete(b.stations, k)
		b.revoked++
	}
}

// Stations shows the keys that there were at its beginning, some of them at a time, as
// they are when it comes to them.
func (d *fakePlane) Stations(bridge int) (next func(f func(accel.Station)) (more bool, err error)) {
	var keys []accel.StationKey
	begun := false
	return func(f func(accel.Station)) (more bool, err error) {
		err = d.with(bridge, "stations", func(b *fakeBridge) error {
			if !begun {
				keys, begun = slices.Collect(maps.Keys(b.stations)), true
			}
			piece := len(keys)
			if d.piece > 0 {
				piece = min(piece, d.piece)
			}
			for _, k := range keys[:piece] {
				if s, ok := b.stations[k]; ok {
					f(s)
				}
			}
			keys = keys[piece:]
			return nil
		})
		return len(keys) > 0, err
	}
}

func (d *fakePlane) Revocations(bridge int) (n uint64, err error) {
	err = d.with(bridge, "revocations", func(b *fakeBridge) error { n = b.revoked; return nil })
	return n, err
}

// named returns a copy of what the data plane has of a bridge.
func (d *fakePlane) named(name string) (fakeBridge, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.bridges {
		if b.Name == name {
			c := *b
			c.ports, c.stations = clone(b.ports), clone(b.stations)
			return c, true
		}
	}
	return fakeBridge{}, false
}

func clone[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// log returns the calls so far.
func (d *fakePlane) log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// testLogger writes to the test's output.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

var errTest = errors.New("as the test wants it")
