package nicswap

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// eventUpgrade is an event of which the end of an upgrade makes one for each of
// its groups; resultStopped is a result that only an upgrade has.
const (
	eventUpgrade  = "upgrade"
	resultStopped = "stopped"
)

const (
	// backTimeout is how long a member may take to be back, unless the client says.
	backTimeout = 2 * time.Minute
	mostTimeout = 24 * time.Hour
	// lookAgain bounds how long a change goes unseen if its event was lost.
	lookAgain = time.Second
)

// reserver is what an upgrade asks of the groups; the engine serves it.
type reserver interface {
	mover
	Reserve(group, member string) (release func(), err error)
	Follow() (<-chan EventV1, func())
}

// upgrader runs upgrades: it takes members out of service, waits for the client to
// have run its command, and takes them back. It executes nothing itself.
type upgrader struct {
	engine   reserver
	announce func(EventV1)
	journals journals
	logger   *slog.Logger

	ctx     context.Context // ends when the daemon stops
	cancel  context.CancelCauseFunc
	running sync.WaitGroup

	mu       sync.Mutex
	upgrades map[string]*upgrade // by ID
}

// newUpgrader has no side effects. announce tells those who follow the events.
func newUpgrader(engine reserver, announce func(EventV1)) *upgrader {
	return &upgrader{engine: engine, announce: announce, upgrades: make(map[string]*upgrade)}
}

// start takes up what a daemon before left in the middle of an upgrade.
func (u *upgrader) start(journals journals, logger *slog.Logger) {
	u.journals, u.logger = journals, logger
	u.ctx, u.cancel = context.WithCancelCause(context.Background())
	for _, j := range u.journals.all(u.logger) {
		u.running.Go(func() { u.resume(j) })
	}
}

// stop ends every upgrade as if its client had gone, and waits for that. It is safe
// without start, and twice.
func (u *upgrader) stop() {
	if u.cancel == nil {
		return
	}
	u.mu.Lock()
	u.cancel(errStopping) // under mu, so that no upgrade begins behind it
	u.mu.Unlock()
	u.running.Wait()
}

// upgrading says whether an upgrade has the group.
func (u *upgrader) upgrading(group string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.upgrades {
		if slices.Contains(s.groups, group) {
			return true
		}
	}
	return false
}

// upgrade is an upgrade that is running.
type upgrade struct {
	*upgrader
	request UpgradeRequestV1
	outcome UpgradeV1
	rounds  []round
	groups  []string // that have any of the members
	send    func(any) error
	timeout time.Duration

	before  map[string]string      // group -> its active member at the beginning
	was     map[placement]MemberV1 // as it was at the beginning
	away    []reservation
	taken   []placement // were away, and are not known to be back
	doubted bool        // the command was begun for some of taken

	stopOnce sync.Once
	stopped  chan struct{} // closed when the client asked to stop
	done     chan UpgradeDoneV1

	awaiting sync.Mutex
	awaited  *string // the member whose command is awaited; nil for none
}

// round is a set of members that are away together.
type round struct {
	members []string
	each    bool // the command is for one of them at a time
}

// placement is a member in a group: one that is shared is in several.
type placement struct {
	Group  string `json:"group"`
	Member string `json:"member"`
}

type reservation struct {
	placement
	release func()
}

// errGone: nobody is there to run the command any more.
var errGone = errors.New("the client has gone")

// run is an upgrade from its beginning to its end. ctx ends when the client goes or
// the daemon stops. An error means that none began, or that the daemon stops.
func (u *upgrader) run(ctx context.Context, r UpgradeRequestV1, send func(any) error) error {
	s, err := u.begin(r, send)
	if err != nil {
		return err
	}
	defer u.running.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(u.ctx, func() { cancel(errStopping) })()
	err = s.work(ctx)
	s.takeBack()
	if !s.doubted && !stops(ctx) {
		// What was moved has a place to go back to, whatever kept the rest from
		// being upgraded.
		err = errors.Join(err, s.goBack(ctx))
	}
	s.finish(ctx, err)
	if stops(ctx) {
		return goneBy(ctx)
	}
	return nil
}

