package main

import (
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/benchvm/rows"
)

// batch is the number of frames that are sent by one system call, between two looks
// at the clock: so few that most batches meet no tick of the timer.
const batch = 64

// source is the address of host 1; the first destination is that of host 2.
var source = net.HardwareAddr{2, 0, 0, 0, 0, 1}

// destination returns the address of flow n. They look like random ones: a hash can be
// kinder to numbers in a row than to what is found in a network.
func destination(n int) net.HardwareAddr {
	if n == 0 {
		return net.HardwareAddr{2, 0, 0, 0, 0, 2}
	}
	address := net.HardwareAddr{2, 1, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(address[2:], mix(uint32(n)))
	return address
}

// mix gives every number another one (the end of MurmurHash3).
func mix(n uint32) uint32 {
	n = (n ^ n>>16) * 0x85ebca6b
	n = (n ^ n>>13) * 0xc2b2ae35
	return n ^ n>>16
}

// frameOf returns a frame of 60 bytes, beside its tag.
func frameOf(kind rows.Frame, from, to net.HardwareAddr) []byte {
	frame := append(append([]byte{}, to...), from...)
	length := 60
	switch kind {
	case rows.Tagged:
		frame = append(frame, 0x81, 0x00, 0, 10, 0x88, 0xb5)
		length += 4
	case rows.IP:
		frame = append(frame, 0x08, 0x00)
		frame = append(frame, ipv4Header()...)
	case rows.Length:
		frame = append(frame, 0, 46)
	default:
		frame = append(frame, 0x88, 0xb5)
	}
	return append(frame, make([]byte, length-len(frame))...)
}

// ipv4Header is that of a packet of 46 bytes with UDP in it.
func ipv4Header() []byte {
	h := []byte{0x45, 0, 0, 46, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	return h
}

// sender sends batches of frames from a packet socket on a host's eth0.
type sender struct {
	fd       int
	frames   [batch][]byte
	vectors  [batch]unix.Iovec
	messages [batch]struct { // struct mmsghdr
		header unix.Msghdr
		length uint32
	}
}

func newSender(host string) (*sender, error) {
	s := &sender{}
	err := inNamespace(host, func() (err error) {
		s.fd, err = openSocket("eth0")
		return err
	})
	return s, err
}

// openSocket opens a packet socket that receives nothing.
func openSocket(device string) (int, error) {
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifc.Index})
}

// fill makes the frames of the next batch.
func (s *sender) fill(frame func(i int) []byte) {
	for i := range batch {
		b := frame(i)
		s.frames[i] = b
		s.vectors[i].Base = &b[0]
		s.vectors[i].SetLen(len(b))
		s.messages[i].header.Iov = &s.vectors[i]
		s.messages[i].header.SetIovlen(1)
	}
}

// send sends the first n frames and returns how long it took. When it returns, their
// effects are over: the frames crossed the port in the kernel's soft interrupt, which
// ran before the system call went on.
func (s *sender) send(n int) (time.Duration, error) {
	start := time.Now()
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&s.messages)), uintptr(n), 0, 0, 0)
	took := time.Since(start)
	runtime.KeepAlive(s)
	if errno != 0 {
		return took, errno
	}
	if int(sent) != n {
		return took, unix.EAGAIN
	}
	return took, nil
}

// inNamespace runs f on this thread, which is locked, in a host's namespace.
func inNamespace(host string, f func() error) error {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	there, err := os.Open("/run/netns/" + host)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	failed := f()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	return failed
}
