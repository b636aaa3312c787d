package lab

import (
	"bytes"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// settler tells when everything that a frame caused has happened. The kernel
// takes a frame from device to device in one CPU's backlog, first in, first out
// (net/core/dev.c: process_backlog), and a frame over the loopback device stands
// in the same one: when it has come, what stood before it is done. What that put
// into the backlog needs one frame more, and so on.
type settler struct {
	loopback *socket
}

// hops is more than a frame can take in a lab: into the bridge, to the host, and
// a copy of each that shunt may make.
const hops = 8

func newSettler(n *Namespace) (*settler, error) {
	s := &settler{}
	err := n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		s.loopback, err = openSocket("lo", EtherType)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on the loopback device: %w", err)
	}
	return s, nil
}

// settle returns when the backlog of the thread's CPU is done. The thread must be
// pinned to it.
func (s *settler) settle() error {
	frame := Frame{Source: MACOf(0), Destination: MACOf(0)}.Bytes()
	buffer := make([]byte, len(frame))
	for range hops {
		if err := s.loopback.SetReadDeadline(time.Now().Add(awaitTimeout)); err != nil {
			return err
		}
		if _, err := s.loopback.Write(frame); err != nil {
			return err
		}
		if _, err := s.loopback.Read(buffer); err != nil {
			return fmt.Errorf("wait for the backlog: %w", err)
		}
	}
	return nil
}

func (s *settler) Close() error {
	if s == nil {
		return nil
	}
	return s.loopback.Close()
}

// Deliver sends the frames from the wire, one after the other, and returns when
// all that they caused in the lab has happened: what has not arrived anywhere by
// then never will. It holds for veth ports without qdiscs that keep frames back.
func (l *Lab) Deliver(from Wire, frames ...[]byte) error {
	return OnCPU(0, func() error {
		for _, b := range frames {
			if err := writeFrame(from, b); err != nil {
				return err
			}
		}
		return l.settler.settle()
	})
}

// Arrived returns what waits at the wire, without waiting for more.
func Arrived(at Wire) (frames [][]byte, err error) {
	raw, err := at.SyscallConn()
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, largestFrame)
	for {
		n, failed := 0, error(nil)
		if err := raw.Control(func(fd uintptr) { n, failed = at.receive(int(fd), buffer) }); err != nil {
			return frames, err
		}
		if failed == unix.EAGAIN {
			return frames, nil
		}
		if failed == unix.ENETDOWN { // said once, when the device goes down
			continue
		}
		if failed != nil {
			return frames, failed
		}
		frames = append(frames, bytes.Clone(buffer[:n]))
	}
}

// largestFrame is what a packet socket may return of a frame that a device is
// still to cut into segments.
const largestFrame = 64 << 10
