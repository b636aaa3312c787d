// Package links is nicswap's hand on network devices: what it asks of the kernel
// over rtnetlink and ethtool, and the events that it awaits there.
package links

import (
	"errors"

	"github.com/shunt-dev/shunt/accel"
)

// ErrGone is about a device that does not exist (any more).
var ErrGone = errors.New("there is no such device")

// Link is a network device as the kernel describes it.
type Link struct {
	Name    string
	Ifindex int
	// Kind is the kernel's name for a virtual device: veth, tun, macvlan, bond ...
	// Empty for one that a driver made.
	Kind string
	// Physical: it has a parent device (IFLA_PARENT_DEV_NAME, or /sys/class/net/X/device),
	// as NICs, virtio NICs and SR-IOV functions have.
	Physical bool
	// Driver is the name of its driver as ethtool -i shows it; "" if it has none.
	Driver string
	MAC    accel.MAC
	MTU    int // bytes, as ip(8) shows it
	// MinMTU and MaxMTU are the driver's bounds; 0 is none.
	MinMTU, MaxMTU int
	// Up is the administrative state, Carrier the operational one (IFF_LOWER_UP).
	Up, Carrier bool
	// Running (IFF_RUNNING): the kernel has acted on the carrier. That comes a
	// little later, and until then it drops in silence what is sent through the
	// device (net/core/link_watch.c: linkwatch_do_dev).
	Running  bool
	Promisc  bool // IFF_PROMISC set by an administrator
	Master   int  // ifindex; 0: none
	Lower    int  // IFLA_LINK; 0: none
	Loopback bool
	Ethernet bool
	// MacvlanMode is the mode of a macvlan or macvtap: passthru, bridge ...
	MacvlanMode string
}

// Counters are a device's frames and bytes since it was made.
type Counters struct {
	RxPackets, TxPackets, RxBytes, TxBytes, RxDropped, TxDropped uint64
}
