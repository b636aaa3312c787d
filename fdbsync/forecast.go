package fdbsync

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// arrival is a frame that arrived at a port, as far as its fate hangs on it.
type arrival struct {
	port                int // ifindex
	at                  time.Duration
	source, destination accel.MAC
	protocol            uint16 // the EtherType behind the tag, or a length
	tag, tagProtocol    uint16 // of the tag that the kernel took off; protocol 0: none
	length              int    // with the Ethernet header, without the tag
	// oddIP is what br_netfilter's checks of the header would say; [accel.Fast] is
	// nothing.
	oddIP accel.Reason
	nd    bool // neighbour solicitation or advertisement
}

// judge says of frames what the port program would, were it there and every entry
// of the table verified (tcprog/bpf/shunt.c: decide, check_frame; a test holds the
// two together). What it cannot know: what the flow cache and the epochs do, which
// cost single frames after each change; whether a frame longer than a port's MTU
// came whole or was put together by the kernel, which it takes for granted of those
// longer than the MTU where they arrived; and which stations came or went while it
// looked: it has the table as it was afterwards.
type judge struct {
	*judgement
	gate     accel.Gate
	stations map[accel.StationKey]accel.Station
	// shown is when the bridge was last shown a frame of a station.
	shown map[accel.StationKey]time.Duration
}

const (
	ethPCFM  = 0x8902 // ETH_P_CFM
	ethPMRP  = 0x88e3 // ETH_P_MRP
	ethPRARP = 0x8035 // ETH_P_RARP
	// Below, the field is a length (ETH_P_802_3_MIN).
	leastEtherType = 0x0600

	ethernetHeader = 14
	tagRoom        = 4 // include/linux/netdevice.h: __is_skb_forwardable
)

// reason is what would become of the frame. The order is that of the program.
func (j *judge) reason(a arrival) accel.Reason {
	class := classOf(a)
	if class == accel.SourceMulticast || class == accel.SourceZero {
		return class
	}
	in := j.ports[a.port]
	vid, source := j.vlan(a, in)
	from := accel.StationKey{MAC: a.source, VID: vid}
	if source == accel.Fast {
		source = j.source(a, in, from)
	}
	if source == accel.SourceMoved {
		return source
	}
	if class != accel.Fast {
		return class
	}
	if r := j.ingress(a, in, vid); r != accel.Fast {
		return r
	}
	if source != accel.Fast {
		return source
	}
	to, ok := j.stations[accel.StationKey{MAC: a.destination, VID: vid}]
	switch {
	case !ok:
		return accel.DestinationUnknown
	case to.Local:
		return accel.DestinationLocal
	case to.Port == a.port:
		return accel.SamePort
	}
	out := j.ports[to.Port]
	if r := j.egress(in, out, vid); r != accel.Fast {
		return r
	}
	if j.isDue(from, a.at) {
		return accel.Keepalive
	}
	return j.frame(a, in, out)
}

// classOf finds the frames that always belong to the bridge.
func classOf(a arrival) accel.Reason {
	switch {
	case a.destination[0]&1 != 0:
		return accel.Multicast
	case a.source[0]&1 != 0:
		return accel.SourceMulticast
	case a.source == accel.MAC{}:
		return accel.SourceZero
	}
	switch a.protocol {
	case unix.ETH_P_ARP, ethPRARP:
		return accel.ARP
	case ethPCFM:
		return accel.CFM
	case ethPMRP:
		return accel.MRP
	case unix.ETH_P_8021Q, unix.ETH_P_8021AD:
		return accel.DoubleTagged
	}
	if a.protocol < leastEtherType {
		return accel.LLC
	}
	return accel.Fast
}

// vlan is the VLAN that the bridge takes the frame for.
func (j *judge) vlan(a arrival, in accel.Port) (uint16, accel.Reason) {
	const vidMask = 0xfff
	vid := a.tag & vidMask
	switch {
	case j.gate.VLANProtocol == 0:
		return 0, accel.Fast
	case a.tagProtocol == 0 && in.PVID == 0:
		return 0, accel.VLANIngress
	case a.tagProtocol == 0:
		return in.PVID, accel.Fast
	case a.tagProtocol != j.gate.VLANProtocol:
		return 0, accel.ForeignTag
	case vid == 0:
		return 0, accel.PriorityTagged
	}
	return vid, accel.Fast
}

// source judges the sender's entry.
func (j *judge) source(a arrival, in accel.Port, from accel.StationKey) accel.Reason {
	s, ok := j.stations[from]
	switch {
	case !ok:
		return accel.SourceUnknown
	case s.Local:
		return accel.SourceLocal
	case s.Port != a.port && (s.Sticky || in.Flags&accel.FlagLearning == 0):
		return accel.SourceElsewhere
	case s.Port != a.port:
		return accel.SourceMoved
	case s.NoSource:
		return accel.SourceLocked
	}
	return accel.Fast
}

// ingress judges the bridge and the port where the frame came in.
func (j *judge) ingress(a arrival, in accel.Port, vid uint16) accel.Reason {
	switch {
	case j.gate.Reason != accel.Fast:
		return j.gate.Reason
	case in.In != accel.Fast:
		return in.In
	case a.tagProtocol != 0 && (in.HasVLANDevices || j.can.State == accel.StateNetlink):
		return accel.Tagged
	case j.gate.VLANProtocol != 0 && vid != 0 && !passes(in, vid):
		return accel.VLANIngress
	}
	return accel.Fast
}

// egress judges the port where the frame would leave.
func (j *judge) egress(in, out accel.Port, vid uint16) accel.Reason {
	switch {
	case out.Ifindex == 0:
		return accel.PortUnknown
	case out.Out != accel.Fast:
		return accel.PortEgress
	case in.Flags.Isolated() && out.Flags.Isolated():
		return accel.Isolated
	case j.gate.VLANProtocol != 0 && !passes(out, vid):
		return accel.VLANEgress
	}
	return accel.Fast
}

// passes says whether the port is a member of the VLAN, which forwards there.
func passes(p accel.Port, vid uint16) bool {
	for v := range p.VLANs.All() {
		if v.VID == vid {
			return v.Forwarding
		}
	}
	return false
}

// isDue says whether the bridge is to be shown a frame of the station. A station
// counts as shown when the sample began.
func (j *judge) isDue(from accel.StationKey, at time.Duration) bool {
	if at-j.shown[from] < j.gate.Keepalive {
		return false
	}
	if j.shown == nil {
		j.shown = make(map[accel.StationKey]time.Duration)
	}
	j.shown[from] = at
	return true
}

// frame judges what every frame must pass.
func (j *judge) frame(a arrival, in, out accel.Port) accel.Reason {
	room := 0
	if j.gate.CheckND && a.nd {
		return accel.Neighbour
	}
	if j.gate.CheckIP {
		if a.oddIP != accel.Fast {
			return a.oddIP
		}
		if a.protocol == unix.ETH_P_IP || a.protocol == unix.ETH_P_IPV6 {
			room = tagRoom
		}
	}
	const overhead = ethernetHeader + tagRoom
	if isWhole := a.length <= in.MTU+overhead; isWhole && a.length+room > out.MTU+overhead {
		return accel.MTU
	}
	return accel.Fast
}
