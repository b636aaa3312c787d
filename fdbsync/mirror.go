package fdbsync

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// mirror holds one configured bridge: what the kernel said of it, and what the
// data plane was told. Its methods are called by the syncer only.
type mirror struct {
	name   string
	plane  Dataplane
	kernel questions
	logger *slog.Logger

	on         bool // what the operator asked for
	present    bool // the bridge exists
	link       link // the bridge's own
	synced     bool // every entry was confirmed since the table was last read
	table      *table
	waiting    *batch    // admitted, to be asked for
	askAt      time.Time // when the grace period of waiting is over
	ports      map[int]*member
	gate       accel.Gate // as the data plane was last told
	revoked    uint64     // Revocations at the last comparison
	unmirrored int
	retryPorts bool // try again to attach where it failed
}

// questions are what a mirror asks the kernel.
type questions interface {
	// link returns one interface; false if it does not exist (any more).
	link(ifindex int) (link, bool, error)
	// fdb calls f for every row of the bridge's table, some twice, some never.
	fdb(bridge int, f func(accel.Station)) error
	// station returns one entry; nil if there is none.
	station(bridge int, key accel.StationKey) (*accel.Station, error)
}

// member is a port as the data plane was told.
type member struct {
	link     link
	told     accel.Port
	attached bool
	failure  error // why it could not be attached
	tc       accel.Reason
}

// gracePeriod is the time between a candidate's admission and the question
// whether the kernel has it. An entry that the kernel was removing at the
// admission is gone after it (net/bridge/br_fdb.c: fdb_delete unlinks right
// behind its tracepoint); it batches the questions too.
const gracePeriod = 10 * time.Millisecond

// appear opens the bridge in the data plane, its gate shut.
func (m *mirror) appear(l link) error {
	if err := m.plane.OpenBridge(accel.Bridge{Name: m.name, Ifindex: l.ifindex}); err != nil {
		return err
	}
	m.present, m.link, m.synced = true, l, false
	m.table, m.waiting = newTable(), nil
	m.ports = make(map[int]*member)
	m.gate = accel.Gate{Reason: accel.Syncing}
	return m.plane.SetGate(l.ifindex, m.gate)
}

// vanish closes the bridge in the data plane.
func (m *mirror) vanish() error {
	if !m.present {
		return nil
	}
	m.present = false
	return m.plane.CloseBridge(m.link.ifindex)
}

// read reads the whole table. Nothing of it counts before the kernel confirmed
// it. Events that come meanwhile wait in their socket, so that they are told to
// the table after the last row.
func (m *mirror) read() error {
	m.table.beginDump()
	var stale []accel.StationKey
	err := m.kernel.fdb(m.link.ifindex, func(s accel.Station) {
		if m.table.claim(s) {
			stale = append(stale, s.StationKey)
		}
	})
	if err != nil {
		return err
	}
	m.table.endDump()
	return m.plane.Revoke(m.link.ifindex, stale)
}

// resync shuts the gate and reads the table again, since events were lost.
func (m *mirror) resync() error {
	m.synced = false
	if m.waiting != nil {
		m.table.takeBack(*m.waiting)
		m.waiting = nil
	}
	shut := m.gate
	if shut.Reason == accel.Fast {
		shut.Reason = accel.Syncing
	}
	if err := m.setGate(shut); err != nil {
		return err
	}
	return errors.Join(m.read(), m.compare())
}

// compare holds the data plane against the table.
func (m *mirror) compare() error {
	revoked, err := m.plane.Revocations(m.link.ifindex)
	if err != nil {
		return err
	}
	held, err := m.plane.Stations(m.link.ifindex)
	if err != nil {
		return err
	}
	m.revoked = revoked
	return m.plane.Revoke(m.link.ifindex, m.table.compare(held))
}

// sweep compares if a program revoked something: where the kernel did not move
// the station for it (a port that does not learn, a sticky entry), there is no
// event that would bring it back.
func (m *mirror) sweep() error {
	m.table.again()
	revoked, err := m.plane.Revocations(m.link.ifindex)
	if err != nil || revoked == m.revoked {
		return err
	}
	return m.compare()
}

// newNeigh and delNeigh take in the kernel's events.
func (m *mirror) newNeigh(s accel.Station) error {
	if !m.table.claim(s) {
		return nil
	}
	return m.plane.Revoke(m.link.ifindex, []accel.StationKey{s.StationKey})
}

