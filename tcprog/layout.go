package tcprog

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// findLayout finds, in the kernel's own description of its types, where it keeps what
// bpf/peer.h reads. The error says what this kernel lacks.
func findLayout(types *btf.Cache) (l shuntLayout, err error) {
	kernel, err := types.Kernel()
	if err != nil {
		return l, fmt.Errorf("read the kernel's types: %w", err)
	}
	if err := l.findVeth(kernel, types); err != nil {
		return l, err
	}
	if err := l.findSoftnet(kernel); err != nil {
		return l, err
	}
	if err := l.findTaps(kernel); err != nil {
		return l, err
	}
	return l, l.findOffloads(kernel)
}

// findVeth finds the veth driver's part of a device. Its types are in a module, if the
// driver is.
func (l *shuntLayout) findVeth(kernel *btf.Spec, types *btf.Cache) error {
	device, err := structOf(kernel, "net_device")
	if err != nil {
		return err
	}
	if _, err := device.offset("tcx_egress"); err != nil {
		return errors.New("this kernel has no tcx: straight to the far end needs Linux 6.6 or later")
	}
	driver := kernel
	if module, err := types.Module("veth"); err == nil {
		driver = module
	}
	veth, err := structOf(driver, "veth_priv")
	if err != nil {
		return err
	}
	queue, err := structOf(driver, "veth_rq")
	if err != nil {
		return err
	}
	far, err1 := veth.offset("peer")
	queues, err2 := veth.offset("rq")
	napi, err3 := queue.offset("napi")
	own := device.private()
	l.Far, l.Queues, l.QueueSize, l.Napi = own+far, own+queues, queue.Size, napi
	return errors.Join(err1, err2, err3)
}

// findSoftnet finds how far a CPU's backlog is from its run queue: all that the kernel
// keeps for each CPU lies in one section, which every CPU has a copy of.
func (l *shuntLayout) findSoftnet(kernel *btf.Spec) error {
	var section *btf.Datasec
	if err := kernel.TypeByName(".data..percpu", &section); err != nil {
		return fmt.Errorf("find what the kernel keeps for each CPU: %w", err)
	}
	at := make(map[string]uint32)
	for _, v := range section.Vars {
		at[v.Type.TypeName()] = v.Offset
	}
	softnet, known := at["softnet_data"]
	runqueues, both := at["runqueues"]
	if !known || !both {
		return errors.New("the kernel does not tell where the backlog of a CPU is")
	}
	l.Softnet = uint64(int64(softnet) - int64(runqueues))
	return nil
}

// findTaps finds the list of the captures of all devices. Before Linux 6.15 it is one
// for all namespaces.
func (l *shuntLayout) findTaps(kernel *btf.Spec) error {
	namespace, err := structOf(kernel, "net")
	if err != nil {
		return err
	}
	if _, err := namespace.offset("ptype_all"); err == nil {
		return nil
	}
	offset, symbol := uint32(0), "ptype_all"
	if hot, err := structOf(kernel, "net_hotdata"); err == nil {
		if at, err := hot.offset("ptype_all"); err == nil {
			offset, symbol = at, "net_hotdata"
		}
	}
	address, err := symbolAddress(symbol)
	l.Taps = address + uint64(offset)
	return err
}

// shaping are the offloads that change what arrives at a veth's far end where its near
// end has them not: it cuts segments, reckons checksums and writes tags out before.
var shaping = []string{"SG", "FRAGLIST", "HW_CSUM", "SCTP_CRC", "HW_VLAN_CTAG_TX", "HW_VLAN_STAG_TX",
	"TSO", "TSO_ECN", "TSO_MANGLEID", "TSO6", "GSO_SCTP", "GSO_UDP", "GSO_UDP_L4"}

// findOffloads finds the bits of those features, whose enumeration has no name.
func (l *shuntLayout) findOffloads(kernel *btf.Spec) error {
	bits, err := featureBits(kernel)
	if err != nil {
		return err
	}
	for _, name := range shaping {
		if bit, known := bits["NETIF_F_"+name+"_BIT"]; known {
			l.Offloads |= 1 << bit
		}
	}
	return nil
}

func featureBits(kernel *btf.Spec) (map[string]uint64, error) {
	for t, err := range kernel.All() {
		if err != nil {
			return nil, err
		}
		enum, is := t.(*btf.Enum)
		if !is || len(enum.Values) == 0 || enum.Values[0].Name != "NETIF_F_SG_BIT" {
			continue
		}
		bits := make(map[string]uint64)
		for _, v := range enum.Values {
			bits[v.Name] = v.Value
		}
		return bits, nil
	}
	return nil, errors.New("the kernel does not tell the bits of a device's features")
}

// structure is a type of the kernel.
type structure struct{ *btf.Struct }

func structOf(types *btf.Spec, name string) (s structure, err error) {
	if err := types.TypeByName(name, &s.Struct); err != nil {
		return s, fmt.Errorf("find the kernel's struct %s: %w", name, err)
	}
	return s, nil
}

// offset is that of a member, in bytes; some lie in groups without a name.
func (s structure) offset(member string) (uint32, error) {
	if at, found := offsetIn(s.Members, member); found {
		return at, nil
	}
	return 0, fmt.Errorf("the kernel's struct %s has no %s", s.Name, member)
}

func offsetIn(members []btf.Member, name string) (uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch group := m.Type.(type) {
		case *btf.Struct:
			inner = group.Members
		case *btf.Union:
			inner = group.Members
		}
		if at, found := offsetIn(inner, name); found {
			return m.Offset.Bytes() + at, true
		}
	}
	return 0, false
}

// private is where a driver's part of a device begins (include/linux/netdevice.h:
// netdev_priv).
func (s structure) private() uint32 {
	if at, err := s.offset("priv"); err == nil {
		return at
	}
	const align = 32 // NETDEV_ALIGN
	return (s.Size + align - 1) / align * align
}

// symbolAddress finds a variable of the kernel by its name.
func symbolAddress(name string) (uint64, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return 0, fmt.Errorf("find %s in the kernel: %w", name, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 3 || words[2] != name {
			continue
		}
		address, err := strconv.ParseUint(words[0], 16, 64)
		if err != nil || address == 0 {
			break // hidden: kernel.kptr_restrict
		}
		return address, nil
	}
	return 0, errors.Join(fmt.Errorf("the kernel does not tell where its %s is", name), lines.Err())
}
