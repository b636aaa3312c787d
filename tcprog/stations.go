package tcprog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// The flags of struct station in bpf/maps.h.
const (
	stationActive   = 1
	stationLocal    = 2
	stationNoSource = 4
	stationSticky   = 8
)

// record returns the station's record, and false if its port is not attached.
func (br *bridge) record(s accel.Station) (shuntStation, bool) {
	var rec shuntStation
	if s.Local {
		rec.Flags |= stationLocal
	}
	if s.NoSource {
		rec.Flags |= stationNoSource
	}
	if s.Sticky {
		rec.Flags |= stationSticky
	}
	if s.Port == 0 || s.Local {
		return rec, s.Local
	}
	p := br.ports[s.Port]
	if p == nil {
		return rec, false
	}
	rec.Slot = p.slot
	return rec, true
}

// admit inserts candidates. A station whose port is not attached (any more) is
// left out: activate will call it lost.
func (br *bridge) admit(stations []accel.Station) (unmirrored int, err error) {
	for some := range slices.Chunk(stations, mostChanges) {
		for _, s := range some {
			if rec, ok := br.record(s); ok {
				br.batch.put(changeAdmit, s.StationKey, rec)
			}
		}
		err := br.batch.run(func(k accel.StationKey, errno unix.Errno) error {
			switch errno {
			case 0, unix.EEXIST:
			case unix.E2BIG:
				unmirrored++
			default:
				return fmt.Errorf("admit %s: %w", k, errno)
			}
			return nil
		})
		if err != nil {
			return unmirrored, err
		}
	}
	return unmirrored, nil
}

// activate makes candidates active. Where a program revoked one meanwhile, the
// update finds nothing and the station is lost.
func (br *bridge) activate(stations []accel.Station) (lost []accel.StationKey, err error) {
	for some := range slices.Chunk(stations, mostChanges) {
		for _, s := range some {
			rec, ok := br.record(s)
			if !ok {
				lost = append(lost, s.StationKey)
				continue
			}
			rec.Flags |= stationActive
			br.batch.put(changeActivate, s.StationKey, rec)
		}
		err := br.batch.run(func(k accel.StationKey, errno unix.Errno) error {
			switch errno {
			case 0:
			case unix.ENOENT:
				lost = append(lost, k)
			default:
				return fmt.Errorf("activate %s: %w", k, errno)
			}
			return nil
		})
		if err != nil {
			return lost, err
		}
	}
	return lost, nil
}

// revoke removes entries and ends the flows that were decided by them.
func (br *bridge) revoke(keys []accel.StationKey) error {
	for some := range slices.Chunk(keys, mostChanges) {
		for _, k := range some {
			br.batch.put(changeRevoke, k, shuntStation{})
		}
		err := br.batch.run(func(k accel.StationKey, errno unix.Errno) error {
			if errno != 0 && errno != unix.ENOENT {
				return fmt.Errorf("revoke %s: %w", k, errno)
			}
			return nil
		})
		if err != nil {
			br.control.shut(accel.Syncing)
			return err
		}
	}
	return nil
}

// list calls f for the next piece of what the map holds, and says whether there is more.
// A station whose slot has no port any more has port -1.
func (br *bridge) list(r *stationReader, f func(accel.Station)) (more bool, err error) {
	portOf := br.portOfSlot()
	return br.nextStations(r, func(k shuntStationKey, rec shuntStation) { f(stationOf(k, rec, portOf)) })
}

// portOfSlot maps slots to ifindexes; slot 0 is the bridge itself.
func (br *bridge) portOfSlot() map[uint32]int {
	portOf := map[uint32]int{0: 0}
	for ifindex, p := range br.ports {
		portOf[p.slot] = ifindex
	}
	return portOf
}

func stationOf(k shuntStationKey, rec shuntStation, portOf map[uint32]int) accel.Station {
	port, ok := portOf[rec.Slot]
	if !ok {
		port = -1
	}
	return accel.Station{
		StationKey: accel.StationKey{MAC: k.Mac, VID: k.Vid},
		Port:       port,
		Local:      rec.Flags&stationLocal != 0,
		NoSource:   rec.Flags&stationNoSource != 0,
		Sticky:     rec.Flags&stationSticky != 0,
		Active:     rec.Flags&stationActive != 0,
	}
}

// stationReader is how far the map was read. It is read in batches: reading on from one
// key to the next starts again from the beginning when a program removed that key.
type stationReader struct {
	cursor ebpf.MapBatchCursor
	keys   []shuntStationKey
	recs   []shuntStation
}

// newStationReader reads that many stations at a time.
func newStationReader(piece int) *stationReader {
	return &stationReader{keys: make([]shuntStationKey, piece), recs: make([]shuntStation, piece)}
}

// nextStations calls f for the next piece, and says whether there is more.
func (br *bridge) nextStations(r *stationReader, f func(shuntStationKey, shuntStation)) (more bool, err error) {
	n, err := br.maps[shuntMapStations].BatchLookup(&r.cursor, r.keys, r.recs, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, fmt.Errorf("read the station map: %w", err)
	}
	for i := range n {
		f(r.keys[i], r.recs[i])
	}
	return err == nil, nil
}

// eachStation reads the whole map.
func (br *bridge) eachStation(f func(shuntStationKey, shuntStation)) error {
	r := newStationReader(4096)
	for {
		if more, err := br.nextStations(r, f); err != nil || !more {
			return err
		}
	}
}

func (br *bridge) clearStations() error {
	var keys []accel.StationKey
	err := br.eachStation(func(k shuntStationKey, _ shuntStation) {
		keys = append(keys, accel.StationKey{MAC: k.Mac, VID: k.Vid})
	})
	if err != nil {
		return err
	}
	return br.revoke(keys)
}
