package accel

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// view reads the components for the control API.
type view struct {
	bridges    BridgeSource
	counters   []CounterSource
	explainers []Explainer
	routers    []Router
	keepers    []Keeper
}

// newView finds the sources among the components.
func newView(l *lifecycle) (view, error) {
	sources := serving[BridgeSource](l.components)
	if len(sources) != 1 {
		return view{}, fmt.Errorf("%d plugins know bridges, need exactly one: see the imports of main.go", len(sources))
	}
	return view{sources[0], serving[CounterSource](l.components), serving[Explainer](l.components), serving[Router](l.components), serving[Keeper](l.components)}, nil
}

// kept is what every component leaves in the kernel.
func (v view) kept() []string {
	kept := []string{}
	for _, keeper := range v.keepers {
		kept = append(kept, keeper.Kept()...)
	}
	return kept
}

// states returns the bridge of that name, or all for "".
func (v view) states(name string) ([]BridgeState, error) {
	all := v.bridges.Bridges()
	if name == "" {
		return all, nil
	}
	var names []string
	for _, b := range all {
		if b.Name == name {
			return []BridgeState{b}, nil
		}
		names = append(names, b.Name)
	}
	return nil, notFoundf("the daemon has no bridge %s; it works on %s", name, cmp.Or(enumerate(names), "none yet"))
}

// stats returns the counters of a bridge's ports by ifindex.
func (v view) stats(b BridgeState) (map[int]PortStats, error) {
	byPort := make(map[int]PortStats)
	if !b.Present {
		return byPort, nil
	}
	for _, source := range v.counters {
		stats, err := source.PortStats(b.Ifindex)
		if err != nil {
			return nil, fmt.Errorf("read the counters of bridge %s: %w", b.Name, err)
		}
		for _, s := range stats {
			byPort[s.Ifindex] = s
		}
	}
	return byPort, nil
}

// reading is a bridge with what its ports have counted, by ifindex.
type reading struct {
	BridgeState
	stats map[int]PortStats
}

// read reads the bridge of that name, or all.
func (v view) read(name string) (readings []reading, err error) {
	states, err := v.states(name)
	if err != nil {
		return nil, err
	}
	for _, b := range states {
		stats, err := v.stats(b)
		if err != nil {
			return nil, err
		}
		readings = append(readings, reading{b, stats})
	}
	return readings, nil
}

// described makes the answer of one question from a reading.
func described[T any](v view, name string, describe func([]reading) []T) ([]T, error) {
	readings, err := v.read(name)
	if err != nil {
		return nil, err
	}
	return describe(readings), nil
}

// status describes the bridge of that name, or all.
func (v view) status(name string) ([]BridgeV1, error) { return described(v, name, describeBridges) }

func describeBridges(readings []reading) []BridgeV1 {
	described := make([]BridgeV1, 0, len(readings))
	for _, r := range readings {
		described = append(described, describeBridge(r.BridgeState, r.stats))
	}
	return described
}

func describeBridge(b BridgeState, stats map[int]PortStats) BridgeV1 {
	d := BridgeV1{
		Name: b.Name, Ifindex: b.Ifindex,
		Present: b.Present, Synced: b.Synced, On: b.On,
		Eligible: b.Reason == Fast, Reason: b.Reason,
		Ports: len(b.Ports), Stations: b.Stations, Pending: b.Pending, FDBFull: b.Unmirrored,
		Netfilter: describeNetfilter(b.BypassNetfilter),
	}
	if b.Present {
		d.Revocation, d.Weaker = &b.Revocation, b.Revocation.Weaker()
	}
	if !d.Eligible {
		d.Text, d.Advice = b.Reason.Text(), Advise(b.Reason, b.Name, "")
	}
	for _, s := range stats {
		d.add(s)
	}
	return d
}

func describeNetfilter(bypass bool) string {
	if bypass {
		return netfilterBypass
	}
	return netfilterRespect
}

// Advise puts the names, where they are not empty, into a reason's advice.
func Advise(r Reason, bridge, port string) string {
	advice := r.Advice()
	if bridge != "" {
		advice = strings.ReplaceAll(advice, "BRIDGE", bridge)
	}
	if port != "" {
		advice = strings.ReplaceAll(advice, "PORT", port)
	}
	return advice
}

