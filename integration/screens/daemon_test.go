package screens

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap"
)

// daemonOnPaper answers as a daemon of which every figure is known. Between two
// readings of its counters a second passes on its own clock.
type daemonOnPaper struct {
	t      *testing.T
	path   string
	server *http.Server
	ports  []accel.PortV1
	groups bool // it has stable ports

	mu       sync.Mutex
	readings uint64
	events   chan nicswap.EventV1
	// followed is closed when someone follows the events.
	followed chan struct{}
}

// socket is the daemon's, from the directory of the terminal.
const socket = "s"

func startDaemon(t *testing.T, dir string, ports []accel.PortV1) *daemonOnPaper {
	t.Helper()
	d := &daemonOnPaper{
		t: t, path: filepath.Join(dir, socket), ports: ports, groups: true,
		events: make(chan nicswap.EventV1), followed: make(chan struct{}),
	}
	d.start()
	t.Cleanup(d.stop)
	return d
}

func (d *daemonOnPaper) start() {
	d.t.Helper()
	listener, err := net.Listen("unix", d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.server = &http.Server{Handler: d.routes()}
	go d.server.Serve(listener)
}

// stop ends the daemon, and the streams with it.
func (d *daemonOnPaper) stop() { d.server.Close() }

func (d *daemonOnPaper) routes() http.Handler {
	mux := http.NewServeMux()
	for path, answer := range map[string]func() any{
		"/v1/status":   func() any { return status() },
		"/v1/ports":    func() any { return d.ports },
		"/v1/fdb":      func() any { return fdb() },
		"/v1/reasons":  func() any { return reasons(0) },
		"/v1/explain":  func() any { return explanation() },
		"/v1/snapshot": d.snapshot,
		"/v1/groups":   func() any { return groups() },
		"/v1/swaps":    func() any { return swaps() },
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			if !d.groups && (path == "/v1/groups" || path == "/v1/swaps") {
				w.WriteHeader(http.StatusNotFound)
				json.NewEncoder(w).Encode(accel.ErrorV1{Error: "the daemon does not know GET " + path})
				return
			}
			json.NewEncoder(w).Encode(answer())
		})
	}
	mux.HandleFunc("GET /v1/events", d.stream)
	return mux
}

// stream sends the events that the test tells.
func (d *daemonOnPaper) stream(w http.ResponseWriter, r *http.Request) {
	send := func(e nicswap.EventV1) {
		json.NewEncoder(w).Encode(e)
		w.(http.Flusher).Flush()
	}
	send(nicswap.EventV1{Event: "follow"})
	d.mu.Lock()
	select {
	case <-d.followed:
	default:
		close(d.followed)
	}
	d.mu.Unlock()
	for {
		select {
		case e := <-d.events:
			send(e)
		case <-r.Context().Done():
			return
		}
	}
}

// snapshot counts on: every reading finds a second's frames more.
func (d *daemonOnPaper) snapshot() any {
	d.mu.Lock()
	d.readings++
	n := d.readings
	d.mu.Unlock()
	s := accel.SnapshotV1{TimeNS: int64(n) * 1e9, Status: status(), Reasons: reasons(n)}
	for i, p := range d.ports {
		rate := uint64(len(d.ports)-i) * 123_456
		if p.In == accel.Fast {
			p.Fast += n * rate
			p.FastBytes += n * rate * 1250
		}
		p.Slow += n * (rate / 1000)
		p.SlowBytes += n * (rate / 1000) * 300
		s.Ports = append(s.Ports, p)
	}
	return s
}

// What the daemon knows: long names, large numbers, and something of every kind of
// trouble.

const (
	longBridge = "vmbr-production"
	longPort   = "tap-0123456789a"
)