func (m *mirror) delNeigh(k accel.StationKey) error {
	m.table.remove(k)
	return m.plane.Revoke(m.link.ifindex, []accel.StationKey{k})
}

// advance moves the stations on: claims become candidates, and when the grace
// period is over the kernel is asked for them. It returns when to call again;
// zero if nothing waits.
func (m *mirror) advance(now time.Time) (time.Time, error) {
	if m.waiting != nil && !now.Before(m.askAt) {
		b := m.waiting
		m.waiting = nil
		if err := m.confirm(b.ask); err != nil {
			return time.Time{}, err
		}
	}
	if m.waiting == nil {
		b := m.table.nextBatch()
		if b.empty() {
			m.synced = true
			return time.Time{}, nil
		}
		unmirrored, err := m.plane.Admit(m.link.ifindex, b.admit)
		if err != nil {
			return time.Time{}, err
		}
		m.setUnmirrored(unmirrored)
		m.waiting, m.askAt = &b, now.Add(gracePeriod)
	}
	return m.askAt, nil
}

func (m *mirror) setUnmirrored(n int) {
	if n > 0 && m.unmirrored == 0 {
		m.logger.Warn("the station map is full: the stations that do not fit take the slow path; raise max_stations", "unmirrored", n)
	}
	m.unmirrored = n
}

// confirm asks the kernel for every candidate and acts on its answers.
func (m *mirror) confirm(keys []accel.StationKey) error {
	var activate []accel.Station
	var revoke []accel.StationKey
	for _, k := range keys {
		answer, err := m.kernel.station(m.link.ifindex, k)
		if err != nil {
			return err
		}
		switch m.table.answer(k, answer) {
		case activateIt:
			activate = append(activate, *answer)
		case revokeIt:
			revoke = append(revoke, k)
		}
	}
	if err := m.plane.Revoke(m.link.ifindex, revoke); err != nil {
		return err
	}
	lost, err := m.plane.Activate(m.link.ifindex, activate)
	m.table.lost(lost)
	m.synced = true
	return err
}

// wantGate is the gate as it should be.
func (m *mirror) wantGate(fw firewall, fwErr error) accel.Gate {
	g := accel.Gate{Keepalive: keepaliveOf(m.link.bridge), CheckIP: fw.brNetfilter}
	switch own := bridgeReason(m.link); {
	case !m.on:
		g.Reason = accel.Off
	case own != accel.Fast:
		g.Reason = own
	case fwErr != nil:
		g.Reason = accel.Unchecked
	case fw.bridge:
		g.Reason = accel.BridgeNetfilter
	case fw.ip && fw.brNetfilter:
		g.Reason = accel.BrNetfilter
	case m.unwatched():
		g.Reason = accel.Unwatched
	case !m.synced:
		g.Reason = accel.Syncing
	}
	return g
}

// unwatched says whether a port carries no program: a station that moves to it
// would not be noticed in time.
func (m *mirror) unwatched() bool {
	for _, p := range m.ports {
		if !p.attached {
			return true
		}
	}
	return false
}

// setGate tells the data plane what changed of the gate.
func (m *mirror) setGate(g accel.Gate) error {
	if g == m.gate {
		return nil
	}
	if g.Reason != m.gate.Reason {
		m.logReason(g.Reason)
	}
	m.gate = g
	return m.plane.SetGate(m.link.ifindex, g)
}

func (m *mirror) logReason(r accel.Reason) {
	if r == accel.Fast {
		m.logger.Info("the fast path is open")
		return
	}
	m.logger.Info("the fast path is shut", "reason", r.String(), "because", r.Text())
}

// settle brings ports and gate to where they should be. What shuts comes first,
// what opens last.
func (m *mirror) settle(links map[int]link, fw firewall, fwErr error) error {
	shut := m.wantGate(fw, fwErr)
	if shut.Reason != accel.Fast {
		if err := m.setGate(shut); err != nil {
			return err
		}
	}
	if err := m.settlePorts(links, fw); err != nil {
		return err
	}
	return m.setGate(m.wantGate(fw, fwErr))
}