// ports describes the ports of the bridge of that name, or of all.
func (v view) ports(name string) ([]PortV1, error) { return described(v, name, describePorts) }

func describePorts(readings []reading) []PortV1 {
	described := []PortV1{}
	for _, r := range readings {
		for _, p := range r.Ports {
			described = append(described, describePort(r.Name, p, r.stats[p.Ifindex]))
		}
	}
	return described
}

func describePort(bridge string, p PortState, stats PortStats) PortV1 {
	d := PortV1{
		Port: p.Name, Bridge: bridge, Ifindex: p.Ifindex,
		State: p.State, Attach: cmp.Or(stats.Attach, "none"), Redirect: cmp.Or(stats.Redirect, RedirectEgress),
		RedirectReason: stats.RedirectReason, MTU: p.MTU, Isolated: p.Flags.Isolated(),
		PVID: p.PVID, VLANs: []VLANV1{}, In: p.In, Out: p.Out, Stations: p.Stations,
	}
	for v := range p.VLANs.All() {
		d.VLANs = append(d.VLANs, VLANV1(v))
	}
	d.add(stats)
	return d
}

// fdb lists the mirrored stations of the bridge of that name, or of all.
func (v view) fdb(name string) ([]EntryV1, error) {
	states, err := v.states(name)
	if err != nil {
		return nil, err
	}
	entries := []EntryV1{}
	for _, b := range states {
		stations, err := v.bridges.FDB(b.Name)
		if err != nil {
			return nil, err
		}
		names := portNames(b)
		for _, s := range stations {
			entries = append(entries, describeStation(s, b.Name, names))
		}
	}
	return entries, nil
}

// portNames maps ifindexes to names. Port 0 is the bridge itself.
func portNames(b BridgeState) map[int]string {
	names := map[int]string{0: b.Name}
	for _, p := range b.Ports {
		names[p.Ifindex] = p.Name
	}
	return names
}

// portName names a port that may have left between two questions: its number is
// all there is then.
func portName(port int, names map[int]string) string {
	if name, ok := names[port]; ok {
		return name
	}
	return fmt.Sprintf("if%d", port)
}

func describeStation(s Station, bridge string, ports map[int]string) EntryV1 {
	e := EntryV1{MAC: s.MAC, VLAN: s.VID, Port: portName(s.Port, ports), Bridge: bridge, Flags: []string{}, Active: s.Active}
	if s.Local {
		e.Flags = append(e.Flags, "permanent")
	}
	if s.NoSource {
		e.Flags = append(e.Flags, "locked")
	}
	if s.Sticky {
		e.Flags = append(e.Flags, "sticky")
	}
	return e
}

// reasons adds up what became of the frames of the bridge of that name, or of
// all; the most frequent comes first.
func (v view) reasons(name string) ([]ReasonV1, error) {
	return described(v, name, func(readings []reading) []ReasonV1 { return rankReasons(readings, name) })
}

func rankReasons(readings []reading, name string) []ReasonV1 {
	sum := make(map[Reason]Count)
	for _, r := range readings {
		for _, s := range r.stats {
			for reason, n := range s.Counts {
				sum[reason] = sum[reason].Add(n)
			}
		}
	}
	return Rank(sum, name)
}

// Rank lists what became of frames, the most frequent first. The advice is for the
// bridge of that name, if it is not empty.
func Rank(sum map[Reason]Count, bridge string) []ReasonV1 {
	ranked := []ReasonV1{}
	for reason, n := range sum {
		if n.Packets > 0 {
			ranked = append(ranked, ReasonV1{reason, n.Packets, n.Bytes, reason.Text(), Advise(reason, bridge, "")})
		}
	}
	slices.SortFunc(ranked, func(a, b ReasonV1) int {
		return cmp.Or(cmp.Compare(b.Frames, a.Frames), cmp.Compare(a.Reason, b.Reason))
	})
	return ranked
}

// snapshot reads all that is counted of the bridge of that name, or of all. Who
// answers adds what is not the components'.
func (v view) snapshot(name string) (s SnapshotV1, err error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return s, fmt.Errorf("read the clock: %w", err)
	}
	s.TimeNS = now.Nano()
	readings, err := v.read(name)
	if err != nil {
		return s, err
	}
	s.Status.Bridges, s.Ports, s.Reasons = describeBridges(readings), describePorts(readings), rankReasons(readings, name)
	return s, nil
}
