package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EtherType is that of the lab's frames: the first for local experiments
// (IEEE 802), which no protocol uses.
const EtherType = 0x88b5

// A frame of the lab is addresses, perhaps a tag, EtherType, stream, sequence
// number, padding. The offsets are those without a tag.
const (
	frameSize      = 60
	typeOffset     = 12
	streamOffset   = 14
	sequenceOffset = 18
	tagSize        = 4
)

// Frame is one frame of a stream.
type Frame struct {
	Source, Destination net.HardwareAddr
	Tag                 Tag
	Stream              uint32
	Sequence            uint64
}

// Tag is a frame's VLAN tag; the zero Tag is none.
type Tag struct {
	Protocol uint16 // EtherType: [Dot1Q] or [Dot1AD]
	VID      uint16
	PCP      uint8 // priority, 0 to 7
}

// The EtherTypes of tags.
const (
	Dot1Q  = 0x8100
	Dot1AD = 0x88a8
)

func parseTag(b []byte) Tag {
	protocol, tci := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if protocol != Dot1Q && protocol != Dot1AD {
		return Tag{}
	}
	return Tag{protocol, tci & 0xfff, uint8(tci >> 13)}
}

// insertTag puts the tag behind the addresses of a frame of n bytes, and returns
// the frame's new length.
func insertTag(b []byte, n int, protocol, tci uint16) int {
	copy(b[typeOffset+tagSize:], b[typeOffset:n])
	binary.BigEndian.PutUint16(b[typeOffset:], protocol)
	binary.BigEndian.PutUint16(b[typeOffset+2:], tci)
	return min(n+tagSize, len(b))
}

// Bytes is the frame as it goes over the wire.
func (f Frame) Bytes() []byte {
	b := make([]byte, frameSize, frameSize+tagSize)
	copy(b, f.Destination)
	copy(b[6:], f.Source)
	binary.BigEndian.PutUint16(b[typeOffset:], EtherType)
	binary.BigEndian.PutUint32(b[streamOffset:], f.Stream)
	binary.BigEndian.PutUint64(b[sequenceOffset:], f.Sequence)
	if f.Tag.Protocol == 0 {
		return b
	}
	b = b[:frameSize+tagSize]
	insertTag(b, frameSize, f.Tag.Protocol, uint16(f.Tag.PCP)<<13|f.Tag.VID)
	return b
}

// ParseFrame returns false for frames that are not the lab's.
func ParseFrame(b []byte) (Frame, bool) {
	if len(b) < frameSize {
		return Frame{}, false
	}
	f := Frame{Destination: net.HardwareAddr(b[:6]), Source: net.HardwareAddr(b[6:12]), Tag: parseTag(b[typeOffset:])}
	if f.Tag.Protocol != 0 {
		b = b[tagSize:]
	}
	if len(b) < frameSize || binary.BigEndian.Uint16(b[typeOffset:]) != EtherType {
		return Frame{}, false
	}
	f.Stream = binary.BigEndian.Uint32(b[streamOffset:])
	f.Sequence = binary.BigEndian.Uint64(b[sequenceOffset:])
	return f, true
}

// Wire sends and receives whole Ethernet frames: a host's packet socket, or a
// tap.
type Wire interface {
	Write([]byte) (int, error)
	// Read waits for a frame until the deadline of SetReadDeadline.
	Read([]byte) (int, error)
	SetReadDeadline(time.Time) error
	Close() error
	SyscallConn() (syscall.RawConn, error)
	// receive reads a frame from the wire's descriptor if one is there, and
	// fails with EAGAIN if none is.
	receive(fd int, b []byte) (int, error)
}

// receiveBuffer holds what arrives while the reader is not scheduled: far more
// than a second of frames, in bytes.
const receiveBuffer = 512 << 20

// Wire opens a packet socket on the host's eth0 that sees the lab's frames, and
// no tags: the kernel takes them off before it looks at the EtherType.
func (h *Host) Wire() (Wire, error) { return h.wireOn("eth0", EtherType) }

