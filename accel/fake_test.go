package accel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fake is a component that serves every interface of the host.
type fake struct {
	mu     sync.Mutex
	name   string
	calls  *[]string // of all fakes of a test, in order
	states []BridgeState
	stats  map[int][]PortStats
	fdb    []Station
	// explain answers, once it was asked what is in asked.
	explain func(Question) (Explanation, error)
	asked   []Question
	clean   []string
	finds   []Finding
	routes  []Route
	kept    []string

	provisionErr, startErr, stopErr, cleanErr error
	// startGate keeps Start from returning until it is closed or ctx ends.
	startGate chan struct{}
	// stopGate keeps Stop from returning until it is closed.
	stopGate chan struct{}
	started  chan struct{}
	// stopped is closed when Stop is called.
	stopped chan struct{}
	host    *Host
}

func (f *fake) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls != nil {
		*f.calls = append(*f.calls, f.name+" "+what)
	}
}

func (f *fake) Provision(_ context.Context, h *Host) error {
	f.note("provision")
	f.host = h
	return f.provisionErr
}

func (f *fake) Start(ctx context.Context) error {
	f.note("start")
	if f.started != nil {
		close(f.started)
	}
	if f.startGate != nil {
		select {
		case <-f.startGate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.startErr
}

func (f *fake) Stop(context.Context) error {
	f.note("stop")
	if f.stopped != nil {
		close(f.stopped)
		f.stopped = nil
	}
	if f.stopGate != nil {
		<-f.stopGate
	}
	return f.stopErr
}

func (f *fake) Bridges() []BridgeState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.states)
}

func (f *fake) FDB(bridge string) ([]Station, error) {
	if bridge != "br0" {
		return nil, nil
	}
	return f.fdb, nil
}

func (f *fake) Switch(_ context.Context, bridge string, on bool) error {
	f.note(fmt.Sprintf("switch %s %v", bridge, on))
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.states {
		if f.states[i].Name != bridge {
			continue
		}
		f.states[i].On = on
		f.states[i].Reason = Off
		if on {
			f.states[i].Reason = Fast
		}
	}
	return nil
}

func (f *fake) PortStats(bridge int) ([]PortStats, error) { return f.stats[bridge], nil }

func (f *fake) Explain(q Question) (Explanation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, q)
	return f.explain(q)
}

func (f *fake) Clean(context.Context, Namespace) ([]string, error) { return f.clean, f.cleanErr }

func (f *fake) Check(context.Context) []Finding { return f.finds }

func (f *fake) Routes() []Route { return f.routes }

func (f *fake) Kept() []string { return f.kept }

func (f *fake) plugin() Plugin { return Plugin{Name: "fake", New: func() Component { return f }} }

