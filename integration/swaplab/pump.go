package swaplab

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// pump carries frames between two taps, as a hypervisor or a VPN would: byte for
// byte and in order.
type pump struct {
	near, far *lab.Tap
	stop      [2]int // a pipe that is closed to stop
	running   sync.WaitGroup
	closed    bool
}

func newPump(near *lab.Namespace, name string, far *lab.Namespace, farName string) (p *pump, err error) {
	p = &pump{}
	if p.near, err = near.NewTap(name); err != nil {
		return nil, err
	}
	if p.far, err = far.NewTap(farName); err != nil {
		return nil, errors.Join(err, p.near.Close())
	}
	if err := unix.Pipe2(p.stop[:], unix.O_CLOEXEC); err != nil {
		return nil, errors.Join(err, p.near.Close(), p.far.Close())
	}
	// Each direction keeps to one CPU, or the order would be lost here.
	p.carry(0, p.near, p.far)
	p.carry(1, p.far, p.near)
	return p, nil
}

func (p *pump) carry(cpu int, from, to *lab.Tap) {
	p.running.Go(func() {
		lab.OnCPU(cpu, func() error {
			return withDescriptors(from, to, func(in, out int) error { return p.loop(in, out) })
		})
	})
}

func withDescriptors(a, b *lab.Tap, f func(a, b int) error) error {
	first, err := a.SyscallConn()
	if err != nil {
		return err
	}
	second, err := b.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	return errors.Join(first.Control(func(x uintptr) {
		failed = second.Control(func(y uintptr) { failed = f(int(x), int(y)) })
	}), failed)
}

// loop carries until the pump is stopped or a tap is gone. What a tap refuses,
// because it is down, is lost, as with a cable.
func (p *pump) loop(in, out int) error {
	buffer := make([]byte, 64<<10)
	ready := []unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}, {Fd: int32(p.stop[0])}}
	for {
		if _, err := unix.Poll(ready, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for a tap: %w", err)
		}
		if ready[1].Revents != 0 {
			return nil
		}
		for {
			n, err := unix.Read(in, buffer)
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				return fmt.Errorf("read a tap: %w", err)
			}
			unix.Write(out, buffer[:n])
		}
	}
}

func (p *pump) setCarrier(on bool) error {
	value := map[bool]int{true: 1}[on]
	raw, err := p.near.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.IoctlSetPointerInt(int(fd), unix.TUNSETCARRIER, value) })
	return errors.Join(err, failed)
}

// close stops the pump; its taps vanish. Closing it twice is no error.
func (p *pump) close() error {
	if p == nil || p.closed {
		return nil
	}
	p.closed = true
	err := unix.Close(p.stop[1])
	p.running.Wait()
	return errors.Join(err, unix.Close(p.stop[0]), p.near.Close(), p.far.Close())
}
