package integration

import (
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/twin"
)

// What shunt explain says of a frame is what becomes of it: the reason that it
// names is the one that is counted when the frame is sent. The frames and the
// changes between them are the twin test's.
func TestExplainAgreesWithTheFate(t *testing.T) {
	const changes, frames = 40, 1400
	options := twinOptions()
	b := startTwins(t, options)
	e := &explained{beside: b, t: t, said: make(map[accel.Reason]int)}
	for s := range twin.Generate(twin.Mix{Options: options, Seed: *twinSeed, Changes: changes, Frames: frames}) {
		f, sends := twin.ParseFrame(s)
		switch {
		case sends:
			e.expectFate(f)
		default:
			e.do(s)
			e.settle()
		}
		if t.Failed() {
			t.Fatalf("after %q", s)
		}
	}
	t.Logf("%d frames were explained: %v; %d could not be asked about or did not reach shunt; %d met the keepalive meanwhile",
		e.asked, e.said, e.untold, e.keepalives)
	if e.said[accel.Fast] == 0 || e.asked < frames/2 {
		t.Error("too few frames were explained: the test shows little")
	}
}

type explained struct {
	*beside
	t                         *testing.T
	said                      map[accel.Reason]int
	asked, untold, keepalives int
}

// do does one step to both twins.
func (e *explained) do(s twin.Step) {
	e.t.Helper()
	if err := e.Run(slices.Values([]twin.Step{s})); err != nil {
		e.t.Error(err)
	}
}

// expectFate asks about the frame and sends it.
func (e *explained) expectFate(f twin.Frame) {
	e.t.Helper()
	table := e.entries()
	told := e.mayAsk(f)
	if !told {
		e.untold++
		e.do(f.Step())
	} else {
		e.asked++
		explained := e.explain(f)
		e.said[explained]++
		before := e.allReasons()
		e.do(f.Step())
		e.compare(f, explained, before, e.allReasons())
	}
	if !slices.Equal(e.entries(), table) { // the daemon is about to change the map
		e.settle()
	}
}

// settle waits until nothing that is on its way into the map can change the
// verdict between question and frame.
func (e *explained) settle() {
	e.t.Helper()
	e.do(twin.Step{"settle"})
	await(e.t, "every station is verified", func() bool {
		status, err := e.client.Status(e.t.Context(), "br0")
		if err != nil || len(status.Bridges) != 1 {
			e.t.Fatalf("the status has %d bridges (%v)", len(status.Bridges), err)
		}
		return status.Bridges[0].Pending == 0
	})
}

// mayAsk says whether the frame meets shunt, and whether a question can stand for
// it: a question says nothing of segments, and a test run in the kernel takes
// no frame without a payload, none of IP whose header is cut off and none beyond
// a page (net/bpf/test_run.c: bpf_prog_test_run_skb).
func (e *explained) mayAsk(f twin.Frame) bool {
	e.t.Helper()
	reaches, err := e.With.Reaches(f)
	if err != nil {
		e.t.Fatal(err)
	}
	const page, lastVID = 3000, 4094
	frame, tag, whole := f.Arriving()
	header := 14
	switch int(frame[12])<<8 | int(frame[13]) {
	case unix.ETH_P_IP:
		header += 20
	case unix.ETH_P_IPV6:
		header += 40
	}
	return reaches && whole && len(frame) > header && len(frame) < page && (tag == nil || tag.VID <= lastVID)
}

func (e *explained) explain(f twin.Frame) accel.Reason {
	e.t.Helper()
	frame, tag, _ := f.Arriving()
	query := url.Values{"in": {f.Port()}, "frame": {hex.EncodeToString(frame)}}
	if tag != nil {
		query.Set("vlan", strconv.Itoa(int(tag.VID)))
		query.Set("vlan_protocol", map[uint16]string{unix.ETH_P_8021Q: "802.1Q", unix.ETH_P_8021AD: "802.1ad"}[tag.Protocol])
	}
	answer, err := e.client.Explain(e.t.Context(), query)
	if err != nil {
		e.t.Fatalf("explain %s: %v", f.Step(), err)
	}
	return answer.Reason
}

// compare wants exactly the explained reason counted, once. Only time may come
// between: a keepalive that became due, or was sent meanwhile.
func (e *explained) compare(f twin.Frame, explained accel.Reason, before, after map[accel.Reason]uint64) {
	e.t.Helper()
	var counted []string
	fate := accel.Reason(accel.NumReasons)
	for reason, n := range after {
		for range n - before[reason] {
			counted, fate = append(counted, reason.String()), reason
		}
	}
	switch {
	case len(counted) == 1 && fate == explained:
	case len(counted) == 1 && (fate == accel.Keepalive || explained == accel.Keepalive):
		e.keepalives++
	default:
		e.t.Errorf("%q: explained as %s, and counted as %s", f.Step(), explained, strings.Join(counted, ", "))
	}
}

func (e *explained) allReasons() map[accel.Reason]uint64 {
	e.t.Helper()
	rows, err := e.client.Reasons(e.t.Context(), "br0")
	if err != nil {
		e.t.Fatal(err)
	}
	n := make(map[accel.Reason]uint64)
	for _, r := range rows {
		n[r.Reason] = r.Frames
	}
	return n
}

func (e *explained) entries() []twin.Entry {
	e.t.Helper()
	rows, err := e.With.Entries()
	if err != nil {
		e.t.Fatal(err)
	}
	return rows
}
