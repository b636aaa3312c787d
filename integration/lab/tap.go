package lab

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tap is a tap device that is a port of the bridge. Its reader and writer are
// in this process, as those of a virtual machine are in its hypervisor.
type Tap struct {
	*os.File
	Port string
	MAC  net.HardwareAddr
}

// AddTap adds a tap port to the bridge and waits until it forwards.
func (l *Lab) AddTap(port string, mac net.HardwareAddr) (*Tap, error) {
	t, err := l.Bridge.NewTap(port)
	if err != nil {
		return nil, err
	}
	t.MAC = mac
	l.Taps = append(l.Taps, t)
	if err := l.Bridge.Do(func() error { return enslave(port) }); err != nil {
		return nil, err
	}
	return t, l.AwaitForwarding()
}

// NewTap makes a tap device in the namespace, a port of nothing and down. It is
// gone when it is closed.
func (n *Namespace) NewTap(name string) (*Tap, error) {
	t := &Tap{Port: name}
	err := n.Do(func() (err error) {
		if t.File, err = openTap(name); err != nil {
			return err
		}
		return lengthenQueue(name)
	})
	if err != nil {
		return nil, fmt.Errorf("make a tap device: %w", err)
	}
	return t, nil
}

// lengthenQueue makes room for what arrives while the reader is not scheduled: a
// tap drops what its queue cannot hold, which is not the bridge's doing.
func lengthenQueue(name string) error {
	const frames = 10_000
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetTxQLen(link, frames)
}

func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (t *Tap) receive(fd int, b []byte) (int, error) { return unix.Read(fd, b) }
