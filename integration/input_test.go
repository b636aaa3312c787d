package integration

import (
	"bytes"
	"errors"
	"fmt"

	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// runShunt runs shunt in a namespace until it ends by itself.
func runShunt(t *testing.T, ns *lab.Namespace, args ...string) result {
	t.Helper()
	return runCommand(t, ns, exec.Command(binary, args...))
}

func runCommand(t *testing.T, ns *lab.Namespace, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestBadInputIsSaidClearlyAndLeavesNothing(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	before := traces(t, l)
	dir := t.TempDir()
	socket := filepath.Join(dir, "s.sock")
	broken := filepath.Join(dir, "broken.yaml")
	if err := os.WriteFile(broken, []byte("bridges: [br0]\nlaese: 1s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"no such bridge", []string{"run", "--bridge", "br9"}, 1, []string{"br9", "ip link"}},
		{"not a bridge", []string{"run", "--bridge", "p1"}, 1, []string{"p1 is not a bridge", "veth", "ip link"}},
		{"no bridge named", []string{"run"}, 2, []string{"--bridge"}},
		{"impossible name", []string{"run", "--bridge", "a/b"}, 2, []string{"a/b"}},
		{"unknown flag", []string{"run", "--brigde", "br0"}, 2, []string{"brigde"}},
		{"broken configuration", []string{"run", "--config", broken}, 1, []string{broken + ":2", "laese", "lease"}},
		{"no configuration", []string{"run", "--config", dir + "/none.yaml"}, 1, []string{"none.yaml"}},
		{"unknown hook", []string{"run", "--bridge", "br0", "--attach", "xdp"}, 2, []string{"xdp", "tcx", "clsact"}},
		{"no daemon", []string{"status"}, 1, []string{socket, "shunt run"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := runShunt(t, l.Bridge, append(c.args, "--socket", socket)...)
			expectRefusal(t, r, c.code, c.says...)
		})
	}
	expectRefusal(t, runShunt(t, l.Bridge, "rnu"), 2, "rnu")
	if after := traces(t, l); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("something is left behind:\n%s", strings.Join(after, "\n"))
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("a socket is left behind (%v)", err)
	}
}

// expectRefusal wants this exit code and these words on stderr, nothing on
// stdout, and no trace of a Go program that fell over.
func expectRefusal(t *testing.T, r result, code int, says ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if r.stdout != "" {
		t.Errorf("stdout has %q", r.stdout)
	}
	for _, word := range says {
		if !strings.Contains(r.stderr, word) {
			t.Errorf("%q is not in:\n%s", word, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "goroutine") || strings.Contains(r.stderr, "panic") {
		t.Errorf("it fell over:\n%s", r.stderr)
	}
	if t.Failed() {
		t.Logf("stderr:\n%s", r.stderr)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	d := startDaemon(t, l)
	other := filepath.Join(t.TempDir(), "other.sock")
	expectRefusal(t, runShunt(t, l.Bridge, "run", "--bridge", "br0", "--socket", other), 1, "br0", "another daemon", "process")
	expectRefusal(t, runShunt(t, l.Bridge, "run", "--bridge", "br1", "--socket", d.socket), 1, d.socket)
	if b := d.bridge(); !b.Eligible {
		t.Errorf("the first daemon's bridge is %s now", b.Reason)
	}
}

func TestNoPrivilegeIsRefused(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	// nobody may not look into the directory of the binary.
	public, err := os.MkdirTemp("/var/tmp", "shunt-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(public)
	if err := errors.Join(os.Chmod(public, 0o755), os.Link(binary, filepath.Join(public, "shunt"))); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(public, "shunt"), "run", "--bridge", "br0", "--socket", "/var/tmp/none.sock")
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	expectRefusal(t, runCommand(t, l.Bridge, cmd), 1, "CAP_BPF", "CAP_NET_ADMIN", "sudo")
}

// A kernel without bpf(2) is made by a filter for system calls, in a child that
// then becomes shunt.
func TestKernelWithoutBPFIsRefused(t *testing.T) {
	if os.Getenv(becomeShunt) != "" {
		t.Fatal(withoutBPF(binaryAndArgs()))
	}
	l := newLab(t, lab.Options{Hosts: 2})
	before := traces(t, l)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKernelWithoutBPFIsRefused$")
	cmd.Env = append(os.Environ(), becomeShunt+"="+binary)
	r := runCommand(t, l.Bridge, cmd)
	expectRefusal(t, r, 1, "kernel", "6.1", "shunt doctor")
	if after := traces(t, l); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("something is left behind:\n%s", strings.Join(after, "\n"))
	}
	expectWhole(t, l)
}

// becomeShunt names, in the environment, the binary that a child becomes.
const becomeShunt = "SHUNT_TEST_BECOME"

func binaryAndArgs() (path string, args []string) {
	path = os.Getenv(becomeShunt)
	return path, []string{path, "run", "--bridge", lab.BridgeName, "--socket", filepath.Join(os.TempDir(), "shunt-without-bpf.sock")}
}

// withoutBPF makes bpf(2) fail with ENOSYS, as on a kernel that lacks it, and
// then becomes the program. It returns only if it fails.
func withoutBPF(path string, args []string) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("filter bpf(2): %w", errno)
	}
	return syscall.Exec(path, args, os.Environ())
}

func TestFullMapCostsSpeedAndNotFrames(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	config := filepath.Join(t.TempDir(), "shunt.yaml")
	if err := os.WriteFile(config, []byte("bridges: [br0]\nmax_stations: 64\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inBridge(t, l, func(f *fdb) {
		for n := range 1000 {
			f.replace(n, n%2, static)
		}
	})
	d := launch(t, l.Bridge, "--config", config)
	d.awaitReady()
	await(t, "the status says that the map is full", func() bool { return d.bridge().FDBFull > 900 })
	if !strings.Contains(d.log.String(), "max_stations") {
		t.Error("the log does not name max_stations")
	}
	expectWhole(t, l)
}

// expectWhole sends a stream between the first two hosts and wants all of it.
func expectWhole(t *testing.T, l *lab.Lab) {
	t.Helper()
	const frames = 10_000
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	s := &lab.Sender{
		Wire:  a.wire,
		Frame: lab.Frame{Source: a.mac, Destination: b.mac, Stream: 8},
		Pace:  lab.Pace{PerSecond: 20_000},
	}
	report, err := lab.Run(t.Context(), s, frames, b.wire)
	if err != nil {
		t.Fatal(err)
	}
	if want := (lab.Report{Received: frames}); report != want {
		t.Errorf("%+v, want %+v", report, want)
	}
}

// A namespace that has a name, and loses it while shunt works in it.
func TestDeletedNamespaceEndsTheDaemon(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	name := filepath.Join("/run/netns", fmt.Sprintf("shunt-test-%d", os.Getpid()))
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(name)
	if err := unix.Mount(l.Bridge.Path(), name, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	unmount := func() { unix.Unmount(name, unix.MNT_DETACH) }
	defer unmount()
	before := traces(t, l)
	d := startDaemon(t, l)

	unmount() // what ip netns del does
	os.Remove(name)
	select {
	case <-d.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("the daemon goes on")
	}
	expectRefusal(t, result{code: d.cmd.ProcessState.ExitCode(), stderr: d.log.String()}, 1, "network namespace", "was deleted")
	if after := traces(t, l); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("something is left behind:\n%s", strings.Join(after, "\n"))
	}
	expectWhole(t, l)
}

// The bridge goes and comes back under a running daemon.
func TestBridgeMayGoAndComeBack(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	d := startDaemon(t, l)
	for range 3 {
		if err := l.DeleteBridge(); err != nil {
			t.Fatal(err)
		}
		await(t, "the status says that the bridge is gone", func() bool { return !d.bridge().Present })
		if err := l.RestoreBridge(); err != nil {
			t.Fatal(err)
		}
		await(t, "the fast path is open again", func() bool { return d.bridge().Eligible })
		a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
		introduce(t, a.wire, a.mac, b.wire, b.mac)
		d.awaitActive(a.mac, b.mac)
		expectWhole(t, l)
		if b := d.bridge(); b.Fast == 0 {
			t.Error("no frame was fast after the bridge came back")
		}
	}
}
