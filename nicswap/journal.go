package nicswap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// record is what the state directory keeps of a group, in groups/NAMESPACE/NAME.json:
// daemons in several network namespaces may have one directory, and groups of one
// name. A group that the configuration does not name any more is known from it, until
// it is released.
type record struct {
	// Namespace is the inode of the network namespace: devices are known by
	// names, which repeat elsewhere.
	Namespace uint64       `json:"namespace"`
	Group     accel.Group  `json:"group"`
	Adoption  *adoption    `json:"adoption,omitempty"`
	Swap      *swapJournal `json:"swap,omitempty"`
}

// swapJournal is how far a swap has come. A phase is written before it begins.
type swapJournal struct {
	ID    string    `json:"id"`
	Cause string    `json:"cause"`
	Phase string    `json:"phase"`
	From  string    `json:"from"`
	To    string    `json:"to"`
	Began time.Time `json:"began"`
	// Target is the target before it was prewarmed; WasWarm: there was nothing to
	// do, and there is nothing to undo.
	Target  device `json:"target"`
	WasWarm bool   `json:"was_warm"`
}

// store is the state directory.
type store struct {
	dir       string // .../groups/NAMESPACE
	namespace uint64
	write     func(path string, content []byte) error
}

func newStore(stateDir string, namespace uint64, write func(string, []byte) error) store {
	return store{filepath.Join(stateDir, "groups", fmt.Sprint(namespace)), namespace, write}
}

const recordSuffix = ".json"

func (s store) path(group string) string { return filepath.Join(s.dir, group+recordSuffix) }

// read returns what is known of a group; nil if nothing is, or if it is about
// another network namespace.
func (s store) read(group string) (*record, error) {
	content, err := os.ReadFile(s.path(group))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read what is known of group %s: %w", group, err)
	}
	var r record
	if err := json.Unmarshal(content, &r); err != nil {
		return nil, fmt.Errorf("%s cannot be read, and is left as it is: %w", s.path(group), err)
	}
	if r.Namespace != s.namespace {
		return nil, nil
	}
	if err := r.check(group); err != nil {
		return nil, fmt.Errorf("%s is passed over: %w", s.path(group), err)
	}
	return &r, nil
}

// check refuses a file that could not have been written here: names in it become
// paths.
func (r record) check(group string) error {
	if r.Group.Name != group {
		return fmt.Errorf("it is about group %q", r.Group.Name)
	}
	if err := accel.CheckGroupName(group); err != nil {
		return err
	}
	names := append([]string{r.Group.Port, r.Group.Bridge}, r.Group.Members...)
	if r.Swap != nil && r.Swap.Target.Name != "" {
		names = append(names, r.Swap.Target.Name)
	}
	if r.Adoption != nil && r.Adoption.Before.Name != "" {
		names = append(names, r.Adoption.Before.Name)
	}
	for _, name := range names {
		if err := accel.CheckInterfaceName(name); err != nil {
			return err
		}
	}
	return nil
}

// names lists the groups of which something is known.
func (s store) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the state directory: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), recordSuffix); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// save writes a record so that either the old or the new one is there, whatever
// happens.
func (s store) save(r record) error {
	r.Namespace = s.namespace
	content, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return s.write(s.path(r.Group.Name), append(content, '\n'))
}

// remove forgets a group.
func (s store) remove(group string) error {
	if err := os.Remove(s.path(group)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return syncDir(s.dir)
}

// writeFile replaces a file whole, and returns when it is on the disk.
func writeFile(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// change changes the group's record. What cannot be written has not changed.
func (e *Engine) change(g *group, change func(*record)) error {
	g.recording.Lock()
	defer g.recording.Unlock()
	changed := g.record
	changed.Group = g.Group
	change(&changed)
	if err := e.store.save(changed); err != nil {
		return fmt.Errorf("write the journal of %s: %w", g.Name, err)
	}
	g.record = changed
	return nil
}

// journal writes a phase down before it begins.
func (s *swap) journal(phase string) error {
	v := s.describe()
	return s.e.change(s.group, func(r *record) {
		r.Swap = &swapJournal{
			ID: v.ID, Cause: v.Cause, Phase: phase, From: v.From, To: v.To, Began: v.Began,
			Target: s.target, WasWarm: s.wasWarm,
		}
	})
}

// journalLate writes a phase down after the flip, where there is no way back: the
// swap goes on without its journal. Recovery needs to know no more than that the
// flip was tried, which the wire itself decides.
func (s *swap) journalLate(phase string) {
	s.warn("a swap goes on without its journal", s.journal(phase))
}

// journalOver forgets the swap, unless another one's journal stands there by now.
func (s *swap) journalOver() {
	if s.keep {
		return
	}
	s.warn("the journal of a swap that is over stays", s.e.changeIf(s.group,
		func(r record) bool { return r.Swap != nil && r.Swap.ID == s.v.ID },
		func(r *record) { r.Swap = nil }))
}

// changeIf is change where it still applies.
func (e *Engine) changeIf(g *group, applies func(record) bool, change func(*record)) error {
	g.recording.Lock()
	there := applies(g.record)
	g.recording.Unlock()
	if !there {
		return nil
	}
	return e.change(g, func(r *record) {
		if applies(*r) {
			change(r)
		}
	})
}

// recover deals with the swap in which an earlier daemon ended. Before the flip
// it is undone; after it, what remains is done in the background. The wire itself
// says which, since the flip is one store.
func (e *Engine) recover(g *group) {
	g.recording.Lock()
	j := g.record.Swap
	g.recording.Unlock()
	g.mu.Lock()
	isFirst := !g.settled // else the journal is about a swap of this daemon
	g.mu.Unlock()
	if j == nil || !isFirst {
		e.endForgottenDrain(g)
		return
	}
	s := e.newSwap(g, Request{
		Group: g.Name, To: j.To, Cause: causeRecovery,
		Why: fmt.Sprintf("the daemon ended in phase %s of swap %s", j.Phase, j.ID),
	})
	s.v.ID = j.ID
	ctx := s.begin(e.working)
	g.mu.Lock()
	s.from, _ = g.member(j.From)
	s.to, _ = g.member(j.To)
	if s.to == nil { // the configuration has changed meanwhile
		s.to = &member{name: j.To}
	}
	s.name()
	s.target, s.port, s.wasWarm = j.Target, g.port, j.WasWarm
	s.touched, s.prepared, s.claimed = true, true, s.to.shared
	s.flipped = j.Phase != phasePrewarm && (j.Phase != phaseFlip || g.active == j.Target.Ifindex)
	if s.flipped && g.on != nil && g.on != s.to { // it was on its way back
		s.from, s.to = s.to, g.on
		s.name()
	}
	g.running = s
	g.mu.Unlock()
	if !s.flipped {
		s.failed(fmt.Errorf("%s; it was undone", s.request.Why))
		s.rollBack(ctx)
		s.end(ctx, resultFailed)
		return
	}
	e.workers.Go(func() {
		s.countFrom()
		s.settle(context.WithoutCancel(ctx))
	})
}

// endForgottenDrain ends what no journal knows of: a drain, or a flip that was
// prepared.
func (e *Engine) endForgottenDrain(g *group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = 0
	if err := e.wires.EndDrain(g.port.Ifindex, g.active); err != nil {
		e.logger.Warn("a drain cannot be ended", "group", g.Name, "error", err)
	}
}
