package nicswap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/announce"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// kernel stands for devices, wires and a bridge. It outlives the engines that work
// on it, as the real one does.
type kernel struct {
	readable  bool // by programs
	mu        sync.Mutex
	next      int
	links     map[int]*fakeLink
	wires     map[int]*fakeWire
	table     []accel.Station
	protocol  uint16 // of the bridge's VLANs
	vlans     map[string]accel.VLANs
	unsynced  bool
	known     map[accel.MAC][]netip.Addr
	foreign   map[string]bool
	sent      []sent
	watchers  map[chan links.Event]bool
	fail      map[string]error  // operation, such as "SetMTU nic1" -> what it returns
	before    map[string]func() // operation -> what happens right before it
	performed []string
	reads     int // of the bridge's table
}

// fakeLink is a device.
type fakeLink struct {
	links.Link
	unplugged bool
	altName   string
	held      bool // the kernel has not acted on its carrier
	addresses []links.Address
	uppers    []links.Link
	settings  links.PortSettings
	ipv6      links.IPv6
	lro       bool
}

// fakeWire is a wire.
type fakeWire struct {
	accel.WireState
	marking    bool
	counts     map[accel.Reason]accel.Count
	guards     [2]accel.Guard
	failedOver time.Time
	failovers  uint64
}

// sent is an announcement.
type sent struct {
	device   string
	stations []announce.Station
}

func newKernel() *kernel {
	k := &kernel{
		next: 1, links: make(map[int]*fakeLink), wires: make(map[int]*fakeWire),
		vlans: make(map[string]accel.VLANs), known: make(map[accel.MAC][]netip.Addr), foreign: make(map[string]bool),
		watchers: make(map[chan links.Event]bool), fail: make(map[string]error), before: make(map[string]func()),
	}
	k.add(links.Link{Name: "br0", Kind: "bridge", Up: true})
	return k
}

// add makes a device that is plugged in.
func (k *kernel) add(l links.Link) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.addLocked(l)
}

func (k *kernel) addLocked(l links.Link) int {
	l.Ifindex = k.next
	k.next++
	l.Ethernet = true
	l.MTU = cmp.Or(l.MTU, 1500)
	l.MAC = accel.MAC{2, 0, 0, 0, 0, byte(l.Ifindex)}
	k.links[l.Ifindex] = &fakeLink{Link: l, lro: true}
	k.settle()
	k.tell(l.Ifindex)
	return l.Ifindex
}

// nic makes a physical device with that name, down.
func (k *kernel) nic(name string) int {
	return k.add(links.Link{Name: name, Physical: true, Driver: "ixgbe"})
}

// veth makes a virtual one.
func (k *kernel) veth(name string) int { return k.add(links.Link{Name: name, Kind: "veth"}) }

// settle gives every device the carrier that it must have.
func (k *kernel) settle() {
	for _, l := range k.links {
		l.Carrier = l.Up && !l.unplugged
		l.Running = l.Carrier && !l.held
	}
	for port := range k.links {
		if stub := k.stubOf(port); stub != nil {
			k.links[port].Carrier = k.links[port].Up && stub.Up
		}
	}
}

func (k *kernel) stubOf(port int) *fakeLink {
	l := k.links[port]
	if l.Kind != "veth" || l.Lower == 0 || k.links[l.Lower] == nil || k.links[l.Lower].Name != links.StubName(l.Name) {
		return nil
	}
	return k.links[l.Lower]
}

func (k *kernel) tell(ifindex int) {
	event := links.Event{Ifindex: ifindex, Gone: true}
	if l := k.links[ifindex]; l != nil {
		event = links.Event{Ifindex: ifindex, Name: l.Name, Up: l.Up, Carrier: l.Carrier}
	}
	for w := range k.watchers {
		w <- event
	}
}

// find returns the device of that name; nil if there is none.
func (k *kernel) find(name string) *fakeLink {
	for _, l := range k.links {
		if l.Name == name || name != "" && l.altName == name {
			return l
		}
	}
	return nil
}

// set changes a device as an operator would.
func (k *kernel) set(name string, change func(*fakeLink)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.find(name)
	change(l)
	k.settle()
	k.tell(l.Ifindex)
}

func (k *kernel) unplug(name string) { k.set(name, func(l *fakeLink) { l.unplugged = true }) }
func (k *kernel) plug(name string)   { k.set(name, func(l *fakeLink) { l.unplugged = false }) }

