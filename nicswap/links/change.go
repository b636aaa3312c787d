package links

import (
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// SetUp sets a device's administrative state.
func (l *Links) SetUp(ifindex int, up bool) error {
	return failed(l.setFlag(ifindex, unix.IFF_UP, up), "set the state of device", ifindex)
}

// SetPromisc makes a device take every frame, as ip link set promisc does. It is
// one switch and counts nothing: what the administrator set is overwritten.
func (l *Links) SetPromisc(ifindex int, on bool) error {
	return failed(l.setFlag(ifindex, unix.IFF_PROMISC, on), "set the promiscuity of device", ifindex)
}

// SetMTU sets a device's MTU in bytes, as ip(8) shows it.
func (l *Links) SetMTU(ifindex, mtu int) error {
	return failed(l.setLink(ifindex, func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.IFLA_MTU, uint32(mtu))
	}), "set the MTU of device", ifindex)
}

// SetMaster puts a device into a bridge; 0 takes it out of the one that it is in.
func (l *Links) SetMaster(ifindex, master int) error {
	return failed(l.setLink(ifindex, func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.IFLA_MASTER, uint32(master))
	}), "set the master of device", ifindex)
}

// Rename gives a device another name. Before Linux 6.2 the device must be down
// (EBUSY).
func (l *Links) Rename(ifindex int, name string) error {
	return failed(l.setLink(ifindex, func(e *netlink.AttributeEncoder) {
		e.String(unix.IFLA_IFNAME, name)
	}), "rename device", ifindex)
}

// Delete removes a virtual device, and with a veth its other end.
func (l *Links) Delete(ifindex int) error {
	if ifindex <= 0 {
		return failed(ErrGone, "delete device", ifindex)
	}
	request, err := encodeLinkMessage(unix.AF_UNSPEC, ifindex, 0, 0, func(*netlink.AttributeEncoder) {})
	if err == nil {
		err = l.tell(unix.RTM_DELLINK, 0, request)
	}
	return failed(err, "delete device", ifindex)
}

// CreatePort makes a stable port and its stub, the two ends of a veth, both of
// them down. Where mac is zero, the kernel makes one up. If either name is taken
// nothing is made, and the error is EEXIST.
func (l *Links) CreatePort(name string, mac accel.MAC, mtu int) (port, stub Link, err error) {
	request, err := encodePort(name, mac, mtu)
	if err == nil {
		err = l.tell(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, request)
	}
	if err != nil {
		return Link{}, Link{}, fmt.Errorf("create the port %s with the stub %s: %w", name, StubName(name), err)
	}
	port, err = l.ByName(name)
	if err != nil {
		return Link{}, Link{}, err
	}
	stub, err = l.ByName(StubName(name))
	return port, stub, err
}

func encodePort(name string, mac accel.MAC, mtu int) ([]byte, error) {
	peer, err := encodeLinkMessage(unix.AF_UNSPEC, 0, 0, 0, func(e *netlink.AttributeEncoder) {
		e.String(unix.IFLA_IFNAME, StubName(name))
		e.Uint32(unix.IFLA_MTU, uint32(mtu))
	})
	if err != nil {
		return nil, err
	}
	return encodeLinkMessage(unix.AF_UNSPEC, 0, 0, 0, func(e *netlink.AttributeEncoder) {
		e.String(unix.IFLA_IFNAME, name)
		e.Uint32(unix.IFLA_MTU, uint32(mtu))
		if mac != (accel.MAC{}) {
			e.Bytes(unix.IFLA_ADDRESS, mac[:])
		}
		e.Nested(unix.IFLA_LINKINFO, func(e *netlink.AttributeEncoder) error {
			e.String(unix.IFLA_INFO_KIND, "veth")
			e.Nested(unix.IFLA_INFO_DATA, func(e *netlink.AttributeEncoder) error {
				e.Bytes(netlink.Nested|vethInfoPeer, peer)
				return nil
			})
			return nil
		})
	})
}

// StubName returns the name of the stub of a stable port. It has at most 15
// characters, as every device's name.
func StubName(port string) string {
	const suffix = "-stub"
	if len(port)+len(suffix) < unix.IFNAMSIZ {
		return port + suffix
	}
	hash := fnv.New32a()
	hash.Write([]byte(port))
	return fmt.Sprintf("%.6s-%08x", port, hash.Sum32())
}

func (l *Links) setFlag(ifindex int, flag uint32, on bool) error {
	var flags uint32
	if on {
		flags = flag
	}
	return l.set(unix.AF_UNSPEC, ifindex, flags, flag, func(*netlink.AttributeEncoder) {})
}

func (l *Links) setLink(ifindex int, fill func(*netlink.AttributeEncoder)) error {
	return l.set(unix.AF_UNSPEC, ifindex, 0, 0, fill)
}

// set changes a device: of its flags those in change, and what fill says.
func (l *Links) set(family uint8, ifindex int, flags, change uint32, fill func(*netlink.AttributeEncoder)) error {
	if ifindex <= 0 {
		return ErrGone
	}
	request, err := encodeLinkMessage(family, ifindex, flags, change, fill)
	if err != nil {
		return err
	}
	return l.tell(unix.RTM_SETLINK, 0, request)
}

// isAbout says whether the error is one of these numbers of the kernel's.
func isAbout(err error, numbers ...unix.Errno) bool {
	for _, n := range numbers {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}
