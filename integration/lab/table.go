package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Table changes a bridge's forwarding table many entries at a time: hundreds of
// messages go to the kernel in one call, and it answers only to what it refuses.
type Table struct {
	fd      int
	ports   []int // ifindexes of p1, p2 ...
	waiting []byte
}

// tableBatch is how many bytes of messages go in one call.
const tableBatch = 32 << 10

// The kinds of entries that anybody can add.
const (
	Static  = unix.NUD_NOARP
	Dynamic = unix.NUD_REACHABLE // as if it were learned
)

// OpenTable opens the table of the lab's bridge.
func (l *Lab) OpenTable() (*Table, error) {
	t := &Table{fd: -1}
	if err := l.Bridge.Do(func() error { return t.open(l.Hosts) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open the bridge's table: %w", err), t.Close())
	}
	return t, nil
}

func (t *Table) open(hosts []*Host) (err error) {
	if t.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
		return err
	}
	for _, h := range hosts {
		port, err := net.InterfaceByName(h.Port)
		if err != nil {
			return err
		}
		t.ports = append(t.ports, port.Index)
	}
	return errors.Join(
		unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4*tableBatch),
		unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
}

// Close closes it; the table stays.
func (t *Table) Close() error {
	if t.fd < 0 {
		return nil
	}
	return unix.Close(t.fd)
}

// Ports is behind how many ports an entry can be, counted from 0.
func (t *Table) Ports() int { return len(t.ports) }

// Set says that an address is behind a port as an entry of that kind, whatever there
// was. Flush sends what waits.
func (t *Table) Set(mac [6]byte, port int, kind uint16) error {
	return t.put(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, mac, port, kind)
}

// Remove takes the entry of an address away, which is behind that port.
func (t *Table) Remove(mac [6]byte, port int) error {
	return t.put(unix.RTM_DELNEIGH, 0, mac, port, 0)
}

// put writes a message behind those that wait, and sends them when they are many.
func (t *Table) put(kind, flags uint16, mac [6]byte, port int, state uint16) error {
	const size = unix.SizeofNlMsghdr + unix.SizeofNdMsg + unix.SizeofRtAttr + 8
	b := appendHeader(t.waiting, size, kind, flags)
	b = append(b, unix.AF_BRIDGE, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(t.ports[port]))
	b = binary.NativeEndian.AppendUint16(b, state)
	b = append(b, unix.NTF_MASTER, 0)
	b = binary.NativeEndian.AppendUint16(b, unix.SizeofRtAttr+6)
	b = binary.NativeEndian.AppendUint16(b, unix.NDA_LLADDR)
	t.waiting = append(append(b, mac[:]...), 0, 0)
	if len(t.waiting)+size > tableBatch {
		return t.Flush()
	}
	return nil
}

func appendHeader(b []byte, size uint32, kind, flags uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, size)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	return append(b, make([]byte, 8)...) // sequence and sender
}

// Flush sends what waits; when it returns the kernel has done it.
func (t *Table) Flush() error {
	if len(t.waiting) == 0 {
		return nil
	}
	err := unix.Sendto(t.fd, t.waiting, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	t.waiting = t.waiting[:0]
	return errors.Join(err, t.refusal())
}

// refusal returns what the kernel refused of what was sent.
func (t *Table) refusal() error {
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(t.fd, answer, unix.MSG_DONTWAIT)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return err
	case n < unix.SizeofNlMsghdr+4:
		return fmt.Errorf("an answer of %d bytes", n)
	}
	refused := unix.Errno(-int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])))
	return fmt.Errorf("the kernel refuses a change of the table: %w", refused)
}

// Dump reads the whole table, 32 KB at a time as the kernel gives it at most, and looks
// at nothing of it: what it costs anybody to read the table. It returns how long that
// took, and how many bytes it was.
func (t *Table) Dump() (took time.Duration, size int, err error) {
	request := appendHeader(nil, unix.SizeofNlMsghdr+unix.SizeofNdMsg, unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	request = append(append(request, unix.AF_BRIDGE), make([]byte, unix.SizeofNdMsg-1)...)
	answer := make([]byte, 64<<10)
	begin := time.Now()
	if err := unix.Sendto(t.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, 0, err
	}
	for {
		n, _, err := unix.Recvfrom(t.fd, answer, 0)
		if err != nil {
			return 0, 0, err
		}
		size += n
		if binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_DONE {
			return time.Since(begin), size, nil
		}
	}
}
