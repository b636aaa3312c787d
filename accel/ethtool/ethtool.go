// Package ethtool asks devices what ethtool(8) asks them, for plugins that do.
package ethtool

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// request is struct ifreq with a pointer in it.
type request struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// Do asks a device by any socket of its network namespace (SIOCETHTOOL). data is a
// struct of ethtool.h, which begins with the command and takes the answer. The error
// is a syscall.Errno: ENODEV also for a name that no device can have.
func Do(fd int, device string, data unsafe.Pointer) error {
	if len(device) >= unix.IFNAMSIZ {
		return unix.ENODEV
	}
	r := request{data: data}
	copy(r.name[:], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}
