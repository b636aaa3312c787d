// Package announce tells the outside where stations are now, and asks whether
// somebody answers there: frames over a device itself, past its bridge, its IP
// stack and the programs at its ingress.
//
// The functions work in the network namespace of the calling thread, which for a
// daemon is the one that it was started in.
package announce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// Station is one that switches outside are to find behind a device.
type Station struct {
	MAC accel.MAC
	// Tag is the VID of the tag that its frames bear; 0 for none. TagProtocol is
	// the tag's EtherType; 0 means 0x8100.
	Tag         uint16
	TagProtocol uint16
	// Addrs are its IP addresses, as far as they are known.
	Addrs []netip.Addr
}

// Send announces the stations over a device, perSecond frames in a second at most
// after the first 64, until all are sent or ctx ends. It returns how many frames
// were sent.
//
// First comes a RARP for every station, as hypervisors send it: that is what
// switches learn from. Then come gratuitous ARPs and unsolicited neighbour
// advertisements, for whoever looks at addresses.
func Send(ctx context.Context, ifindex int, stations []Station, perSecond int) (frames int, err error) {
	if perSecond < 1 {
		return 0, fmt.Errorf("announce %d frames in a second", perSecond)
	}
	s, err := openSocket(ifindex, 0) // of protocol 0 it receives nothing
	if err != nil {
		return 0, fmt.Errorf("announce over device %d: %w", ifindex, err)
	}
	defer s.Close()
	frames, err = send(ctx, s.send, stations, newPace(perSecond, wallClock{}))
	if err != nil {
		err = fmt.Errorf("announce over device %d: %w", ifindex, err)
	}
	return frames, err
}

// send sends all frames at the pace.
func send(ctx context.Context, write func([]byte) error, stations []Station, p *pace) (frames int, err error) {
	for frame := range announcements(stations) {
		if err := p.next(ctx); err != nil {
			return frames, err
		}
		if err := insist(ctx, write, frame, p.clock); err != nil {
			return frames, err
		}
		frames++
	}
	return frames, nil
}

// insist tries again for as long as the device's queue is full.
func insist(ctx context.Context, write func([]byte) error, frame []byte, c clock) error {
	for {
		err := write(frame)
		if !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		if err := c.wait(ctx, queueWait); err != nil {
			return err
		}
	}
}

// queueWait is how long a full queue is given.
const queueWait = time.Millisecond

// socket is a packet socket on one device, whose reads the runtime can wait for.
type socket struct {
	*os.File
}

// openSocket opens a packet socket that sees frames of the protocol (ETH_P_*; 0:
// none) as they arrive, before any program at tc, and none that leave.
func openSocket(ifindex int, protocol uint16) (*socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	s := &socket{os.NewFile(uintptr(fd), "packet socket")}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, answersOnly()),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: ifindex}))
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// send sends a whole frame, waiting for room in the socket's own queue.
func (s *socket) send(frame []byte) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		_, failed = unix.Write(int(fd), frame)
		return failed != unix.EAGAIN
	})
	return errors.Join(err, failed)
}
