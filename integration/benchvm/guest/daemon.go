package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/benchvm/rows"
)

const (
	socket = "/run/shunt.sock"
	// patience bounds every wait for the daemon, in the machine's time.
	patience = 10 * time.Minute
	// lookAgain is how often it is asked meanwhile.
	lookAgain = 10 * time.Millisecond
)

// daemon is a running shunt, or nil.
type daemon struct {
	cmd    *exec.Cmd
	client *accel.Client
	log    bytes.Buffer
	held   []link.Link
}

// startDaemon starts shunt if the row wants it, and returns when it is ready.
func startDaemon(row rows.Row) (d *daemon, err error) {
	if row.Daemon == "" {
		return nil, nil
	}
	d = &daemon{client: accel.NewClient(socket)}
	if row.Daemon == rows.Live {
		if d.held, err = occupy(); err != nil {
			return d, err
		}
	}
	const file = "/run/shunt.yaml"
	config := cmp.Or(row.Config, "bridges: [br0]\n") + "socket: " + socket + "\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return d, err
	}
	d.cmd = exec.Command("/shunt", "run", "--config", file)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	if err := d.cmd.Start(); err != nil {
		return d, err
	}
	if err := d.await("ready", d.ready); err != nil {
		d.stop()
		err = fmt.Errorf("%w: %s", err, d.log.Bytes())
		if row.Refusal != "" && strings.Contains(d.log.String(), row.Refusal) {
			err = fmt.Errorf("%w: %s", errMode, row.Refusal)
		}
		return d, err
	}
	if err := d.checkMode(row); err != nil {
		d.stop()
		return d, err
	}
	return d, nil
}

func (d *daemon) await(what string, holds func() (bool, error)) error {
	for late := time.Now().Add(patience); time.Now().Before(late); time.Sleep(lookAgain) {
		if is, err := holds(); is || err != nil {
			return err
		}
	}
	return fmt.Errorf("shunt is not %s", what)
}

// ready says whether it answers and has a bridge that is in step.
func (d *daemon) ready() (bool, error) {
	if over, err := hasEnded(d.cmd.Process.Pid); over || err != nil {
		return false, errors.Join(err, errors.New("shunt ended"))
	}
	status, err := d.client.Status(context.Background(), "")
	return err == nil && status.Ready && len(status.Bridges) == 1 && status.Bridges[0].Synced, nil
}

// errMode is that shunt works in another way with this kernel than the row says.
var errMode = errors.New("shunt works in another way")

func (d *daemon) checkMode(row rows.Row) error {
	status, err := d.client.Status(context.Background(), "br0")
	if err != nil {
		return err
	}
	for _, b := range status.Bridges {
		if b.Revocation != nil && b.Revocation.State != string(row.Daemon) {
			return fmt.Errorf("%w: %s and not %s", errMode, b.Revocation.State, row.Daemon)
		}
	}
	return nil
}

// hasEnded says whether a child has, and leaves it to be waited for.
func hasEnded(pid int) (bool, error) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return info.Signo != 0, err
}

// attached says whether so many ports have the program.
func (d *daemon) attached(want int) (bool, error) {
	ports, err := d.client.Ports(context.Background(), "br0")
	n := 0
	for _, p := range ports {
		if p.Attach != "none" {
			n++
		}
	}
	return n >= want, err
}

// mirrored says whether the map has so many stations.
func (d *daemon) mirrored(want int) (bool, error) {
	status, err := d.client.Status(context.Background(), "br0")
	return err == nil && status.Bridges[0].Stations >= want && status.Bridges[0].Pending == 0, err
}

func (d *daemon) turnOff() error {
	_, err := d.client.Switch(context.Background(), "br0", false)
	return err
}

// fast is how many frames took the fast path.
func (d *daemon) fast() (n uint64, err error) {
	if d == nil {
		return 0, nil
	}
	ports, err := d.client.Ports(context.Background(), "br0")
	for _, p := range ports {
		n += p.Fast
	}
	return n, err
}

// checkFast looks that the frames took the fast path, but for those that the bridge
// must see, one a second.
func (d *daemon) checkFast(before, sent uint64) error {
	now, err := d.fast()
	if err == nil && now-before < sent*99/100 {
		reasons, _ := d.client.Reasons(context.Background(), "br0")
		err = fmt.Errorf("only %d of %d frames took the fast path: %+v", now-before, sent, reasons)
	}
	return err
}

// stop ends the daemon.
func (d *daemon) stop() {
	if d == nil || d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()
	d.cmd = nil
	for _, l := range d.held {
		l.Close()
	}
}

// occupy takes every place for programs at one of the functions that shunt traces, so
// that it has to do without.
func occupy() (held []link.Link, err error) {
	const most = 64 // more than there are (linux/bpf.h: BPF_MAX_TRAMP_LINKS)
	for range most {
		l, err := trace("br_set_state")
		if err != nil {
			return held, mustBeFull(held, err)
		}
		held = append(held, l)
	}
	return held, errors.New("the kernel takes any number of programs at a function")
}

func mustBeFull(held []link.Link, err error) error {
	if errors.Is(err, syscall.E2BIG) && len(held) > 0 {
		return nil
	}
	return err
}

func trace(function string) (link.Link, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: function,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, License: "Dual BSD/GPL",
	})
	if err != nil {
		return nil, err
	}
	defer program.Close()
	return link.AttachTracing(link.TracingOptions{Program: program, AttachType: ebpf.AttachTraceFExit})
}