// hold and release let the kernel be slow to act on a carrier.
func (k *kernel) hold(name string)    { k.set(name, func(l *fakeLink) { l.held = true }) }
func (k *kernel) release(name string) { k.set(name, func(l *fakeLink) { l.held = false }) }

// remove deletes a device, with its programs.
func (k *kernel) remove(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deleteLocked(k.find(name).Ifindex)
}

// move moves a device, with its programs, into another network namespace.
func (k *kernel) move(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ifindex := k.find(name).Ifindex
	delete(k.links, ifindex)
	k.tell(ifindex)
}

func (k *kernel) deleteLocked(ifindex int) {
	gone := []int{ifindex}
	if stub := k.stubOf(ifindex); stub != nil {
		gone = append(gone, stub.Ifindex)
	}
	for _, i := range gone {
		delete(k.links, i)
		for _, w := range k.wires {
			w.Members = slices.DeleteFunc(w.Members, func(m int) bool { return m == i })
		}
		k.tell(i)
	}
}

// clearWires is what a data plane that starts does about wires whose port is gone. One
// that is at work keeps them until they are closed.
func (k *kernel) clearWires() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for port := range k.wires {
		if k.links[port] == nil {
			delete(k.wires, port)
		}
	}
}

// link returns a device as it is now.
func (k *kernel) link(name string) fakeLink {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.find(name); l != nil {
		return *l
	}
	return fakeLink{}
}

// wire returns the wire of a port by names: who is active, draining, on it.
func (k *kernel) wire(port string) (active, draining string, members []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.find(port)
	if l == nil || k.wires[l.Ifindex] == nil {
		return "", "", nil
	}
	name := func(ifindex int) string {
		if l := k.links[ifindex]; l != nil {
			return l.Name
		}
		return ""
	}
	w := k.wires[l.Ifindex]
	for _, m := range w.Members {
		members = append(members, name(m))
	}
	slices.Sort(members)
	return name(w.Active), name(w.Draining), members
}

// marking says whether the port's wire remembers what is sent.
func (k *kernel) marking(port string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wires[k.find(port).Ifindex].marking
}

func (k *kernel) done() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.performed)
}

// refuse lets an operation fail from now on.
func (k *kernel) refuse(operation string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail[operation] = err
}

// on lets something happen right before an operation, once.
func (k *kernel) on(operation string, happens func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before[operation] = happens
}

// hand is what one engine works on the kernel with. When its daemon is killed, it
// does nothing any more.
type hand struct {
	k     *kernel
	plain map[int]bool // ports of the bridge that this daemon has attached without a wire

	mu     sync.Mutex
	count  int
	killAt int // the number of the operation that is not done any more; 0: none
	failAt int // the number of the operation that is refused; 0: none
	failed bool
	dead   bool
}

var errKilled = errors.New("the daemon was killed")

func (h *hand) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = true
}

func (h *hand) killed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dead
}

// next counts an operation, and says whether it can be done.
func (h *hand) next() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	if h.count == h.killAt {
		h.dead = true
	}
	switch {
	case h.dead:
		return errKilled
	case h.count == h.failAt:
		h.failed = true
		return errRefused
	}
	return nil
}

