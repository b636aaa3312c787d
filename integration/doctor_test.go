package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// doctor is a running shunt doctor -j.
type doctor struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

func startDoctor(t *testing.T, l *lab.Lab, socket string, args ...string) *doctor {
	t.Helper()
	d := &doctor{cmd: exec.Command(binary, append([]string{"doctor", "-j", "--socket", socket}, args...)...)}
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.err
	if err := l.Bridge.Start(d.cmd); err != nil {
		t.Fatal(err)
	}
	return d
}

// findings waits for the end, and returns those of the bridge by their checks.
func (d *doctor) findings(t *testing.T) map[string][]accel.Finding {
	t.Helper()
	d.cmd.Wait() // it may say that shunt cannot run
	var all []accel.Finding
	if err := json.Unmarshal(d.out.Bytes(), &all); err != nil {
		t.Fatalf("%v: %s%s", err, d.out.String(), d.err.String())
	}
	of := make(map[string][]accel.Finding)
	for _, f := range all {
		if f.Bridge == lab.BridgeName {
			of[f.Check] = append(of[f.Check], f)
		}
	}
	return of
}

// packetSockets counts those in the bridge's namespace that take every frame.
func packetSockets(t *testing.T, l *lab.Lab) int {
	t.Helper()
	var text []byte
	if err := l.Bridge.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/packet")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[3] == "0003" {
			n++
		}
	}
	return n
}

// mixture has frames of every class; how many of each is in the names.
type mixture []struct {
	name   string
	from   int // host, counted from 1
	frame  []byte
	frames int
}

func ethernet(dst, src net.HardwareAddr, etherType uint16, payload ...byte) []byte {
	b := append(append(append([]byte{}, dst...), src...), byte(etherType>>8), byte(etherType))
	b = append(b, payload...)
	return append(b, make([]byte, max(0, 60-len(b)))...)
}

func mixed(bridge net.HardwareAddr) mixture {
	one, two, three := lab.MACOf(1), lab.MACOf(2), lab.MACOf(3)
	unknown, broadcast := net.HardwareAddr{2, 0, 0, 0, 9, 9}, net.HardwareAddr{255, 255, 255, 255, 255, 255}
	tagged := lab.Frame{Source: one, Destination: two, Tag: lab.Tag{Protocol: lab.Dot1Q, VID: 7}}
	return mixture{
		{"known, one way", 1, ethernet(two, one, lab.EtherType), 400},
		{"known, and back", 2, ethernet(one, two, lab.EtherType), 300},
		{"to the third", 1, ethernet(three, one, lab.EtherType), 100},
		{"broadcast", 1, ethernet(broadcast, one, lab.EtherType), 50},
		{"unknown", 2, ethernet(unknown, two, lab.EtherType), 40},
		{"to the host", 3, ethernet(bridge, three, lab.EtherType), 30},
		{"ARP", 1, ethernet(two, one, 0x0806), 20},
		{"LLC", 1, ethernet(two, one, 46), 10},
		{"same port", 1, ethernet(one, one, lab.EtherType), 5},
		{"tagged", 1, tagged.Bytes(), 25},
		{"double tagged", 1, doubleTag(tagged.Bytes()), 15},
		{"zero source", 1, ethernet(two, make(net.HardwareAddr, 6), lab.EtherType), 3},
		{"bad IP header", 2, ethernet(one, two, 0x0800, 0x45), 12},
	}
}

// doubleTag puts a second tag behind the first.
func doubleTag(b []byte) []byte {
	return append(append(append([]byte{}, b[:16]...), 0x81, 0, 0, 9), b[16:]...)
}

func (m mixture) deliver(t *testing.T, l *lab.Lab, wires []lab.Wire) (sent uint64) {
	t.Helper()
	for _, part := range m {
		for range part.frames {
			if err := l.Deliver(wires[part.from-1], part.frame); err != nil {
				t.Fatalf("%s: %v", part.name, err)
			}
			sent++
		}
	}
	return sent
}

