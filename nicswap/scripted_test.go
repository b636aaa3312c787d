package nicswap

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// scriptedEngine stands for the engine where policies and upgrades are tested: groups
// on paper, whose members come and go as the test says.
type scriptedEngine struct {
	t *testing.T

	mu        sync.Mutex
	groups    []GroupV1
	swaps     []string          // "group>member cause", without dry runs
	whys      []string          // of swaps
	refuse    map[string]string // "group>member" -> why a swap there fails
	reserved  map[placement]bool
	followers []chan EventV1
	events    []EventV1
	slow      chan struct{} // swaps wait for it, if it is set
	aborted   atomic.Bool   // one was, and has ended

	rates   map[string]load // of groups
	counted map[int]*load   // of devices, since they were made
	until   time.Time       // of what is counted
}

// script makes groups in which the first member is active. A member is written
// "name:kind", and shared if it is in several groups.
func script(t *testing.T, groups map[string][]string) *scriptedEngine {
	e := &scriptedEngine{
		t: t, refuse: make(map[string]string), reserved: make(map[placement]bool),
		rates: make(map[string]load), counted: make(map[int]*load), until: time.Now(),
	}
	index := make(map[string]int)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g := GroupV1{Group: name, State: "ready"}
		for i, text := range groups[name] {
			member, kind, ok := strings.Cut(text, ":")
			if !ok {
				kind = virtual
			}
			if index[member] == 0 {
				index[member] = 10 + len(index)
			}
			m := MemberV1{Member: member, Ifindex: index[member], Kind: kind, Carrier: true, State: "standby", Driver: "drv"}
			if kind == virtual {
				m.LinkKind, m.Driver = "veth", "veth"
			}
			if i == 0 {
				m.State, g.Active = "active", member
			}
			g.Members = append(g.Members, m)
		}
		e.groups = append(e.groups, g)
	}
	for i := range e.groups {
		for j := range e.groups[i].Members {
			m := &e.groups[i].Members[j]
			if m.State == "standby" && e.shared(m.Member) {
				m.State = "cold"
			}
		}
	}
	return e
}

func (e *scriptedEngine) shared(member string) bool {
	n := 0
	for _, g := range e.groups {
		if _, ok := memberOf(g, member); ok {
			n++
		}
	}
	return n > 1
}

// change changes the groups, and tells those who follow.
func (e *scriptedEngine) change(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count()
	f()
	for _, g := range e.groups {
		e.neverEmpty(g)
	}
	for _, follower := range e.followers {
		select {
		case follower <- EventV1{Event: "member"}:
		default:
		}
	}
}

// neverEmpty: a group has an active member while any works.
func (e *scriptedEngine) neverEmpty(g GroupV1) {
	if g.Active == "" && slices.ContainsFunc(g.Members, func(m MemberV1) bool { return m.State == memberStandby }) {
		e.t.Errorf("group %s has no active member, and one that works: %+v", g.Group, g.Members)
	}
}

func (e *scriptedEngine) find(group, member string) *MemberV1 {
	for i := range e.groups {
		for j := range e.groups[i].Members {
			if e.groups[i].Group == group && e.groups[i].Members[j].Member == member {
				return &e.groups[i].Members[j]
			}
		}
	}
	return nil
}

func (e *scriptedEngine) Groups() []GroupV1 {
	e.mu.Lock()
	defer e.mu.Unlock()
	groups := slices.Clone(e.groups)
	for i := range groups {
		groups[i].Members = slices.Clone(groups[i].Members)
	}
	return groups
}

func (e *scriptedEngine) Swap(ctx context.Context, r Request) (SwapV1, error) {
	if e.slow != nil && !r.DryRun {
		select {
		case <-e.slow:
		case <-ctx.Done():
			time.Sleep(time.Second) // undoing takes its time
			e.aborted.Store(true)
			return SwapV1{Result: "failed", Error: "aborted"}, nil
		}
	}
	var s SwapV1
	var err error
	e.change(func() { s, err = e.swap(r) })
	return s, err
}

func (e *scriptedEngine) swap(r Request) (SwapV1, error) {
	i := slices.IndexFunc(e.groups, func(g GroupV1) bool { return g.Group == r.Group })
	if i < 0 {
		return SwapV1{}, accel.Statusf(http.StatusNotFound, "there is no group %s", r.Group)
	}
	if e.groups[i].State == groupSwapping {
		return SwapV1{}, accel.Statusf(http.StatusConflict, "a swap of %s is running", r.Group)
	}
	for _, m := range e.groups[i].Members {
		if (m.Member == r.To || m.Kind == r.To) && m.State != "active" && usable(e.groups, r.Group, m) {
			return e.swapTo(r, i, m.Member)
		}
	}
	return SwapV1{}, accel.Statusf(http.StatusConflict, "group %s has no usable member %s", r.Group, r.To)
}

