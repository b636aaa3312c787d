package twin

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-dev/shunt/accel"
)

// Frame is a frame that a host sends. In a script it is
//
//	send h2 02:00:00:00:02:01 02:00:00:00:03:01 ipv4 120 8100/3/5
//
// which is the host, source, destination, kind, length in bytes without tags,
// and for each tag its EtherType, priority and VID, the outer one first.
type Frame struct {
	Host                int
	Source, Destination accel.MAC
	Kind                string
	Size                int
	Tags                []Tag
}

// Tag is a VLAN tag.
type Tag struct {
	Protocol uint16
	PCP      uint8
	VID      uint16
}

func (t Tag) String() string { return fmt.Sprintf("%04x/%d/%d", t.Protocol, t.PCP, t.VID) }

// Step is the frame as a step.
func (f Frame) Step() Step {
	s := Step{"send", fmt.Sprintf("h%d", f.Host), f.Source.String(), f.Destination.String(), f.Kind, strconv.Itoa(f.Size)}
	for _, t := range f.Tags {
		s = append(s, t.String())
	}
	return s
}

func (s Step) frame() (f Frame, err error) {
	if len(s) < 6 {
		return f, fmt.Errorf("%q: want send hN SRC DST KIND SIZE [TAG]", s)
	}
	if f.Host, err = strconv.Atoi(strings.TrimPrefix(s[1], "h")); err != nil {
		return f, err
	}
	if f.Source, err = accel.ParseMAC(s[2]); err != nil {
		return f, err
	}
	if f.Destination, err = accel.ParseMAC(s[3]); err != nil {
		return f, err
	}
	f.Kind = s[4]
	if kinds[f.Kind] == nil {
		return f, fmt.Errorf("no frame is of kind %q", f.Kind)
	}
	if f.Size, err = strconv.Atoi(s[5]); err != nil {
		return f, err
	}
	for _, word := range s[6:] {
		var t Tag
		if _, err := fmt.Sscanf(word, "%x/%d/%d", &t.Protocol, &t.PCP, &t.VID); err != nil {
			return f, fmt.Errorf("tag %q: %w", word, err)
		}
		f.Tags = append(f.Tags, t)
	}
	return f, nil
}

const (
	macs    = 12 // bytes of both addresses
	ethLen  = 14
	tagLen  = 4
	vnetLen = 10 // struct virtio_net_hdr
	ip4Len  = 20
	ip6Len  = 40
	tcpLen  = 20
	udpLen  = 8
	// numberLen is the room for the frame's number, at its end.
	numberLen = 8
)

// EtherTypes that are not in every list.
const (
	ethExperiment = 0x88b5
	ethIP4        = 0x0800
	ethIP6        = 0x86dd
	ethARP        = 0x0806
	ethRARP       = 0x8035
)

// kinds are what is behind the addresses: they fill in the EtherType and what
// follows of a zeroed frame without tags, and say what the device must segment.
// Where the frame is too short for a header, the header is cut off.
var kinds = map[string]func(b []byte) gso{
	"raw":          etherType(ethExperiment),
	"cfm":          etherType(0x8902),
	"mrp":          etherType(0x88e3),
	"lldp":         etherType(0x88cc),
	"eapol":        etherType(0x888e),
	"pppoe":        etherType(0x8864),
	"llc":          llc,
	"arp":          arp(ethARP, 1),
	"arp-reply":    arp(ethARP, 2),
	"rarp":         arp(ethRARP, 3),
	"ipv4":         ip4(nil),
	"ipv4-badsum":  ip4(func(h []byte, _ int) { h[10] ^= 0x55 }),
	"ipv4-options": ip4(func(h []byte, _ int) { h[0] = 0x46 }),
	"ipv4-padded":  ip4(func(h []byte, n int) { setLength4(h, n-min(6, n)) }),
	"ipv4-cut":     ip4(func(h []byte, n int) { setLength4(h, n+8) }),
	"ipv4-v5":      ip4(func(h []byte, _ int) { h[0] = 0x55 }),
	"ipv6":         ip6(17, nil),
	"ipv6-options": ip6(0, nil),
	"ipv6-padded":  ip6(17, func(h []byte, n int) { binary.BigEndian.PutUint16(h[4:], uint16(max(n-ip6Len-6, 0))) }),
	"ipv6-cut":     ip6(17, func(h []byte, n int) { binary.BigEndian.PutUint16(h[4:], uint16(n)) }),
	"nd-solicit":   discovery(135),
	"nd-advert":    discovery(136),
	"gso4":         gso4,
	"gso6":         gso6,
}

