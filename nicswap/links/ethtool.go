package links

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethFlagLRO is ETH_FLAG_LRO of ethtool.h: large receive offload, whose merged
// frames cannot be forwarded.
const ethFlagLRO = 1 << 15

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct {
	command, data uint32
}

// ethtoolRequest is struct ifreq with a pointer in it.
type ethtoolRequest struct {
	name  [unix.IFNAMSIZ]byte
	value unsafe.Pointer
	_     [24 - unsafe.Sizeof(uintptr(0))]byte
}

// driver returns the name of a device's driver; "" if it has none, or is gone.
func (l *Links) driver(name string) (driver string) {
	// A netlink socket takes ethtool's questions as any other does.
	err := l.control(func(fd int) error {
		info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
		if err == nil {
			driver = unix.ByteSliceToString(info.Driver[:])
		}
		return err
	})
	if err != nil {
		return ""
	}
	return driver
}

// HasCarrier says whether a device is up and has its carrier in this instant. What
// the kernel tells of carriers over netlink comes up to a second later, but for
// devices with a lower one (net/core/link_watch.c: linkwatch_urgent_event).
func (l *Links) HasCarrier(name string) (bool, error) {
	link := ethtoolValue{command: unix.ETHTOOL_GLINK}
	err := l.control(func(fd int) error { return ethtool(fd, name, &link) })
	if errors.Is(err, unix.ENODEV) {
		err = ErrGone
	}
	if err != nil {
		return false, fmt.Errorf("ask for the carrier of %s: %w", name, err)
	}
	return link.data != 0, nil
}

// DisableLRO turns large receive offload off, as a bridge does with its ports. A
// device that has none, or is none of Ethernet's, is fine as it is.
func (l *Links) DisableLRO(name string) error {
	err := l.control(func(fd int) error {
		flags := ethtoolValue{command: unix.ETHTOOL_GFLAGS}
		if err := ethtool(fd, name, &flags); err != nil || flags.data&ethFlagLRO == 0 {
			return err
		}
		return ethtool(fd, name, &ethtoolValue{unix.ETHTOOL_SFLAGS, flags.data &^ ethFlagLRO})
	})
	switch {
	case err == nil, errors.Is(err, unix.EOPNOTSUPP):
		return nil
	case errors.Is(err, unix.ENODEV):
		err = ErrGone
	}
	return fmt.Errorf("turn large receive offload of %s off: %w", name, err)
}

func ethtool(fd int, name string, value *ethtoolValue) error {
	if len(name) >= unix.IFNAMSIZ {
		return unix.ENODEV
	}
	request := ethtoolRequest{value: unsafe.Pointer(value)}
	copy(request.name[:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}

// control calls f with the socket, which is of the namespace.
func (l *Links) control(f func(fd int) error) error {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}
