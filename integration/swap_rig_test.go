package integration

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
	"github.com/shunt-dev/shunt/nicswap"
)

// The group of most tests, and its stable port.
const (
	uplink = "uplink"
	stable = "up0"
)

// swapRig is a lab around a stable port and the daemon that keeps it.
type swapRig struct {
	t      *testing.T
	l      *swaplab.Lab
	d      *daemon
	events *events
	groups []groupConfig
	config string // the file
	state  string // the directory
	stdout io.Writer
}

// groupConfig is a group as the configuration has it.
type groupConfig struct {
	name, port string
	members    []string
	drain      string // 100ms if it is empty
}

// rigOptions say what to build.
type rigOptions struct {
	guests int // 0 means 1
	kinds  []swaplab.Kind
	// idle: no frames are spread over the CPUs.
	idle bool
}

// newSwapRig builds a lab whose stable port has members m1, m2 ... of these kinds,
// and a daemon. The first is active.
func newSwapRig(t *testing.T, o rigOptions) *swapRig {
	t.Helper()
	x := newSwapLab(t, o)
	g := groupConfig{name: uplink, port: stable}
	for n, kind := range o.kinds {
		g.members = append(g.members, x.addMember(n+1, kind).Name)
	}
	x.start(g)
	if !o.idle {
		x.must(x.l.SpreadFrames(stable))
	}
	return x
}

// newSwapLab is a rig without members and daemon.
func newSwapLab(t *testing.T, o rigOptions) *swapRig {
	t.Helper()
	l, err := swaplab.New(max(o.guests, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &swapRig{t: t, l: l, state: filepath.Join(t.TempDir(), "state")}
}

func (x *swapRig) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *swapRig) addMember(n int, kind swaplab.Kind) *swaplab.Member {
	x.t.Helper()
	m, err := x.l.AddMember(fmt.Sprintf("m%d", n), kind)
	x.must(err)
	return m
}

// start starts the daemon with these groups, on br0, and waits until they carry
// traffic.
func (x *swapRig) start(groups ...groupConfig) {
	x.t.Helper()
	x.groups, x.config = groups, filepath.Join(x.t.TempDir(), "shunt.yaml")
	text := "bridges: [" + lab.BridgeName + "]\n"
	if len(groups) > 0 {
		text += "groups:\n"
	}
	for _, g := range groups {
		text += fmt.Sprintf("  - name: %s\n    bridge: %s\n    port: %s\n    members: [%s]\n    drain: %s\n",
			g.name, lab.BridgeName, g.port, strings.Join(g.members, ", "), cmp.Or(g.drain, "100ms"))
	}
	x.must(os.WriteFile(x.config, []byte(text), 0o600))
	x.restart()
	x.awaitReady()
	x.must(x.l.Host.AwaitForwarding())
}

// restart starts the daemon, again if it is gone.
func (x *swapRig) restart() {
	x.t.Helper()
	x.d = launchTo(x.t, x.stdout, x.l.Host.Bridge, "--config", x.config, "--state-dir", x.state)
	x.d.awaitReady()
	x.events = x.d.follow()
}

// awaitReady waits until every group is ready.
func (x *swapRig) awaitReady() {
	x.t.Helper()
	var last []nicswap.GroupV1
	defer func() {
		if x.t.Failed() {
			x.t.Logf("the groups: %+v", last)
		}
	}()
	await(x.t, "every group is ready", func() bool {
		last = x.allGroups()
		return !slices.ContainsFunc(last, func(g nicswap.GroupV1) bool { return g.State != "ready" }) && len(last) >= len(x.groups)
	})
}

func (x *swapRig) allGroups() (groups []nicswap.GroupV1) {
	x.t.Helper()
	x.must(x.d.ask(x.t.Context(), http.MethodGet, "groups", nil, &groups))
	return groups
}

func (x *swapRig) group(name string) nicswap.GroupV1 {
	x.t.Helper()
	for _, g := range x.allGroups() {
		if g.Group == name {
			return g
		}
	}
	x.t.Fatalf("there is no group %s", name)
	return nicswap.GroupV1{}
}

// swap moves the uplink and wants it to be done.
func (x *swapRig) swap(to string) nicswap.SwapV1 {
	x.t.Helper()
	s, err := x.trySwap(x.t.Context(), to)
	x.must(err)
	if s.Result != "done" || s.To != to {
		x.t.Fatalf("the swap to %s: %s in %s: %s", to, s.Result, s.Phase, s.Error)
	}
	return s
}

// trySwap asks for a swap and returns what became of it.
func (x *swapRig) trySwap(ctx context.Context, to string) (s nicswap.SwapV1, err error) {
	var swaps []nicswap.SwapV1
	request := nicswap.SwapRequestV1{Groups: []string{uplink}, To: to}
	if err := x.d.ask(ctx, http.MethodPost, "swap", request, &swaps); err != nil {
		return s, err
	}
	if len(swaps) != 1 {
		return s, fmt.Errorf("one swap was asked for, and %d came back", len(swaps))
	}
	return swaps[0], nil
}

// overSocket is a client of the daemon's socket.
func (d *daemon) overSocket() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.socket)
	}}}
}