// SendingWire opens a packet socket on the host's eth0 that receives nothing.
func (h *Host) SendingWire() (Wire, error) { return h.wireOn("eth0", 0) }

// WireOfAll opens a packet socket on the host's eth0 that sees every frame as it
// was on the wire, with its tags.
func (h *Host) WireOfAll() (Wire, error) { return h.WireOn("eth0") }

// WireOn opens a packet socket on a device of the namespace that sees every frame
// which the device takes.
func (n *Namespace) WireOn(device string) (Wire, error) { return n.wireOn(device, unix.ETH_P_ALL) }

func (n *Namespace) wireOn(device string, etherType uint16) (Wire, error) {
	var s *socket
	err := n.Do(func() (err error) {
		s, err = openSocket(device, etherType)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on %s: %w", device, err)
	}
	return s, nil
}

// Capture opens a packet socket as tcpdump does: the device takes every frame.
func (n *Namespace) Capture(device string) (Wire, error) {
	w, err := n.WireOn(device)
	if err != nil {
		return nil, err
	}
	if err := w.(*socket).setPromiscuous(device, n); err != nil {
		return nil, errors.Join(fmt.Errorf("make %s promiscuous: %w", device, err), w.Close())
	}
	return w, nil
}

// SeeSent opens a packet socket that sees what a device of the namespace sends, too; on
// "any" what all of them do.
func (n *Namespace) SeeSent(device string) (io.Closer, error) {
	var fd int
	err := n.Do(func() (err error) {
		at := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}
		if device != "any" {
			ifc, err := net.InterfaceByName(device)
			if err != nil {
				return err
			}
			at.Ifindex = ifc.Index
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, at)
	})
	if err != nil {
		return nil, fmt.Errorf("capture what %s sends: %w", device, err)
	}
	return os.NewFile(uintptr(fd), device), nil
}

func (s *socket) setPromiscuous(device string, n *Namespace) error {
	var ifc *net.Interface
	err := n.Do(func() (err error) {
		ifc, err = net.InterfaceByName(device)
		return err
	})
	if err != nil {
		return err
	}
	return s.control(func(fd int) error {
		return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(ifc.Index), Type: unix.PACKET_MR_PROMISC})
	})
}

// socket is a packet socket as an os.File, whose reads the runtime can wait for.
type socket struct {
	*os.File
}

func openSocket(device string, etherType uint16) (*socket, error) {
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{os.NewFile(uintptr(fd), device)}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(etherType), Ifindex: ifc.Index}))
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Read returns the frame as it was on the wire.
func (s *socket) Read(b []byte) (n int, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, failed = s.receive(int(fd), b)
		return failed != unix.EAGAIN
	})
	return n, errors.Join(err, failed)
}

// receive reads a frame. The kernel has put its tag aside (net/core/dev.c:
// skb_vlan_untag), and it is put back here.
func (s *socket) receive(fd int, b []byte) (int, error) {
	control := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.TpacketAuxdata{}))))
	n, controls, _, _, err := unix.Recvmsg(fd, b, control, unix.MSG_DONTWAIT)
	if err != nil {
		return 0, err
	}
	return restoreTag(b, n, control[:controls])
}

func restoreTag(b []byte, n int, control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return n, err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(unsafe.SliceData(m.Data)))
		if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			return insertTag(b, n, aux.Vlan_tpid, aux.Vlan_tci), nil
		}
	}
	return n, nil
}

// Drops returns how many frames reached the socket and found no room.
func (s *socket) Drops() (drops uint32, err error) {
	err = s.control(func(fd int) error {
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			drops = stats.Drops
		}
		return err
	})
	return drops, err
}