// begin plans an upgrade and refuses one that cannot end well. Nothing was changed
// if it fails.
func (u *upgrader) begin(r UpgradeRequestV1, send func(any) error) (*upgrade, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	groups := u.engine.Groups()
	rounds, err := plan(groups, r)
	if err != nil {
		return nil, err
	}
	s := &upgrade{
		upgrader: u, request: r, rounds: rounds, send: send,
		timeout: cmp.Or(time.Duration(r.TimeoutMS)*time.Millisecond, backTimeout),
		before:  make(map[string]string), was: make(map[placement]MemberV1),
		stopped: make(chan struct{}), done: make(chan UpgradeDoneV1, 1),
		outcome: UpgradeV1{
			ID: strings.ToLower(rand.Text()), Group: r.Group, Driver: r.Driver,
			Upgraded: []string{}, Left: membersOf(rounds), Began: time.Now(),
		},
	}
	s.remember(groups)
	if err := u.admit(s); err != nil {
		return nil, err
	}
	if err := s.checkRoom(groups); err != nil {
		u.leave(s)
		u.running.Done()
		return nil, err
	}
	return s, nil
}

func (r UpgradeRequestV1) check() error {
	switch {
	case (r.Group == "") == (r.Driver == ""):
		return accel.Statusf(http.StatusBadRequest, "name a group or a driver, and not both")
	case r.TimeoutMS < 0 || r.TimeoutMS > mostTimeout.Milliseconds():
		return accel.Statusf(http.StatusBadRequest, "the timeout must be between 0 and %v", mostTimeout)
	}
	return nil
}

// plan says what is away when. A driver takes all its members along at once; those
// of a group have turns, the active one last: then its traffic moves once only, and
// onto one that was upgraded already. Members that are missing are left out.
func plan(groups []GroupV1, r UpgradeRequestV1) ([]round, error) {
	if r.Driver != "" {
		return planDriver(groups, r)
	}
	g, ok := groupOf(groups, r.Group)
	if !ok {
		var names []string
		for _, g := range groups {
			names = append(names, g.Group)
		}
		return nil, noGroup(r.Group, names)
	}
	var rounds, last []round
	for _, m := range g.Members {
		switch {
		case m.Ifindex == 0:
		case m.Member == g.Active:
			last = append(last, round{[]string{m.Member}, true})
		default:
			rounds = append(rounds, round{[]string{m.Member}, true})
		}
	}
	if rounds = append(rounds, last...); len(rounds) == 0 {
		return nil, accel.Statusf(http.StatusConflict, "no member of group %s is there", r.Group)
	}
	return rounds, nil
}

func planDriver(groups []GroupV1, r UpgradeRequestV1) ([]round, error) {
	all := round{each: r.Each}
	for _, g := range groups {
		for _, m := range g.Members {
			if m.Ifindex != 0 && (m.Driver == r.Driver || m.LinkKind == r.Driver) && !slices.Contains(all.members, m.Member) {
				all.members = append(all.members, m.Member)
			}
		}
	}
	if len(all.members) == 0 {
		return nil, accel.Statusf(http.StatusNotFound, "no member of any group has the driver %s", r.Driver)
	}
	return []round{all}, nil
}

func membersOf(rounds []round) []string {
	var members []string
	for _, r := range rounds {
		members = append(members, r.members...)
	}
	return members
}

// remember keeps how the groups were before anything was done.
func (s *upgrade) remember(groups []GroupV1) {
	all := membersOf(s.rounds)
	for _, g := range groups {
		for _, m := range g.Members {
			if slices.Contains(all, m.Member) {
				s.was[placement{g.Group, m.Member}] = m
				s.before[g.Group] = g.Active
			}
		}
	}
	s.groups = slices.Sorted(maps.Keys(s.before))
}

