package fdbsync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// receiver reads many datagrams of a netlink socket in one call: where the kernel tells
// of 50,000 changes a second, one call for each would be too slow.
type receiver struct {
	headers  []mmsghdr
	vectors  []unix.Iovec
	memory   []byte
	size     int // of one datagram's place, in bytes
	messages []netlink.Message
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header   unix.Msghdr
	received uint32
	_        [4]byte
}

// newReceiver has place for that many datagrams of up to size bytes.
func newReceiver(datagrams, size int) *receiver {
	r := &receiver{
		headers: make([]mmsghdr, datagrams), vectors: make([]unix.Iovec, datagrams),
		memory: make([]byte, datagrams*size), size: size,
	}
	for i := range r.headers {
		r.vectors[i].Base = &r.memory[i*size]
		r.vectors[i].SetLen(size)
		r.headers[i].header.Iov = &r.vectors[i]
		r.headers[i].header.SetIovlen(1)
	}
	return r
}

// receive waits for datagrams and returns their messages, which are good until the next
// call. Of one that is longer than its place it returns the beginning.
func (r *receiver) receive(c *netlink.Conn) ([]netlink.Message, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	n, err := r.read(raw)
	if err != nil {
		return nil, err
	}
	r.messages = r.messages[:0]
	for i := range n {
		begin := i * r.size
		whole := r.split(r.memory[begin : begin+int(r.headers[i].received)])
		if !whole && r.headers[i].header.Flags&unix.MSG_TRUNC == 0 {
			return nil, errShortMessage
		}
	}
	return r.messages, nil
}

func (r *receiver) read(raw syscall.RawConn) (n int, err error) {
	var errno syscall.Errno
	err = raw.Read(func(fd uintptr) bool {
		for {
			got, _, e := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.headers[0])), uintptr(len(r.headers)), unix.MSG_DONTWAIT, 0, 0)
			if n, errno = int(got), e; errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	})
	if err == nil && errno != 0 {
		err = fmt.Errorf("receive from netlink: %w", errno)
	}
	return n, err
}

var errShortMessage = errors.New("receive from netlink: a message without a whole header")

// split takes the messages of one datagram (netlink(7)); false if its end is no message.
func (r *receiver) split(b []byte) (whole bool) {
	for len(b) > 0 {
		if len(b) < unix.SizeofNlMsghdr {
			return false
		}
		m := netlink.Message{Header: netlink.Header{
			Length:   binary.NativeEndian.Uint32(b),
			Type:     netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
			Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
			Sequence: binary.NativeEndian.Uint32(b[8:]),
			PID:      binary.NativeEndian.Uint32(b[12:]),
		}}
		if m.Header.Length < unix.SizeofNlMsghdr {
			return false
		}
		length := min(int(m.Header.Length), len(b))
		m.Data = b[unix.SizeofNlMsghdr:length]
		r.messages = append(r.messages, m)
		b = b[min(align4(length), len(b)):]
	}
	return true
}

// isCut says whether a message is not whole.
func isCut(m netlink.Message) bool { return int(m.Header.Length) != unix.SizeofNlMsghdr+len(m.Data) }

// errorOf is what an NLMSG_ERROR or NLMSG_DONE says; nil for a success.
func errorOf(m netlink.Message) error {
	if len(m.Data) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