// control runs f on the socket's descriptor.
func (s *socket) control(f func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// Pace says how a stream is sent.
type Pace struct {
	PerSecond int // frames
	Burst     int // frames sent without a pause between them; 0 means 1
	// Gentle leaves the CPU to others between bursts, which then come later than
	// they should: by a tenth of a millisecond, or as long as the CPU is taken.
	// What is late is made good only up to a hundred frames or so, lest a backlog
	// of the kernel overflows: the rate falls instead.
	Gentle bool
}

// Time is how long the pace takes for so many frames.
func (p Pace) Time(frames uint64) time.Duration {
	return time.Duration(frames) * time.Second / time.Duration(p.PerSecond)
}

// Sender sends the frames of a stream, each with the next sequence number.
type Sender struct {
	Wire  Wire
	Frame Frame
	Pace  Pace
	// CPU is the one to send from, counted from 0 among those that there are.
	CPU int
	// Next is the number of the next frame: frames below it were sent.
	Next atomic.Uint64
}

// Send sends up to the frame before number to, or until ctx ends, all on one
// CPU: on two the order would be lost at the sender.
func (s *Sender) Send(ctx context.Context, to uint64) error {
	return OnCPU(s.CPU, func() error {
		from, begin := s.Next.Load(), time.Now()
		for seq := from; seq < to && ctx.Err() == nil; {
			due := begin.Add(time.Duration(seq-from) * time.Second / time.Duration(s.Pace.PerSecond))
			begin = begin.Add(s.Pace.wait(due))
			end := min(seq+max(uint64(s.Pace.Burst), 1), to)
			if err := s.burst(seq, end); err != nil {
				return fmt.Errorf("send frames %d to %d: %w", seq, end, err)
			}
			seq = end
		}
		return nil
	})
}

// burst sends the frames from one number up to the one before another: in one
// system call if it can, as a hypervisor does.
func (s *Sender) burst(from, end uint64) error {
	var frames [][]byte
	for seq := from; seq < end; seq++ {
		f := s.Frame
		f.Sequence = seq
		frames = append(frames, f.Bytes())
	}
	if packets, ok := s.Wire.(*socket); ok && len(frames) > 1 {
		err := packets.writeAll(frames)
		if err == nil {
			s.Next.Store(end)
		}
		return err
	}
	for _, b := range frames {
		if err := writeFrame(s.Wire, b); err != nil {
			return err
		}
		s.Next.Add(1)
	}
	return nil
}

// writeAll sends frames with sendmmsg(2).
func (s *socket) writeAll(frames [][]byte) error {
	type message struct { // struct mmsghdr
		header unix.Msghdr
		length uint32
	}
	messages, vectors := make([]message, len(frames)), make([]unix.Iovec, len(frames))
	for i, b := range frames {
		vectors[i].Base = unsafe.SliceData(b)
		vectors[i].SetLen(len(b))
		messages[i].header.Iov = &vectors[i]
		messages[i].header.SetIovlen(1)
	}
	return s.control(func(fd int) error {
		for len(messages) > 0 {
			n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd),
				uintptr(unsafe.Pointer(unsafe.SliceData(messages))), uintptr(len(messages)), 0, 0, 0)
			if errno != 0 && errno != unix.ENOBUFS && errno != unix.EAGAIN {
				return errno
			}
			if errno == 0 {
				messages = messages[n:]
			}
		}
		return nil
	})
}

