package bench

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/shunt-dev/shunt/integration/lab"
)

// Every receiver would take the frames: their lengths and checksums are right.
func TestFramesAreValid(t *testing.T) {
	for _, p := range []packet{
		{source: lab.MACOf(1), destination: station, size: 64},
		{source: lab.MACOf(1), destination: station, size: 1514},
		{source: lab.MACOf(1), destination: station, size: superFrame, segment: superSegment},
	} {
		b := p.bytes()
		ip := b[etherHeader:]
		if len(b) != p.size || int(binary.BigEndian.Uint16(ip[2:])) != p.size-etherHeader {
			t.Errorf("of %d bytes: it has %d, and says %d with the header", p.size, len(b), binary.BigEndian.Uint16(ip[2:]))
		}
		if sum := checksum(ip[:ipHeader], 0); sum != 0 {
			t.Errorf("of %d bytes: the header's checksum is off by %#x", p.size, sum)
		}
		if p.segment > 0 {
			segments := (p.size - etherHeader - ipHeader - tcpHeader) / p.segment
			if ip[9] != 6 || segments != superSegments || p.size-etherHeader > 0xffff {
				t.Errorf("a super-frame of protocol %d has %d segments", ip[9], segments)
			}
			checkSegment(t, ip)
		}
	}
}

// checkSegment completes the checksum, as who cuts the frame or receives it does, and
// wants it to be right then.
func checkSegment(t *testing.T, ip []byte) {
	t.Helper()
	tcp := ip[ipHeader:]
	if int(tcp[12]>>4)*4 != tcpHeader {
		t.Errorf("the header of TCP has %d bytes", tcp[12]>>4*4)
	}
	binary.BigEndian.PutUint16(tcp[16:], checksum(tcp, 0))
	if sum := checksum(append(slices.Clone(ip[12:20]), tcp...), 6+uint32(len(tcp))); sum != 0 {
		t.Errorf("the checksum of TCP is off by %#x", sum)
	}
}

// TestChecksum has the example of RFC 1071, 3.
func TestChecksum(t *testing.T) {
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0); got != ^uint16(0xddf2) {
		t.Errorf("got %#x", got)
	}
}