// sample is a bridge of each kind.
func sample() *fake {
	return &fake{
		name: "fake",
		states: []BridgeState{
			{
				Bridge: Bridge{"br0", 10}, Present: true, Synced: true, On: true, Reason: Fast, Stations: 3,
				Revocation: Revocation{Entries: true, State: StateLive}, VLANProtocol: 0x88a8,
				Ports: []PortState{
					{Port{
						Name: "p1", Ifindex: 11, MTU: 1500, PVID: 1,
						VLANs: NewVLANs([]VLAN{{1, true, true}, {10, false, true}, {4094, false, false}}),
					}, "forwarding", 2},
					{Port{Name: "p2", Ifindex: 12, MTU: 1500, In: PortForeignTC, Out: PortForeignTC}, "forwarding", 1},
					{Port{Name: "a-long-port-nam", Ifindex: 13, MTU: 9000, Flags: FlagIsolated, In: PortBlocked, Out: PortNetfilter}, "blocking", 0},
				},
			},
			{
				Bridge: Bridge{"a-long-bridge-n", 20}, Present: true, On: true, Reason: VLANStats,
				Stations: 65536, Pending: 12, Unmirrored: 34,
				Revocation: Revocation{Entries: true, State: StateLive}, BypassNetfilter: true,
			},
			{
				Bridge: Bridge{"br1", 30}, Present: true, Synced: true, On: true, Reason: Fast,
				Revocation: Revocation{Entries: true, State: StateTraced, VLANs: true},
			},
			{Bridge: Bridge{Name: "br9"}, On: false, Reason: Off},
		},
		stats: map[int][]PortStats{10: {
			{Ifindex: 11, Attach: "tcx", Counts: map[Reason]Count{Fast: {1_234_567, 1_851_850_500}, Keepalive: {120, 7200}, Multicast: {7, 420}}},
			{Ifindex: 12, Attach: "clsact", Counts: map[Reason]Count{PortForeignTC: {99_999, 5_999_940}, SourceMoved: {3, 180}}},
		}},
		fdb: []Station{
			{StationKey: StationKey{MAC{0x52, 0x54, 0, 0, 0, 1}, 0}, Port: 11, Sticky: true, Active: true},
			{StationKey: StationKey{MAC{0x52, 0x54, 0, 0, 0, 2}, 4094}, Port: 12, NoSource: true},
			{StationKey: StationKey{MAC{0x52, 0x54, 0, 0, 0, 3}, 0}, Local: true, Active: true},
			{StationKey: StationKey{MAC{0x52, 0x54, 0, 0, 0, 4}, 0}, Port: 77, Active: true},
		},
	}
}

// testApp is the program with the fakes, privileged by decree.
type testApp struct {
	app
	out, err bytes.Buffer
}

func newTestApp(plugins ...Plugin) *testApp {
	a := new(testApp)
	a.app = app{plugins: plugins, stdout: &a.out, stderr: &a.err, privileges: func() error { return nil }, alone: func() error { return nil }, namespaces: "/nonexistent"}
	return a
}

// call runs one command and returns what it did.
func (a *testApp) call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	a.out.Reset()
	a.err.Reset()
	code = a.main(t.Context(), args)
	return code, a.out.String(), a.err.String()
}

// runningDaemon is a daemon of fakes.
type runningDaemon struct {
	*service
	end    context.CancelFunc
	done   chan struct{}
	result error
}

// startDaemon runs a daemon in the background and waits for its socket.
func startDaemon(t *testing.T, socket string, f *fake, change ...func(*service)) *runningDaemon {
	t.Helper()
	config := DefaultConfig()
	config.Socket = socket
	// Claims are names in the network namespace, which tests share.
	config.Bridges = []string{fmt.Sprintf("t%d-%d", os.Getpid(), claimNumber.Add(1))}
	d := &runningDaemon{done: make(chan struct{})}
	d.service = &service{config: config, plugins: []Plugin{f.plugin()}, logger: slog.New(slog.NewTextHandler(io.Discard, nil)), namespaces: "/nonexistent"}
	for _, c := range change {
		c(d.service)
	}
	ctx, end := context.WithCancel(t.Context())
	d.end = end
	began := f.started
	if began == nil {
		began = make(chan struct{})
		f.started = began
	}
	go func() {
		defer close(d.done)
		d.result = d.run(ctx)
	}()
	t.Cleanup(func() { end(); <-d.done })
	select {
	case <-began:
	case <-d.done:
	}
	return d
}

// ready waits until the daemon says so.
func (d *runningDaemon) ready(t *testing.T) *Client {
	t.Helper()
	client := NewClient(d.config.Socket)
	for {
		status, err := client.Status(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if status.Ready {
			return client
		}
		time.Sleep(time.Millisecond)
	}
}

func (d *runningDaemon) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-d.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the daemon does not end")
	}
	return d.result
}

// claimNumber makes the bridge names of the tests' daemons differ.
var claimNumber atomic.Int64

// socketPath is short enough for sockaddr_un, which t.TempDir may not be.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "shunt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "s")
}

func mustContain(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}
