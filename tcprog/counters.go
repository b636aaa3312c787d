package tcprog

import (
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"github.com/shunt-dev/shunt/accel"
)

// stats reads the counters of every attached port, in the order of ifindex.
func (br *bridge) stats() ([]accel.PortStats, error) {
	var all []accel.PortStats
	for _, ifindex := range slices.Sorted(maps.Keys(br.ports)) {
		p := br.ports[ifindex]
		counts, err := p.counts()
		if err != nil {
			return nil, fmt.Errorf("read the counters of port %d: %w", ifindex, err)
		}
		how, why := br.redirectOf(p)
		all = append(all, accel.PortStats{Ifindex: ifindex, Attach: p.hook.name(), Redirect: how, RedirectReason: why, Counts: counts})
	}
	return all, nil
}

// counts adds up what the CPUs counted. It reads them with one call: whoever
// changes a bridge waits meanwhile, and metrics are collected of every port.
func (p *port) counts() (map[accel.Reason]accel.Count, error) {
	all := make([]shuntCount, p.counters.ValueSize()/uint32(unsafe.Sizeof(shuntCount{})))
	if err := p.counters.Lookup(uint32(0), all); err != nil {
		return nil, err
	}
	counts := make(map[accel.Reason]accel.Count)
	for i, n := range all {
		if reason := accel.Reason(i % (1 << reasonsBits)); n.Packets != 0 {
			counts[reason] = counts[reason].Add(accel.Count{Packets: n.Packets, Bytes: n.Bytes})
		}
	}
	return counts, nil
}

func sumOf(perCPU []shuntCount) (sum accel.Count) {
	for _, n := range perCPU {
		sum = sum.Add(accel.Count{Packets: n.Packets, Bytes: n.Bytes})
	}
	return sum
}
