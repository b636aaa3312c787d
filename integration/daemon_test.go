// Package integration tests the whole of shunt, the real binary beside a real
// bridge, in network namespaces of its own.
package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// binary is the shunt that the tests run.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(becomeShunt) != "" {
		return m.Run() // a child that tests nothing
	}
	if binary = os.Getenv("SHUNT_BINARY"); binary != "" {
		return m.Run() // where nothing can be built, in the VM
	}
	dir, err := os.MkdirTemp("", "shunt-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "shunt")
	if out, err := exec.Command("go", "build", "-o", binary, "..").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build shunt: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// newLab builds a lab that ends with the test.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	l, err := lab.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func newWire(t *testing.T, h *lab.Host) lab.Wire {
	t.Helper()
	w, err := h.Wire()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// daemon is a running shunt.
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket string
	log    *output
	notify *net.UnixConn
	exited chan struct{} // closed when the process has ended
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// startDaemon starts shunt run on br0 and waits until it says that it is ready.
func startDaemon(t *testing.T, l *lab.Lab, args ...string) *daemon {
	t.Helper()
	d := launch(t, l.Bridge, append([]string{"--bridge", lab.BridgeName}, args...)...)
	d.awaitReady()
	return d
}

// launch starts shunt run and does not wait for anything.
func launch(t *testing.T, ns *lab.Namespace, args ...string) *daemon {
	t.Helper()
	return launchTo(t, nil, ns, args...)
}

// launchTo is launch with a place for what the daemon prints; nil for nowhere.
func launchTo(t *testing.T, stdout io.Writer, ns *lab.Namespace, args ...string) *daemon {
	t.Helper()
	return launchBy(t, []string{binary}, stdout, ns, args...)
}

// launchBy is launchTo by a command that becomes shunt.
func launchBy(t *testing.T, by []string, stdout io.Writer, ns *lab.Namespace, args ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{t: t, socket: filepath.Join(dir, "shunt.sock"), log: &output{}, exited: make(chan struct{})}
	by = append(append([]string{}, by...), "run", "--socket", d.socket)
	d.cmd = exec.Command(by[0], append(by[1:], args...)...)
	d.cmd.Stdout, d.cmd.Stderr = stdout, d.log
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	d.listenNotify(filepath.Join(dir, "notify"))
	if err := ns.Start(d.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.resume()
		d.stop()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.log)
		}
	})
	return d
}

func (d *daemon) listenNotify(path string) {
	d.t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		d.t.Fatal(err)
	}
	d.notify = c
	d.t.Cleanup(func() { c.Close() })
}

// startTimeout bounds a start and an end: an emulated machine takes a second for
// each of dozens of ports.
const startTimeout = 3 * time.Minute

// awaitReady waits for sd_notify's READY=1.
func (d *daemon) awaitReady() {
	d.t.Helper()
	c := d.notify
	go func() {
		<-d.exited
		c.SetReadDeadline(time.Now())
	}()
	c.SetReadDeadline(time.Now().Add(startTimeout))
	buffer := make([]byte, 512)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			d.t.Fatalf("the daemon did not become ready: %v\n%s", err, d.log)
		}
		if strings.Contains(string(buffer[:n]), "READY=1") {
			return
		}
	}
}

func (d *daemon) signal(s syscall.Signal) {
	if err := d.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Error(err)
	}
}

// pause stops every thread of the daemon, and returns when they stand still.
func (d *daemon) pause() {
	d.t.Helper()
	d.signal(syscall.SIGSTOP)
	await(d.t, "every thread of the daemon is stopped", func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.cmd.Process.Pid))
		if err != nil || len(stats) == 0 {
			d.t.Fatalf("the daemon has no threads (%v)", err)
		}
		for _, path := range stats {
			stat, err := os.ReadFile(path)
			// proc(5): the state stands behind the name in parentheses.
			if _, state, ok := bytes.Cut(stat, []byte(") ")); err != nil || !ok || state[0] != 'T' {
				return false
			}
		}
		return true
	})
}

func (d *daemon) resume() { d.signal(syscall.SIGCONT) }

// stop ends the daemon as systemd would, and waits for its end.
func (d *daemon) stop() { d.end(syscall.SIGTERM) }

// kill ends it without giving it a chance.
func (d *daemon) kill() { d.end(syscall.SIGKILL) }

func (d *daemon) end(s syscall.Signal) {
	d.signal(s)
	select {
	case <-d.exited:
	case <-time.After(startTimeout):
		d.t.Errorf("the daemon did not end after %v", s)
		d.cmd.Process.Kill()
		<-d.exited
	}
}

// shunt runs a command of the command line against the daemon and returns what
// it printed.
func (d *daemon) shunt(args ...string) string {
	d.t.Helper()
	out, err := d.tryShunt(args...)
	if err != nil {
		d.t.Fatalf("shunt %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (d *daemon) tryShunt(args ...string) (string, error) {
	cmd := exec.Command(binary, append(args, "--socket", d.socket)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

func (d *daemon) decode(to any, args ...string) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.shunt(append(args, "-j")...)), to); err != nil {
		d.t.Fatal(err)
	}
}

// bridge returns br0's part of the status.
func (d *daemon) bridge() accel.BridgeV1 {
	d.t.Helper()
	var s accel.StatusV1
	d.decode(&s, "status")
	if len(s.Bridges) != 1 {
		d.t.Fatalf("status has %d bridges, want 1", len(s.Bridges))
	}
	return s.Bridges[0]
}

func (d *daemon) fdb() []accel.EntryV1 {
	d.t.Helper()
	var rows []accel.EntryV1
	d.decode(&rows, "fdb")
	return rows
}

// reasons returns how many frames each reason counted.
func (d *daemon) reasons() map[accel.Reason]uint64 {
	d.t.Helper()
	var rows []accel.ReasonV1
	d.decode(&rows, "reasons")
	frames := make(map[accel.Reason]uint64)
	for _, r := range rows {
		frames[r.Reason] = r.Frames
	}
	return frames
}

// await polls until condition holds: the daemon has no event that tells.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	awaitWithin(t, 20*time.Second, what, condition)
}

// awaitWithin is await for what takes longer.
func awaitWithin(t *testing.T, bound time.Duration, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !condition() {
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// awaitActive waits until the stations are mirrored and verified.
func (d *daemon) awaitActive(macs ...net.HardwareAddr) {
	d.t.Helper()
	await(d.t, "the stations are active", func() bool {
		active := make(map[string]bool)
		for _, row := range d.fdb() {
			active[row.MAC.String()] = row.Active
		}
		for _, m := range macs {
			if !active[m.String()] {
				return false
			}
		}
		return true
	})
}

// introduce lets two wires send one frame to each other, so that the bridge
// learns both stations.
func introduce(t *testing.T, a lab.Wire, aMAC net.HardwareAddr, b lab.Wire, bMAC net.HardwareAddr) {
	t.Helper()
	const stream = 0xffffffff // no test looks at it
	for _, f := range []struct {
		from     lab.Wire
		src, dst net.HardwareAddr
	}{{a, aMAC, bMAC}, {b, bMAC, aMAC}} {
		frame := lab.Frame{Source: f.src, Destination: f.dst, Stream: stream}
		if _, err := f.from.Write(frame.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
}
