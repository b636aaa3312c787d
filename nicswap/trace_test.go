package nicswap

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/shunt-dev/shunt/accel"
)

// swapTrace splits the spans of one swap: itself and its phases, in their order.
func swapTrace(t *testing.T, spans tracetest.SpanStubs) (root tracetest.SpanStub, phases []tracetest.SpanStub) {
	t.Helper()
	for _, span := range spans {
		if span.Name == "swap" {
			root = span
		}
	}
	for _, span := range spans {
		if span.Name == "swap" {
			continue
		}
		if span.Parent.SpanID() != root.SpanContext.SpanID() {
			t.Errorf("%s is no child of the swap", span.Name)
		}
		phases = append(phases, span)
	}
	return root, phases
}

func names(spans []tracetest.SpanStub) (list []string) {
	for _, span := range spans {
		list = append(list, span.Name)
	}
	return list
}

func value(span tracetest.SpanStub, key attribute.Key) string {
	for _, a := range span.Attributes {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

// remote is a caller's trace.
func remote() (context.Context, trace.SpanContext) {
	parent := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true,
	})
	return trace.ContextWithRemoteSpanContext(context.Background(), parent), parent
}

func TestASwapIsOneTrace(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.table = []accel.Station{{Port: 50, Active: true}}
		l.k.on("Flip nic2", func() {
			l.k.mu.Lock()
			defer l.k.mu.Unlock()
			w := l.k.wires[l.k.find("uplink").Ifindex]
			w.counts[accel.Doubled] = accel.Count{Packets: 3}
			w.counts[accel.Drained] = accel.Count{Packets: 4}
		})
		ctx, parent := remote()
		v, err := d.Swap(ctx, Request{Group: "uplink", To: "nic2"})
		if err != nil {
			t.Fatal(err)
		}
		root, phases := swapTrace(t, d.spans.GetSpans())
		if root.Parent.SpanID() != parent.SpanID() || root.SpanContext.TraceID() != parent.TraceID() || v.TraceID != parent.TraceID().String() {
			t.Errorf("the caller's trace is not the parent: %+v", root)
		}
		if !slices.Equal(names(phases), []string{"resolve", "check", "prewarm", "flip", "announce", "drain", "retire"}) {
			t.Errorf("the phases are %v", names(phases))
		}
		for key, want := range map[attribute.Key]string{
			"shunt.group": "uplink", "shunt.cause": "request", "shunt.result": "done",
			"shunt.member.from": "nic1", "shunt.member.to": "nic2",
			"shunt.member.from.kind": "physical", "shunt.member.to.kind": "virtual",
			"shunt.stations": "1", "shunt.announced": "1", "shunt.drained": "4", "shunt.dropped.doubled": "3",
		} {
			if got := value(root, key); got != want {
				t.Errorf("%s is %q, not %q", key, got, want)
			}
		}
		if root.Status.Code == codes.Error {
			t.Errorf("a good swap has status %+v", root.Status)
		}
	})
}

func TestAFailureIsInTheTrace(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		l.k.refuse("PrepareFlip", errRefused)
		d.swap(t, "nic2")
		root, phases := swapTrace(t, d.spans.GetSpans())
		if root.Status.Code != codes.Error || len(root.Events) != 1 || value(root, "shunt.result") != "failed" {
			t.Errorf("the swap is %+v", root)
		}
		if !slices.Equal(names(phases), []string{"resolve", "check", "prewarm", "roll_back"}) {
			t.Errorf("the phases are %v", names(phases))
		}
		if phases[2].Status.Code != codes.Error || len(phases[2].Events) != 1 || phases[3].Status.Code == codes.Error {
			t.Errorf("the phases are %+v", phases)
		}
	})
}

func TestARefusalIsInTheTrace(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		if _, err := d.Swap(context.Background(), Request{Group: "uplink", To: "nic1"}); err == nil {
			t.Fatal("it is not refused")
		}
		if root, phases := swapTrace(t, d.spans.GetSpans()); root.Status.Code != codes.Error || !slices.Equal(names(phases), []string{"resolve"}) {
			t.Errorf("the trace is %+v with %v", root, names(phases))
		}
	})
}

func TestARollBackIsInTheTrace(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		go d.Swap(context.Background(), Request{Group: "uplink", To: "nic2"})
		synctest.Wait()
		l.k.unplug("nic2")
		synctest.Wait()
		root, phases := swapTrace(t, d.spans.GetSpans())
		if root.Status.Code != codes.Error || value(root, "shunt.result") != "rolled_back" {
			t.Errorf("the swap is %+v", root)
		}
		if !slices.Equal(names(phases), []string{"resolve", "check", "prewarm", "flip", "announce", "drain", "roll_back"}) {
			t.Errorf("the phases are %v", names(phases))
		}
	})
}

// TestAFailoverIsATrace, and no part of that of the start.
func TestAFailoverIsATrace(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.make()
		ctx, _ := remote()
		if err := d.Start(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.k.unplug("nic1")
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		root, phases := swapTrace(t, d.spans.GetSpans())
		if value(root, "shunt.cause") != "loss" || value(root, "shunt.member.to") != "nic2" || !slices.Equal(names(phases), []string{"flip", "announce", "drain", "retire"}) {
			t.Errorf("the trace is %+v with %v", root, names(phases))
		}
		if root.Parent.IsValid() {
			t.Errorf("the trace is part of %s", root.Parent.TraceID())
		}
		if d.last(t).TraceID != root.SpanContext.TraceID().String() {
			t.Errorf("the swap names trace %s", d.last(t).TraceID)
		}
	})
}

// The phases explain all of a swap's time, that of the disk too: what a trace shows no
// phase for, nobody can look for.
func TestThePhasesExplainTheTimeOfASwap(t *testing.T) {
	for name, c := range map[string]struct {
		hinder func(l *lab)
		result string
	}{
		"done":        {func(*lab) {}, "done"},
		"failed":      {func(l *lab) { l.k.refuse("PrepareFlip", errRefused) }, "failed"},
		"rolled back": {func(l *lab) { l.k.on("Send nic2", func() { go l.k.unplug("nic2") }) }, "rolled_back"},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				d := l.start()
				d.store.write = func(path string, content []byte) error {
					time.Sleep(3 * time.Millisecond)
					return writeFile(path, content)
				}
				l.k.table = []accel.Station{{Port: 50, Active: true}}
				c.hinder(l)
				if v := d.swap(t, "nic2"); v.Result != c.result {
					t.Fatalf("the swap is %+v", v)
				}
				root, phases := swapTrace(t, d.spans.GetSpans())
				explained := time.Duration(0)
				for _, phase := range phases {
					explained += phase.EndTime.Sub(phase.StartTime)
				}
				if took := root.EndTime.Sub(root.StartTime); explained != took || took == 0 {
					t.Errorf("phases %v take %v, and the swap %v", names(phases), explained, took)
				}
			})
		})
	}
}
