package fdbsync

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// mirror holds one bridge: what the kernel said of it, and what the
// data plane was told. Its methods are called by the syncer only.
type mirror struct {
	name     string
	stations int           // how many the data plane takes
	lease    time.Duration // as configured; 0: what the kernel makes needful
	bypass   bool          // no packet filter counts
	named    bool          // the configuration names it: it is kept when it is absent
	plane    Dataplane
	kernel   kernel
	logger   *slog.Logger

	on         bool // what the operator asked for
	present    bool // the bridge exists
	awaited    bool // the start waits for it
	link       link // the bridge's own
	synced     bool // every entry was confirmed since the table was last read
	unread     bool // the table must be read before anything of it counts
	table      *table
	dump       dump        // of the table, while it is read; else nil
	missed     *walk       // through the table, once the whole dump was read; else nil
	begun      time.Time   // when that began
	readAfter  time.Time   // when it may be read again, if nothing was lost
	comparison *comparison // with the data plane, while that goes on; else nil
	lookAfter  time.Time   // when the data plane may be compared again, if nothing was lost
	waiting    []waiting   // admitted, or missed by a dump: to be asked for
	owed       int         // how many of them must be confirmed before the bridge counts
	ports      map[int]*member
	gate       accel.Gate // as the data plane was last told
	revoked    uint64     // Revocations at the last comparison
	full       bool       // it was said that there is no room
	chronicle  chronicle
	snapshot   trace.Span // while dump is not nil
	meters     meters
	doubtful   []accel.StationKey             // of events, to be revoked
	heard      time.Time                      // when the event came in that is taken in now
	awaits     map[accel.StationKey]time.Time // by entry, when the event came in that activates it
	retryPorts bool                           // try again to attach where it failed
}

// member is a port, and what the data plane was told of it.
type member struct {
	link     link
	around   surroundings
	told     accel.Port
	attached bool
	failure  error // why it could not be attached
}

// want is the port as the data plane should have it.
func (p *member) want() accel.Port { return portOf(p.link, p.around) }

// waiting is an entry that is asked for when its time has come.
type waiting struct {
	key   accel.StationKey
	batch uint16
	askAt time.Time
}

// gracePeriod is the time between a candidate's admission and the question
// whether the kernel has it. An entry that the kernel was removing at the
// admission is gone after it (net/bridge/br_fdb.c: fdb_delete unlinks right
// behind its tracepoint).
const gracePeriod = 10 * time.Millisecond

// together is how far apart the ends of grace periods are: those that end in between
// wait for the next, so that many entries are asked for in one call.
const together = time.Millisecond

const (
	// questions is how many entries are asked for at once. What the kernel answered
	// must be acted on soon, and events, the lease and the operator wait meanwhile.
	questions = 64
	// admissions is how many are admitted at once.
	admissions = 512
	// mostWaiting bounds how many candidates there are at a time.
	mostWaiting = 1 << 14
)

// appear opens the bridge in the data plane, its gate shut.
func (m *mirror) appear(ctx context.Context, l link) error {
	m.link = l
	m.chronicle.comes(ctx)
	if err := m.plane.OpenBridge(accel.Bridge{Name: m.name, Ifindex: l.ifindex}); err != nil {
		return err
	}
	m.present, m.synced, m.unread = true, false, true
	m.table, m.waiting, m.owed, m.full, m.revoked = newTable(m.stations), nil, 0, false, 0
	m.doubtful = nil
	m.ports, m.awaits = make(map[int]*member), make(map[accel.StationKey]time.Time)
	m.gate = accel.Gate{Reason: accel.Syncing, BypassNetfilter: m.bypass}
	return m.plane.SetGate(l.ifindex, m.gate)
}

// vanish closes the bridge in the data plane.
func (m *mirror) vanish() error {
	if !m.present {
		return nil
	}
	m.present = false
	m.endRead()
	m.endCompare()
	m.chronicle.goes()
	return m.plane.CloseBridge(m.link.ifindex)
}

// disappear closes a bridge that is there no more.
func (m *mirror) disappear() error {
	m.logger.InfoContext(m.chronicle.leaves(accel.Absent), "the bridge is gone")
	return m.vanish()
}

// read begins to read the whole table, which readOn goes on with, a piece at a time:
// that takes the kernel a minute where there are a million entries, and events, the
// lease and the operator would wait. Nothing of it counts before the kernel confirmed
// it.
func (m *mirror) read() (err error) {
	m.endRead()
	if m.dump, err = m.kernel.fdb(m.link.ifindex); err != nil {
		return err
	}
	m.begun, m.snapshot = time.Now(), m.chronicle.span("snapshot")
	m.table.beginDump()
	return nil
}