func status() accel.StatusV1 {
	live := accel.Revocation{Entries: true, State: accel.StateLive}
	return accel.StatusV1{Ready: true, Version: "v1.0.0", PID: 4242, Namespace: 4026531833, Bridges: []accel.BridgeV1{
		{
			Name: "br0", Ifindex: 3, Present: true, Synced: true, On: true, Eligible: true, Reason: accel.Fast, Ports: 4, Stations: 37,
			Netfilter: "respect", Revocation: &live, Weaker: live.Weaker(),
			TrafficV1: accel.TrafficV1{Fast: 18_123_456_789, Slow: 4_321_987, FastBytes: 22 << 40, SlowBytes: 1 << 30},
		},
		{
			Name: longBridge, Ifindex: 4, Present: true, Synced: true, On: true, Reason: accel.BridgeNetfilter,
			Text: accel.BridgeNetfilter.Text(), Advice: accel.BridgeNetfilter.Advice(), Ports: 1023, Stations: 65536, Pending: 12, FDBFull: 345,
			Netfilter: "bypass", Revocation: &live, Weaker: live.Weaker(),
			TrafficV1: accel.TrafficV1{Fast: 1 << 63, Slow: 1 << 62},
		},
		{Name: "br-absent", Reason: accel.Absent, On: true, Text: accel.Absent.Text(), Advice: accel.Absent.Advice(), Netfilter: "respect"},
		{Name: "br-off", Ifindex: 9, Present: true, Synced: true, Reason: accel.Off, Text: accel.Off.Text(), Advice: accel.Off.Advice(), Netfilter: "respect", Revocation: &live},
	}}
}

func port(name, bridge string, ifindex int) accel.PortV1 {
	return accel.PortV1{
		Port: name, Bridge: bridge, Ifindex: ifindex, State: "forwarding", Attach: "tcx", MTU: 1500, VLANs: []accel.VLANV1{}, Stations: 9,
		TrafficV1: accel.TrafficV1{Fast: 4_523_456_789, Slow: 1_234_567, FastBytes: 5 << 40, SlowBytes: 1 << 28},
	}
}

// fewPorts fit a terminal of 24 lines, with all that is said of them.
func fewPorts() []accel.PortV1 {
	ports := []accel.PortV1{port("uplink", "br0", 10), port(longPort, "br0", 11), port("enp129s0f1np1v0", longBridge, 12)}
	ports[1].VLANs = []accel.VLANV1{{VID: 10, Untagged: true, Forwarding: true}}
	ports[2].State, ports[2].Attach, ports[2].In, ports[2].Out = "blocking", "clsact", accel.PortBlocked, accel.PortForeignTC
	return ports
}

// manyPorts are more than any terminal has lines.
func manyPorts() []accel.PortV1 {
	var ports []accel.PortV1
	for i := range 60 {
		ports = append(ports, port(longPort[:13]+string(rune('0'+i/10))+string(rune('0'+i%10)), "br0", 100+i))
	}
	return ports
}

func fdb() []accel.EntryV1 {
	entry := func(last byte, vlan uint16, port, bridge string, active bool, flags ...string) accel.EntryV1 {
		return accel.EntryV1{
			MAC: accel.MAC{0x52, 0x54, 0, 0x12, 0x34, last}, VLAN: vlan, Port: port, Bridge: bridge, Active: active, Flags: append([]string{}, flags...),
		}
	}
	return []accel.EntryV1{
		entry(1, 0, "uplink", "br0", true),
		entry(2, 4094, longPort, longBridge, false, "locked", "sticky"),
		entry(3, 1, longBridge, longBridge, true, "permanent"),
	}
}

// reasons are those after so many seconds. The totals look the same after a test's
// few as at first.
func reasons(seconds uint64) []accel.ReasonV1 {
	var list []accel.ReasonV1
	for _, r := range []struct {
		reason        accel.Reason
		frames, every uint64
	}{
		{accel.Fast, 18_123_456_789, 1_000_000}, {accel.BridgeNetfilter, 4_000_000_000, 99}, {accel.Multicast, 4_321_000_000, 1234},
		{accel.Keepalive, 777_000_000, 1}, {accel.DestinationUnknown, 99_999, 0}, {accel.SourceMoved, 3, 0},
	} {
		frames := r.frames + seconds*r.every
		list = append(list, accel.ReasonV1{Reason: r.reason, Frames: frames, Bytes: frames * 700, Text: r.reason.Text(), Advice: r.reason.Advice()})
	}
	return list
}

