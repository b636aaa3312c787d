package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// blaster sends one frame over and over, through memory that it shares with the kernel
// (packet(7), PACKET_TX_RING): no system call for each frame, and nothing is copied but
// its headers. At most a ring of frames is under way at a time, so nothing is lost for
// want of room, and a frame that was sent is one that was forwarded.
type blaster struct {
	fd     int
	memory []byte
	size   int // of a slot
}

// slots are how many frames one system call sends. The kernel holds 1,000 in the
// backlog of a CPU.
const slots = 64

// newBlaster opens the ring on the host's eth0.
func newBlaster(h *lab.Host, frame packet) (*blaster, error) {
	b := &blaster{fd: -1}
	if err := h.Do(func() error { return b.open("eth0", frame) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open a packet ring to send: %w", err), b.close())
	}
	return b, nil
}

func (b *blaster) open(device string, frame packet) (err error) {
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	if b.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	image := frame.image()
	b.size = roundUp(slotHeader+len(image), unix.Getpagesize())
	err = errors.Join(
		unix.SetsockoptInt(b.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2),
		unix.SetsockoptInt(b.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptTpacketReq(b.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &unix.TpacketReq{
			Block_size: uint32(b.size), Block_nr: slots, Frame_size: uint32(b.size), Frame_nr: slots,
		}))
	if err != nil {
		return err
	}
	b.memory, err = unix.Mmap(b.fd, 0, b.size*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for n := range slots {
		b.header(n).Len = uint32(copy(b.memory[n*b.size+slotHeader:], image))
	}
	return unix.Bind(b.fd, &unix.SockaddrLinklayer{Ifindex: ifc.Index})
}

// slotHeader is where a frame begins in its slot (net/packet/af_packet.c:
// tpacket_parse_header).
const slotHeader = (int(unsafe.Sizeof(unix.Tpacket2Hdr{})) + unix.TPACKET_ALIGNMENT - 1) &^ (unix.TPACKET_ALIGNMENT - 1)

func roundUp(n, to int) int { return (n + to - 1) / to * to }

func (b *blaster) header(slot int) *unix.Tpacket2Hdr {
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(&b.memory[slot*b.size]))
}

// run sends for that long, or until ctx ends, all on one CPU. It returns how many frames
// it sent, and how many a second go at the pace of the median ring of them: one in which
// the CPU was taken away counts as one, however long that lasted. When it returns, none is
// under way.
func (b *blaster) run(ctx context.Context, d time.Duration) (sent uint64, pace float64, err error) {
	var volleys []float64 // seconds
	err = onLastCPU(func() error {
		for begin, last := time.Now(), time.Now(); last.Sub(begin) < d && ctx.Err() == nil; {
			if err := b.volley(); err != nil {
				return err
			}
			now := time.Now()
			volleys = append(volleys, now.Sub(last).Seconds())
			last = now
		}
		return ctx.Err()
	})
	return uint64(len(volleys)) * slots, paceOf(volleys), err
}

// paceOf returns frames per second.
func paceOf(volleys []float64) float64 { return slots / quantile(volleys, 0.5) }

// volley sends a ring of frames and waits until the kernel has done with the last one.
func (b *blaster) volley() error {
	for n := range slots {
		atomic.StoreUint32(&b.header(n).Status, unix.TP_STATUS_SEND_REQUEST)
	}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(b.fd), 0, 0, 0, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR, unix.ENOBUFS, unix.EAGAIN: // what was not sent is still in the ring
		default:
			return fmt.Errorf("send frames: %w", errno)
		}
	}
}

func (b *blaster) close() error {
	var errs []error
	if b.memory != nil {
		errs = append(errs, unix.Munmap(b.memory))
	}
	if b.fd >= 0 {
		errs = append(errs, unix.Close(b.fd))
	}
	return errors.Join(errs...)
}
