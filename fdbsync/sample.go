package fdbsync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// sample is what arrived at ports in a while.
type sample struct {
	took  time.Duration
	ports map[int]*portSample
}

// portSample is what arrived at one port.
type portSample struct {
	arrivals []arrival // those that were looked at
	total    uint64    // all that arrived
}

// addTo counts what becomes of the frames. Those that were looked at stand for
// all.
func (p *portSample) addTo(sum map[accel.Reason]accel.Count, j *judge) {
	own := make(map[accel.Reason]accel.Count)
	for _, a := range p.arrivals {
		r := j.reason(a)
		own[r] = own[r].Add(accel.Count{Packets: 1, Bytes: uint64(a.length)})
	}
	looked := uint64(len(p.arrivals))
	for r, n := range own {
		sum[r] = sum[r].Add(accel.Count{Packets: n.Packets * p.total / looked, Bytes: n.Bytes * p.total / looked})
	}
}

const (
	// snapLength has room for all headers that are looked at.
	snapLength = 128
	// mostArrivals bounds what a sample holds, of all ports.
	mostArrivals = 1 << 17
	// What may wait at a port, in bytes: a share of allBuffers, tapBuffer at most.
	// The kernel's memory is the host's, and a bridge may have hundreds of ports. What
	// finds no room is counted by the kernel, and costs no more than that.
	tapBuffer, leastTapBuffer = 2 << 20, 64 << 10
	allBuffers                = 32 << 20
	// tapTurn is how many frames are read at one port before the next has its turn.
	tapTurn = 64
)

// takeSample looks at the frames that arrive at the ports, until the time is over
// or ctx ends. It opens a packet socket at each, which sees what tc ingress would
// see, and changes nothing: the ports do not become promiscuous.
func takeSample(ctx context.Context, ports []int, d time.Duration) (*sample, error) {
	s := &sample{ports: make(map[int]*portSample)}
	taps := make([]*tap, 0, len(ports))
	defer func() {
		for _, t := range taps {
			unix.Close(t.fd)
		}
	}()
	begin := time.Now()
	for _, port := range ports {
		t, err := openTap(port, begin, bufferOf(len(ports)))
		if err != nil {
			return nil, err
		}
		taps = append(taps, t)
		s.ports[port] = &t.seen
	}
	room, err := listenTo(ctx, taps, begin.Add(d), mostArrivals)
	s.took = time.Since(begin)
	for _, t := range taps {
		err = errors.Join(err, t.finish(room))
	}
	return s, err
}

// listenTo reads from all taps in turns, and returns how many more frames there is
// room for.
func listenTo(ctx context.Context, taps []*tap, end time.Time, room int) (int, error) {
	const patience = 50 * time.Millisecond // until ctx is looked at
	polls := make([]unix.PollFd, len(taps))
	for i, t := range taps {
		polls[i] = unix.PollFd{Fd: int32(t.fd), Events: unix.POLLIN}
	}
	for ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		if _, err := unix.Poll(polls, int(min(left, patience).Milliseconds())+1); err != nil && err != unix.EINTR {
			return room, fmt.Errorf("wait for frames: %w", err)
		}
		for i, t := range taps {
			if polls[i].Revents == 0 || room == 0 {
				continue
			}
			n, err := t.read(min(room, tapTurn))
			if room -= n; err != nil {
				return room, err
			}
		}
		if room == 0 {
			rest := time.NewTimer(time.Until(end)) // the kernel goes on to count
			select {
			case <-rest.C:
			case <-ctx.Done():
			}
			rest.Stop()
		}
	}
	return room, nil
}

// bufferOf is what may wait at each of so many ports.
func bufferOf(ports int) int { return min(max(allBuffers/ports, leastTapBuffer), tapBuffer) }

// tap is a packet socket at a port.
type tap struct {
	fd      int
	port    int
	waiting int // how many bytes may wait
	begin   time.Time
	seen    portSample

	buffer  [snapLength]byte
	control [128]byte
}

func openTap(port int, begin time.Time, waiting int) (*tap, error) {
	// Protocol 0: nothing is received before the socket is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	t := &tap{fd: fd, port: port, waiting: waiting, begin: begin}
	if err := t.bind(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("look at the frames of port %d: %w", port, err)
	}
	return t, nil
}

