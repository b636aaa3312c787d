package nicswap

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shunt-dev/shunt/accel"
)

// Engine keeps the groups: it is nicswap's component.
//
// Its locks, in the order in which they are taken: changing, looking, mu,
// group.mu, claiming. Only changing is held while something slow is done: no
// failover waits for a swap, a journal or an announcement.
type Engine struct {
	logger    *slog.Logger
	tracer    trace.Tracer
	meters    []Meters
	config    *accel.Config
	namespace accel.Namespace
	wires     Wires
	bridges   Bridges
	open      func() (devices, announcer, error)
	devices   devices
	sender    announcer
	pulse     pulse // of the look at carriers
	tellLate  sync.Once
	write     func(path string, content []byte) error
	floodTime time.Duration // between PrepareFlip and the flip: see letFramesReturn
	store     store
	events    hub
	upgrades  *upgrader

	working context.Context // ends with Stop
	stop    context.CancelCauseFunc
	workers sync.WaitGroup // Add only with mu locked and working not ended, or by a worker

	changing sync.Mutex // adopt and release, one at a time
	looking  sync.Mutex // a look at a device, and taking in what was seen

	mu     sync.Mutex
	groups []*group // the configured in their order, then the others
	past   []*swap  // the last swaps, the oldest first

	claiming sync.Mutex
	claims   map[string]string // a member that several groups have: who uses it
}

// mostPast is how many swaps are remembered.
const mostPast = 100

// Request is a swap that is asked for.
type Request struct {
	Group string
	// To is a member's name, or "physical" or "virtual" for the first usable one
	// of that kind.
	To     string
	DryRun bool
	// Cause is as in SwapV1; Why says more.
	Cause, Why string
}

// Swap moves a group to a member and returns when the source is retired. A swap
// that failed in a phase is no error: SwapV1 has its result. The error is an
// *accel.StatusError where no swap was begun: 404 where the group or the member
// is not known, 409 where a swap of the group is running, or where nothing is to
// do. A ctx that ends before the flip aborts the swap; after it, it goes on.
func (e *Engine) Swap(ctx context.Context, r Request) (SwapV1, error) {
	g, err := e.find(r.Group)
	if err != nil {
		return SwapV1{}, err
	}
	if err := e.enter(); err != nil {
		return SwapV1{}, err
	}
	defer e.workers.Done()
	s := e.newSwap(g, r)
	ctx = s.begin(ctx)
	if err := s.phase(ctx, phaseResolve, s.resolve); err != nil {
		s.refused(err)
		return SwapV1{}, err
	}
	if r.DryRun {
		return s.plan(ctx), nil
	}
	s.run(ctx)
	return s.describe(), nil
}

// enter makes Stop wait for what a request does.
func (e *Engine) enter() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.working == nil || e.working.Err() != nil {
		return accel.Statusf(503, "the daemon is starting or stopping: ask again in a moment")
	}
	e.workers.Add(1)
	return nil
}

// Groups describes the groups: the configured ones in their order, then those
// that were adopted.
func (e *Engine) Groups() []GroupV1 {
	described := []GroupV1{}
	for _, g := range e.all() {
		described = append(described, e.describe(g))
	}
	return described
}

// GroupStates describes the groups as they are measured, in the order of their
// names.
func (e *Engine) GroupStates() []accel.GroupState {
	states := []accel.GroupState{}
	for _, g := range e.all() {
		states = append(states, e.measure(g))
	}
	slices.SortFunc(states, func(a, b accel.GroupState) int { return strings.Compare(a.Name, b.Name) })
	return states
}

func (e *Engine) measure(g *group) accel.GroupState {
	g.mu.Lock()
	d := g.describe()
	g.mu.Unlock()
	s := accel.GroupState{
		Name: d.Group, Bridge: d.Bridge, Port: d.Port, State: d.State, Active: d.Active,
		Frames: make(map[accel.Reason]uint64),
	}
	for _, m := range d.Members {
		s.Members = append(s.Members, accel.MemberState{Name: m.Member, Kind: m.Kind, State: m.State})
	}
	for reason, n := range e.countOf(g.Name, d.Ifindex) {
		s.Frames[reason] = n.Packets
	}
	return s
}

// countOf reads the counters of a group's wire; none while there is no port.
func (e *Engine) countOf(group string, port int) map[accel.Reason]accel.Count {
	if port == 0 {
		return nil
	}
	counts, err := e.wires.WireCounts(port)
	if err != nil {
		e.logger.Warn("the counters of a wire cannot be read", "group", group, "error", err)
	}
	return counts
}

