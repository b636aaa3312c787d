package links

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel/ethtool"
)

// ethFlagLRO is ETH_FLAG_LRO of ethtool.h: large receive offload, whose merged
// frames cannot be forwarded.
const ethFlagLRO = 1 << 15

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct {
	command, data uint32
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
	err := l.control(func(fd int) error { return ethtool.Do(fd, name, unsafe.Pointer(&link)) })
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
		if err := ethtool.Do(fd, name, unsafe.Pointer(&flags)); err != nil || flags.data&ethFlagLRO == 0 {
			return err
		}
		flags = ethtoolValue{unix.ETHTOOL_SFLAGS, flags.data &^ ethFlagLRO}
		return ethtool.Do(fd, name, unsafe.Pointer(&flags))
	})
	switch {
	case err == nil, errors.Is(err, unix.EOPNOTSUPP):
		return nil
	case errors.Is(err, unix.ENODEV):
		err = ErrGone
	}
	return fmt.Errorf("turn large receive offload of %s off: %w", name, err)
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
