package announce

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// Numbers of the neighbour table.
const (
	attributeMask = 0x3fff // NLA_TYPE_MASK; netlink.h
	userHZ        = 100    // of clock_t, in which struct nda_cacheinfo counts
	learnedStates = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE
)

// oldestNeighbour is how long ago an entry may have been confirmed. The table
// keeps what is older, but the address may be another's by now, and announcing it
// would take it away from that one.
const oldestNeighbour = 5 * time.Minute

// Addresses returns what the host's own neighbour tables know of addresses, by
// Ethernet address and in order: what it learned and had confirmed in the last
// five minutes, and of which it knows one Ethernet address only. A host that does
// not talk to the stations of its bridge knows none.
func Addresses() (map[accel.MAC][]netip.Addr, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("read the neighbour tables: %w", err)
	}
	defer conn.Close()
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofNdMsg), // of every family that has such a table
	})
	if err != nil {
		return nil, fmt.Errorf("read the neighbour tables: %w", err)
	}
	var known []neighbour
	for _, m := range messages {
		if n, ok := decodeNeighbour(m.Data); ok && n.isFresh() {
			known = append(known, n)
		}
	}
	return byMAC(known), nil
}

// neighbour is an entry of the neighbour tables.
type neighbour struct {
	state     uint16 // NUD_*
	mac       accel.MAC
	addr      netip.Addr
	confirmed time.Duration // how long ago
}

// isFresh says whether the address was learned, and not long ago.
func (n neighbour) isFresh() bool {
	return n.state&learnedStates != 0 && n.confirmed <= oldestNeighbour
}

// byMAC leaves out the addresses that two have.
func byMAC(known []neighbour) map[accel.MAC][]netip.Addr {
	owners := make(map[netip.Addr]accel.MAC, len(known))
	disputed := make(map[netip.Addr]bool)
	for _, n := range known {
		owner, seen := owners[n.addr]
		disputed[n.addr] = disputed[n.addr] || seen && owner != n.mac
		owners[n.addr] = n.mac
	}
	found := make(map[accel.MAC][]netip.Addr)
	for addr, mac := range owners {
		if !disputed[addr] {
			found[mac] = append(found[mac], addr)
		}
	}
	for _, addrs := range found {
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
	return found
}

// decodeNeighbour reads what net/core/neighbour.c: neigh_fill_info wrote; false
// for what is no entry with both addresses.
func decodeNeighbour(data []byte) (n neighbour, ok bool) {
	if len(data) < unix.SizeofNdMsg || data[0] != unix.AF_INET && data[0] != unix.AF_INET6 {
		return neighbour{}, false
	}
	n.state = binary.NativeEndian.Uint16(data[8:])
	attributes(data[unix.SizeofNdMsg:], func(number uint16, v []byte) {
		switch {
		case number == unix.NDA_DST:
			n.addr, _ = netip.AddrFromSlice(v)
		case number == unix.NDA_LLADDR && len(v) == len(n.mac):
			copy(n.mac[:], v)
		case number == unix.NDA_CACHEINFO && len(v) >= 4: // struct nda_cacheinfo
			n.confirmed = time.Duration(binary.NativeEndian.Uint32(v)) * (time.Second / userHZ)
		}
	})
	return n, n.addr.IsValid() && n.mac != accel.MAC{}
}

// attributes calls f for each attribute that is whole.
func attributes(data []byte, f func(number uint16, value []byte)) {
	for len(data) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return
		}
		f(binary.NativeEndian.Uint16(data[2:])&attributeMask, data[unix.SizeofRtAttr:size])
		data = data[min((size+3)&^3, len(data)):]
	}
}