// writeFrame tries again where the device's queue is full for the moment.
func writeFrame(w Wire, b []byte) error {
	for {
		_, err := w.Write(b)
		if !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

// wait waits until a burst is due and returns how much of its lateness is not to
// be made good.
func (p Pace) wait(due time.Time) (forgiven time.Duration) {
	if !p.Gentle {
		waitUntil(due)
		return 0
	}
	if d := time.Until(due); d > 0 {
		pause := unix.NsecToTimespec(d.Nanoseconds())
		unix.Nanosleep(&pause, nil) // interrupted, it is early: no harm
	}
	const mostAtOnce = 128 // frames, where a CPU's backlog holds 1,000
	most := time.Duration(max(mostAtOnce, p.Burst)) * time.Second / time.Duration(p.PerSecond)
	return max(time.Since(due)-most, 0)
}

// waitUntil paces a sender; short waits spin, since a timer is late by more.
func waitUntil(due time.Time) {
	const coarse = 500 * time.Microsecond
	if d := time.Until(due); d > coarse {
		time.Sleep(d - coarse)
	}
	for time.Now().Before(due) {
	}
}

// OnCPU runs f on a thread of its own that stays on one CPU: number n of those
// that there are, from the first again where there are fewer.
func OnCPU(n int, f func() error) error {
	return onThread(func() error {
		if err := pinToCPU(n); err != nil {
			return err
		}
		return f()
	})
}

func pinToCPU(n int) error {
	var have, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return err
	}
	n %= max(have.Count(), 1)
	for cpu := range 1024 {
		if !have.IsSet(cpu) {
			continue
		}
		if n == 0 {
			one.Set(cpu)
			break
		}
		n--
	}
	return unix.SchedSetaffinity(0, &one)
}

// Report is what a receiver saw of a stream.
type Report struct {
	Received  uint64 // frames, each counted once
	Doubled   uint64
	Reordered uint64 // frames that came behind one with a higher number
	Drops     uint32 // lost in the receiver's own socket, not in the network
}

// Lost returns how many of sent frames did not arrive.
func (r Report) Lost(sent uint64) uint64 { return sent - r.Received }

// Tally keeps count of a stream.
type Tally struct {
	seen    []uint64 // a bit for each sequence number
	highest uint64
	report  Report
}

// Report returns what was counted.
func (t *Tally) Report() Report { return t.report }

// Missing returns the first sequence numbers below sent that did not come, at
// most as many as asked for.
func (t *Tally) Missing(sent uint64, most int) (missing []uint64) {
	for s := uint64(0); s < sent && len(missing) < most; s++ {
		if s/64 >= uint64(len(t.seen)) || t.seen[s/64]>>(s%64)&1 == 0 {
			missing = append(missing, s)
		}
	}
	return missing
}

// LostBelow returns how many of the frames below a number have not come yet.
func (t *Tally) LostBelow(number uint64) uint64 {
	came := 0
	for word := range min(number/64, uint64(len(t.seen))) {
		came += bits.OnesCount64(t.seen[word])
	}
	if word := number / 64; word < uint64(len(t.seen)) {
		came += bits.OnesCount64(t.seen[word] & (1<<(number%64) - 1))
	}
	return number - uint64(came)
}

// Add counts the frame with that number.
func (t *Tally) Add(sequence uint64) {
	word, bit := sequence/64, uint64(1)<<(sequence%64)
	for uint64(len(t.seen)) <= word {
		t.seen = append(t.seen, 0)
	}
	if t.seen[word]&bit != 0 {
		t.report.Doubled++
		return
	}
	t.seen[word] |= bit
	if sequence < t.highest {
		t.report.Reordered++
	}
	t.highest = max(t.highest, sequence)
	t.report.Received++
}

// quiet is how long a receiver waits for frames that do not come.
const quiet = time.Second

// lookAgain is how often a receiver looks whether the sender is done.
const lookAgain = 20 * time.Millisecond

// Receive counts the frames of a stream until none comes for a while after the
// sender is done, which the closing of sent tells, or all have come.
func Receive(w Wire, s *Sender, sent <-chan struct{}) (Report, error) {
	var t Tally
	buffer := make([]byte, 2048)
	for {
		over, wait := false, lookAgain
		select {
		case <-sent:
			over, wait = true, quiet
		default:
		}
		if over && t.report.Received >= s.Next.Load() {
			break
		}
		if err := w.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return t.report, err
		}
		n, err := w.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) && over {
			break
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return t.report, err
		}
		if f, ok := ParseFrame(buffer[:max(n, 0)]); ok && f.Stream == s.Frame.Stream {
			t.Add(f.Sequence)
		}
	}
	return t.report, t.addDrops(w)
}

func (t *Tally) addDrops(w Wire) (err error) {
	if s, ok := w.(*socket); ok {
		t.report.Drops, err = s.Drops()
	}
	return err
}

// Run sends a stream from one wire to the other until ctx ends or frame number
// to is reached, and returns what arrived.
func Run(ctx context.Context, s *Sender, to uint64, at Wire) (Report, error) {
	sent := make(chan struct{})
	var failed error
	go func() {
		defer close(sent)
		failed = s.Send(ctx, to)
	}()
	report, err := Receive(at, s, sent)
	<-sent
	return report, errors.Join(failed, err)
}
