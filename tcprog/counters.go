package tcprog

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

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

// counts adds up what the CPUs counted. It reads them with one call: whoever
// changes a bridge waits meanwhile, and metrics are collected of every port.
func (p *port) counts() (map[accel.Reason]accel.Count, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	reasons := make([]uint32, accel.NumReasons)
	all := make([]shuntCount, accel.NumReasons*cpus)
	n, err := p.counters.BatchLookup(new(ebpf.MapBatchCursor), reasons, all, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, err
	}
	counts := make(map[accel.Reason]accel.Count)
	for i, reason := range reasons[:n] {
		if sum := sumOf(all[i*cpus : (i+1)*cpus]); sum.Packets != 0 {
			counts[accel.Reason(reason)] = sum
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
