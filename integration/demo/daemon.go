package demo

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

// daemon is a "shunt run" in the bridge's namespace.
type daemon struct {
	cmd    *exec.Cmd
	socket string
	ended  chan struct{} // closed when the process has ended

	mu     sync.Mutex
	stderr bytes.Buffer
}

// startDaemon starts this same program as a daemon. It is asked to stop when
// this process dies, however that happens: the kernel ties it to the thread
// that started it, which therefore waits for its end. The signal is the one that
// may come several times: the kernel sends it for every thread that dies.
func startDaemon(ns *lab.Namespace, dir string) (*daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := &daemon{socket: filepath.Join(dir, "shunt.sock"), ended: make(chan struct{})}
	d.cmd = exec.Command(self, "run", "--bridge", lab.BridgeName, "--socket", d.socket)
	d.cmd.Stderr = d
	// A process group of its own: Ctrl-C is for the demo, which then stops
	// the daemon in its turn.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go ns.Do(func() error {
		err := d.cmd.Start()
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
	return d, nil
}

// Write takes what the daemon says.
func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stderr.Write(p)
}

// words are the last line that the daemon said.
func (d *daemon) words() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(d.stderr.String()), "\n")
	return lines[len(lines)-1]
}

const stopTimeout = 20 * time.Second

// stop ends the daemon and waits until it has removed everything.
func (d *daemon) stop() error {
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