// gso is what the sender leaves to the device to segment; size 0: nothing.
type gso struct {
	kind    uint8 // VIRTIO_NET_HDR_GSO_*
	headers int   // bytes, without tags
	size    uint16
	start   int // of what the checksum covers, bytes, without tags
}

func etherType(t uint16) func([]byte) gso {
	return func(b []byte) gso {
		binary.BigEndian.PutUint16(b[macs:], t)
		return gso{}
	}
}

func llc(b []byte) gso {
	binary.BigEndian.PutUint16(b[macs:], uint16(min(len(b)-ethLen, 1500)))
	copy(b[ethLen:], []byte{0x42, 0x42, 0x03})
	return gso{}
}

// The hosts' addresses are those behind their stations' last bytes.
func ip4Of(station []byte) []byte { return []byte{10, 99, station[4], station[5]} }

func ip6Of(station []byte) []byte {
	return []byte{0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, station[4], station[5]}
}

// arp asks for, or tells, the destination's address as a host would.
func arp(protocol uint16, operation byte) func([]byte) gso {
	return func(b []byte) gso {
		etherType(protocol)(b)
		p := []byte{0, 1, 8, 0, 6, 4, 0, operation}
		p = append(append(p, b[6:12]...), ip4Of(b[6:12])...)
		p = append(append(p, b[:6]...), ip4Of(b[:6])...)
		copy(b[ethLen:], p)
		return gso{}
	}
}

// ip4 is a UDP packet; spoil changes its header, and n is the length that the
// packet should have.
func ip4(spoil func(h []byte, n int)) func([]byte) gso {
	return func(b []byte) gso {
		etherType(ethIP4)(b)
		n := len(b) - ethLen
		h := header4(b, n, 17)
		if spoil != nil {
			spoil(h, n)
		}
		if spoil == nil || h[0] != 0x45 {
			sum4(h)
		}
		copy(b[ethLen:], append(h, 0, 7, 0, 9, 0, byte(udpLen), 0, 0))
		return gso{}
	}
}

func header4(b []byte, n int, protocol byte) []byte {
	h := make([]byte, ip4Len)
	h[0], h[8], h[9] = 0x45, 64, protocol
	copy(h[12:], ip4Of(b[6:12]))
	copy(h[16:], ip4Of(b[:6]))
	setLength4(h, n)
	return h
}

func setLength4(h []byte, n int) {
	binary.BigEndian.PutUint16(h[2:], uint16(n))
	sum4(h)
}