// readShare bounds what reading and comparing a table take: the time until that is done
// again is that many times as long.
const readShare = 20

// readAgain begins to read the table, unless it is read or was a short time ago.
func (m *mirror) readAgain() error {
	if m.dump != nil || time.Now().Before(m.readAfter) {
		return nil
	}
	return m.read()
}

// readOn takes in the next piece of the table, or, behind the last one, looks at the next
// rows for those that it did not show.
func (m *mirror) readOn() error {
	if m.missed == nil {
		if more, err := m.readPiece(); err != nil || more {
			return err
		}
		m.missed = m.table.endDump()
	}
	if m.table.askMissed(m.missed) {
		return nil
	}
	m.table.markDump()
	m.unread, m.owed = false, len(m.waiting)
	m.readAfter = time.Now().Add(readShare * time.Since(m.begun))
	m.snapshot.SetAttributes(keyEntries.Int(len(m.table.rows)))
	m.endRead()
	m.chronicle.asks()
	if len(m.awaits) == 0 {
		m.awaits = make(map[accel.StationKey]time.Time) // a map keeps what it ever had
	}
	return nil
}

func (m *mirror) readPiece() (more bool, err error) {
	var stale []accel.StationKey
	more, err = m.dump.next(func(s accel.Station) {
		if m.table.show(s) {
			stale = append(stale, s.StationKey)
		}
	})
	if err != nil {
		m.endRead()
		return false, err
	}
	return more, m.plane.Revoke(m.link.ifindex, stale)
}

// endRead ends the reading, where it goes on, wherever it is.
func (m *mirror) endRead() {
	if m.dump != nil {
		m.dump.close()
		m.snapshot.End()
		m.missed.end()
		m.dump, m.missed = nil, nil
	}
}

// distrust shuts the gate until the table was read again.
func (m *mirror) distrust() error {
	m.synced, m.unread = false, true
	m.endRead()
	for _, w := range m.waiting {
		m.table.takeBack(w.key)
	}
	m.waiting, m.owed = nil, 0
	if m.gate.Reason != accel.Fast {
		return nil
	}
	shut := m.gate
	shut.Reason = accel.Syncing
	return m.setGate(shut)
}

// comparison is how far the data plane was held against the table.
type comparison struct {
	next    func(func(accel.Station)) (more bool, err error) // of what the data plane holds
	missing *walk                                            // through the table, once all of that was read; else nil
	took    time.Duration                                    // so far
}

// compare begins to hold the data plane against the table, which compareOn goes on with,
// a piece at a time.
func (m *mirror) compare() error {
	m.endCompare()
	revoked, err := m.plane.Revocations(m.link.ifindex)
	if err != nil {
		return err
	}
	m.revoked = revoked
	m.table.beginCompare()
	m.comparison = &comparison{next: m.plane.Stations(m.link.ifindex)}
	return nil
}

// compareOn compares the next piece.
func (m *mirror) compareOn() error {
	c, begin := m.comparison, time.Now()
	more, err := m.comparePiece(c)
	if c.took += time.Since(begin); more && err == nil {
		return nil
	}
	m.endCompare()
	if pause := readShare * c.took; pause > tickInterval {
		m.lookAfter = time.Now().Add(pause)
	}
	return err
}

func (m *mirror) comparePiece(c *comparison) (more bool, err error) {
	if c.missing == nil {
		if more, err := m.compareHeld(c); err != nil || more {
			return more, err
		}
		c.missing = m.table.walk()
	}
	return m.table.reclaimMissing(c.missing), nil
}

// compareHeld compares the next of what the data plane holds.
func (m *mirror) compareHeld(c *comparison) (more bool, err error) {
	var wrong []accel.StationKey
	more, err = c.next(func(held accel.Station) {
		if m.table.compare(held) {
			wrong = append(wrong, held.StationKey)
		}
	})
	if err != nil {
		return false, err
	}
	return more, m.plane.Revoke(m.link.ifindex, wrong)
}

// endCompare ends the comparison, where it goes on, wherever it is.
func (m *mirror) endCompare() {
	if m.comparison != nil {
		m.comparison.missing.end()
		m.comparison = nil
	}
}