// ask sends one request to the daemon and reads the answer.
func (d *daemon) ask(ctx context.Context, method, path string, body, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://shunt/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	response, err := d.overSocket().Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s /v1/%s: %s: %s", method, path, response.Status, text)
	}
	return json.Unmarshal(text, answer)
}

// events are the daemon's, from soon after its start until its end.
type events struct {
	t  *testing.T
	ch chan nicswap.EventV1 // closed when the daemon or the test ends
}

// follow follows the daemon's events, beside the test.
func (d *daemon) follow() *events {
	d.t.Helper()
	ctx := d.t.Context()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shunt/v1/events", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	e := &events{d.t, make(chan nicswap.EventV1, 10_000)}
	go func() {
		defer close(e.ch)
		response, err := d.overSocket().Do(request)
		if err != nil {
			return
		}
		defer response.Body.Close()
		for lines := json.NewDecoder(response.Body); ; {
			var event nicswap.EventV1
			if err := lines.Decode(&event); err != nil {
				return
			}
			select {
			case e.ch <- event:
			case <-ctx.Done():
				return
			}
		}
	}()
	return e
}

// until waits for the event that a swap of a group enters a phase. False: the swap
// or the daemon ended before.
func (e *events) until(group, phase string) (nicswap.EventV1, bool) {
	e.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case event, open := <-e.ch:
			switch {
			case !open || event.Group == group && event.Event == "swap":
				return event, false
			case event.Group == group && event.Event == "phase" && event.Phase == phase:
				return event, true
			}
		case <-late:
			e.t.Fatalf("no event of phase %s came", phase)
		}
	}
}

// end waits for the event that a swap of a group has ended.
func (e *events) end(group string) {
	e.t.Helper()
	const none = ""
	e.until(group, none)
}

// traffic sends both ways until the test ends, and returns when it flows.
func (x *swapRig) traffic() *swaplab.Traffic {
	x.t.Helper()
	return x.trafficAt(swaplab.Pace)
}

func (x *swapRig) trafficAt(pace lab.Pace) *swaplab.Traffic {
	x.t.Helper()
	traffic, err := x.l.StartTraffic(pace)
	x.must(err)
	x.t.Cleanup(func() { traffic.Stop() })
	x.must(traffic.AwaitFlow(100))
	return traffic
}

// stopTraffic returns what became of the frames.
func (x *swapRig) stopTraffic(traffic *swaplab.Traffic) swaplab.Totals {
	x.t.Helper()
	got, err := traffic.Stop()
	x.must(err)
	x.t.Log(got)
	return got
}

// expectWhole wants nothing lost, doubled or returned, and the order kept unless a
// member keeps frames in a queue of its own.
func (x *swapRig) expectWhole(got swaplab.Totals, ordered bool) {
	x.t.Helper()
	for name, w := range map[string]swaplab.Way{"out": got.Out, "in": got.In} {
		if w.Lost+w.Doubled+w.Returned > 0 {
			x.t.Errorf("%s: %v", name, w)
		}
		if ordered && w.Reordered > 0 {
			x.t.Errorf("%s: %d frames are out of order", name, w.Reordered)
		}
	}
	if got.Lab > 0 {
		x.t.Errorf("%d frames were lost in the lab itself", got.Lab)
	}
}

// watch follows the bridge from when all that came before is told.
func (x *swapRig) watch() *swaplab.Watch {
	x.t.Helper()
	w, err := swaplab.WatchBridge(x.l.Host)
	x.must(err)
	x.t.Cleanup(w.Close)
	return w
}

// expectUnnoticed wants the kernel to have told nothing of the bridge.
func (x *swapRig) expectUnnoticed(w *swaplab.Watch) {
	x.t.Helper()
	changes, err := w.Changes()
	x.must(err)
	if len(changes) > 0 {
		x.t.Errorf("the bridge noticed, %d times: %v", len(changes), changes[:min(len(changes), 10)])
	}
}

// quantiles returns the median and p99 of times; 0 without any.
func quantiles(times []time.Duration) (median, p99 time.Duration) {
	if len(times) == 0 {
		return 0, 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2], sorted[(len(sorted)*99+99)/100-1]
}
