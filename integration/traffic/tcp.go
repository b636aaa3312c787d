// Package traffic measures what two hosts of a lab can send to each other. Sockets belong
// to the namespace in which they are opened.
package traffic

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

// ConnectTCP connects one host to another, and returns both ends.
func ConnectTCP(from, to *lab.Host) (out, in *net.TCPConn, err error) {
	l, err := listenTCP(to)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if out, err = dialTCP(from, l.Addr()); err != nil {
		return nil, nil, err
	}
	if in, err = l.AcceptTCP(); err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	return out, in, nil
}

func listenTCP(h *lab.Host) (l *net.TCPListener, err error) {
	err = h.Do(func() error {
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: h.IP})
		return err
	})
	return l, err
}

func dialTCP(h *lab.Host, to net.Addr) (c *net.TCPConn, err error) {
	err = h.Do(func() error {
		c, err = net.DialTCP("tcp4", &net.TCPAddr{IP: h.IP}, to.(*net.TCPAddr))
		return err
	})
	return c, err
}

// chunk is how much is written, and read, at a time.
const chunk = 256 << 10

// TCPThroughput returns how many bits per second one host got from another over a
// connection of their own. The first tenth of the time is not counted, since TCP begins
// slowly.
func TCPThroughput(ctx context.Context, from, to *lab.Host, d time.Duration) (float64, error) {
	out, in, err := ConnectTCP(from, to)
	if err != nil {
		return 0, err
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer out.Close()
	defer in.Close()
	sending.Go(func() { writeUntilClosed(out) })
	if _, _, err := readFor(ctx, in, d/10); err != nil {
		return 0, err
	}
	bytes, took, err := readFor(ctx, in, d-d/10)
	return float64(bytes) * 8 / took.Seconds(), err
}

func writeUntilClosed(c *net.TCPConn) {
	data := make([]byte, chunk)
	for {
		if _, err := c.Write(data); err != nil {
			return
		}
	}
}

// silence is how long a receiver waits for anything.
const silence = 10 * time.Second

// readFor reads for that long, and at least once: whoever is not scheduled meanwhile has
// waiting for him what came.
func readFor(ctx context.Context, c *net.TCPConn, d time.Duration) (bytes int, took time.Duration, err error) {
	begin := time.Now()
	if err := c.SetDeadline(begin.Add(d + silence)); err != nil {
		return 0, 0, err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	defer stop()
	buffer := make([]byte, chunk)
	for bytes == 0 || took < d {
		n, err := c.Read(buffer)
		bytes, took = bytes+n, time.Since(begin)
		if err != nil {
			return bytes, took, cmp.Or(ctx.Err(), err)
		}
	}
	return bytes, took, nil
}

// Until calls step until the deadline, which is no error, or until ctx ends.
func Until(ctx context.Context, c net.Conn, deadline time.Time, step func(buffer []byte) error) error {
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	defer stop()
	buffer := make([]byte, chunk)
	for {
		err := step(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}