// describe asks the wire for its counters without holding the group.
func (e *Engine) describe(g *group) GroupV1 {
	g.mu.Lock()
	d := g.describe()
	g.mu.Unlock()
	d.Drained, d.Dropped = lost(nil, e.countOf(d.Group, d.Ifindex))
	return d
}

// lost is what a wire drained and dropped between two readings of its counters.
func lost(before, after map[accel.Reason]accel.Count) (drained uint64, dropped map[string]uint64) {
	dropped = map[string]uint64{}
	for reason, n := range after {
		frames := n.Packets
		if was := before[reason].Packets; was <= frames { // else the port was made anew meanwhile
			frames -= was
		}
		switch {
		case reason == accel.Drained:
			drained = frames
		case reason != accel.OutOfTurn && reason != accel.Fast && frames > 0:
			dropped[reason.String()] = frames
		}
	}
	return drained, dropped
}

// Swaps returns the last 100 swaps, the newest first.
func (e *Engine) Swaps() []SwapV1 {
	e.mu.Lock()
	past := slices.Clone(e.past)
	e.mu.Unlock()
	described := []SwapV1{}
	for _, s := range slices.Backward(past) {
		described = append(described, s.describe())
	}
	return described
}

// remember puts a swap into the list of those that were.
func (e *Engine) remember(s *swap) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.past = append(e.past, s)
	e.past = e.past[max(0, len(e.past)-mostPast):]
}

// Reserve takes a standby member away for an upgrade: no swap, failover or policy
// chooses it until release is called. 404 where group or member is not known,
// 409 where the member is active, in a swap or reserved already.
func (e *Engine) Reserve(groupName, memberName string) (release func(), err error) {
	g, err := e.find(groupName)
	if err != nil {
		return nil, err
	}
	m, err := e.setAside(g, memberName)
	if err != nil {
		return nil, err
	}
	e.wires.Settle()
	g.mu.Lock()
	e.follow(g)
	active := g.isActive(m)
	g.mu.Unlock()
	release = sync.OnceFunc(func() { e.takeBack(g, m) })
	if active {
		release()
		return nil, carriesAlready(g, m)
	}
	return release, nil
}

func carriesAlready(g *group, m *member) error {
	return accel.Statusf(409, "%s carries the traffic of %s: move that away first", m.name, g.Name)
}

// setAside makes the member one that nobody chooses. Programs may still do so until they
// have settled.
func (e *Engine) setAside(g *group, memberName string) (*member, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.follow(g)
	m, err := g.member(memberName)
	switch {
	case err != nil:
		return nil, err
	case m.away:
		return nil, accel.Statusf(409, "%s is being upgraded already", m.name)
	case g.isActive(m):
		return nil, carriesAlready(g, m)
	case g.running != nil && (g.running.from == m || g.running.to == m):
		return nil, accel.Statusf(409, "%s takes part in a swap of %s", m.name, g.Name)
	}
	m.away = true
	e.told(g)
	return m, nil
}

// takeBack ends a reservation.
func (e *Engine) takeBack(g *group, m *member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.away = false
	e.judge(g)
	g.tend()
}

// all returns the groups that there are now.
func (e *Engine) all() []*group {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.groups)
}

// find returns the group of that name, or a 404 that names those that there are.
func (e *Engine) find(name string) (*group, error) {
	var names []string
	for _, g := range e.all() {
		if g.Name == name {
			return g, nil
		}
		names = append(names, g.Name)
	}
	return nil, noGroup(name, names)
}

func noGroup(name string, there []string) error {
	if len(there) == 0 {
		return accel.Statusf(404, "there is no group %s; this daemon has no groups", name)
	}
	return accel.Statusf(404, "there is no group %s; there is %s", name, strings.Join(there, ", "))
}

// claim takes a member that several groups have for one of them.
func (e *Engine) claim(g *group, m *member) error {
	e.claiming.Lock()
	defer e.claiming.Unlock()
	if holder, ok := e.claims[m.name]; ok && holder != g.Name {
		return accel.Statusf(409, "%s is used by group %s now", m.name, holder)
	}
	e.claims[m.name] = g.Name
	return nil
}

// unclaim gives a shared member back.
func (e *Engine) unclaim(g *group, m *member) {
	e.claiming.Lock()
	defer e.claiming.Unlock()
	if e.claims[m.name] == g.Name {
		delete(e.claims, m.name)
	}
}

// claimedElsewhere says who else uses a member now; "" for nobody.
func (e *Engine) claimedElsewhere(g *group, m *member) string {
	e.claiming.Lock()
	defer e.claiming.Unlock()
	if holder := e.claims[m.name]; holder != g.Name {
		return holder
	}
	return ""
}
