// Package beside runs this same program as a daemon beside the bridge of a lab, in mounts
// of its own, so that nothing of it is left however it ends. The demo and the benchmark
// stand on it.
package beside

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// Daemon is a "shunt run" in the bridge's namespace.
type Daemon struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	client *accel.Client

	mu     sync.Mutex
	stderr bytes.Buffer
}

// Where the daemon has its files. What is below /run it sees alone: see seclude.
const (
	configFile = "/run/shunt.yaml"
	socketFile = "/run/shunt.sock"
	stateDir   = "/run/state"
)

// Start starts this same program as a daemon, with that configuration and environment. It
// is asked to stop when this process dies, however that happens: the kernel ties it to
// the thread that started it, which therefore waits for its end. The signal is the one
// that may come several times: the kernel sends it for every thread that dies.
func Start(ns *lab.Namespace, config string, environment []string) (*Daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := &Daemon{ended: make(chan struct{})}
	d.cmd = exec.Command(self, "run", "--config", configFile, "--socket", socketFile, "--state-dir", stateDir)
	d.cmd.Env = environment
	d.cmd.Stderr = d
	// A process group of its own: Ctrl-C is for this process, which then stops the
	// daemon in its turn.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go ns.Do(func() error {
		err := seclude(config)
		if err == nil {
			err = d.cmd.Start()
		}
		started <- err
		if err == nil {
			d.cmd.Wait()
			close(d.ended)
		}
		return nil
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start shunt: %w", err)
	}
	d.client = accel.NewClient(fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, socketFile))
	return d, nil
}

// seclude gives the thread, and the daemon that it starts, mounts of its own: a BPF
// filesystem, and a /run with the configuration. The wire of a stable port outlives its
// daemon by its pins, as it should on a host, and not here: these pins, and the
// journals, go with the daemon however it ends.
func seclude(config string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for path, kind := range map[string]string{"/sys/fs/bpf": "bpf", "/run": "tmpfs"} {
		if err := unix.Mount(kind, path, kind, 0, "mode=0700"); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
	}
	return os.WriteFile(configFile, []byte(config), 0o600)
}

// Environment is this process's own for a daemon, without what it could not reach: of the
// OTEL_* variables only those that say what a service is called.
func Environment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "OTEL_") && name != "OTEL_SERVICE_NAME" && name != "OTEL_RESOURCE_ATTRIBUTES"
	})
}

// Client talks to the daemon.
func (d *Daemon) Client() *accel.Client { return d.client }

const (
	readyTimeout = 20 * time.Second
	lookAgain    = 20 * time.Millisecond
)

// AwaitReady waits until the daemon is ready and something else holds, too.
func (d *Daemon) AwaitReady(ctx context.Context, andAlso func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		status, err := d.client.Status(ctx, "")
		if err == nil && status.Ready && andAlso(ctx) {
			return nil
		}
		select {
		case <-again.C:
		case <-d.ended:
			return fmt.Errorf("shunt did not start: %s", d.words())
		case <-ctx.Done():
			return fmt.Errorf("shunt did not become ready: %w", ctx.Err())
		}
	}
}

// Write takes what the daemon says on stderr.
func (d *Daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stderr.Write(p)
}

// words are the last line that the daemon said.
func (d *Daemon) words() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(d.stderr.String()), "\n")
	return lines[len(lines)-1]
}

const stopTimeout = 20 * time.Second

// Stop ends the daemon and waits until it has removed everything.
func (d *Daemon) Stop() error {
	d.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-d.ended:
	case <-time.After(stopTimeout):
		d.cmd.Process.Kill()
		<-d.ended
		return fmt.Errorf("shunt did not stop within %v and was killed", stopTimeout)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("shunt ended with exit code %d: %s", code, d.words())
	}
	return nil
}
