package lab

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring receives what arrives on a device through memory that it shares with the
// kernel (packet(7), TPACKET_V3): no system call for each frame, and the moment of
// arrival is the kernel's and not the reader's.
type Ring struct {
	fd     int
	memory []byte
	next   int // block
	drops  uint64
}

const (
	ringBlock  = 128 << 10
	ringBlocks = 128 // 100,000 of the shortest frames
	// ringRetire is how long the kernel waits for more before it hands over a
	// block that is not full, in ms.
	ringRetire = 5
)

// OpenRing opens a ring on a device of the namespace for the lab's frames without
// a tag. With below it sees what arrives on the device even where a bridge takes it
// from there.
func (n *Namespace) OpenRing(device string, below bool) (*Ring, error) {
	r := &Ring{fd: -1}
	if err := n.Do(func() error { return r.open(device, below) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open a packet ring on %s: %w", device, err), r.Close())
	}
	return r, nil
}

func (r *Ring) open(device string, below bool) (err error) {
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	request := &unix.TpacketReq3{
		Block_size: ringBlock, Block_nr: ringBlocks,
		Frame_size: 2048, Frame_nr: ringBlock / 2048 * ringBlocks,
		Retire_blk_tov: ringRetire,
	}
	err = errors.Join(
		unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3),
		unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, request),
		onlyOurs(r.fd))
	if err != nil {
		return err
	}
	r.memory, err = unix.Mmap(r.fd, 0, ringBlock*ringBlocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	protocol := uint16(EtherType)
	if below { // only sockets for every protocol are asked before the bridge
		protocol = unix.ETH_P_ALL
	}
	return unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: ifc.Index})
}

// onlyOurs lets the socket take no frame but the lab's.
func onlyOurs(fd int) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: EtherType, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)})
}

// Read hands over the frames that have come, in their order, and waits for the
// first of them for at most so long. A frame is only good during the call.
func (r *Ring) Read(wait time.Duration, take func(frame []byte, arrived time.Time)) error {
	for waited := false; ; {
		block := r.memory[r.next*ringBlock : (r.next+1)*ringBlock]
		header := (*unix.TpacketHdrV1)(unsafe.Pointer(&block[unsafe.Offsetof(unix.TpacketBlockDesc{}.Hdr)]))
		if atomic.LoadUint32(&header.Block_status)&unix.TP_STATUS_USER != 0 {
			eachFrame(block, header, take)
			atomic.StoreUint32(&header.Block_status, unix.TP_STATUS_KERNEL)
			r.next = (r.next + 1) % ringBlocks
			waited = true
			continue
		}
		if waited {
			return nil
		}
		ready := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, int(wait.Milliseconds())); err != nil && err != unix.EINTR {
			return err
		}
		waited = true
	}
}

func eachFrame(block []byte, header *unix.TpacketHdrV1, take func([]byte, time.Time)) {
	at := header.Offset_to_first_pkt
	for range header.Num_pkts {
		f := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[at]))
		begin := at + uint32(f.Mac)
		take(block[begin:begin+f.Snaplen], time.Unix(int64(f.Sec), int64(f.Nsec)))
		at += f.Next_offset
	}
}

// Drops returns how many frames found no room so far.
func (r *Ring) Drops() (uint64, error) {
	stats, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil {
		r.drops += uint64(stats.Drops) // the kernel counts from the last question on
	}
	return r.drops, err
}

// Close lets go of the ring.
func (r *Ring) Close() error {
	var errs []error
	if r.memory != nil {
		errs = append(errs, unix.Munmap(r.memory))
	}
	if r.fd >= 0 {
		errs = append(errs, unix.Close(r.fd))
	}
	return errors.Join(errs...)
}