func (e *scriptedEngine) swapTo(r Request, group int, member string) (SwapV1, error) {
	move := r.Group + ">" + member
	if !r.DryRun {
		e.swaps = append(e.swaps, move+" "+r.Cause)
		e.whys = append(e.whys, r.Why)
	}
	if why, ok := e.refuse[move]; ok {
		return SwapV1{Result: "rolled_back", Error: why}, nil
	}
	if r.DryRun {
		return SwapV1{Result: "planned"}, nil
	}
	e.activate(group, member)
	return SwapV1{Result: "done"}, nil
}

func (e *scriptedEngine) activate(group int, member string) {
	g := &e.groups[group]
	if old := e.find(g.Group, g.Active); old != nil && old.State == "active" {
		old.State = e.idle(*old)
	}
	g.Active = member
	if now := e.find(g.Group, member); now != nil {
		now.State = "active"
	}
}

// idle is the state of a member that is neither active nor away.
func (e *scriptedEngine) idle(m MemberV1) string {
	switch {
	case m.Ifindex == 0:
		return "missing"
	case e.shared(m.Member):
		return "cold"
	case !m.Carrier:
		return "no_carrier"
	}
	return "standby"
}

func (e *scriptedEngine) Reserve(group, member string) (release func(), err error) {
	e.change(func() {
		m := e.find(group, member)
		if m == nil || m.State == "active" || m.State == "away" {
			err = accel.Statusf(http.StatusConflict, "%s is active, or reserved", member)
			return
		}
		m.State = "away"
		e.reserved[placement{group, member}] = true
	})
	return func() {
		e.change(func() {
			delete(e.reserved, placement{group, member})
			m := e.find(group, member)
			m.State = e.idle(*m)
		})
	}, err
}

func (e *scriptedEngine) Follow() (<-chan EventV1, func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	follower := make(chan EventV1, 1)
	e.followers = append(e.followers, follower)
	return follower, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.followers = slices.DeleteFunc(e.followers, func(c chan EventV1) bool { return c == follower })
	}
}

func (e *scriptedEngine) announce(event EventV1) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, event)
}

// device gives a member, in all its groups, another ifindex; 0 takes it away, and
// the groups fail over.
func (e *scriptedEngine) device(member string, ifindex int, carrier bool) {
	e.change(func() {
		for i := range e.groups {
			m := e.find(e.groups[i].Group, member)
			if m == nil {
				continue
			}
			m.Ifindex, m.Carrier = ifindex, carrier
			if m.State != "away" && (m.State != "active" || ifindex == 0) {
				m.State = e.idle(*m)
			}
			if e.groups[i].Active == member && ifindex == 0 {
				e.failover(i)
			}
		}
	})
}

func (e *scriptedEngine) failover(group int) {
	e.groups[group].Active = ""
	for _, m := range e.groups[group].Members {
		if m.State == memberStandby {
			e.activate(group, m.Member)
			return
		}
	}
}

// active returns the group's active member.
func (e *scriptedEngine) active(group string) string {
	g, _ := groupOf(e.Groups(), group)
	return g.Active
}

// taken returns the swaps since it was called last.
func (e *scriptedEngine) taken() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	swaps := e.swaps
	e.swaps, e.whys = nil, nil
	return swaps
}

// rate sets the load of a group, in both directions together.
func (e *scriptedEngine) rate(group string, packets, bits float64) {
	e.change(func() { e.rates[group] = load{packets, bits} })
}

// count adds what the groups' active members have carried until now.
func (e *scriptedEngine) count() {
	passed := time.Since(e.until).Seconds()
	e.until = time.Now()
	for _, g := range e.groups {
		if m, ok := memberOf(g, g.Active); ok {
			c := e.counter(m.Ifindex)
			c.packets += e.rates[g.Group].packets * passed
			c.bits += e.rates[g.Group].bits * passed
		}
	}
}

func (e *scriptedEngine) counter(ifindex int) *load {
	if e.counted[ifindex] == nil {
		e.counted[ifindex] = new(load)
	}
	return e.counted[ifindex]
}

// Counters has half of the load in each direction.
func (e *scriptedEngine) Counters(ifindex int) (links.Counters, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ifindex == 0 {
		return links.Counters{}, fmt.Errorf("counters: %w", links.ErrGone)
	}
	e.count()
	c := e.counter(ifindex)
	packets, octets := uint64(c.packets/2), uint64(c.bits/16)
	return links.Counters{RxPackets: packets, TxPackets: packets, RxBytes: octets, TxBytes: octets}, nil
}
