package tcprog

import (
	"errors"
	"fmt"

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

func keyOf(k accel.StationKey) shuntStationKey {
	return shuntStationKey{Mac: k.MAC, Vid: k.VID}
}

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
	for _, s := range stations {
		rec, ok := br.record(s)
		if !ok {
			continue
		}
		err := br.maps[shuntMapStations].Update(keyOf(s.StationKey), rec, ebpf.UpdateNoExist)
		switch {
		case err == nil, errors.Is(err, ebpf.ErrKeyExist):
		case errors.Is(err, unix.E2BIG):
			unmirrored++
		default:
			return unmirrored, fmt.Errorf("admit %s: %w", s.StationKey, err)
		}
	}
	return unmirrored, nil
}

// activate makes candidates active. Where a program revoked one meanwhile, the
// update finds nothing and the station is lost.
func (br *bridge) activate(stations []accel.Station) (lost []accel.StationKey, err error) {
	for _, s := range stations {
		rec, ok := br.record(s)
		if !ok {
			lost = append(lost, s.StationKey)
			continue
		}
		rec.Flags |= stationActive
		err := br.maps[shuntMapStations].Update(keyOf(s.StationKey), rec, ebpf.UpdateExist)
		switch {
		case err == nil:
			br.control.bump(s.StationKey)
		case errors.Is(err, ebpf.ErrKeyNotExist):
			lost = append(lost, s.StationKey)
		default:
			return lost, fmt.Errorf("activate %s: %w", s.StationKey, err)
		}
	}
	return lost, nil
}

// revoke removes entries and ends the flows that were decided by them.
func (br *bridge) revoke(keys []accel.StationKey) error {
	for _, k := range keys {
		err := br.maps[shuntMapStations].Delete(keyOf(k))
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			br.control.shut(accel.Syncing)
			return fmt.Errorf("revoke %s: %w", k, err)
		}
		br.control.bump(k)
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