func (t *tap) bind() error {
	unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, t.waiting) // or as large as it is
	if err := unix.SetsockoptInt(t.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(t.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return err
	}
	if err := t.keep(snapLength); err != nil {
		return err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	return unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: t.port})
}

// keep makes the kernel keep the first bytes of each frame; with 0 it neither keeps
// nor counts any.
func (t *tap) keep(length uint32) error {
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: length}}
	return unix.SetsockoptSockFprog(t.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &filter[0]})
}

// read takes what waits, at most so many frames, and says how many it took.
func (t *tap) read(most int) (int, error) {
	for n := range most {
		size, controls, _, _, err := unix.Recvmsg(t.fd, t.buffer[:], t.control[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN, err == unix.ENETDOWN, err == unix.ENODEV:
			return n, nil // ENETDOWN is said once; the device may come back
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, fmt.Errorf("read the frames of port %d: %w", t.port, err)
		}
		if a, ok := t.arrival(t.buffer[:size], t.control[:controls]); ok {
			t.seen.arrivals = append(t.seen.arrivals, a)
		}
	}
	return most, nil
}

// finish ends what is counted, takes what waits, and asks how many there were.
func (t *tap) finish(room int) error {
	if err := t.keep(0); err != nil {
		return fmt.Errorf("end the sample of port %d: %w", t.port, err)
	}
	if _, err := t.read(room); err != nil {
		return err
	}
	stats, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return fmt.Errorf("count the frames of port %d: %w", t.port, err)
	}
	t.seen.total = max(uint64(stats.Packets), uint64(len(t.seen.arrivals)))
	return nil
}

// arrival reads the headers of a frame. The kernel has put its tag and its length
// aside.
func (t *tap) arrival(frame, control []byte) (arrival, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(frame) < ethernetHeader {
		return arrival{}, false
	}
	a := arrival{
		port: t.port, at: time.Since(t.begin), length: len(frame),
		destination: accel.MAC(frame), source: accel.MAC(frame[6:]), protocol: binary.BigEndian.Uint16(frame[12:]),
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(unsafe.SliceData(m.Data)))
		a.length = int(aux.Len)
		if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			a.tag, a.tagProtocol = aux.Vlan_tci, aux.Vlan_tpid
		}
	}
	a.oddIP, a.nd = lookAtIP(a, frame[ethernetHeader:])
	return a, true
}

// lookAtIP looks at the header as the port program does (tcprog/bpf/shunt.c:
// check_ip, is_neighbour_discovery).
func lookAtIP(a arrival, packet []byte) (odd accel.Reason, nd bool) {
	const pppoe = 0x8864 // ETH_P_PPP_SES
	switch a.protocol {
	case unix.ETH_P_IP:
		if !isPlainIPv4(packet, a.length-ethernetHeader) {
			return accel.IPHeader, false
		}
	case unix.ETH_P_IPV6:
		nd = isNeighbourDiscovery(packet)
		if !isPlainIPv6(packet, a.length-ethernetHeader) {
			return accel.IPHeader, nd
		}
	case pppoe:
		return accel.PPPoE, false
	}
	return accel.Fast, nd
}

func isPlainIPv4(packet []byte, length int) bool {
	const header = 20
	if len(packet) < header || packet[0] != 0x45 || int(binary.BigEndian.Uint16(packet[2:])) != length {
		return false
	}
	sum := uint32(0)
	for i := 0; i < header; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return sum == 0xffff
}

const ipv6Header = 40

func isPlainIPv6(packet []byte, length int) bool {
	return len(packet) >= ipv6Header && packet[0]>>4 == 6 && packet[6] != 0 && // hop-by-hop options
		int(binary.BigEndian.Uint16(packet[4:]))+ipv6Header == length
}

func isNeighbourDiscovery(packet []byte) bool {
	const solicitation, advertisement = 135, 136
	if len(packet) < ipv6Header {
		return true
	}
	if packet[6] != unix.IPPROTO_ICMPV6 {
		return false
	}
	return len(packet) == ipv6Header || packet[ipv6Header] == solicitation || packet[ipv6Header] == advertisement
}