// sweep compares if a program revoked something: where the kernel did not move
// the station for it (a port that does not learn, a sticky entry), there is no
// event that would bring it back.
func (m *mirror) sweep() error {
	m.table.again()
	revoked, err := m.plane.Revocations(m.link.ifindex)
	if err != nil || revoked == m.revoked || m.comparison != nil || time.Now().Before(m.lookAfter) {
		return err
	}
	return m.compare()
}

// newNeigh and delNeigh take in the kernel's events. What may be wrong by then is in
// doubtful, for revokeDoubtful: events that came in together are one call.
func (m *mirror) newNeigh(s accel.Station) {
	changed := m.table.claim(s)
	if changed {
		m.doubtful = append(m.doubtful, s.StationKey)
	}
	m.await(s.StationKey, changed)
}

func (m *mirror) delNeigh(k accel.StationKey) {
	delete(m.awaits, k)
	m.table.remove(k)
	m.doubtful = append(m.doubtful, k)
}

func (m *mirror) revokeDoubtful() error {
	if len(m.doubtful) == 0 {
		return nil
	}
	err := m.plane.Revoke(m.link.ifindex, m.doubtful)
	for range m.doubtful {
		m.isApplied(changeRevoked, m.heard)
	}
	m.doubtful = m.doubtful[:0]
	return err
}

// await takes in which event an entry waits for that is to be activated: the one
// that changed it last.
func (m *mirror) await(k accel.StationKey, changed bool) {
	if len(m.meters) == 0 {
		return
	}
	_, known := m.awaits[k]
	if m.table.rows[k].flags&rowQueued != 0 && (changed || !known) {
		m.awaits[k] = m.heard
	}
}

// isApplied measures an event that has reached the data plane's map.
func (m *mirror) isApplied(change string, heard time.Time) {
	m.meters.entryApplied(m.name, change, time.Since(heard))
}

// advance moves the stations on: claims become candidates, the kernel is asked for those
// whose grace period is over, and a piece of the table is read and compared. It returns
// when to call again; zero if nothing waits.
func (m *mirror) advance(now time.Time) (time.Time, error) {
	if err := m.admit(now); err != nil {
		return time.Time{}, err
	}
	if err := m.ask(now); err != nil {
		return time.Time{}, err
	}
	if m.dump != nil {
		if err := m.readOn(); err != nil {
			return time.Time{}, err
		}
	}
	if m.comparison != nil {
		if err := m.compareOn(); err != nil {
			return time.Time{}, err
		}
	}
	m.synced = m.synced || m.isWhole()
	switch {
	case m.dump != nil, m.comparison != nil, m.table.waits() && len(m.waiting) < mostWaiting:
		return now, nil
	case len(m.waiting) > 0:
		return m.waiting[0].askAt, nil
	}
	return time.Time{}, nil
}

// isWhole says whether all that the last dump showed, or did not, was confirmed since.
func (m *mirror) isWhole() bool {
	return !m.unread && m.dump == nil && m.comparison == nil && m.owed == 0 && !m.table.isDue()
}

// endOfGrace is when the kernel may be asked for who is admitted now. It is a moment of
// the monotonic clock, as now is: somebody may set the other one.
func endOfGrace(now time.Time) time.Time {
	end := now.Add(gracePeriod + together)
	return end.Add(-time.Duration(end.UnixNano() % int64(together)))
}

// admit makes candidates of what is claimed.
func (m *mirror) admit(now time.Time) error {
	owes := m.table.isDue()
	b := m.table.nextBatch(min(admissions, mostWaiting-len(m.waiting)))
	m.tellIfFull(m.table.isFull())
	askAt := endOfGrace(now)
	for _, k := range b.ask {
		m.waiting = append(m.waiting, waiting{k, b.number, askAt})
	}
	if owes {
		m.owed = len(m.waiting)
	}
	if len(b.admit) == 0 {
		return nil
	}
	refused, err := m.plane.Admit(m.link.ifindex, b.admit)
	m.tellIfFull(m.full || refused > 0)
	m.areAdmitted(b.admit)
	return err
}

// ask asks the kernel for those whose time has come.
func (m *mirror) ask(now time.Time) error {
	var keys []accel.StationKey
	due := 0
	for ; due < len(m.waiting) && len(keys) < questions && !now.Before(m.waiting[due].askAt); due++ {
		if w := m.waiting[due]; m.table.isOf(w.key, w.batch) {
			keys = append(keys, w.key)
		}
	}
	if due == 0 {
		return nil
	}
	if err := m.confirm(keys); err != nil {
		return err
	}
	m.waiting, m.owed = m.waiting[due:], max(m.owed-due, 0)
	return nil
}

