package accel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the program, with one fake as its only plugin.
const asProgram = "SHUNT_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(asProgram) {
	case "":
		os.Exit(m.Run())
	case "stuck":
		Register((&fake{stopGate: make(chan struct{})}).plugin())
	case "mortal":
		Register(Plugin{Name: "mortal", New: func() Component { return &mortal{fake: sample()} }})
	default:
		Register(sample().plugin())
	}
	Main()
}

// program prepares the program as a process of its own.
func program(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(patience(t), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	return cmd, &output
}

// patience ends a program that should have ended long ago.
func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -2
	}
	return 0
}

func bridgeName() string { return fmt.Sprintf("t%d-%d", os.Getpid(), claimNumber.Add(1)) }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
}

// await waits until the daemon at the socket is ready.
func await(t *testing.T, socket string) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	client := NewClient(socket)
	for {
		status, err := client.Status(ctx, "")
		if err == nil && status.Ready {
			return client
		}
		if ctx.Err() != nil {
			t.Fatalf("no daemon at %s: %v", socket, err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestProcessExitCodes(t *testing.T) {
	socket := socketPath(t)
	broken := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(broken, []byte("lease: 1h"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"version", 0, "shunt "},
		{"", 2, "shunt: no command is given"},
		{"run", 2, "shunt: no bridge is named"},
		{"status --socket " + socket, 1, "shunt: no daemon answers at " + socket},
		{"run --config " + broken, 1, "shunt: " + broken + ":1: lease must be"},
		{"run --config /nonexistent/x", 1, "shunt: read the configuration: open /nonexistent/x: no such file"},
	} {
		cmd, output := program(t, strings.Fields(c.args)...)
		if code := exitCode(cmd.Run()); code != c.code || !strings.HasPrefix(output.String(), c.want) {
			t.Errorf("%s: got %d %s", c.args, code, output)
		}
	}
}

func TestProcessStopsOnSignals(t *testing.T) {
	needRoot(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(sig) {
			continue // by nohup, which the daemon obeys
		}
		socket := socketPath(t)
		cmd, output := program(t, "run", "--bridge", bridgeName(), "--socket", socket)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, socket)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", sig, err, output)
		}
		if _, err := os.Stat(filepath.Dir(socket)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: the socket's directory stays: %v", sig, err)
		}
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	needRoot(t)
	socket := socketPath(t)
	cmd, output := program(t, "run", "--bridge", bridgeName(), "--socket", socket)
	cmd.Env = append(cmd.Env, asProgram+"=stuck")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := await(t, socket)
	cmd.Process.Signal(syscall.SIGTERM)
	for { // until the first signal is seen
		status, err := client.Status(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if !status.Ready {
			break
		}
		time.Sleep(time.Millisecond)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err := signalUntil(cmd, ended)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("got %v\n%s", err, output)
	}
}

// signalUntil sends SIGTERM again and again, since what comes right behind the
// first one counts as the same.
func signalUntil(cmd *exec.Cmd, ended <-chan error) error {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-again.C:
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}
}

func TestSignalsOfOneWishAreOne(t *testing.T) {
	signals := make(chan os.Signal, 2)
	signals <- syscall.SIGTERM
	signals <- syscall.SIGTERM
	passOver(signals, time.Millisecond)
	if len(signals) != 0 {
		t.Errorf("%d signals are left, which would end the process", len(signals))
	}
}

func TestKilledDaemonIsFollowed(t *testing.T) {
	needRoot(t)
	socket, bridge := socketPath(t), bridgeName()
	for range 3 {
		cmd, _ := program(t, "run", "--bridge", bridge, "--socket", socket)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, socket)
		cmd.Process.Kill()
		cmd.Wait()
	}
	cmd, output := program(t, "detach", "--socket", socket)
	// Other daemons of this machine are not this test's business.
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	if err := cmd.Run(); err != nil || !strings.HasPrefix(output.String(), "no daemon runs") {
		t.Errorf("%v %s", err, output)
	}
}

// TestAllBridges runs a daemon that takes all bridges of a namespace of its own.
func TestAllBridges(t *testing.T) {
	needRoot(t)
	socket := socketPath(t)
	config := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(config, []byte("bridges: [{name: br7, netfilter: bypass}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, output := program(t, "run", "--all-bridges", "--config", config, "--socket", socket)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := await(t, socket)
	want := []string{"br0", "a-long-bridge-n", "br1", "br9"} // what the fake takes
	detached, err := client.Detach(t.Context())
	if err != nil || !slices.Equal(detached.Bridges, want) {
		t.Errorf("got %+v, %v", detached, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	mustContain(t, output.String(),
		`level=WARN msg="netfilter: bypass is configured: no firewall rule is asked about frames on the fast path" bridge=br7`,
		`msg=ready bridges=[br7] all_bridges=true`)
}

// TestPeerWithoutRights asks as another user over a socket that is open to all.
func TestPeerWithoutRights(t *testing.T) {
	needRoot(t)
	f := sample()
	calls := new([]string)
	f.calls = calls
	d := startDaemon(t, socketPath(t), f)
	d.ready(t)
	dir := filepath.Dir(d.config.Socket)
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(d.config.Socket, 0o666)); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"explain --in p9 --frame 000000000000000000000000ffff": "shunt: the daemon knows no port p9",
		"status": "BRIDGE ", "ports": "PORT ", "fdb": "MAC ", "reasons": "FRAMES",
		"on":     "shunt: user 1234 may look but not change anything: use sudo\n",
		"off":    "shunt: user 1234 may look but not change anything: use sudo\n",
		"detach": "shunt: user 1234 may look but not change anything: use sudo\n",
	} {
		cmd, output := program(t, append(strings.Fields(args), "--socket", d.config.Socket)...)
		asUser(t, cmd)
		cmd.Run()
		if !strings.HasPrefix(strings.TrimLeft(output.String(), " "), want) {
			t.Errorf("%s: got %s", args, output)
		}
	}
	if strings.Contains(fmt.Sprint(*calls), "switch") {
		t.Error("something was changed:", *calls)
	}
	if err := os.Chmod(d.config.Socket, 0o660); err != nil {
		t.Fatal(err)
	}
	cmd, output := program(t, "status", "--socket", d.config.Socket)
	asUser(t, cmd)
	want := "shunt: the daemon's socket " + d.config.Socket + " is not open to you (permission denied): use sudo\n"
	if code := exitCode(cmd.Run()); code != 1 || output.String() != want {
		t.Errorf("got %d %s", code, output)
	}
}

func TestRunWithoutPrivileges(t *testing.T) {
	needRoot(t)
	cmd, output := program(t, "run", "--bridge", "br0")
	asUser(t, cmd)
	want := "shunt: this needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON, which the process does not have: use sudo\n"
	if code := exitCode(cmd.Run()); code != 1 || output.String() != want {
		t.Errorf("got %d %s", code, output)
	}
}

// asUser makes the process another user's, who needs a copy of the program.
func asUser(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "shunt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	copied := filepath.Join(dir, "shunt")
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(copied, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Dir = copied, "/"
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 1234, Gid: 1234}
}

// TestNamespaceDeleted deletes the namespace under the daemon, as ip netns does.
func TestNamespaceDeleted(t *testing.T) {
	needRoot(t)
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal("needs ip(8), of the package iproute2")
	}
	name, other := fmt.Sprintf("shunt-test-%d", os.Getpid()), fmt.Sprintf("shunt-test-%d-b", os.Getpid())
	netns := func(args ...string) error { return exec.Command(ip, append([]string{"netns"}, args...)...).Run() }
	if err := netns("add", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns("del", name); netns("del", other) })
	socket := socketPath(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(patience(t), ip, "netns", "exec", name, self, "run", "--bridge", bridgeName(), "--socket", socket)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	cmd.Stderr = &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := await(t, socket)
	// Other namespaces may come and go.
	if err := errors.Join(netns("add", other), netns("del", other)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	// A new one of the same name is another.
	if err := errors.Join(netns("del", name), netns("add", name)); err != nil {
		t.Fatal(err)
	}
	code := exitCode(cmd.Wait())
	if want := "shunt: network namespace " + name + " was deleted: nothing is left to do\n"; code != 1 || !strings.HasSuffix(output.String(), want) {
		t.Errorf("got %d %s", code, &output)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}