// rig is a lab whose hosts the bridge knows, and what goes between them.
func doctorRig(t *testing.T) (*lab.Lab, []lab.Wire, mixture) {
	t.Helper()
	l := newLab(t, lab.Options{Hosts: 3})
	var wires []lab.Wire
	for _, h := range l.Hosts {
		w, err := h.SendingWire()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		wires = append(wires, w)
	}
	for i, w := range wires {
		if err := l.Deliver(w, ethernet(lab.MACOf(1+(i+1)%3), lab.MACOf(i+1), lab.EtherType)); err != nil {
			t.Fatal(err)
		}
	}
	var address net.HardwareAddr
	if err := l.Bridge.Do(func() error {
		bridge, err := netlink.LinkByName(lab.BridgeName)
		if err == nil {
			address = bridge.Attrs().HardwareAddr
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return l, wires, mixed(address)
}

// sampled lets the doctor look at what deliver sends.
func sampled(t *testing.T, l *lab.Lab, deliver func()) *accel.Forecast {
	t.Helper()
	d := startDoctor(t, l, "/nonexistent", "--bridge", lab.BridgeName, "--sample", "1m")
	t.Cleanup(func() { d.cmd.Process.Kill() })
	await(t, "the doctor listens at every port", func() bool { return packetSockets(t, l) == len(l.Hosts) })
	deliver()
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	traffic := d.findings(t)["traffic"]
	if len(traffic) != 1 || traffic[0].Traffic == nil {
		t.Fatalf("no forecast: %s", d.out.String())
	}
	return traffic[0].Traffic
}

// TestDoctorForetellsWhatTheDaemonCounts sends one mixture of frames twice, under the
// eyes of the doctor and through the daemon.
func TestDoctorForetellsWhatTheDaemonCounts(t *testing.T) {
	l, wires, mix := doctorRig(t)
	before := traces(t, l)
	var sent uint64
	forecast := sampled(t, l, func() { sent = mix.deliver(t, l, wires) })
	if after := traces(t, l); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the doctor left %v, before it was %v", after, before)
	}
	if forecast.Source != accel.SourceSample || forecast.Frames != sent || forecast.Looked != sent {
		t.Errorf("of %d frames the doctor saw %d, and looked at %d", sent, forecast.Frames, forecast.Looked)
	}

	d := startDaemon(t, l)
	d.awaitActive(lab.MACOf(1), lab.MACOf(2), lab.MACOf(3))
	earlier := d.reasons()
	mix.deliver(t, l, wires)
	counted := d.reasons()
	for reason, n := range earlier {
		counted[reason] -= n
	}
	foretold := make(map[accel.Reason]uint64)
	for _, r := range forecast.Reasons {
		foretold[r.Reason] = r.Frames
	}
	t.Logf("%-22s %8s %8s", "reason", "foretold", "counted")
	for _, r := range accel.Reasons() {
		if foretold[r]+counted[r] > 0 {
			t.Logf("%-22s %8d %8d", r, foretold[r], counted[r])
		}
	}
	// Which frame the bridge is shown hangs on the time; it is one of the fast.
	for _, frames := range []map[accel.Reason]uint64{foretold, counted} {
		frames[accel.Fast] += frames[accel.Keepalive]
		frames[accel.Keepalive] = 0
	}
	for _, r := range accel.Reasons() {
		if foretold[r] != counted[r] {
			t.Errorf("%v: the doctor foretells %d, the daemon counts %d", r, foretold[r], counted[r])
		}
	}
}

// TestDoctorAsksTheDaemonForItsCounters where one has the bridge.
func TestDoctorAsksTheDaemonForItsCounters(t *testing.T) {
	l, wires, mix := doctorRig(t)
	d := startDaemon(t, l)
	d.awaitActive(lab.MACOf(1), lab.MACOf(2), lab.MACOf(3))
	mix.deliver(t, l, wires)
	found := startDoctor(t, l, d.socket, "--sample", "0").findings(t)
	traffic := found["traffic"]
	if len(traffic) != 1 || traffic[0].Traffic.Source != accel.SourceDaemon {
		t.Errorf("got %+v", traffic)
	}
	if got := found["daemon"]; len(got) != 1 || got[0].Level != accel.LevelOK {
		t.Errorf("got %+v", got)
	}
	d.shunt("off")
	if got := startDoctor(t, l, d.socket, "--sample", "0").findings(t)["daemon"]; len(got) != 1 || got[0].Reason != accel.Off {
		t.Errorf("after off: %+v", got)
	}
}

// TestDoctorAgreesWithTheDaemonHere makes one conflict after the other.
func TestDoctorAgreesWithTheDaemonHere(t *testing.T) {
	l, _, _ := doctorRig(t)
	d := startDaemon(t, l)
	run := func(line string) func() { return func() { must(t, l.Bridge.Run(line)) } }
	var unfilter func() error
	for _, c := range []struct {
		name     string
		do, undo func()
		gate     accel.Reason
		port     accel.Reason // of p2
	}{
		{"nothing", func() {}, func() {}, accel.Fast, accel.Fast},
		{"a hub", run("ip link set br0 type bridge ageing_time 0"), run("ip link set br0 type bridge ageing_time 30000"), accel.Hub, accel.Fast},
		{"a macvlan", run("ip link add mv0 link br0 up type macvlan"), run("ip link del mv0"), accel.Promiscuous, accel.Fast},
		{"down", run("ip link set br0 down"), run("ip link set br0 up"), accel.BridgeDown, accel.PortBlocked},
		{"bridge rules", func() {
			must(t, l.Bridge.Run("nft add table bridge t"))
			must(t, l.Bridge.Run("nft add chain bridge t c { type filter hook forward priority 0 ; }"))
		}, run("nft delete table bridge t"), accel.BridgeNetfilter, accel.Fast},
		{"a netdev chain", func() {
			must(t, l.Bridge.Run("nft add table netdev t"))
			must(t, l.Bridge.Run("nft add chain netdev t c { type filter hook ingress device p2 priority 0 ; }"))
		}, run("nft delete table netdev t"), accel.Fast, accel.PortNetfilter},
		{"a port down", run("ip link set p2 down"), run("ip link set p2 up"), accel.Fast, accel.PortDown},
		{"a blocked port", run("bridge link set dev p2 state 1"), run("bridge link set dev p2 state 3"), accel.Fast, accel.PortBlocked},
		{"another's filter", func() { unfilter = dropByFilter(t, l, "p2") }, func() { must(t, unfilter()) }, accel.Fast, accel.PortForeignTC},
	} {
		c.do()
		await(t, "the daemon sees "+c.name, func() bool {
			var ports []accel.PortV1
			d.decode(&ports, "ports")
			for _, p := range ports {
				if p.Port == "p2" {
					return p.In == c.port && d.bridge().Reason == c.gate
				}
			}
			return false
		})
		found := startDoctor(t, l, d.socket, "--sample", "0").findings(t)
		if got := found["eligible"]; len(got) != 1 || got[0].Reason != c.gate {
			t.Errorf("%s: the doctor says %+v of the bridge", c.name, got)
		}
		var port accel.Reason
		for _, f := range found["ports"] {
			if strings.Contains(f.Text, "p2") {
				port = f.Reason
			}
		}
		if port != c.port {
			t.Errorf("%s: the doctor says %v of the port: %+v", c.name, port, found["ports"])
		}
		c.undo()
	}
}

// TestDoctorWithoutRights says what it cannot see, in sentences.
func TestDoctorWithoutRights(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	cmd := exec.Command(binary, "doctor", "--socket", "/nonexistent")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	must(t, os.Chmod(filepath.Dir(binary), 0o755))
	must(t, l.Bridge.Start(cmd))
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"fail  privileges ", "CAP_NET_ADMIN", "sudo shunt doctor", "note  the rest "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 80 {
			t.Errorf("too wide: %s", line)
		}
	}
}

// TestDoctorSeesThatPinsAreHidden in a mount namespace as ip netns exec makes it.
func TestDoctorSeesThatPinsAreHidden(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	startDaemon(t, l) // mounts a bpffs where there is none
	const hide = `umount -l /sys && mount -t sysfs sysfs /sys && exec "$0" doctor --sample 0 --socket /nonexistent`
	cmd := exec.Command("unshare", "-m", "sh", "-c", hide, binary)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, l.Bridge.Start(cmd))
	must(t, cmd.Wait())
	if !strings.Contains(out.String(), "note  bpffs          /sys/fs/bpf is hidden here") {
		t.Errorf("got %s", out.String())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