func (m *mirror) settlePorts(links map[int]link, fw firewall) error {
	for ifindex := range m.ports {
		if l, ok := links[ifindex]; ok && l.master == m.link.ifindex && l.port.isPort {
			continue
		}
		delete(m.ports, ifindex)
		if err := m.plane.DetachPort(m.link.ifindex, ifindex); err != nil {
			return err
		}
	}
	vlanDevices := vlanDevicesOn(links)
	for _, ifindex := range slices.Sorted(maps.Keys(links)) {
		l := links[ifindex]
		if l.master != m.link.ifindex || !l.port.isPort {
			continue
		}
		around := surroundings{vlanDevice: vlanDevices[ifindex], netfilter: fw.on(l.name)}
		if err := m.settlePort(l, around); err != nil {
			return err
		}
	}
	return nil
}

func vlanDevicesOn(links map[int]link) map[int]bool {
	on := make(map[int]bool)
	for _, l := range links {
		if l.kind == "vlan" && l.lower != 0 {
			on[l.lower] = true
		}
	}
	return on
}

func (m *mirror) settlePort(l link, around surroundings) error {
	p := m.ports[l.ifindex]
	if p == nil {
		p = &member{}
		m.ports[l.ifindex] = p
	}
	p.link = l
	if !p.attached {
		if p.failure != nil && !m.retryPorts {
			return nil
		}
		m.attach(p)
		if !p.attached {
			return nil
		}
	}
	around.tc = p.tc
	want := portOf(l, around)
	if want == p.told {
		return nil
	}
	m.logger.Info("port", "port", want.Name, "in", want.In.String(), "out", want.Out.String(), "mtu", want.MTU)
	p.told = want
	return m.plane.SetPort(m.link.ifindex, want)
}

// attach puts the program on a port that has none, as one that may not be used
// yet. A port that is gone by now is no failure: its event is on the way.
func (m *mirror) attach(p *member) {
	p.told = accel.Port{Name: p.link.name, Ifindex: p.link.ifindex, MTU: p.link.mtu,
		In: accel.PortUnknown, Out: accel.PortUnknown}
	err := m.plane.AttachPort(m.link.ifindex, p.told)
	if err == nil {
		p.attached, p.failure = true, nil
		m.lookAtPort(p)
		return
	}
	if _, exists, askErr := m.kernel.link(p.link.ifindex); askErr == nil && !exists {
		delete(m.ports, p.link.ifindex)
		return
	}
	if p.failure == nil {
		m.logger.Error("a port carries no program, so the fast path of its bridge stays shut", "port", p.link.name, "error", err)
	}
	p.failure = err
}

// lookAtPort finds out what other tc programs mean for the port.
func (m *mirror) lookAtPort(p *member) {
	reason, err := m.plane.Coexist(m.link.ifindex, p.link.ifindex)
	if err != nil {
		m.logger.Warn("cannot see what else is on the port, so it takes the slow path", "port", p.link.name, "error", err)
		reason = accel.PortForeignTC
	}
	p.tc = reason
}

// lookAround looks at every port for other tc programs.
func (m *mirror) lookAround() {
	for _, p := range m.ports {
		if p.attached {
			m.lookAtPort(p)
		}
	}
}

// state is the bridge as status shows it.
func (m *mirror) state() accel.BridgeState {
	s := accel.BridgeState{
		Bridge: accel.Bridge{Name: m.name}, Present: m.present, On: m.on, Reason: accel.Absent,
	}
	if !m.present {
		return s
	}
	s.Ifindex, s.Synced, s.Reason = m.link.ifindex, m.synced, m.gate.Reason
	s.Stations, s.Pending, s.Unmirrored = m.table.counts()
	behind := m.table.activeBehind()
	for _, p := range m.ports {
		port := p.told
		if !p.attached {
			port = accel.Port{Name: p.link.name, Ifindex: p.link.ifindex, MTU: p.link.mtu,
				In: accel.PortUnattached, Out: accel.PortUnattached}
		}
		s.Ports = append(s.Ports, accel.PortState{
			Port: port, State: stateName(p.link.port.state), Stations: behind[port.Ifindex],
		})
	}
	slices.SortFunc(s.Ports, func(a, b accel.PortState) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// checkKind says what is wrong with an interface that shall be a bridge.
func checkKind(name string, links map[int]link) (link, error) {
	for _, l := range links {
		if l.name != name {
			continue
		}
		if l.kind == "bridge" {
			return l, nil
		}
		kind := l.kind
		if kind == "" {
			kind = "device without a kind"
		}
		return link{}, fmt.Errorf("%s is not a bridge (it is a %s); \"ip link show type bridge\" lists the bridges", name, kind)
	}
	return link{}, fmt.Errorf("there is no interface %s in this network namespace; \"ip link show type bridge\" lists the bridges", name)
}
