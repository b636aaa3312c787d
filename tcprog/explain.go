package tcprog

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// explainer is the build of the verdict that changes nothing, over the maps of
// one bridge.
type explainer struct {
	Program   *ebpf.Program `ebpf:"shunt_explain"`
	Questions *ebpf.Map     `ebpf:"questions"`
	Answers   *ebpf.Map     `ebpf:"answers"`
}

// What shunt.c says of the tag, enum tag_action.
const (
	tagPop  = 1
	tagPush = 2
)

func (br *bridge) loadExplainer() error {
	spec, options, err := br.programSpec(0)
	if err != nil {
		return err
	}
	br.explainer = new(explainer)
	if err := spec.LoadAndAssign(br.explainer, options); err != nil {
		br.explainer = nil
		return fmt.Errorf("load the program that explains: %w", err)
	}
	return nil
}

// explain asks the data plane what it would do with a frame, by
// BPF_PROG_TEST_RUN.
func (br *bridge) explain(q accel.Question) (accel.Explanation, error) {
	p := br.ports[q.In]
	if p == nil {
		return accel.Explanation{}, fmt.Errorf("port %d carries no program", q.In)
	}
	if br.explainer == nil {
		if err := br.loadExplainer(); err != nil {
			return accel.Explanation{}, err
		}
	}
	a, err := br.explainer.ask(p, q)
	if errors.Is(err, unix.EINVAL) {
		return accel.Explanation{}, errors.New("the kernel tries no program on such a frame: it is too short for its headers, or too long")
	}
	if err != nil {
		return accel.Explanation{}, fmt.Errorf("ask the data plane: %w", err)
	}
	return br.inWords(a, q), nil
}

func (e *explainer) ask(p *port, q accel.Question) (a shuntAnswer, err error) {
	question := shuntQuestion{Slot: p.slot, Vid: q.Tag, TagProtocol: q.TagProtocol}
	if err := e.Questions.Update(uint32(0), question, ebpf.UpdateAny); err != nil {
		return a, err
	}
	if err := e.Answers.Update(uint32(0), shuntAnswer{}, ebpf.UpdateAny); err != nil {
		return a, err
	}
	if _, err := runOn(e.Program, p.ifindex, q.Frame); err != nil {
		return a, err
	}
	return a, e.Answers.Lookup(uint32(0), &a)
}

// inWords turns slots into ports.
func (br *bridge) inWords(a shuntAnswer, q accel.Question) accel.Explanation {
	portOf := br.portOfSlot()
	x := accel.Explanation{Reason: accel.Reason(a.Reason), VID: a.Vid}
	if a.Out != 0 {
		x.Out = portOf[a.Out]
	}
	if a.HasSource != 0 {
		s := stationOf(shuntStationKey{Mac: [6]uint8(q.Frame[6:12]), Vid: a.Vid}, a.Source, portOf)
		x.Source = &s
	}
	if a.HasDestination != 0 {
		s := stationOf(shuntStationKey{Mac: [6]uint8(q.Frame[:6]), Vid: a.Vid}, a.Destination, portOf)
		x.Destination = &s
	}
	if x.Reason == accel.Fast {
		x.Pop = a.Action == tagPop
		if a.Action == tagPush {
			x.Push = a.Push
		}
	}
	return x
}

func (e *explainer) close() error {
	if e == nil {
		return nil
	}
	return errors.Join(e.Program.Close(), e.Questions.Close(), e.Answers.Close())
}