func (m *mirror) tellIfFull(full bool) {
	if full && !m.full {
		m.logger.Warn("the station map is full: the stations that do not fit take the slow path; raise max_stations")
	}
	m.full = full
}

// confirm asks the kernel for candidates and acts on its answers.
func (m *mirror) confirm(keys []accel.StationKey) error {
	answers, err := m.kernel.stations(m.link.ifindex, keys)
	if err != nil {
		return err
	}
	var activate []accel.Station
	var revoke []accel.StationKey
	for i, k := range keys {
		switch m.table.answer(k, answers[i]) {
		case activateIt:
			activate = append(activate, *answers[i])
		case revokeIt:
			revoke = append(revoke, k)
			delete(m.awaits, k)
		}
	}
	if err := m.plane.Revoke(m.link.ifindex, revoke); err != nil {
		return err
	}
	lost, err := m.plane.Activate(m.link.ifindex, activate)
	m.table.lost(lost)
	m.areActivated(activate, lost)
	return err
}

// areAdmitted measures those entries of which an event had told.
func (m *mirror) areAdmitted(stations []accel.Station) {
	if len(m.awaits) == 0 {
		return
	}
	for _, s := range stations {
		if heard, known := m.awaits[s.StationKey]; known {
			m.isApplied(changeAdmitted, heard)
		}
	}
}

// areActivated measures those entries of which an event had told.
func (m *mirror) areActivated(stations []accel.Station, lost []accel.StationKey) {
	for _, s := range stations {
		heard, known := m.awaits[s.StationKey]
		if known && !slices.Contains(lost, s.StationKey) {
			delete(m.awaits, s.StationKey)
			m.isApplied(changeActivated, heard)
		}
	}
}

// wantGate is the gate as it should be. The order of the reasons is that in
// which an operator has to see to them.
func (m *mirror) wantGate(fw firewall, fwErr error) accel.Gate {
	g := accel.Gate{
		Keepalive: keepaliveOf(m.link.bridge), CheckIP: fw.brNetfilter && !m.bypass, CheckND: m.suppressesND(),
		BypassNetfilter: m.bypass, Seen: m.link.seen,
	}
	if m.link.bridge.vlanFiltering {
		g.VLANProtocol = m.link.bridge.vlanProtocol
	}
	own, filters := bridgeReason(m.link), fw.reason(fwErr)
	switch {
	case m.link.known && m.link.flags&unix.IFF_UP == 0:
		g.Reason = accel.BridgeDown
	case !m.on:
		g.Reason = accel.Off
	case !m.synced:
		g.Reason = accel.Syncing
	case own != accel.Fast:
		g.Reason = own
	case filters != accel.Fast && !m.bypass:
		g.Reason = filters
	case m.unwatched():
		g.Reason = accel.Unwatched
	}
	return g
}

// suppressesND says whether a port answers neighbour discovery for others: the
// kernel looks for one of the bridge as a whole (net/bridge/br_input.c:
// br_handle_frame_finish, BROPT_NEIGH_SUPPRESS_ENABLED).
func (m *mirror) suppressesND() bool {
	for _, p := range m.ports {
		if p.link.port.flags&(accel.FlagNeighSuppress|accel.FlagNeighVLANSuppress) != 0 {
			return true
		}
	}
	return false
}

// portsDiffer says whether the version of a port is not the one before.
func (m *mirror) portsDiffer(links map[int]link) bool {
	for ifindex, p := range m.ports {
		if links[ifindex].seen != p.link.seen {
			return true
		}
	}
	return false
}

