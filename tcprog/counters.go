package tcprog

import (
	"fmt"
	"maps"
	"slices"

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
		all = append(all, accel.PortStats{Ifindex: ifindex, Attach: p.hook.name(), Counts: counts})
	}
	return all, nil
}

// counts adds up what the CPUs counted.
func (p *port) counts() (map[accel.Reason]accel.Count, error) {
	counts := make(map[accel.Reason]accel.Count)
	var reason uint32
	var perCPU []shuntCount
	rows := p.counters.Iterate()
	for rows.Next(&reason, &perCPU) {
		if sum := sumOf(perCPU); sum.Packets != 0 {
			counts[accel.Reason(reason)] = sum
		}
	}
	return counts, rows.Err()
}

func sumOf(perCPU []shuntCount) (sum accel.Count) {
	for _, n := range perCPU {
		sum = sum.Add(accel.Count{Packets: n.Packets, Bytes: n.Bytes})
	}
	return sum
}