func sum4(h []byte) {
	h[10], h[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
}

func ip6(next byte, spoil func(h []byte, n int)) func([]byte) gso {
	return func(b []byte) gso {
		etherType(ethIP6)(b)
		n := len(b) - ethLen
		h := header6(b, n, next)
		if spoil != nil {
			spoil(h, n)
		}
		payload := []byte{0, 7, 0, 9, 0, byte(udpLen), 0, 0}
		if next == 0 {
			payload = []byte{17, 0, 1, 4, 0, 0, 0, 0} // PadN
		}
		copy(b[ethLen:], append(h, payload...))
		return gso{}
	}
}

func header6(b []byte, n int, next byte) []byte {
	h := make([]byte, ip6Len)
	h[0], h[6], h[7] = 0x60, next, 255
	binary.BigEndian.PutUint16(h[4:], uint16(max(n-ip6Len, 0)))
	copy(h[8:], ip6Of(b[6:12]))
	copy(h[24:], ip6Of(b[:6]))
	return h
}

// discovery is a neighbour solicitation or advertisement, for or from the
// address of the destination.
func discovery(kind byte) func([]byte) gso {
	return func(b []byte) gso {
		etherType(ethIP6)(b)
		p := append(header6(b, len(b)-ethLen, 58), kind, 0, 0, 0, 0, 0, 0, 0)
		copy(b[ethLen:], append(p, ip6Of(b[:6])...))
		return gso{}
	}
}

const segment = 536 // bytes of TCP payload

func gso4(b []byte) gso {
	etherType(ethIP4)(b)
	h := header4(b, len(b)-ethLen, 6)
	copy(b[ethLen:], append(h, tcp()...))
	return gso{kind: 1, headers: ethLen + ip4Len + tcpLen, size: segment, start: ethLen + ip4Len}
}

func gso6(b []byte) gso {
	etherType(ethIP6)(b)
	copy(b[ethLen:], append(header6(b, len(b)-ethLen, 6), tcp()...))
	return gso{kind: 4, headers: ethLen + ip6Len + tcpLen, size: segment, start: ethLen + ip6Len}
}

func tcp() []byte {
	h := make([]byte, tcpLen)
	h[1], h[3], h[12], h[13] = 7, 9, tcpLen/4<<4, 0x10 // ports, header length, ACK
	return h
}

// bytes is the frame as a packet socket with PACKET_VNET_HDR takes it. The
// number, where there is room, tells it from others.
func (f Frame) bytes(number uint64) []byte {
	plain := make([]byte, max(f.Size, ethLen))
	copy(plain, f.Destination[:])
	copy(plain[6:], f.Source[:])
	g := kinds[f.Kind](plain)
	headers := 0
	if t := binary.BigEndian.Uint16(plain[macs:]); t == ethIP4 || t == ethIP6 || t == ethARP || t == ethRARP {
		headers = ip6Len + tcpLen
	}
	if len(plain) >= ethLen+headers+numberLen {
		binary.BigEndian.PutUint64(plain[len(plain)-numberLen:], number)
	}

	b := make([]byte, vnetLen, vnetLen+len(plain)+tagLen*len(f.Tags))
	if tags := tagLen * len(f.Tags); g.size != 0 && len(plain) > g.headers+int(g.size) {
		b[0], b[1] = 1, g.kind // VIRTIO_NET_HDR_F_NEEDS_CSUM
		binary.NativeEndian.PutUint16(b[2:], uint16(g.headers+tags))
		binary.NativeEndian.PutUint16(b[4:], g.size)
		binary.NativeEndian.PutUint16(b[6:], uint16(g.start+tags))
		binary.NativeEndian.PutUint16(b[8:], 16) // of the checksum in the TCP header
	}
	b = append(b, plain[:macs]...)
	for _, t := range f.Tags {
		b = binary.BigEndian.AppendUint16(b, t.Protocol)
		b = binary.BigEndian.AppendUint16(b, uint16(t.PCP)<<13|t.VID)
	}
	return append(b, plain[macs:]...)
}

// ParseFrame reads the frame of a step; false if the step sends none.
func ParseFrame(s Step) (f Frame, ok bool) {
	if !s.is("send") {
		return f, false
	}
	f, err := s.frame()
	return f, err == nil
}

// Port is the name of the port where the frame comes in.
func (f Frame) Port() string { return fmt.Sprintf("p%d", f.Host) }

// Arriving is the frame as it is when it has come in: its outer tag beside it
// (net/core/dev.c: __netif_receive_skb_core), nil if it has none. It is false for
// what is to be segmented.
func (f Frame) Arriving() (frame []byte, tag *Tag, whole bool) {
	b := f.bytes(0)
	segmented := b[1] != 0
	if b = b[vnetLen:]; len(f.Tags) > 0 {
		return slices.Concat(b[:macs], b[macs+tagLen:]), &f.Tags[0], !segmented
	}
	return b, nil, !segmented
}
