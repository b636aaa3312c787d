package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/integration/spantree"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

// span is a span as the console exporter prints it.
type span struct {
	Name        string
	StartTime   time.Time
	EndTime     time.Time
	SpanContext spanContext
	Parent      spanContext
	Attributes  []struct {
		Key   string
		Value struct{ Value any }
	}
	Status struct{ Code, Description string }
}

type spanContext struct{ TraceID, SpanID string }

// A swap is one trace with a span for every phase, below what the caller's
// TRACEPARENT says; and a swap that fails says where.
func TestSwapIsOneTrace(t *testing.T) {
	const (
		done, failed = "4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4737"
		parent       = "00f067aa0ba902b7"
	)
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	x := newSwapLab(t, rigOptions{})
	printed := &output{}
	x.stdout = printed
	g := groupConfig{name: uplink, port: stable, drain: "1s"} // the default
	for n := range 2 {
		g.members = append(g.members, x.addMember(n+1, swaplab.Veth).Name)
	}
	x.start(g)
	x.must(x.swapWithParent("m2", "00-"+done+"-"+parent+"-01"))
	x.must(x.l.Host.Bridge.Run("ip link add link m1 name upper type macvlan"))
	if err := x.swapWithParent("m1", "00-"+failed+"-"+parent+"-01"); err == nil {
		t.Error("a swap to a member with a device on top of it went well")
	}
	x.must(x.l.Host.Bridge.Run("ip link del upper"))
	x.d.stop() // it writes its spans

	spans := parseSpans(t, printed.String())
	expectTrace(t, spans, done, parent, swapPhases)
	checkSwap(t, below(spans, done, parent))
	inTrace := slices.DeleteFunc(slices.Clone(spans), func(s span) bool { return s.SpanContext.TraceID != failed })
	if !slices.ContainsFunc(inTrace, func(s span) bool { return s.Status.Code == "Error" }) {
		t.Errorf("no span of the swap that failed says so: %+v", inTrace)
	}
}

// below returns a trace without what is above it.
func below(spans []span, trace, parent string) (tree []spantree.Span) {
	for _, s := range spans {
		if s.SpanContext.TraceID != trace {
			continue
		}
		of := spantree.Span{ID: s.SpanContext.SpanID, Parent: s.Parent.SpanID, Name: s.Name, Began: s.StartTime, Took: s.EndTime.Sub(s.StartTime)}
		if of.Parent == parent {
			of.Parent = ""
		}
		tree = append(tree, of)
	}
	return tree
}

// swapWithParent runs shunt swap with a trace context in its environment.
func (x *swapRig) swapWithParent(to, traceparent string) error {
	cmd := exec.Command(binary, "swap", uplink, "--to", to, "--socket", x.d.socket, "-j")
	cmd.Env = append(os.Environ(), "TRACEPARENT="+traceparent)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return nil
}

func parseSpans(t *testing.T, text string) (spans []span) {
	t.Helper()
	for decoder := json.NewDecoder(bytes.NewBufferString(text)); ; {
		var s span
		err := decoder.Decode(&s)
		if err == io.EOF {
			return spans
		}
		if err != nil {
			t.Fatalf("the daemon's standard output is not spans: %v\n%s", err, text)
		}
		spans = append(spans, s)
	}
}

// expectTrace wants the phases to be siblings in that order, each once, in a trace
// whose topmost span hangs on the parent.
func expectTrace(t *testing.T, spans []span, trace, parent string, phases []string) {
	t.Helper()
	byID := make(map[string]span)
	var found []span
	for _, s := range spans {
		if s.SpanContext.TraceID != trace {
			continue
		}
		byID[s.SpanContext.SpanID] = s
		if slices.Contains(phases, s.Name) {
			found = append(found, s)
		}
	}
	var names []string
	for _, s := range found {
		names = append(names, s.Name)
		if s.Parent != found[0].Parent {
			t.Errorf("phase %s hangs on another span than phase %s", s.Name, found[0].Name)
		}
	}
	if !slices.Equal(names, phases) {
		t.Fatalf("the trace has spans %v, want %v, among %+v", names, phases, byID)
	}
	top := found[0]
	for above, ok := byID[top.Parent.SpanID]; ok; above, ok = byID[top.Parent.SpanID] {
		top = above
	}
	if top.Parent.SpanID != parent {
		t.Errorf("the topmost span is %s and hangs on %q, want %s", top.Name, top.Parent.SpanID, parent)
	}
	for _, key := range []string{"group", "from", "to"} {
		if !hasAttribute(byID[found[0].Parent.SpanID], key) {
			t.Errorf("the span of the swap does not say its %s: %+v", key, byID[found[0].Parent.SpanID])
		}
	}
}

// hasAttribute looks for an attribute of that name, or of that last part of a name.
func hasAttribute(s span, key string) bool {
	for _, a := range s.Attributes {
		if a.Key == key || len(a.Key) > len(key) && a.Key[len(a.Key)-len(key)-1:] == "."+key {
			return true
		}
	}
	return false
}