// admit lets an upgrade in unless one of its groups is in another.
func (u *upgrader) admit(s *upgrade) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ctx.Err() != nil {
		return accel.Statusf(http.StatusServiceUnavailable, "the daemon stops")
	}
	for _, other := range u.upgrades {
		for _, group := range s.groups {
			if slices.Contains(other.groups, group) {
				return accel.Statusf(http.StatusConflict, "group %s is being upgraded since %s",
					group, other.outcome.Began.Format(time.TimeOnly))
			}
		}
	}
	u.upgrades[s.outcome.ID] = s
	u.running.Add(1)
	return nil
}

func (u *upgrader) leave(s *upgrade) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.upgrades, s.outcome.ID)
}

// checkRoom refuses an upgrade that would leave a group without a usable member.
func (s *upgrade) checkRoom(groups []GroupV1) error {
	var empty []string
	for _, g := range groups {
		if slices.Contains(s.groups, g.Group) && slices.ContainsFunc(s.rounds, func(r round) bool {
			return r.touches(g) && len(r.others(groups, g)) == 0
		}) {
			empty = append(empty, g.Group)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	return accel.Statusf(http.StatusConflict, "nothing was done: %s would be left without a usable member", plural("group", empty))
}

// plural names things, such as "group a" or "groups a, b".
func plural(what string, names []string) string {
	if len(names) != 1 {
		what += "s"
	}
	return what + " " + strings.Join(names, ", ")
}

// touches says whether a member of the group is in the round.
func (r round) touches(g GroupV1) bool {
	return slices.ContainsFunc(g.Members, func(m MemberV1) bool { return slices.Contains(r.members, m.Member) })
}

// others are the members of a group that can carry it while the round is away, in
// the order of preference.
func (r round) others(groups []GroupV1, g GroupV1) []string {
	var others []string
	for _, m := range g.Members {
		if !slices.Contains(r.members, m.Member) && usable(groups, g.Group, m) {
			others = append(others, m.Member)
		}
	}
	return others
}

// work upgrades the members and stops at the first thing that goes wrong.
func (s *upgrade) work(ctx context.Context) error {
	if err := s.tell(ctx, "begin", "", s.outcome.Left, s.groups); err != nil {
		return err
	}
	for _, r := range s.rounds {
		if s.isStopped() {
			return nil
		}
		if err := s.takeAway(ctx, r); err != nil {
			return err
		}
		ran, err := s.command(ctx, r)
		if err != nil {
			return err
		}
		if err := s.awaitBack(ctx, r, ran); err != nil {
			return err
		}
	}
	return nil
}

func (s *upgrade) isStopped() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

// tell sends a step. It fails when the client has gone.
func (s *upgrade) tell(ctx context.Context, step, member string, members, groups []string) error {
	line := UpgradeStepV1{ID: s.outcome.ID, Step: step, Member: member, Members: members, Groups: groups}
	if s.send(line) == nil {
		return nil
	}
	if err := goneBy(ctx); err != nil {
		return err
	}
	return errGone
}

// takeAway moves the traffic off the members of a round and reserves them. It is
// journalled first: after a crash it is known what may be away.
func (s *upgrade) takeAway(ctx context.Context, r round) error {
	var affected []string
	for _, g := range s.engine.Groups() {
		if r.touches(g) {
			affected = append(affected, g.Group)
		}
	}
	if err := s.journal(r); err != nil {
		return err
	}
	for _, group := range affected {
		if err := s.moveOff(ctx, group, r); err != nil {
			return err
		}
	}
	for _, group := range affected {
		if err := s.reserve(group, r); err != nil {
			return err
		}
	}
	return goneBy(ctx)
}

// goneBy is nil while there is a client and the daemon works.
func goneBy(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != context.Canceled {
		return cause
	}
	return errGone
}

// stops says whether ctx has ended because the daemon stops, which gives a cause.
func stops(ctx context.Context) bool {
	err := goneBy(ctx)
	return err != nil && err != errGone
}

func (s *upgrade) journal(r round) error {
	j := upgradeJournal{ID: s.outcome.ID, Began: s.outcome.Began, Before: s.before, Away: []placement{}}
	for p := range s.was {
		if slices.Contains(r.members, p.Member) {
			j.Away = append(j.Away, p)
		}
	}
	if err := s.journals.write(j); err != nil {
		return fmt.Errorf("no member was taken away, because that cannot be journalled: %w", err)
	}
	return nil
}

// moveOff swaps a group to the first other member that takes its traffic.
func (s *upgrade) moveOff(ctx context.Context, group string, r round) error {
	if err := s.awaitSwap(ctx, group); err != nil {
		return err
	}
	groups := s.engine.Groups()
	g, _ := groupOf(groups, group)
	if !slices.Contains(r.members, g.Active) {
		return nil
	}
	others := r.others(groups, g)
	if len(others) == 0 {
		return fmt.Errorf("group %s has no other usable member than %s any more", group, g.Active)
	}
	var errs []error
	for _, to := range others {
		err := s.swap(ctx, group, to, g.Active+" is to be upgraded")
		if err == nil {
			return s.tell(ctx, "moved", to, []string{}, []string{group})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// awaitSwap lets a swap that is running end.
func (s *upgrade) awaitSwap(ctx context.Context, group string) error {
	err := s.await(ctx, s.timeout, func(groups []GroupV1) bool {
		g, _ := groupOf(groups, group)
		return g.State != groupSwapping
	})
	if errors.Is(err, errLate) {
		return fmt.Errorf("a swap of group %s did not end within %v", group, s.timeout)
	}
	return err
}

// swap swaps a group. It does not end with the client: half a swap is worth less
// than a whole one.
func (s *upgrade) swap(ctx context.Context, group, to, why string) error {
	result, err := s.engine.Swap(context.WithoutCancel(ctx), Request{Group: group, To: to, Cause: "upgrade", Why: why})
	if err := swapError(result, err); err != nil {
		return fmt.Errorf("group %s cannot be moved to %s: %w", group, to, err)
	}
	return nil
}

// reserve takes the members of a round out of a group.
func (s *upgrade) reserve(group string, r round) error {
	for _, member := range r.members {
		p := placement{group, member}
		if _, ok := s.was[p]; !ok {
			continue
		}
		release, err := s.engine.Reserve(group, member)
		if err != nil {
			return fmt.Errorf("%s cannot be taken out of group %s: %w", member, group, err)
		}
		s.away = append(s.away, reservation{p, release})
	}
	return nil
}

// command lets the client run its command for the members of a round, and returns
// those for which it ran.
func (s *upgrade) command(ctx context.Context, r round) (ran []string, err error) {
	if s.isStopped() {
		return nil, nil
	}
	if !r.each {
		return r.members, s.commandFor(ctx, "", r.members)
	}
	for _, member := range r.members {
		if s.isStopped() {
			break
		}
		if err := s.commandFor(ctx, member, []string{member}); err != nil {
			return ran, err
		}
		ran = append(ran, member)
	}
	return ran, nil
}

// commandFor waits until the client has run its command, however long that takes.
func (s *upgrade) commandFor(ctx context.Context, member string, members []string) error {
	s.doubted = true
	s.outcome.Left = slices.DeleteFunc(s.outcome.Left, func(m string) bool { return slices.Contains(members, m) })
	s.expect(&member)
	defer s.expect(nil)
	if err := s.tell(ctx, "away", member, members, s.groupsOf(members)); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return goneBy(ctx)
	case done := <-s.done:
		if done.Error != "" {
			return fmt.Errorf("the command for %s failed: %s", strings.Join(members, ", "), done.Error)
		}
		return nil
	}
}

func (s *upgrade) expect(member *string) {
	s.awaiting.Lock()
	defer s.awaiting.Unlock()
	s.awaited = member
}

func (s *upgrade) groupsOf(members []string) []string {
	groups := make(map[string]bool)
	for p := range s.was {
		if slices.Contains(members, p.Member) {
			groups[p.Group] = true
		}
	}
	return slices.Sorted(maps.Keys(groups))
}

// awaitBack takes the members of a round back and waits until they are in service.
func (s *upgrade) awaitBack(ctx context.Context, r round, ran []string) error {
	s.takeBack()
	var missing []string
	err := s.await(ctx, s.timeout, func(groups []GroupV1) bool {
		missing = s.missing(groups, r)
		return len(missing) == 0
	})
	if errors.Is(err, errLate) {
		return fmt.Errorf("%s did not come back within %v", strings.Join(missing, ", "), s.timeout)
	}
	if err != nil {
		return err
	}
	if err := s.checkBack(ctx, r); err != nil {
		return err
	}
	s.doubted, s.taken = false, nil
	s.outcome.Upgraded = append(s.outcome.Upgraded, ran...)
	return s.tell(ctx, "back", "", r.members, s.groupsOf(r.members))
}

// missing are the members of a round that are not in service yet. One that had no
// carrier before need not have it now.
func (s *upgrade) missing(groups []GroupV1, r round) []string {
	var missing []string
	for _, member := range r.members {
		if slices.ContainsFunc(groups, func(g GroupV1) bool {
			was, ok := s.was[placement{g.Group, member}]
			return ok && !isBack(groups, g, was)
		}) {
			missing = append(missing, member)
		}
	}
	return missing
}

// isBack says whether a member is in service as it was.
func isBack(groups []GroupV1, g GroupV1, was MemberV1) bool {
	m, _ := memberOf(g, was.Member)
	switch m.State {
	case memberActive, memberStandby:
		return true
	case memberCold:
		return isShared(groups, m.Member) || was.State == memberCold
	case memberNoCarrier:
		return was.State == memberNoCarrier
	}
	return false
}

// checkBack asks, for every group of the members, whether it could be moved there
// when no other swap of it runs.
func (s *upgrade) checkBack(ctx context.Context, r round) error {
	for _, g := range s.engine.Groups() {
		for _, m := range g.Members {
			if m.State != memberStandby || !slices.Contains(r.members, m.Member) {
				continue
			}
			if err := s.awaitSwap(ctx, g.Group); err != nil {
				return err
			}
			plan, err := s.engine.Swap(context.WithoutCancel(ctx), Request{Group: g.Group, To: m.Member, DryRun: true, Cause: "upgrade"})
			if err := swapError(plan, err); err != nil {
				return fmt.Errorf("%s is back, but cannot carry group %s: %w", m.Member, g.Group, err)
			}
		}
	}
	return nil
}

// takeBack ends the reservations: the engine makes the members ready as soon as
// they are there.
func (s *upgrade) takeBack() {
	for _, a := range s.away {
		a.release()
		s.taken = append(s.taken, a.placement)
	}
	s.away = nil
}

// goBack moves the groups to the members that were active at the beginning.
func (s *upgrade) goBack(ctx context.Context) error {
	var errs []error
	for _, name := range s.groups {
		g, _ := groupOf(s.engine.Groups(), name)
		to := s.before[name]
		if to == "" || to == g.Active {
			continue
		}
		if err := s.awaitUsable(ctx, name, to); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := s.swap(ctx, name, to, "the upgrade has ended"); err != nil {
			errs = append(errs, fmt.Errorf("%w; it stays on %s", err, g.Active))
			continue
		}
		// A client that is gone is told nothing; the upgrade ends well without it.
		_ = s.tell(ctx, "moved", to, []string{}, []string{name})
	}
	return errors.Join(errs...)
}

// awaitUsable waits for a member that was away a moment ago to be ready, and for a
// swap that is running to end. Once there is no client, nothing is waited for.
func (s *upgrade) awaitUsable(ctx context.Context, group, member string) error {
	err := s.await(ctx, s.timeout, func(groups []GroupV1) bool {
		g, _ := groupOf(groups, group)
		m, _ := memberOf(g, member)
		return g.State != groupSwapping && usable(groups, group, m)
	})
	if err != nil {
		return fmt.Errorf("group %s cannot be moved back to %s: %w", group, member, err)
	}
	return nil
}

// finish ends the upgrade and says so to the client, the log and those who follow
// the events. The journal outlives a daemon that stops: the next one says when the
// members are back.
func (s *upgrade) finish(ctx context.Context, err error) {
	s.leave(s)
	s.conclude(err)
	if !stops(ctx) {
		s.forget(s.outcome.ID)
	}
	s.logger.Info("an upgrade has ended", "groups", s.groups, "result", s.outcome.Result, "error", s.outcome.Error)
	groups := s.engine.Groups()
	for _, group := range s.groups {
		s.announce(EventV1{
			Time: time.Now(), Group: group, Event: eventUpgrade, State: s.outcome.Result,
			Text: s.outcome.text() + whereabouts(groups, group, s.taken),
		})
	}
	_ = s.send(UpgradeStepV1{
		ID: s.outcome.ID, Step: "end", Members: s.outcome.Upgraded, Groups: s.groups, Upgrade: &s.outcome,
	})
}

func (s *upgrade) conclude(err error) {
	o := &s.outcome
	o.DurationMS = float64(time.Since(o.Began).Microseconds()) / 1000
	switch {
	case err != nil:
		o.Result, o.Error = resultFailed, strings.ReplaceAll(err.Error(), "\n", "; ")
	case len(o.Left) > 0:
		o.Result, o.Error = resultStopped, "stopped as asked; not upgraded: "+strings.Join(o.Left, ", ")
	default:
		o.Result = resultDone
	}
}

// text is the outcome in a sentence.
func (o UpgradeV1) text() string {
	what := "the upgrade of group " + o.Group
	if o.Driver != "" {
		what = "the upgrade of driver " + o.Driver
	}
	if o.Error != "" {
		return what + " " + o.Result + ": " + o.Error
	}
	return what + " is done: " + strings.Join(o.Upgraded, ", ")
}

// whereabouts says what became of the members of a group that were away.
func whereabouts(groups []GroupV1, group string, taken []placement) string {
	g, _ := groupOf(groups, group)
	var text strings.Builder
	for _, p := range taken {
		if p.Group != group {
			continue
		}
		if m, _ := memberOf(g, p.Member); m.Ifindex != 0 {
			fmt.Fprintf(&text, "; %s is there and taken back as a standby", p.Member)
		} else {
			fmt.Fprintf(&text, "; %s is not there, and taken back when it is", p.Member)
		}
	}
	return text.String()
}

// report takes what the client says of its command.
func (u *upgrader) report(id string, done UpgradeDoneV1) error {
	s, err := u.find(id)
	if err != nil {
		return err
	}
	s.awaiting.Lock()
	defer s.awaiting.Unlock()
	if s.awaited == nil || *s.awaited != done.Member {
		return accel.Statusf(http.StatusConflict, "the upgrade does not wait for a command for %q now", done.Member)
	}
	s.awaited = nil
	s.done <- done // has room: only one is awaited at a time
	return nil
}

// askStop ends an upgrade after the member that it is about now.
func (u *upgrader) askStop(id string) error {
	s, err := u.find(id)
	if err != nil {
		return err
	}
	s.stopOnce.Do(func() { close(s.stopped) })
	return nil
}

func (u *upgrader) find(id string) (*upgrade, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s, ok := u.upgrades[id]; ok {
		return s, nil
	}
	return nil, accel.Statusf(http.StatusNotFound, "there is no upgrade %s, or it has ended", id)
}

// errLate: what was awaited did not come in time.
var errLate = errors.New("that took too long")

// await waits until something is true of the groups: errLate after the timeout,
// which 0 leaves out.
func (u *upgrader) await(ctx context.Context, timeout time.Duration, holds func([]GroupV1) bool) error {
	events, unfollow := u.engine.Follow()
	defer unfollow()
	var late <-chan time.Time
	if timeout > 0 {
		late = time.After(timeout)
	}
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		if holds(u.engine.Groups()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return goneBy(ctx)
		case <-late:
			return errLate
		case <-again.C:
		case _, ok := <-events:
			if !ok {
				events = nil
			}
			passOver(events)
		}
	}
}

// passOver takes the events that are there already: it is looked at the groups
// themselves, once for all of them.
func passOver(events <-chan EventV1) {
	for len(events) > 0 {
		<-events
	}
}
