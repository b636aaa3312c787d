package fdbsync

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
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

// reason says why the packet filters keep a bridge from the fast path; err is
// why they could not be read.
func (f firewall) reason(err error) accel.Reason {
	if reasons := f.reasons(err); len(reasons) > 0 {
		return reasons[0]
	}
	return accel.Fast
}

// reasons are all of them.
func (f firewall) reasons(err error) (reasons []accel.Reason) {
	if f.bridge {
		reasons = append(reasons, accel.BridgeNetfilter)
	}
	if f.ip && f.brNetfilter {
		reasons = append(reasons, accel.BrNetfilter)
	}
	if err != nil {
		reasons = append(reasons, accel.Unchecked)
	}
	return reasons
}

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

// Numbers of nfnetlink_hook, which lists the hooks of a kernel whoever put them
// there; include/uapi/linux/netfilter/nfnetlink_hook.h.
const (
	nfHookGet         = 12 << 8 // NFNL_SUBSYS_HOOK, NFNL_MSG_HOOK_GET
	nfnlaHookHooknum  = 1
	nfnlaHookFunction = 4 // NFNLA_HOOK_FUNCTION_NAME

	nftGetFlowtable       = unix.NFNL_SUBSYS_NFTABLES<<8 | 23 // NFT_MSG_GETFLOWTABLE
	nftaFlowtableHook     = 3
	nftaFlowtableHookDevs = 3

	// The hooks that a forwarded frame passes (NF_INET_*, NF_BR_*, NF_ARP_*).
	nfPreRouting  = 0
	nfForward     = 2
	nfPostRouting = 4
)

// readFirewall finds every packet filter that the kernel will tell of.
func readFirewall() (firewall, error) {
	f := firewall{devices: make(map[string]bool), brNetfilter: haveBrNetfilter()}
	for _, read := range []func() error{f.readNetlink, f.readLegacyBridge, f.readLegacyIP} {
		if err := read(); err != nil {
			return f, err
		}
	}
	return f, nil
}

// readNetlink asks for base chains, flowtables and hooks. A kernel without
// nfnetlink has none.
func (f *firewall) readNetlink() error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the firewall: %w", err)
	}
	defer c.Close()
	// One error is enough: what refuses one question refuses all.
	return cmp.Or(
		list(c, nftGetChain, unix.NFPROTO_UNSPEC, nil, f.addChain),
		list(c, nftGetFlowtable, unix.NFPROTO_UNSPEC, nil, f.addFlowtable),
		f.readHooks(c),
	)
}

// list calls add for everything of one kind in a family. What the kernel does
// not know has nothing in it.
func list(c *netlink.Conn, kind netlink.HeaderType, family uint8, attributes []byte, add func([]byte)) error {
	messages, err := settledList(func() ([]netlink.Message, error) {
		return c.Execute(netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump},
			Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...),
		})
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // no such part behind nfnetlink
	}
	if err != nil {
		return fmt.Errorf("read the firewall: %w", err)
	}
	for _, m := range messages {
		add(m.Data)
	}
	return nil
}

// readHooks finds what neither nf_tables nor the legacy tables tell of: bridge
// conntrack, programs and modules with hooks of their own. Where the kernel
// cannot list hooks, these stay unseen.
func (f *firewall) readHooks(c *netlink.Conn) error {
	families := []uint8{unix.NFPROTO_BRIDGE}
	if f.brNetfilter {
		families = append(families, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_ARP)
	}
	for _, family := range families {
		for _, number := range []uint32{nfPreRouting, nfForward, nfPostRouting} {
			e := netlink.NewAttributeEncoder()
			e.ByteOrder = binary.BigEndian
			e.Uint32(nfnlaHookHooknum, number)
			which, err := e.Encode()
			if err != nil {
				return err
			}
			if err := list(c, nfHookGet, family, which, f.addHook); err != nil {
				return err
			}
		}
	}
	return nil
}

// addHook takes in one hook, unless it is known to let every forwarded frame
// through: br_netfilter's own, which only lead to those of IP, and AppArmor's,
// which looks at frames of local sockets only (security/apparmor/lsm.c:
// apparmor_ip_postroute). One without a name may be any.
func (f *firewall) addHook(data []byte) {
	if len(data) < sizeofNfGenMsg {
		return
	}
	var function string
	attributes(data[sizeofNfGenMsg:], func(n uint16, v []byte) {
		if n == nfnlaHookFunction {
			function = nlenc.String(v)
		}
	})
	switch {
	case data[0] == unix.NFPROTO_BRIDGE:
		f.bridge = f.bridge || !strings.HasPrefix(function, "br_nf_")
	case function != "apparmor_ip_postroute":
		f.ip = true
	}
}

// addFlowtable takes in one flowtable: it takes frames at the ingress of its
// devices, without any chain there (net/netfilter/nf_flow_table_inet.c).
func (f *firewall) addFlowtable(data []byte) {
	if len(data) < sizeofNfGenMsg {
		return
	}
	attributes(data[sizeofNfGenMsg:], func(n uint16, hook []byte) {
		if n != nftaFlowtableHook {
			return
		}
		var devices []string
		attributes(hook, func(n uint16, v []byte) {
			if n == nftaFlowtableHookDevs {
				devices = append(devices, deviceNames(v)...)
			}
		})
		f.addDevices(devices)
	})
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
			devices = append(devices, deviceNames(v)...)
		}
	})
	return number, devices
}

func deviceNames(data []byte) (names []string) {
	attributes(data, func(n uint16, name []byte) {
		if n == nftaDeviceName {
			names = append(names, nlenc.String(name))
		} else {
			names = append(names, "*") // a kind of name not known here
		}
	})
	return names
}

// readLegacyBridge looks for legacy ebtables. To ask it for a table would create
// that table, hooks and all, and load its module (net/bridge/netfilter/
// ebtables.c: find_inlist_lock), so that a table that can be there counts as one
// in use.
func (f *firewall) readLegacyBridge() error {
	present, err := haveEbtables()
	if err != nil || !present {
		return err
	}
	modules, err := loadedModules()
	if err != nil {
		return err
	}
	isBuiltIn := !slices.Contains(modules, "ebtables")
	f.bridge = f.bridge || isBuiltIn || slices.ContainsFunc(modules, func(name string) bool {
		return name == "ebtable_filter" || name == "ebtable_nat" || name == "ebtable_broute"
	})
	return nil
}

// haveEbtables says whether the core of legacy ebtables is there, whose socket
// option takes the address of a question before it looks for a table: without an
// address nothing is loaded or created.
func haveEbtables() (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("look for legacy ebtables: %w", err)
	}
	defer unix.Close(fd)
	const ebtGetInfo = 128 // EBT_SO_GET_INFO
	size := uint32(unix.Getpagesize())
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, ebtGetInfo, 0, uintptr(unsafe.Pointer(&size)), 0)
	switch errno {
	case unix.ENOPROTOOPT:
		return false, nil
	case unix.EPERM:
		return false, fmt.Errorf("look for legacy ebtables: %w", errno)
	}
	return true, nil
}

// loadedModules is empty on a kernel without modules.
func loadedModules() (names []string, err error) {
	data, err := os.ReadFile("/proc/modules")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("look for legacy ebtables: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names, nil
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
