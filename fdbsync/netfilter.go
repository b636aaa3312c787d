package fdbsync

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// firewall is what was found of packet filters in the namespace.
type firewall struct {
	bridge bool // rules that see bridged frames as such
	ip     bool // rules that see IP packets, and so bridged ones if br_netfilter is there
	// devices have chains at their own ingress or egress; "" stands for all.
	devices map[string]bool
	// brNetfilter is there: the IP rules may see bridged frames. Whether they
	// do hangs on sysctls whose change the kernel does not tell.
	brNetfilter bool
}

// on says whether a chain is at the device's own ingress or egress.
func (f firewall) on(device string) bool { return f.devices[device] || f.devices[""] }

// Numbers of nf_tables' netlink; include/uapi/linux/netfilter/nf_tables.h.
const (
	nftGetChain      = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETCHAIN
	nftaChainHook    = 4
	nftaHookNumber   = 1
	nftaHookDev      = 3
	nftaHookDevs     = 4
	nftaDeviceName   = 1
	nfInetIngress    = 5 // NF_INET_INGRESS
	sizeofNfGenMsg   = 4
	nfnlGroupNftable = unix.NFNLGRP_NFTABLES
)

// readFirewall finds every packet filter that the kernel will tell of.
func readFirewall() (firewall, error) {
	f := firewall{devices: make(map[string]bool), brNetfilter: haveBrNetfilter()}
	if err := f.readChains(); err != nil {
		return f, err
	}
	if err := f.readLegacyBridge(); err != nil {
		return f, err
	}
	return f, f.readLegacyIP()
}

// readChains lists the base chains of nf_tables in all families. A kernel
// without nf_tables has none.
func (f *firewall) readChains() error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the firewall's chains: %w", err)
	}
	defer c.Close()
	messages, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: nftGetChain, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, sizeofNfGenMsg), // family 0: all
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // no nf_tables behind nfnetlink
	}
	if err != nil {
		return fmt.Errorf("read the firewall's chains: %w", err)
	}
	for _, m := range messages {
		f.addChain(m.Data)
	}
	return nil
}

// addChain takes in one chain; one without a hook is no base chain and sees no
// packet by itself.
func (f *firewall) addChain(data []byte) {
	if len(data) < sizeofNfGenMsg {
		return
	}
	family := data[0]
	attributes(data[sizeofNfGenMsg:], func(n uint16, hook []byte) {
		if n != nftaChainHook {
			return
		}
		number, devices := decodeHook(hook)
		switch {
		case family == unix.NFPROTO_BRIDGE:
			f.bridge = true
		case family == unix.NFPROTO_NETDEV, family == unix.NFPROTO_INET && number == nfInetIngress:
			f.addDevices(devices)
		default:
			f.ip = true
		}
	})
}

func (f *firewall) addDevices(names []string) {
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		if strings.HasSuffix(name, "*") {
			name = "" // a pattern: rather all than one too few
		}
		f.devices[name] = true
	}
}

func decodeHook(data []byte) (number uint32, devices []string) {
	attributes(data, func(n uint16, v []byte) {
		switch n {
		case nftaHookNumber:
			if len(v) == 4 {
				number = uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3])
			}
		case nftaHookDev:
			devices = append(devices, nlenc.String(v))
		case nftaHookDevs:
			attributes(v, func(m uint16, name []byte) {
				if m == nftaDeviceName {
					devices = append(devices, nlenc.String(name))
				} else {
					devices = append(devices, "*") // a kind of name not known here
				}
			})
		}
	})
	return number, devices
}

// readLegacyBridge looks for legacy ebtables. To ask it for its tables would
// create them, so that a loaded table counts as one in use.
func (f *firewall) readLegacyBridge() error {
	file, err := os.Open("/proc/modules")
	if errors.Is(err, os.ErrNotExist) {
		return nil // no modules: nothing can have been loaded
	}
	if err != nil {
		return fmt.Errorf("look for legacy ebtables: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		switch name, _, _ := strings.Cut(lines.Text(), " "); name {
		case "ebtable_filter", "ebtable_nat", "ebtable_broute":
			f.bridge = true
		}
	}
	return lines.Err()
}

// readLegacyIP looks for legacy iptables and for virtual servers, which hook in
// beside nf_tables. Where the files do not exist, the kernel has no such thing.
func (f *firewall) readLegacyIP() error {
	for _, name := range []string{"ip_tables_names", "ip6_tables_names", "arp_tables_names"} {
		data, err := os.ReadFile(threadNet(name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("look for legacy iptables: %w", err)
		}
		f.ip = f.ip || len(data) > 0
	}
	data, err := os.ReadFile(threadNet("ip_vs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look for virtual servers: %w", err)
	}
	const headerLines = 3
	f.ip = f.ip || strings.Count(string(data), "\n") > headerLines
	return nil
}

// haveBrNetfilter says whether bridged frames may be shown to the IP firewall.
func haveBrNetfilter() bool {
	_, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil
}

// threadNet is a file of the network namespace that the calling thread is in.
func threadNet(name string) string { return filepath.Join("/proc/thread-self/net", name) }

// listenFirewall opens a socket for the events of nf_tables; nil where there is
// no nf_tables, and so nothing to hear of.
func listenFirewall() (*listener, error) {
	l, err := newListener(dialFirewall)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listen to the firewall's events: %w", err)
	}
	return l, nil
}

func dialFirewall() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	if err := c.JoinGroup(nfnlGroupNftable); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
