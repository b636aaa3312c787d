package announce

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// Offsets and sizes of a frame, in bytes.
const (
	addressesSize = 12 // both Ethernet addresses
	tagSize       = 4
	minFrame      = 60 // without a tag and the checksum
)

// Of Ethernet's and IP's numbers those that unix lacks.
const (
	arpRequest     = 1
	arpReply       = 2
	rarpRequest    = 3 // request reverse; RFC 903
	icmpv6Solicit  = 135
	icmpv6Advert   = 136
	naRouter       = 1 << 7
	naOverride     = 1 << 5
	optionTargetLL = 2 // target link-layer address
	noHops         = 255
)

var (
	broadcast = accel.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.MustParseAddr("ff02::1")
)

// announcements are the frames for the stations: RARPs before all else.
func announcements(stations []Station) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for _, s := range stations {
			if !yield(s.tagged(rarp(s.MAC))) {
				return
			}
		}
		for _, s := range stations {
			for _, a := range s.Addrs {
				if a = a.Unmap().WithZone(""); isHost(a) && !yield(s.tagged(owns(s.MAC, a))) {
					return
				}
			}
		}
	}
}

// owns says that the address is a station's.
func owns(mac accel.MAC, addr netip.Addr) []byte {
	if addr.Is4() {
		return gratuitousARP(mac, addr)
	}
	return unsolicitedNA(mac, addr)
}

// isHost says whether the address may be that of one host.
func isHost(addr netip.Addr) bool {
	return addr.IsValid() && !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLoopback()
}

// tagged puts the station's tag into a frame.
func (s Station) tagged(frame []byte) []byte { return insertTag(frame, s.Tag, s.TagProtocol) }

func insertTag(frame []byte, vid, protocol uint16) []byte {
	if vid == 0 {
		return frame
	}
	if protocol == 0 {
		protocol = unix.ETH_P_8021Q
	}
	tagged := append(make([]byte, 0, len(frame)+tagSize), frame[:addressesSize]...)
	tagged = binary.BigEndian.AppendUint16(tagged, protocol)
	tagged = binary.BigEndian.AppendUint16(tagged, vid)
	return append(tagged, frame[addressesSize:]...)
}

// rarp is what QEMU sends for a guest that has moved (net/announce.c).
func rarp(mac accel.MAC) []byte {
	none := netip.IPv4Unspecified()
	return arp(broadcast, mac, unix.ETH_P_RARP, rarpRequest, mac, none, mac, none)
}

// gratuitousARP is an announcement in the form of a request (RFC 5227, 3).
func gratuitousARP(mac accel.MAC, addr netip.Addr) []byte {
	return arp(broadcast, mac, unix.ETH_P_ARP, arpRequest, mac, addr, accel.MAC{}, addr)
}

// arpProbe asks for an address without claiming one (RFC 5227, 2.1.1).
func arpProbe(from accel.MAC, addr netip.Addr) []byte {
	return arp(broadcast, from, unix.ETH_P_ARP, arpRequest, from, netip.IPv4Unspecified(), accel.MAC{}, addr)
}

func arp(to, from accel.MAC, etherType, operation uint16, sender accel.MAC, senderIP netip.Addr, target accel.MAC, targetIP netip.Addr) []byte {
	b := ethernet(to, from, etherType)
	b = binary.BigEndian.AppendUint16(b, unix.ARPHRD_ETHER)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4) // sizes of the addresses
	b = binary.BigEndian.AppendUint16(b, operation)
	b = append(b, sender[:]...)
	b = append(b, senderIP.AsSlice()...)
	b = append(b, target[:]...)
	b = append(b, targetIP.AsSlice()...)
	return append(b, make([]byte, minFrame-len(b))...)
}

func ethernet(to, from accel.MAC, etherType uint16) []byte {
	b := make([]byte, 0, 96) // enough for all of these
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	return binary.BigEndian.AppendUint16(b, etherType)
}

// unsolicitedNA says that the address is at the MAC (RFC 4861, 7.2.6). It bears
// the flag of a router, whether the station is one or not: whoever hears that a
// router is none any more must not use it as one (7.2.5), while for a station that
// never was one the flag means nothing. A router is learned from its own
// advertisements only.
func unsolicitedNA(mac accel.MAC, addr netip.Addr) []byte {
	body := []byte{icmpv6Advert, 0, 0, 0, naRouter | naOverride, 0, 0, 0}
	body = append(body, addr.AsSlice()...)
	body = append(body, optionTargetLL, 1) // its size in units of 8 bytes
	body = append(body, mac[:]...)
	return icmpv6(multicast(allNodes), mac, addr, allNodes, body)
}

// solicitation asks for an address without having one, as one does that is about
// to take it (RFC 4862, 5.4.2).
func solicitation(from accel.MAC, addr netip.Addr) []byte {
	body := append([]byte{icmpv6Solicit, 0, 0, 0, 0, 0, 0, 0}, addr.AsSlice()...)
	group := solicitedNode(addr)
	return icmpv6(multicast(group), from, netip.IPv6Unspecified(), group, body)
}

// solicitedNode is the group that whoever has the address listens to.
func solicitedNode(addr netip.Addr) netip.Addr {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	a := addr.As16()
	copy(group[13:], a[13:])
	return netip.AddrFrom16(group)
}

// multicast is the Ethernet address of an IPv6 group (RFC 2464, 7).
func multicast(group netip.Addr) accel.MAC {
	g := group.As16()
	return accel.MAC{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

func icmpv6(to, from accel.MAC, source, destination netip.Addr, body []byte) []byte {
	b := ethernet(to, from, unix.ETH_P_IPV6)
	b = append(b, 6<<4, 0, 0, 0) // version
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, unix.IPPROTO_ICMPV6, noHops)
	b = append(b, source.AsSlice()...)
	b = append(b, destination.AsSlice()...)
	binary.BigEndian.PutUint16(body[2:], checksum(source, destination, body))
	return append(b, body...)
}

// checksum is that of ICMPv6, whose own place in the body must be 0
// (RFC 8200, 8.1).
func checksum(source, destination netip.Addr, body []byte) uint16 {
	pseudo := append(source.AsSlice(), destination.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	pseudo = append(pseudo, 0, 0, 0, unix.IPPROTO_ICMPV6)
	sum := uint32(0)
	for _, part := range [][]byte{pseudo, body} { // all of even sizes
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
