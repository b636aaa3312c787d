package twin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strings"
)

// Daemon is the shunt beside the first side.
type Daemon interface {
	// Stop stops every thread of it; Resume lets them go on.
	Stop() error
	Resume() error
	// Settle returns when it has heard of everything and done what it does
	// about that.
	Settle() error
}

// MostFrames is how many frames may be under way at once: what they become, with
// every port flooded, must fit into the queue that all devices share
// (net.core.netdev_max_backlog).
const MostFrames = 64

// Twins are the two sides and how steps are done to them.
type Twins struct {
	With, Without *Side
	// Daemon runs beside With.
	Daemon Daemon
	// AtOnce: nothing may pass between a change and the frames behind it. It
	// is false where the kernel has no way to tell the programs.
	AtOnce bool
	// Stopped: the daemon is stopped from before a change until the frames
	// behind it have come.
	Stopped bool

	fence   *fence
	burst   []Frame
	sent    []uint64 // the numbers of the burst
	stopped bool     // the daemon is
	// Frames, Deliveries and Changes count what was done; the deliveries are
	// those of the bare side.
	Frames, Deliveries, Changes int
	Refused                     int // changes that both kernels refused
}

// NewTwins builds two labs. The caller starts the daemon.
func NewTwins(o Options) (*Twins, error) {
	t := &Twins{}
	var err error
	if t.With, err = NewSide("with shunt", o); err != nil {
		return nil, err
	}
	if t.Without, err = NewSide("without shunt", o); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if t.fence, err = newFence(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Close removes both labs.
func (t *Twins) Close() error {
	var errs []error
	for _, s := range []*Side{t.With, t.Without} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if t.fence != nil {
		errs = append(errs, t.fence.close())
	}
	return errors.Join(errs...)
}

// Difference is what one side did and the other did not.
type Difference struct {
	Step  int // the number of the step behind which it showed, from 0
	Words []string
}

func (d *Difference) Error() string {
	return fmt.Sprintf("step %d:\n\t%s", d.Step, strings.Join(d.Words, "\n\t"))
}

// Run does the steps to both sides until they differ, which is an error of type
// *Difference.
func (t *Twins) Run(steps iter.Seq[Step]) error {
	result := make(chan error)
	go func() { result <- t.run(steps) }() // pinned, and its thread ends with it
	return <-result
}

func (t *Twins) run(steps iter.Seq[Step]) error {
	if err := pin(); err != nil {
		return err
	}
	n := 0
	for s := range steps {
		if err := t.step(s); err != nil {
			return at(err, n)
		}
		n++
	}
	return at(errors.Join(t.check(), t.resume()), n)
}

// at notes which step it was.
func at(err error, step int) error {
	if d, ok := errors.AsType[*Difference](err); ok {
		d.Step = step
		return d
	}
	if err != nil {
		return fmt.Errorf("step %d: %w", step, err)
	}
	return nil
}

func (t *Twins) step(s Step) error {
	switch {
	case s.is("check"):
		return t.check()
	case s.is("settle"):
		return t.settle()
	case s.is("send"):
		return t.send(s)
	}
	if err := t.check(); err != nil {
		return err
	}
	return t.change(s)
}

func (t *Twins) send(s Step) error {
	f, err := s.frame()
	if err != nil {
		return err
	}
	if f.Host < 1 || f.Host > len(t.With.ports) {
		return fmt.Errorf("there is no host %d", f.Host)
	}
	t.Frames++
	t.burst = append(t.burst, f)
	t.sent = append(t.sent, uint64(t.Frames))
	if len(t.burst) == MostFrames {
		return t.check()
	}
	return nil
}

// settle lets the daemon catch up.
func (t *Twins) settle() error {
	if err := errors.Join(t.check(), t.resume()); err != nil {
		return err
	}
	return t.Daemon.Settle()
}

func (t *Twins) resume() error {
	if !t.stopped {
		return nil
	}
	t.stopped = false
	return t.Daemon.Resume()
}

// change makes the change on both sides. Both kernels must say the same to it.
func (t *Twins) change(s Step) error {
	if t.Stopped && t.AtOnce && !t.stopped {
		if err := t.Daemon.Stop(); err != nil {
			return err
		}
		t.stopped = true
	}
	t.Changes++
	got, want := t.With.change(s), t.Without.change(s)
	if err := errors.Join(got, want); errors.Is(err, errOwn) {
		return err
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return &Difference{Words: []string{fmt.Sprintf("%q: with shunt the kernel says %v, without %v", s, got, want)}}
	}
	if want != nil {
		t.Refused++
	}
	if !t.AtOnce {
		return t.settle()
	}
	return nil
}

// check sends the burst on both sides and compares what came of it.
func (t *Twins) check() error {
	if len(t.burst) == 0 {
		return nil
	}
	defer func() { t.burst, t.sent = t.burst[:0], t.sent[:0] }()
	for _, s := range []*Side{t.With, t.Without} {
		for i, f := range t.burst {
			if err := s.ports[f.Host-1].host.send(f.bytes(t.sent[i])); err != nil {
				return fmt.Errorf("send %s: %w", f.Step(), err)
			}
		}
		if err := t.fence.wait(); err != nil {
			return err
		}
	}
	return t.compare()
}

func (t *Twins) compare() error {
	var words []string
	for n := range len(t.With.ports) + 1 {
		got, err := t.With.receiver(n).receive()
		if err != nil {
			return err
		}
		want, err := t.Without.receiver(n).receive()
		if err != nil {
			return err
		}
		t.Deliveries += len(want)
		if !slices.EqualFunc(got, want, bytes.Equal) {
			words = append(words, t.describe(t.With.receiverName(n), got, want)...)
		}
	}
	more, err := t.compareTables()
	if err != nil {
		return err
	}
	if words = append(words, more...); len(words) == 0 {
		return nil
	}
	for _, s := range []*Side{t.With, t.Without} {
		dropped, err := s.dropped()
		if err != nil {
			return err
		}
		if dropped > 0 {
			return fmt.Errorf("%d frames found no room in a receiver: what it got cannot be compared", dropped)
		}
	}
	return &Difference{Words: words}
}

// receiver n is a host's, counted from 0, and the last is the bridge's own.
func (s *Side) receiver(n int) receiver {
	if n == len(s.ports) {
		return s.own
	}
	return s.ports[n].host
}

func (s *Side) receiverName(n int) string {
	if n == len(s.ports) {
		return "the bridge itself"
	}
	return fmt.Sprintf("host %d", n+1)
}

func (s *Side) dropped() (sum uint32, err error) {
	for n := range len(s.ports) + 1 {
		dropped, err := s.receiver(n).drops()
		if err != nil {
			return 0, err
		}
		sum += dropped
	}
	return sum, nil
}

// describe says which frames one side delivered and the other did not.
func (t *Twins) describe(who string, got, want [][]byte) (words []string) {
	for _, f := range without(got, want) {
		words = append(words, fmt.Sprintf("%s got a frame that its twin did not: %s", who, t.summary(f)))
	}
	for _, f := range without(want, got) {
		words = append(words, fmt.Sprintf("%s did not get a frame that its twin got: %s", who, t.summary(f)))
	}
	if len(words) > 0 {
		return words
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			return []string{fmt.Sprintf("%s got its frames in another order from the %dth on: %s and not %s",
				who, i+1, t.summary(got[i]), t.summary(want[i]))}
		}
	}
	return nil
}

// without returns the frames of a that b does not have, each as often.
func without(a, b [][]byte) (rest [][]byte) {
	left := make(map[string]int)
	for _, f := range b {
		left[string(f)]++
	}
	for _, f := range a {
		if left[string(f)]--; left[string(f)] < 0 {
			rest = append(rest, f)
		}
	}
	return rest
}

// summary says what a frame is and which step sent it, as far as can be told.
func (t *Twins) summary(f []byte) string {
	vnet, tag, b := nativeHeader(f)
	if len(b) < ethLen {
		return fmt.Sprintf("% x", b)
	}
	var w strings.Builder
	fmt.Fprintf(&w, "%v > %v", net.HardwareAddr(b[6:12]), net.HardwareAddr(b[:6]))
	if tag[0] != 0 {
		tci := binary.BigEndian.Uint16(tag[3:])
		fmt.Fprintf(&w, " tag %v", Tag{binary.BigEndian.Uint16(tag[1:]), uint8(tci >> 13), tci & 0xfff})
	}
	fmt.Fprintf(&w, " type %04x, %d bytes", binary.BigEndian.Uint16(b[macs:]), len(b))
	if vnet[1] != 0 {
		fmt.Fprintf(&w, ", in segments of %d", binary.NativeEndian.Uint16(vnet[4:]))
	}
	if i := slices.Index(t.sent, lastNumber(b)); i >= 0 {
		fmt.Fprintf(&w, ": %q", t.burst[i].Step())
	}
	return w.String()
}

func lastNumber(b []byte) uint64 { return binary.BigEndian.Uint64(b[len(b)-numberLen:]) }

// compareTables compares the bridges' forwarding tables.
func (t *Twins) compareTables() (words []string, err error) {
	got, err := t.With.Entries()
	if err != nil {
		return nil, err
	}
	want, err := t.Without.Entries()
	if err != nil || slices.Equal(got, want) {
		return nil, err
	}
	for _, e := range got {
		if !slices.Contains(want, e) {
			words = append(words, fmt.Sprintf("the bridge has the entry %+v, its twin does not", e))
		}
	}
	for _, e := range want {
		if !slices.Contains(got, e) {
			words = append(words, fmt.Sprintf("the bridge lacks the entry %+v of its twin", e))
		}
	}
	return words, nil
}