// do performs an operation.
func (h *hand) do(operation string, f func() error) error {
	if err := h.next(); err != nil {
		return err
	}
	k := h.k
	k.mu.Lock()
	happens := k.before[operation]
	delete(k.before, operation)
	k.mu.Unlock()
	if happens != nil {
		happens()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fail[operation]; err != nil {
		return err
	}
	k.performed = append(k.performed, operation)
	return f()
}

// change is do on a device.
func (h *hand) change(operation string, ifindex int, f func(*fakeLink) error) error {
	name := h.name(ifindex)
	return h.do(operation+" "+name, func() error {
		l := h.k.links[ifindex]
		if l == nil {
			return fmt.Errorf("%s %d: %w", operation, ifindex, links.ErrGone)
		}
		was := *l
		err := f(l)
		h.k.settle()
		if l.Link != was.Link {
			h.k.tell(ifindex)
		}
		return err
	})
}

func (h *hand) changeNamed(operation, name string, f func(*fakeLink) error) error {
	return h.change(operation, h.k.link(name).Ifindex, f)
}

func (h *hand) name(ifindex int) string {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if l := h.k.links[ifindex]; l != nil {
		return l.Name
	}
	return "-"
}

func (h *hand) ByName(name string) (links.Link, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if l := h.k.find(name); l != nil {
		return l.Link, nil
	}
	return links.Link{}, fmt.Errorf("find %s: %w", name, links.ErrGone)
}

func (h *hand) ByIndex(ifindex int) (links.Link, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if l := h.k.links[ifindex]; l != nil {
		return l.Link, nil
	}
	return links.Link{}, fmt.Errorf("find %d: %w", ifindex, links.ErrGone)
}

func (h *hand) All() ([]links.Link, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	var all []links.Link
	for _, l := range h.k.links {
		all = append(all, l.Link)
	}
	return all, nil
}

func (h *hand) HasAddresses(ifindex int) (bool, error) {
	a, err := h.Addresses(ifindex)
	return len(a) > 0, err
}

func (h *hand) Addresses(ifindex int) ([]links.Address, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if l := h.k.links[ifindex]; l != nil {
		return slices.Clone(l.addresses), nil
	}
	return nil, links.ErrGone
}

func (h *hand) Uppers(ifindex int) ([]links.Link, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if l := h.k.links[ifindex]; l != nil {
		return l.uppers, nil
	}
	return nil, links.ErrGone
}

// Carrier is what programs see, where the kernel lets them.
func (h *hand) Carrier(ifindex int) (bool, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if !h.k.readable {
		return false, errors.ErrUnsupported
	}
	l := h.k.links[ifindex]
	return l != nil && l.Up && l.Carrier, nil
}

func (h *hand) HasCarrier(name string) (bool, error) { return h.k.link(name).Carrier, nil }

func (h *hand) IPv6(name string) (links.IPv6, error) { return h.k.link(name).ipv6, nil }

func (h *hand) PortSettings(ifindex int) (links.PortSettings, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	l := h.k.links[ifindex]
	if l == nil || l.Master == 0 {
		return links.PortSettings{}, links.ErrNoPort
	}
	return l.settings, nil
}

func (h *hand) SetUp(ifindex int, up bool) error {
	operation := "SetUp"
	if !up {
		operation = "SetDown"
	}
	return h.change(operation, ifindex, func(l *fakeLink) error {
		l.Up = up
		if port := h.k.links[l.Lower]; port != nil {
			defer h.k.tell(port.Ifindex)
		}
		return nil
	})
}

func (h *hand) SetMTU(ifindex, mtu int) error {
	return h.change("SetMTU", ifindex, func(l *fakeLink) error { l.MTU = mtu; return nil })
}

func (h *hand) SetPromisc(ifindex int, on bool) error {
	return h.change("SetPromisc", ifindex, func(l *fakeLink) error { l.Promisc = on; return nil })
}

func (h *hand) DisableLRO(name string) error {
	return h.changeNamed("DisableLRO", name, func(l *fakeLink) error { l.lro = false; return nil })
}

func (h *hand) QuietIPv6(name string) error {
	return h.SetIPv6(name, links.IPv6{Disabled: true, AddrGenMode: 1})
}

func (h *hand) SetIPv6(name string, s links.IPv6) error {
	return h.changeNamed("SetIPv6", name, func(l *fakeLink) error { l.ipv6 = s; return nil })
}

func (h *hand) CreatePort(name string, mac accel.MAC, mtu int) (port, stub links.Link, err error) {
	err = h.do("CreatePort "+name, func() error {
		if h.k.find(name) != nil {
			return syscall.EEXIST
		}
		p := h.k.addLocked(links.Link{Name: name, Kind: "veth", MTU: mtu})
		s := h.k.addLocked(links.Link{Name: links.StubName(name), Kind: "veth", MTU: mtu, Lower: p})
		h.k.links[p].Lower = s
		if mac != (accel.MAC{}) {
			h.k.links[p].MAC = mac
		}
		h.k.settle()
		port, stub = h.k.links[p].Link, h.k.links[s].Link
		return nil
	})
	return port, stub, err
}

func (h *hand) Delete(ifindex int) error {
	return h.change("Delete", ifindex, func(*fakeLink) error { h.k.deleteLocked(ifindex); return nil })
}

func (h *hand) SetMaster(ifindex, master int) error {
	operation := "SetMaster"
	if master == 0 {
		operation = "ClearMaster"
	}
	return h.change(operation, ifindex, func(l *fakeLink) error {
		l.Master, l.settings = master, links.PortSettings{}
		h.plain[ifindex] = master != 0 && h.k.wires[ifindex] == nil
		return nil
	})
}

func (h *hand) ApplyPortSettings(ifindex int, s links.PortSettings) error {
	return h.change("ApplyPortSettings", ifindex, func(l *fakeLink) error {
		if l.Master == 0 {
			return links.ErrNoPort
		}
		l.settings = s
		return nil
	})
}

func (h *hand) AddAddress(ifindex int, a links.Address) error {
	return h.change("AddAddress", ifindex, func(l *fakeLink) error { l.addresses = append(l.addresses, a); return nil })
}

func (h *hand) DeleteAddress(ifindex int, a links.Address) error {
	return h.change("DeleteAddress", ifindex, func(l *fakeLink) error {
		l.addresses = slices.DeleteFunc(slices.Clone(l.addresses), func(b links.Address) bool { return b == a })
		return nil
	})
}

func (h *hand) Subscribe() (watch, error) {
	events := make(chan links.Event, 10000)
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	h.k.watchers[events] = true
	return func(ctx context.Context, changed func(links.Event)) error {
		defer func() {
			h.k.mu.Lock()
			delete(h.k.watchers, events)
			h.k.mu.Unlock()
		}()
		for {
			select {
			case event := <-events:
				if !h.killed() {
					changed(event)
				}
			case <-ctx.Done():
				return nil
			}
		}
	}, nil
}

// Counters are those of devices that carry nothing.
func (h *hand) Counters(ifindex int) (links.Counters, error) {
	_, err := h.ByIndex(ifindex)
	return links.Counters{}, err
}

func (h *hand) Close() error { return nil }

// onWire performs an operation on an open wire.
func (h *hand) onWire(operation string, port int, f func(*fakeWire) error) error {
	return h.do(operation, func() error {
		w := h.k.wires[port]
		if w == nil {
			return fmt.Errorf("%s: device %d has no wire", operation, port)
		}
		return f(w)
	})
}

func (h *hand) OpenWire(port int) (state accel.WireState, err error) {
	err = h.do("OpenWire "+h.name(port), func() error {
		if h.k.links[port] == nil {
			return syscall.ENODEV
		}
		w := h.k.wires[port]
		if w == nil {
			if h.plain[port] {
				return errors.New("it is a port of a bridge already, without a wire")
			}
			w = &fakeWire{WireState: accel.WireState{Port: port}, counts: make(map[accel.Reason]accel.Count)}
			h.k.wires[port] = w
		}
		state = w.WireState
		state.Members = slices.Clone(w.Members)
		return nil
	})
	return state, err
}

func (h *hand) CloseWire(port int) error {
	return h.onWire("CloseWire "+h.name(port), port, func(*fakeWire) error {
		delete(h.k.wires, port)
		l := h.k.links[port]
		h.plain[port] = l != nil && l.Master != 0
		return nil
	})
}

func (h *hand) AddMember(port, member int) error {
	return h.onWire("AddMember "+h.name(member), port, func(w *fakeWire) error {
		if h.k.links[member] == nil {
			return syscall.ENODEV
		}
		if h.k.links[member].Master != 0 {
			return errors.New("a member is in a bridge: that is a loop")
		}
		for _, other := range h.k.wires {
			if other != w && slices.Contains(other.Members, member) {
				return errors.New("it is a member of another wire")
			}
		}
		if !slices.Contains(w.Members, member) {
			w.Members = append(w.Members, member)
		}
		return nil
	})
}

func (h *hand) RemoveMember(port, member int) error {
	return h.onWire("RemoveMember "+h.name(member), port, func(w *fakeWire) error {
		if h.k.links[member] != nil && (w.Active == member || w.Draining == member) {
			return errors.New("it is in use")
		}
		w.Members = slices.DeleteFunc(w.Members, func(m int) bool { return m == member })
		return nil
	})
}

func (h *hand) PrepareFlip(port int) error {
	return h.onWire("PrepareFlip", port, func(w *fakeWire) error {
		w.Generation++
		w.marking = true
		return nil
	})
}

func (h *hand) Flip(port, to int) (from int, err error) {
	err = h.onWire("Flip "+h.name(to), port, func(w *fakeWire) error {
		if to != 0 && !slices.Contains(w.Members, to) {
			return errors.New("it is no member")
		}
		w.flip(to)
		from = w.Draining
		return nil
	})
	return from, err
}

func (w *fakeWire) flip(to int) {
	if w.Active != to {
		w.Draining, w.Active = w.Active, to
	}
}

// flip is what a program does that knew a standby a moment ago.
func (k *kernel) flip(port, to string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ifindex := 0
	if l := k.find(to); l != nil {
		ifindex = l.Ifindex
	}
	k.wires[k.find(port).Ifindex].flip(ifindex)
}

// failOver is what a program does with a frame: false if it does nothing.
func (k *kernel) failOver(port string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.wires[k.find(port).Ifindex]
	for n, standby := range w.guards {
		if active := w.guards[1-n]; active.Member != 0 && active.Member == w.Active && standby.Member != 0 {
			w.flip(standby.Member)
			w.failedOver = time.Now()
			w.failovers++
			return true
		}
	}
	return false
}

func (h *hand) Guard(port int, members [2]accel.Guard) error {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	w := h.k.wires[port]
	if w == nil {
		return errors.New("there is no wire")
	}
	w.guards = [2]accel.Guard{}
	for _, m := range members {
		if m.Member != 0 && h.k.links[m.Member] == nil {
			return syscall.ENODEV
		}
		if m.Member != 0 && !slices.Contains(w.Members, m.Member) {
			return errors.New("it is no member")
		}
	}
	w.guards = members
	return nil
}

func (h *hand) Members(port int) (accel.WireNow, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	w := h.k.wires[port]
	if w == nil {
		return accel.WireNow{}, errors.New("there is no wire")
	}
	return accel.WireNow{Active: w.Active, Draining: w.Draining, Failovers: w.failovers, FailedOver: w.failedOver}, nil
}

func (h *hand) EndDrain(port, active int) error {
	return h.onWire("EndDrain", port, func(w *fakeWire) error {
		if w.Active == active {
			w.Draining, w.marking = 0, false
		}
		return nil
	})
}

func (h *hand) Settle() { h.do("Settle", func() error { return nil }) }

func (h *hand) WireState(port int) (accel.WireState, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	w := h.k.wires[port]
	if w == nil {
		return accel.WireState{}, errors.New("there is no wire")
	}
	state := w.WireState
	state.Members = slices.Clone(w.Members)
	return state, nil
}

func (h *hand) WireCounts(port int) (map[accel.Reason]accel.Count, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if w := h.k.wires[port]; w != nil {
		return maps.Clone(w.counts), nil
	}
	return nil, errors.New("there is no wire")
}

func (h *hand) Foreign(ifindex int) (bool, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	return h.k.foreign[h.k.links[ifindex].Name], nil
}

func (h *hand) Bridges() []accel.BridgeState {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	b := accel.BridgeState{Present: true, Synced: !h.k.unsynced, VLANProtocol: h.k.protocol}
	b.Name, b.Ifindex = "br0", 1
	for _, l := range h.k.links {
		if br := h.k.links[l.Master]; br != nil && br.Name == "br0" {
			b.Ports = append(b.Ports, accel.PortState{Port: accel.Port{Name: l.Name, Ifindex: l.Ifindex, VLANs: h.k.vlans[l.Name]}})
		}
	}
	return []accel.BridgeState{b}
}

func (h *hand) FDB(string) ([]accel.Station, error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	h.k.reads++
	return slices.Clone(h.k.table), nil
}

func (h *hand) Send(ctx context.Context, ifindex int, stations []announce.Station, _ int) (int, error) {
	name := h.name(ifindex)
	err := h.do("Send "+name, func() error {
		h.k.sent = append(h.k.sent, sent{name, stations})
		return nil
	})
	if err == nil && ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return len(stations), err
}

func (h *hand) Probe(ctx context.Context, ifindex int, _ accel.MAC, _ netip.Addr) error {
	err := h.do("Probe "+h.name(ifindex), func() error { return nil })
	if errors.Is(err, errSilent) {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

var errSilent = errors.New("nobody answers")

// fakeSender is the announcer's view of a hand.
type fakeSender struct{ *hand }

func (s fakeSender) Addresses() (map[accel.MAC][]netip.Addr, error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return maps.Clone(s.k.known), nil
}

func (h *hand) write(path string, content []byte) error {
	if err := h.do("write", func() error { return nil }); err != nil {
		return err
	}
	return writeFile(path, content)
}

// life is a daemon at work.
type life struct {
	*Engine
	*hand
	spans *tracetest.InMemoryExporter
}

// lab is a kernel with daemons on it, one after the other.
type lab struct {
	floodTime time.Duration
	t         *testing.T
	k         *kernel
	config    accel.Config
}

// uplink is the group of most tests: nic1 and nic2 are its members.
func uplink() accel.Group {
	return accel.Group{
		Name: "uplink", Bridge: "br0", Port: "uplink", Members: []string{"nic1", "nic2"},
		Drain: 200 * time.Millisecond, Announce: true, AnnounceRate: 1000,
	}
}

// inLab runs a test in virtual time: waiting takes none.
func inLab(t *testing.T, test func(*testing.T, *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, k: newKernel()}
		l.k.nic("nic1")
		l.k.veth("nic2")
		l.config = accel.DefaultConfig()
		l.config.StateDir = t.TempDir()
		l.config.Bridges = []string{"br0"}
		l.config.Groups = []accel.Group{uplink()}
		test(t, l)
	})
}

// make makes a daemon that is not started yet.
func (l *lab) make() *life {
	l.k.clearWires()
	e, h := newEngine(), &hand{k: l.k, plain: make(map[int]bool)}
	e.floodTime, e.pulse = l.floodTime, tick
	spans := tracetest.NewInMemoryExporter()
	e.logger = slog.New(slog.NewTextHandler(testWriter{l.t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	e.tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)).Tracer("nicswap")
	e.config, e.wires, e.bridges, e.write = &l.config, h, h, h.write
	e.open = func() (devices, announcer, error) { return h, fakeSender{h}, nil }
	l.t.Cleanup(func() { e.Stop(context.Background()) })
	return &life{e, h, spans}
}

// start starts a daemon.
func (l *lab) start() *life {
	l.t.Helper()
	d := l.make()
	if err := d.Start(context.Background()); err != nil {
		l.t.Fatalf("the daemon does not start: %v", err)
	}
	synctest.Wait()
	return d
}

// end stops a daemon.
func (l *lab) end(d *life) {
	l.t.Helper()
	if err := d.Stop(context.Background()); err != nil {
		l.t.Errorf("the daemon does not stop: %v", err)
	}
}

// crash kills a daemon: nothing that it does counts any more.
func (l *lab) crash(d *life) {
	d.kill()
	d.Stop(context.Background())
}

// swap asks for a swap that must be begun.
func (d *life) swap(t *testing.T, to string) SwapV1 {
	t.Helper()
	v, err := d.Swap(context.Background(), Request{Group: "uplink", To: to})
	if err != nil {
		t.Fatalf("the swap to %s is refused: %v", to, err)
	}
	return v
}

// group returns a group as the API shows it.
func (d *life) group(t *testing.T, name string) GroupV1 {
	t.Helper()
	for _, g := range d.Groups() {
		if g.Group == name {
			return g
		}
	}
	t.Fatalf("there is no group %s", name)
	return GroupV1{}
}

// wantActive holds the wire and the API to the same member.
func (l *lab) wantActive(d *life, member string) {
	l.t.Helper()
	active, draining, _ := l.k.wire("uplink")
	if active != member {
		l.t.Errorf("the wire is on %q, not on %q", active, member)
	}
	if draining != "" {
		l.t.Errorf("%s is still draining", draining)
	}
	if shown := d.group(l.t, "uplink").Active; shown != member {
		l.t.Errorf("the group shows %q as active, not %q", shown, member)
	}
	if l.k.marking("uplink") {
		l.t.Error("the wire still remembers what is sent")
	}
}

// wantNoJournal holds that nothing is left to recover.
func (l *lab) wantNoJournal(d *life) {
	l.t.Helper()
	r, err := d.store.read("uplink")
	if err != nil || r != nil && r.Swap != nil {
		l.t.Errorf("there is still a journal: %+v, %v", r, err)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(text []byte) (int, error) {
	w.t.Logf("%s", text)
	return len(text), nil
}

var errRefused = errors.New("the kernel refuses")

var (
	_ devices   = (*hand)(nil)
	_ Wires     = (*hand)(nil)
	_ Bridges   = (*hand)(nil)
	_ announcer = fakeSender{}
)

// tick is a pulse in the lab's time.
func tick(ctx context.Context, every time.Duration, do func(), _ func(error)) {
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}
