package nicswap

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/announce"
)

const (
	// syncTimeout is how long an announcement waits for the bridge's table, which
	// is not there yet right after the daemon has started.
	syncTimeout  = 10 * time.Second
	syncInterval = 50 * time.Millisecond
)

// awaitTable waits until the bridge's table was mirrored: right after the
// daemon's start it is not there yet.
func (e *Engine) awaitTable(ctx context.Context, bridge string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, syncTimeout, fmt.Errorf("the table of %s is not there", bridge))
	defer cancel()
	again := time.NewTicker(syncInterval)
	defer again.Stop()
	for !e.tableThere(bridge) {
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return context.Cause(ctx)
}

func (e *Engine) tableThere(bridge string) bool {
	return slices.ContainsFunc(e.bridges.Bridges(), func(b accel.BridgeState) bool {
		return b.Name == bridge && b.Synced
	})
}

// stations are those that the outside must look for behind the stable port: all
// that the bridge has behind its other ports, and this host's own; entries is how
// many the table has.
func (e *Engine) stations(bridge string, port int) (behind []announce.Station, entries int, err error) {
	table, err := e.bridges.FDB(bridge)
	if err != nil {
		return nil, 0, err
	}
	known, err := e.sender.Addresses()
	if err != nil {
		e.logger.Warn("stations are announced without their IP addresses, which cannot be read", "error", err)
	}
	tags := e.tags(bridge, port)
	seen := make(map[stationKey]bool)
	for _, entry := range table {
		tag, ok := tags.of(entry.VID)
		key := stationKey{entry.MAC, tag}
		if !ok || entry.NoSource || entry.Port == port && !entry.Local || seen[key] {
			continue
		}
		seen[key] = true
		s := announce.Station{MAC: entry.MAC, Tag: tag, Addrs: known[entry.MAC]}
		if tag != 0 {
			s.TagProtocol = tags.protocol
		}
		behind = append(behind, s)
	}
	return behind, len(table), nil
}

// stationKey is what makes two announcements the same.
type stationKey struct {
	mac accel.MAC
	tag uint16
}

// tags say how a port sends the frames of a VLAN.
type tags struct {
	protocol uint16
	byVID    map[uint16]uint16
}

func (e *Engine) tags(bridge string, port int) tags {
	t := tags{byVID: make(map[uint16]uint16)}
	for _, b := range e.bridges.Bridges() {
		if b.Name != bridge {
			continue
		}
		t.protocol = b.VLANProtocol
		for _, p := range b.Ports {
			if p.Ifindex == port {
				t.add(p.VLANs)
			}
		}
	}
	return t
}

func (t tags) add(vlans accel.VLANs) {
	for v := range vlans.All() {
		if v.Untagged {
			t.byVID[v.VID] = 0
		} else {
			t.byVID[v.VID] = v.VID
		}
	}
}

// of returns the tag of a VLAN's frames, and whether the port sends them at all.
// A bridge that does not filter VLANs has stations in VLAN 0 only.
func (t tags) of(vid uint16) (tag uint16, ok bool) {
	if t.protocol == 0 {
		return 0, true
	}
	tag, ok = t.byVID[vid]
	return tag, ok
}
