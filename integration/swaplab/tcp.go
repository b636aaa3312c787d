package swaplab

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// TCP is a stream of the kernel's own from the guest to the station.
type TCP struct {
	out, in net.Conn
	running sync.WaitGroup
	began   time.Time
	bytes   atomic.Int64
	longest time.Duration
}

// TCPTotals are what became of the stream.
type TCPTotals struct {
	Bytes   int64
	For     time.Duration
	Longest time.Duration // between two deliveries
}

// StartTCP sends until Stop, at a rate that leaves the CPUs room.
func (l *Lab) StartTCP() (t *TCP, err error) {
	guest, station := l.Guest(), l.Station()
	listener, err := listen(station)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	t = &TCP{began: time.Now()}
	if t.out, err = dial(guest, listener.Addr().(*net.TCPAddr)); err != nil {
		return nil, err
	}
	if t.in, err = listener.Accept(); err != nil {
		return nil, errors.Join(err, t.out.Close())
	}
	const perSecond = 50 << 20
	if err := t.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, perSecond)
	}); err != nil {
		return nil, errors.Join(err, t.out.Close(), t.in.Close())
	}
	t.running.Go(t.send)
	t.running.Go(t.receive)
	return t, nil
}

func listen(h *lab.Host) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: h.IP})
		return err
	})
	return l, err
}

func dial(h *lab.Host, to *net.TCPAddr) (c net.Conn, err error) {
	err = h.Do(func() error {
		c, err = net.DialTCP("tcp4", nil, to)
		return err
	})
	return c, err
}

// send ends when the connection is closed.
func (t *TCP) send() {
	chunk := make([]byte, 64<<10)
	for {
		if _, err := t.out.Write(chunk); err != nil {
			return
		}
	}
}

func (t *TCP) receive() {
	buffer := make([]byte, 256<<10)
	for last := time.Now(); ; {
		n, err := t.in.Read(buffer)
		if err != nil {
			return
		}
		now := time.Now()
		t.bytes.Add(int64(n))
		t.longest, last = max(t.longest, now.Sub(last)), now
	}
}

// AwaitBytes returns when so many more bytes have come.
func (t *TCP) AwaitBytes(more int64) error {
	const timeout, look = 20 * time.Second, time.Millisecond
	want := t.bytes.Load() + more
	for begin := time.Now(); time.Since(begin) < timeout; time.Sleep(look) {
		if t.bytes.Load() >= want {
			return nil
		}
	}
	return fmt.Errorf("%d bytes of TCP are missing after %v", want-t.bytes.Load(), timeout)
}

// Retransmitted returns how many segments the sender has sent again.
func (t *TCP) Retransmitted() (segments uint32, err error) {
	err = t.control(func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			segments = info.Total_retrans
		}
		return err
	})
	return segments, err
}

func (t *TCP) control(f func(fd int) error) error {
	raw, err := t.out.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// Stop ends the stream. Stopping twice is no error.
func (t *TCP) Stop() TCPTotals {
	t.out.Close()
	t.in.Close()
	t.running.Wait()
	return TCPTotals{t.bytes.Load(), time.Since(t.began), t.longest}
}
