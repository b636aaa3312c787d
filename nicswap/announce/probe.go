package announce

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// probeInterval is how long an answer is awaited before it is asked again.
const probeInterval = 200 * time.Millisecond

// Probe asks over a device who has the address, again and again, until somebody
// answers over that device, and returns nil then. It returns an error when ctx ends,
// or at once if the device is down. tag and tagProtocol are as in [Station].
//
// from must be the device's own address, and no station's: every switch on the
// way learns it. The question is one that claims no address: an ARP probe (RFC
// 5227), or a neighbour solicitation from the unspecified address, which a host
// that is just about to take addr itself takes for a second one that does.
//
// The answer is seen as it arrives, before any program at tc that drops it.
func Probe(ctx context.Context, ifindex int, from accel.MAC, tag, tagProtocol uint16, addr netip.Addr) error {
	q := question{from: from, tag: tag, addr: addr.Unmap().WithZone("")}
	if !isHost(q.addr) {
		return fmt.Errorf("probe %q: it is no host's address", addr)
	}
	s, err := openSocket(ifindex, unix.ETH_P_ALL)
	if err != nil {
		return fmt.Errorf("probe %s over device %d: %w", addr, ifindex, err)
	}
	defer s.Close()
	if err := s.probe(ctx, q, insertTag(q.frame(), tag, tagProtocol)); err != nil {
		return fmt.Errorf("probe %s over device %d: %w", addr, ifindex, err)
	}
	return nil
}

// question is what is probed.
type question struct {
	from accel.MAC
	tag  uint16
	addr netip.Addr
}

func (q question) frame() []byte {
	if q.addr.Is4() {
		return arpProbe(q.from, q.addr)
	}
	return solicitation(q.from, q.addr)
}

// probe sends the frame until it is answered.
func (s *socket) probe(ctx context.Context, q question, frame []byte) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.SetReadDeadline(time.Unix(1, 0)) // ends a read that waits
		close(ended)
	})
	defer func() {
		if !stop() {
			<-ended
		}
	}()
	for {
		if err := insist(ctx, s.send, frame, wallClock{}); err != nil {
			return err
		}
		answered, err := s.await(ctx, q, time.Now().Add(probeInterval))
		if answered || err != nil {
			return err
		}
	}
}

// await reads frames until one is the answer, or until the deadline.
func (s *socket) await(ctx context.Context, q question, deadline time.Time) (answered bool, err error) {
	if err := s.SetReadDeadline(deadline); err != nil {
		return false, err
	}
	b := make([]byte, 256)
	for {
		// A context that ends between these two has set its deadline before: looking
		// here, behind that of our own, cannot miss it.
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, vid, err := s.receive(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, ctx.Err()
		case err != nil:
			return false, err
		case q.isAnswered(b[:n], vid):
			return true, nil
		}
	}
}

// receive reads a frame without its tag, and the tag's VID.
func (s *socket) receive(b []byte) (n int, vid uint16, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	control := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.TpacketAuxdata{}))))
	var controls int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, controls, _, _, failed = unix.Recvmsg(int(fd), b, control, unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, 0, err
	}
	return n, tagOf(control[:controls]), nil
}

// tagOf returns the VID of the tag that the kernel has put aside
// (net/core/dev.c: skb_vlan_untag); 0 if there is none.
func tagOf(control []byte) uint16 {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(unsafe.SliceData(m.Data)))
		if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			return aux.Vlan_tci & 0xfff
		}
	}
	return 0
}

// isAnswered says whether a frame, without its tag, is the answer.
func (q question) isAnswered(b []byte, vid uint16) bool {
	if vid != q.tag || len(b) < addressesSize+2 {
		return false
	}
	etherType, b := binary.BigEndian.Uint16(b[addressesSize:]), b[addressesSize+2:]
	switch {
	case q.addr.Is4() && etherType == unix.ETH_P_ARP:
		return q.isReply(b)
	case q.addr.Is6() && etherType == unix.ETH_P_IPV6:
		return q.isAdvertisement(b)
	}
	return false
}

// isReply: an ARP reply from the address to who asked.
func (q question) isReply(b []byte) bool {
	const size, operation, senderIP, target = 28, 6, 14, 18
	return len(b) >= size && binary.BigEndian.Uint16(b[operation:]) == arpReply &&
		bytes.Equal(b[senderIP:senderIP+4], q.addr.AsSlice()) && bytes.Equal(b[target:target+6], q.from[:])
}

// isAdvertisement: a neighbour advertisement of the address, which goes to all
// nodes where the question had no address. It must come from the link itself.
func (q question) isAdvertisement(b []byte) bool {
	const size, next, hops, kind, target = 64, 6, 7, 40, 48
	return len(b) >= size && b[next] == unix.IPPROTO_ICMPV6 && b[hops] == noHops && b[kind] == icmpv6Advert &&
		bytes.Equal(b[target:target+16], q.addr.AsSlice())
}

// answersOnly is a filter that lets ARP and neighbour advertisements pass, so that
// the traffic of a busy device does not wake the daemon.
func answersOnly() *unix.SockFprog {
	const (
		load16 = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		load8  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		ifSame = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		give   = unix.BPF_RET | unix.BPF_K
	)
	program := []unix.SockFilter{
		{Code: load16, K: addressesSize},
		{Code: ifSame, K: unix.ETH_P_ARP, Jt: 5},
		{Code: ifSame, K: unix.ETH_P_IPV6, Jf: 5},
		{Code: load8, K: addressesSize + 2 + 6}, // the next header
		{Code: ifSame, K: unix.IPPROTO_ICMPV6, Jf: 3},
		{Code: load8, K: addressesSize + 2 + 40}, // the type
		{Code: ifSame, K: icmpv6Advert, Jf: 1},
		{Code: give, K: 0xffff},
		{Code: give, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)}
}