// outdated returns the devices, the bridge or ports, that the kernel changed
// since what the data plane was told of them was asked for.
func (m *mirror) outdated() (ifindexes []int) {
	if !m.present {
		return nil
	}
	if m.plane.Version(m.link.ifindex) != m.gate.Seen {
		ifindexes = append(ifindexes, m.link.ifindex)
	}
	for ifindex, p := range m.ports {
		if p.attached && m.plane.Version(ifindex) != p.told.Seen {
			ifindexes = append(ifindexes, ifindex)
		}
	}
	return ifindexes
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

// setGate tells the data plane what changed of the gate. An open one has the lease
// that it needs from the start.
func (m *mirror) setGate(g accel.Gate) error {
	if g == m.gate {
		return nil
	}
	if g.Reason != m.gate.Reason {
		m.tellReason(g.Reason)
	}
	m.gate = g
	if err := m.plane.SetGate(m.link.ifindex, g); err != nil {
		return err
	}
	return m.renew()
}

// safeLease bounds what is wrong for how long if the daemon hangs, where the
// kernel cannot revoke everything without it.
const safeLease = 2 * time.Second

// renew lets the fast path live on: for ever where nothing of it hangs on the
// daemon.
func (m *mirror) renew() error {
	if m.gate.Reason != accel.Fast {
		return nil
	}
	return m.plane.Renew(m.link.ifindex, leaseOf(m.lease, m.plane.Revocation(m.link.ifindex)))
}

// leaseOf is the lease of a bridge: as configured, or what is needful if that is 0.
func leaseOf(configured time.Duration, r accel.Revocation) time.Duration {
	if configured == 0 && !r.AtOnce() {
		return safeLease
	}
	return configured
}

func (m *mirror) tellReason(r accel.Reason) {
	if r == accel.Fast {
		m.logger.InfoContext(m.chronicle.returns(), "the fast path is open")
		return
	}
	m.logger.InfoContext(m.chronicle.leaves(r), "the fast path is shut", "reason", r.String(), "because", r.Text())
}

// settle brings ports and gate to where they should be: what shuts comes first,
// what opens last, and what takes time, attaching, in between.
func (m *mirror) settle(links map[int]link, fw firewall, fwErr error) error {
	if err := m.shut(links, fw, fwErr); err != nil {
		return err
	}
	return m.open(links, fw, fwErr)
}

// shut takes in how the ports are now, and away whatever may not be done any
// more. A port that left is free then for another bridge.
func (m *mirror) shut(links map[int]link, fw firewall, fwErr error) error {
	left := m.takePorts(links, fw)
	if g := m.wantGate(fw, fwErr); g.Reason != accel.Fast || m.gate.Reason == accel.Fast {
		if g.Reason == accel.Fast {
			g.Seen = m.gate.Seen // the ports are not told yet
		}
		if err := m.setGate(g); err != nil {
			return err
		}
	}
	if err := m.setPorts(narrowed); err != nil {
		return err
	}
	for _, ifindex := range left {
		if err := m.forgetPort(ifindex); err != nil {
			return err
		}
	}
	return nil
}

// open gives what may be done now.
func (m *mirror) open(links map[int]link, fw firewall, fwErr error) error {
	if err := m.attachPorts(links); err != nil {
		return err
	}
	if err := m.setPorts(func(_, want accel.Port) accel.Port { return want }); err != nil {
		return err
	}
	return m.setGate(m.wantGate(fw, fwErr))
}

// takePorts takes in how the ports are now, and returns those that left.
func (m *mirror) takePorts(links map[int]link, fw firewall) (left []int) {
	for ifindex := range m.ports {
		if !m.isPort(links[ifindex]) {
			left = append(left, ifindex)
		}
	}
	vlanDevices, inSwitch := vlanDevicesOn(links), switchLinks(links)
	for ifindex, l := range links {
		if !m.isPort(l) {
			continue
		}
		p := m.ports[ifindex]
		if p == nil {
			p = &member{}
			m.ports[ifindex] = p
		}
		if p.attached && l.seen != p.link.seen {
			m.lookAtPort(p) // the change may be another's program
		}
		p.link = l
		p.around.vlanDevice, p.around.netfilter = vlanDevices[ifindex], fw.on(l.name) && !m.bypass
		p.around.inSwitch = inSwitch[ifindex]
		p.around.filtering = m.link.bridge.vlanFiltering
	}
	return left
}

func (m *mirror) isPort(l link) bool { return l.port.isPort && l.master == m.link.ifindex }

func vlanDevicesOn(links map[int]link) map[int]bool {
	on := make(map[int]bool)
	for _, l := range links {
		if l.kind == "vlan" && l.lower != 0 {
			on[l.lower] = true
		}
	}
	return on
}

// switchLinks are the links that a switch forwards for in hardware, and those above
// them, such as a bond of its ports, which do not say so themselves
// (net/core/rtnetlink.c: rtnl_phys_switch_id_fill does not recurse; the bridge
// does, net/bridge/br_switchdev.c).
func switchLinks(links map[int]link) map[int]bool {
	in := make(map[int]bool)
	for grows := true; grows; {
		grows = false
		for ifindex, l := range links {
			isIn := l.inSwitch || in[ifindex] || in[l.lower]
			if isIn && (!in[ifindex] || l.master != 0 && !in[l.master]) {
				in[ifindex], grows = true, true
				if l.master != 0 {
					in[l.master] = true
				}
			}
		}
	}
	return in
}

// setPorts tells the data plane what changed of the ports, as far as next lets
// it go on the way from what was told to what is wanted.
func (m *mirror) setPorts(next func(told, want accel.Port) accel.Port) error {
	for _, ifindex := range slices.Sorted(maps.Keys(m.ports)) {
		p := m.ports[ifindex]
		if !p.attached {
			continue
		}
		if err := m.setPort(p, next(p.told, p.want())); err != nil {
			return err
		}
	}
	return nil
}

func (m *mirror) setPort(p *member, next accel.Port) error {
	if next == p.told {
		return nil
	}
	if next.In != p.told.In || next.Out != p.told.Out {
		m.logger.Info("port", "port", next.Name, "in", next.In.String(), "out", next.Out.String())
	}
	err := m.plane.SetPort(m.link.ifindex, next)
	if err == nil {
		p.told = next
		return nil
	}
	if m.hasLeft(p.link.ifindex) {
		return m.forgetPort(p.link.ifindex)
	}
	return err
}

// hasLeft asks the kernel whether a port is one no more.
func (m *mirror) hasLeft(ifindex int) bool {
	l, exists, err := m.kernel.link(ifindex)
	return err == nil && (!exists || !m.isPort(l))
}

// forgetPort takes the program off a port that is no longer one.
func (m *mirror) forgetPort(ifindex int) error {
	if m.ports[ifindex] == nil {
		return nil
	}
	delete(m.ports, ifindex)
	return m.plane.DetachPort(m.link.ifindex, ifindex)
}

// attachPorts puts the program on the ports that have none, as on ones that may
// not be used yet.
func (m *mirror) attachPorts(links map[int]link) error {
	fresh := m.unattached()
	if len(fresh) == 0 {
		return nil
	}
	defer m.chronicle.span("attach", keyPorts.Int(len(fresh))).End()
	for _, p := range fresh {
		if err := m.attach(p); err != nil {
			m.attachFailed(p, err)
			continue
		}
		if err := m.lookAttached(p, links); err != nil {
			return err
		}
	}
	return nil
}

// unattached are the ports that have no program, in the order of their numbers, but
// for those where that failed, which are tried now and then.
func (m *mirror) unattached() (ports []*member) {
	for _, ifindex := range slices.Sorted(maps.Keys(m.ports)) {
		if p := m.ports[ifindex]; !p.attached && (p.failure == nil || m.retryPorts) {
			ports = append(ports, p)
		}
	}
	return ports
}

func (m *mirror) attach(p *member) error {
	p.told = accel.Port{Name: p.link.name, Ifindex: p.link.ifindex, MTU: p.link.mtu,
		In: accel.PortUnknown, Out: accel.PortUnknown}
	return m.plane.AttachPort(m.link.ifindex, p.told)
}

// attachFailed takes in that a port carries no program. For one that left it is
// no failure: its event is on the way.
func (m *mirror) attachFailed(p *member, err error) {
	if m.hasLeft(p.link.ifindex) {
		delete(m.ports, p.link.ifindex)
		return
	}
	if p.failure == nil {
		m.logger.Error("a port carries no program, so the fast path of its bridge stays shut", "port", p.link.name, "error", err)
	}
	p.failure = err
}

// lookAttached asks for a port once more, now that programs watch it: what was
// known of it may be older than its version.
func (m *mirror) lookAttached(p *member, links map[int]link) error {
	p.attached, p.failure = true, nil
	if err := look(m.plane, m.kernel, links, p.link.ifindex); err != nil {
		return err
	}
	l := links[p.link.ifindex]
	if !m.isPort(l) {
		return m.forgetPort(p.link.ifindex)
	}
	p.link = l
	m.lookAtPort(p)
	return nil
}

// lookAtPort finds out what other tc programs mean for the port.
func (m *mirror) lookAtPort(p *member) {
	reason, err := m.plane.Coexist(m.link.ifindex, p.link.ifindex)
	if err != nil {
		if p.around.tc != accel.PortForeignTC {
			m.logger.Warn("cannot see what else is on the port, so it takes the slow path", "port", p.link.name, "error", err)
		}
		reason = accel.PortForeignTC
	}
	p.around.tc = reason
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
		BypassNetfilter: m.bypass,
	}
	if !m.present {
		return s
	}
	s.Ifindex, s.Synced, s.Reason = m.link.ifindex, m.synced, m.gate.Reason
	s.Revocation, s.VLANProtocol = m.plane.Revocation(m.link.ifindex), m.gate.VLANProtocol
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
