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

// list calls f for everything that the map holds. A station whose slot has no port any
// more has port -1.
func (br *bridge) list(f func(accel.Station)) error {
	portOf := br.portOfSlot()
	return br.eachStation(func(k shuntStationKey, rec shuntStation) { f(stationOf(k, rec, portOf)) })
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

// eachStation reads the whole map in batches: reading on from one key to the
// next starts again from the beginning when a program removed that key.
func (br *bridge) eachStation(f func(shuntStationKey, shuntStation)) error {
	const batch = 4096
	keys := make([]shuntStationKey, batch)
	recs := make([]shuntStation, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := br.maps[shuntMapStations].BatchLookup(&cursor, keys, recs, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read the station map: %w", err)
		}
		for i := range n {
			f(keys[i], recs[i])
		}
		if err != nil {
			return nil
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
