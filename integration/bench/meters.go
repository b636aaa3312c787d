package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/traffic"
)

// onLastCPU runs f on one CPU and no other: the last one, since the first has the most
// interrupts. A frame is forwarded on the CPU that sends it.
func onLastCPU(f func() error) error { return lab.OnCPU(runtime.NumCPU()-1, f) }

// frameMeter counts frames per second from one host to a station behind another one's
// port: the host lets go of them as soon as its IP sees that they are for someone else.
type frameMeter struct {
	ring *blaster
	// stray sends what no bridge takes, for the time that sending takes by itself.
	stray *blaster
	to    *lab.Host
}

// station is the address that frames are sent to. It is that of no host.
var station = lab.MACOf(102)

// group is an address that no frame may come from: the bridge drops what does
// (net/bridge/br_input.c: br_handle_frame).
var group = net.HardwareAddr{3, 0, 0, 0, 0, 1}

func framesProbe(name, title string, shape packet) probe {
	return probe{"frames", []metric{{name, title, framesPerSecond}}, func(l *lab.Lab) (meter, error) {
		m := &frameMeter{to: l.Hosts[1]}
		var err error
		shape.destination, shape.source = station, l.Hosts[0].MAC
		if m.ring, err = newBlaster(l.Hosts[0], shape); err != nil {
			return nil, err
		}
		shape.source = group
		if m.stray, err = newBlaster(l.Hosts[0], shape); err != nil {
			return nil, errors.Join(err, m.ring.close())
		}
		return m, nil
	}}
}

// measure counts what arrived. All that was sent should have: no more is under way than
// there is room for.
func (m *frameMeter) measure(ctx context.Context, d time.Duration) ([]float64, error) {
	before, err := m.to.Counters("eth0")
	if err != nil {
		return nil, err
	}
	sent, pace, err := m.ring.run(ctx, d)
	if err != nil {
		return nil, err
	}
	after, err := m.to.Counters("eth0")
	if err != nil {
		return nil, err
	}
	arrived := after.RxPackets - before.RxPackets
	if err := checkArrival(sent, arrived); err != nil {
		return nil, err
	}
	return []float64{pace * float64(arrived) / float64(sent)}, nil
}

// checkArrival allows for one frame in a hundred that was lost.
func checkArrival(sent, arrived uint64) error {
	if sent == 0 || arrived*100 < sent*99 {
		return fmt.Errorf("of %d frames only %d arrived, so that their rate says nothing", sent, arrived)
	}
	return nil
}

// sending returns how many frames per second can be sent if nobody forwards them.
func (m *frameMeter) sending(ctx context.Context, d time.Duration) (float64, error) {
	_, pace, err := m.stray.run(ctx, d)
	return pace, err
}

func (m *frameMeter) close() error { return errors.Join(m.ring.close(), m.stray.close()) }

// throughput is what one host gets from another by TCP.
type throughput struct{ from, to *lab.Host }

func openThroughput(l *lab.Lab) (meter, error) { return throughput{l.Hosts[0], l.Hosts[1]}, nil }

func (t throughput) measure(ctx context.Context, d time.Duration) ([]float64, error) {
	bits, err := traffic.TCPThroughput(ctx, t.from, t.to, d)
	return []float64{bits}, err
}

func (throughput) close() error { return nil }

// trips are requests of one byte over a TCP connection, each answered by one byte before
// the next is sent, as netperf's TCP_RR. Both hosts work on one CPU, and their threads
// wait in the kernel: what it takes to wake another CPU would be most of it.
type trips struct {
	client, server *os.File
	answered       chan error // the server's end
}

func openTrips(l *lab.Lab) (meter, error) {
	out, in, err := traffic.ConnectTCP(l.Hosts[0], l.Hosts[1])
	if err != nil {
		return nil, err
	}
	defer out.Close()
	defer in.Close()
	t := &trips{answered: make(chan error, 1)}
	if t.client, err = blocking(out); err != nil {
		return nil, err
	}
	if t.server, err = blocking(in); err != nil {
		return nil, errors.Join(err, t.client.Close())
	}
	go func() { t.answered <- onLastCPU(t.answer) }()
	return t, nil
}

// tripTimeout is how long an answer may take.
const tripTimeout = 5 * time.Second

// blocking returns the connection as a file that threads wait for in the kernel.
func blocking(c *net.TCPConn) (*os.File, error) {
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// answer answers until the other end is closed.
func (t *trips) answer() error {
	fd, b := int(t.server.Fd()), make([]byte, 1)
	for {
		if n, err := unix.Read(fd, b); n == 0 || err != nil {
			return err
		}
		if _, err := unix.Write(fd, b); err != nil {
			return err
		}
	}
}

func (t *trips) measure(ctx context.Context, d time.Duration) (figures []float64, err error) {
	err = onLastCPU(func() error {
		timeout := unix.NsecToTimeval(tripTimeout.Nanoseconds())
		if err := unix.SetsockoptTimeval(int(t.client.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		var times []float64
		for begin := time.Now(); time.Since(begin) < d && ctx.Err() == nil; {
			took, err := t.trip()
			if err != nil {
				return err
			}
			times = append(times, took)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		figures = []float64{quantile(times, 0.50), quantile(times, 0.99)}
		return nil
	})
	return figures, err
}

// trip returns how long one took, in microseconds.
func (t *trips) trip() (float64, error) {
	fd, b := int(t.client.Fd()), make([]byte, 1)
	begin := time.Now()
	if _, err := unix.Write(fd, b); err != nil {
		return 0, fmt.Errorf("ask: %w", err)
	}
	n, err := unix.Read(fd, b)
	took := time.Since(begin)
	if err == nil && n == 0 {
		err = errors.New("the other end is closed")
	}
	if err != nil {
		return 0, fmt.Errorf("wait for an answer: %w", err)
	}
	return float64(took.Nanoseconds()) / 1e3, nil
}

func (t *trips) close() error {
	err := unix.Shutdown(int(t.client.Fd()), unix.SHUT_RDWR)
	return errors.Join(err, <-t.answered, t.client.Close(), t.server.Close())
}
