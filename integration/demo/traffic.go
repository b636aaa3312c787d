package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/traffic"
)

// Each kind of traffic runs between two hosts for a time and is measured at the
// receiver. Sockets belong to the namespace in which they are opened.

// listenUDP runs in the host's namespace.
func listenUDP(h *lab.Host) (c *net.UDPConn, err error) {
	err = h.Do(func() error {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: h.IP})
		return err
	})
	if err == nil {
		err = growReceiveBuffer(c)
	}
	return c, err
}

// growReceiveBuffer makes room for what arrives while the receiver waits for a
// CPU, so that what is measured is the network.
func growReceiveBuffer(c *net.UDPConn) error {
	const room = 64 << 20
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room)
	})
	return errors.Join(err, failed)
}

// A UDP payload of 18 bytes makes a frame of 60, the shortest there is.
const smallPayload = 18

// udpRate returns how many of the shortest frames arrived per second.
func udpRate(ctx context.Context, from, to *lab.Host, d time.Duration) (float64, error) {
	in, err := listenUDP(to)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := listenUDP(from)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	go func() { // ends when out is closed
		payload := make([]byte, smallPayload)
		for {
			if _, err := out.WriteTo(payload, in.LocalAddr()); err != nil && !errors.Is(err, syscall.ENOBUFS) {
				return
			}
		}
	}()
	frames := 0
	begin := time.Now()
	err = traffic.Until(ctx, in, begin.Add(d), func(buffer []byte) error {
		_, _, err := in.ReadFromUDPAddrPort(buffer)
		if err == nil {
			frames++
		}
		return err
	})
	return float64(frames) / time.Since(begin).Seconds(), err
}

// latency is a distribution of round trips.
type latency struct{ p50, p99 time.Duration }

// roundTrips lets one host ask and the other answer, one small datagram at a
// time.
func roundTrips(ctx context.Context, from, to *lab.Host, d time.Duration) (l latency, err error) {
	server, err := listenUDP(to)
	if err != nil {
		return l, err
	}
	defer server.Close()
	client, err := listenUDP(from)
	if err != nil {
		return l, err
	}
	defer client.Close()
	go echo(server)
	var times []time.Duration
	var asked uint64
	err = traffic.Until(ctx, client, time.Now().Add(d), func(buffer []byte) error {
		begin := time.Now()
		asked++
		question := binary.BigEndian.AppendUint64(make([]byte, 0, smallPayload), asked)
		if _, err := client.WriteTo(question, server.LocalAddr()); err != nil {
			return err
		}
		n, _, err := client.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return err
		}
		if n != len(question) || binary.BigEndian.Uint64(buffer) != asked {
			return fmt.Errorf("the answer to question %d is another's", asked)
		}
		times = append(times, time.Since(begin))
		return nil
	})
	if err == nil && len(times) == 0 {
		err = errors.New("no answer came")
	}
	if err != nil {
		return l, err
	}
	slices.Sort(times)
	return latency{times[len(times)/2], times[len(times)*99/100]}, nil
}

// echo answers until the socket is closed.
func echo(server *net.UDPConn) {
	buffer := make([]byte, 2048)
	for {
		n, from, err := server.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		server.WriteToUDPAddrPort(buffer[:n], from)
	}
}
