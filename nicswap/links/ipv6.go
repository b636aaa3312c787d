package links

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// IPv6 is whether a device's own IPv6 is at work, and how it makes itself an
// address.
type IPv6 struct {
	// Disabled is net.ipv6.conf.NAME.disable_ipv6.
	Disabled bool `json:"disabled"`
	// AddrGenMode is as in addrgenmode of ip(8): 0 eui64, 1 none, 2
	// stable_secret, 3 random.
	AddrGenMode uint8 `json:"addr_gen_mode"`
}

const (
	addrGenModeNone    = 1  // IN6_ADDR_GEN_MODE_NONE; if_link.h
	devconfDisableIPv6 = 26 // DEVCONF_DISABLE_IPV6; ipv6.h
)

// QuietIPv6 keeps a device from sending anything of its own: no address, no
// router solicitation, no multicast listener report. Where the kernel has no IPv6
// there is nothing to do.
func (l *Links) QuietIPv6(name string) error {
	return l.SetIPv6(name, IPv6{Disabled: true, AddrGenMode: addrGenModeNone})
}

// IPv6 returns a device's settings; those of QuietIPv6 where it has no IPv6.
func (l *Links) IPv6(name string) (IPv6, error) {
	_, s, err := l.readIPv6(name)
	return s, err
}

// SetIPv6 sets what IPv6 returned. Where the settings below /proc cannot be
// written, a device that is to be quiet loses its link-local addresses only: it
// may still report the multicast groups that it listens to.
func (l *Links) SetIPv6(name string, s IPv6) error {
	link, now, err := l.readIPv6(name)
	if err != nil {
		return err
	}
	// Without an address to make first, no address is made when it is enabled.
	if now.AddrGenMode != s.AddrGenMode {
		err = failed(l.setAddrGenMode(link.Ifindex, s.AddrGenMode), "set how IPv6 addresses are made on device", link.Ifindex)
	}
	if err != nil || now.Disabled == s.Disabled {
		return err
	}
	if err = l.writeDisabled(link.Name, s.Disabled); err == nil {
		return nil
	}
	if s.Disabled && !errors.Is(err, ErrGone) {
		return l.removeLinkLocal(link.Ifindex)
	}
	return err
}

func (l *Links) readIPv6(name string) (Link, IPv6, error) {
	link, err := l.ByName(name)
	if err != nil {
		return Link{}, IPv6{}, err
	}
	data, err := l.byIndex(link.Ifindex, rtextFilterSkipStats)
	if err != nil {
		return Link{}, IPv6{}, err
	}
	m, err := parseLinkMessage(data)
	return link, decodeIPv6(m.attributes), err
}

// decodeIPv6 reads what net/ipv6/addrconf.c: inet6_fill_link_af wrote.
func decodeIPv6(data []byte) IPv6 {
	settings := find(find(data, unix.IFLA_AF_SPEC), unix.AF_INET6)
	if settings == nil {
		return IPv6{Disabled: true, AddrGenMode: addrGenModeNone}
	}
	s := IPv6{AddrGenMode: uint8(number(find(settings, unix.IFLA_INET6_ADDR_GEN_MODE)))}
	if conf := find(settings, unix.IFLA_INET6_CONF); len(conf) >= 4*(devconfDisableIPv6+1) {
		s.Disabled = binary.NativeEndian.Uint32(conf[4*devconfDisableIPv6:]) != 0
	}
	return s
}

func (l *Links) setAddrGenMode(ifindex int, mode uint8) error {
	return l.setLink(ifindex, func(e *netlink.AttributeEncoder) {
		e.Nested(unix.IFLA_AF_SPEC, func(e *netlink.AttributeEncoder) error {
			e.Nested(unix.AF_INET6, func(e *netlink.AttributeEncoder) error {
				e.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, mode)
				return nil
			})
			return nil
		})
	})
}

// openSysctl opens the directory of IPv6's settings, nil if there is none. What
// is found below it belongs to the namespace in which it was opened.
func openSysctl() *os.File {
	fd, err := unix.Open("/proc/sys/net/ipv6/conf", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "/proc/sys/net/ipv6/conf")
}

func (l *Links) writeDisabled(name string, disabled bool) error {
	if l.sysctl == nil {
		return errors.New("there are no settings of IPv6 below /proc")
	}
	value := "0"
	if disabled {
		value = "1"
	}
	fd, err := unix.Openat(int(l.sysctl.Fd()), name+"/disable_ipv6", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		err = errors.Join(err, unix.Close(fd))
	}
	if errors.Is(err, unix.ENOENT) {
		err = ErrGone
	}
	if err != nil {
		return fmt.Errorf("set disable_ipv6 of %s: %w", name, err)
	}
	return nil
}

func (l *Links) removeLinkLocal(ifindex int) error {
	addresses, err := l.Addresses(ifindex)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if ip := a.Prefix.Addr(); ip.Is6() && ip.IsLinkLocalUnicast() {
			err = errors.Join(err, l.DeleteAddress(ifindex, a))
		}
	}
	return err
}