func explanation() accel.ExplainV1 {
	source := fdb()[0]
	return accel.ExplainV1{
		Verdict: "slow", Reason: accel.PortEgress, Text: accel.PortEgress.Text(), Advice: "see tc filter show dev " + longPort + " ingress and bpftool net",
		WhyPort: longPort + ": " + accel.PortForeignTC.String() + ": " + accel.PortForeignTC.Text(), Bridge: longBridge, In: "uplink", Out: longPort, VLAN: 10,
		Source: &source, Action: "tag 10",
	}
}

func groups() []nicswap.GroupV1 {
	return []nicswap.GroupV1{
		{
			Group: "uplink", Bridge: "br0", Port: "uplink", Ifindex: 10, State: "degraded", Active: "enp129s0f0np0v0",
			Why: "enp129s0f1np1v0 is not there", Adopted: true,
			Members: []nicswap.MemberV1{
				{Member: "enp129s0f0np0v0", Ifindex: 20, Kind: "physical", Driver: "mlx5_core", State: "active", Carrier: true, MTU: 9000},
				{Member: "enp129s0f1np1v0", Kind: "physical", State: "missing"},
			},
			Dropped: map[string]uint64{"standby": 1 << 40, "doubled": 2}, Drained: 12_345,
		},
		{
			Group: "storage-cluster", Bridge: longBridge, Port: "storage-cluster", Ifindex: 30, State: "ready", Active: "eth2",
			Members: []nicswap.MemberV1{
				{Member: "eth2", Ifindex: 31, Kind: "virtual", LinkKind: "macvlan", State: "active", Carrier: true, MTU: 1500},
				{Member: "eth3", Ifindex: 32, Kind: "virtual", LinkKind: "veth", State: "standby", Carrier: true, MTU: 1500},
			},
			Dropped: map[string]uint64{},
		},
	}
}

func swaps() []nicswap.SwapV1 {
	began := time.Date(2026, 11, 3, 4, 5, 6, 0, time.UTC)
	return []nicswap.SwapV1{
		{
			ID: "c", Group: "storage-cluster", From: "enp129s0f0np0v0", To: "enp129s0f1np1v0", FromKind: "physical", ToKind: "physical",
			Cause: "recovery", Why: "the daemon ended in the middle of a swap", Result: "rolled_back", Phase: "drain", FlipNS: 1_234_567, Began: began.Add(2 * time.Hour),
			Error: "enp129s0f1np1v0 has lost its carrier", Phases: phases("resolve", "check", "prewarm", "flip", "announce", "drain", "roll_back"),
			Dropped: map[string]uint64{"standby": 7}, Drained: 12,
		},
		{
			ID: "b", Group: "uplink", From: "eth0", To: "eth1", Cause: "request", Result: "failed", Phase: "prewarm", Began: began.Add(time.Hour),
			Error:  "eth1 has no carrier after 10s: see that its cable is in, and that the other end is up",
			Phases: phases("resolve", "check", "prewarm"), Dropped: map[string]uint64{},
		},
		{
			ID: "a", Group: "uplink", To: "eth0", Cause: "loss", Result: "done", FlipNS: 900, Began: began,
			Phases: phases("resolve", "check", "prewarm", "flip", "announce", "drain", "retire"), Stations: 37, Announced: 35, Dropped: map[string]uint64{},
		},
	}
}

func phases(names ...string) []nicswap.PhaseV1 {
	var list []nicswap.PhaseV1
	for i, name := range names {
		list = append(list, nicswap.PhaseV1{Phase: name, DurationMS: float64(len(name)*i) / 4})
	}
	return list
}

// tell sends an event to who follows.
func (d *daemonOnPaper) tell(e nicswap.EventV1) {
	d.t.Helper()
	select {
	case d.events <- e:
	case <-time.After(patience):
		d.t.Fatal("nobody follows the events")
	}
}

func mustNotContain(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%q is in:\n%s", part, text)
		}
	}
}
