package bench

import (
	"encoding/binary"
	"net"
)

// packet is a frame of IPv4 from a host to a station behind another host's port.
type packet struct {
	source, destination net.HardwareAddr
	// size is the frame's length from its destination address on, without the
	// checksum that a wire adds.
	size int
	// segment is how much payload each segment of a super-frame has, which some device
	// may cut it into later; 0 for a frame that is sent as it is.
	segment int
}

const (
	etherHeader = 14
	ipHeader    = 20
	tcpHeader   = 20
	udpHeader   = 8
	// superSegments of superSegment bytes make the longest super-frame that IPv4 has
	// room for, as TCP sends them with an MTU of 1500.
	superSegment  = 1460
	superSegments = 44
	superFrame    = etherHeader + ipHeader + tcpHeader + superSegments*superSegment
)

// image is the frame as the ring wants it: behind a struct virtio_net_hdr, as that of
// a virtual machine is, in the CPU's order.
func (p packet) image() []byte {
	frame := p.bytes()
	// hdr_len is what lies in one piece, as drivers make it: the headers at least.
	const inOnePiece = 128
	header := make([]byte, virtioHeader, virtioHeader+len(frame))
	binary.NativeEndian.PutUint16(header[2:], uint16(min(len(frame), inOnePiece)))
	if p.segment > 0 {
		header[0] = virtioNeedsChecksum
		header[1] = virtioTCPv4
		binary.NativeEndian.PutUint16(header[2:], etherHeader+ipHeader+tcpHeader)
		binary.NativeEndian.PutUint16(header[4:], uint16(p.segment))
		binary.NativeEndian.PutUint16(header[6:], etherHeader+ipHeader) // csum_start
		binary.NativeEndian.PutUint16(header[8:], 16)                   // csum_offset, in the TCP header
	}
	return append(header, frame...)
}

// include/uapi/linux/virtio_net.h
const (
	virtioHeader        = 10
	virtioNeedsChecksum = 1
	virtioTCPv4         = 1
)

// bytes is the frame: UDP, or TCP for a super-frame, which no other kind can be.
func (p packet) bytes() []byte {
	b := make([]byte, p.size)
	copy(b, p.destination)
	copy(b[6:], p.source)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[etherHeader:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{192, 0, 2, 1}) // RFC 5737: nobody's
	copy(ip[16:], []byte{192, 0, 2, 2})
	payload := ip[ipHeader:]
	binary.BigEndian.PutUint16(payload, 9) // discard
	binary.BigEndian.PutUint16(payload[2:], 9)
	if p.segment > 0 {
		ip[9] = 6
		payload[12] = tcpHeader / 4 << 4
		payload[13] = 0x10 // ACK
		// The sum over the pseudo header; whoever cuts the frame adds the rest.
		binary.BigEndian.PutUint16(payload[16:], ^checksum(ip[12:20], uint32(ip[9])+uint32(len(payload))))
	} else {
		binary.BigEndian.PutUint16(payload[4:], uint16(len(payload))) // no checksum, as UDP may
	}
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipHeader], 0))
	return b
}

// checksum is that of RFC 1071 over b, which has an even length, and what was added up
// before.
func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
