package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// AddCable puts a device beside the bridge, a port of nothing, whose other end is a
// port of another lab's bridge. When it returns, both ends are up and that port
// forwards.
func (l *Lab) AddCable(name string, other *Lab, port string) error {
	err := l.Bridge.Do(func() error {
		pair := netlink.NewVeth(netlink.NewLinkAttrs())
		pair.Name = name
		pair.PeerName = port
		pair.PeerNamespace = netlink.NsFd(other.Bridge.file.Fd())
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		return netlink.LinkSetUp(pair)
	})
	if err == nil {
		err = other.Bridge.Do(func() error { return enslave(port) })
	}
	if err != nil {
		return fmt.Errorf("lay a cable from %s to %s: %w", name, port, err)
	}
	return other.AwaitForwarding()
}
