package links

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// PortSettings are what an operator may set of a bridge port. Not among them are
// its STP state, which is the bridge's to find, and what is set of a single VLAN
// (its state, its tunnel, its multicast router).
type PortSettings struct {
	// Options are by the names that ip(8) and bridge(8) have for them; what is on
	// or off is 1 or 0. Those that the kernel does not know are missing.
	Options map[string]uint32 `json:"options"`
	// BackupPort is the name of the port that takes over while this one has no
	// carrier; empty for none.
	BackupPort string `json:"backup_port,omitempty"`
	// VLANs are the port's memberships, whether the bridge filters or not; nil
	// where the kernel has no VLAN filtering.
	VLANs []VLANs `json:"vlans"`
}

// portOption is an attribute of a bridge port, and its size in bytes.
type portOption struct {
	number uint16 // IFLA_BRPORT_*
	name   string
	size   int
}

// portOptions are all that net/bridge/br_netlink.c: br_setport takes, but the
// state and what is done once (flush). Some the kernel sends only where it was
// built for them, or since some version.
var portOptions = []portOption{
	{unix.IFLA_BRPORT_COST, "cost", 4},
	{unix.IFLA_BRPORT_PRIORITY, "priority", 2},
	{unix.IFLA_BRPORT_MODE, "hairpin", 1},
	{unix.IFLA_BRPORT_GUARD, "guard", 1},
	{unix.IFLA_BRPORT_PROTECT, "root_block", 1},
	{unix.IFLA_BRPORT_FAST_LEAVE, "fastleave", 1},
	{unix.IFLA_BRPORT_LEARNING, "learning", 1},
	{unix.IFLA_BRPORT_UNICAST_FLOOD, "flood", 1},
	{unix.IFLA_BRPORT_MCAST_FLOOD, "mcast_flood", 1},
	{unix.IFLA_BRPORT_BCAST_FLOOD, "bcast_flood", 1},
	{unix.IFLA_BRPORT_MCAST_TO_UCAST, "mcast_to_unicast", 1},
	{unix.IFLA_BRPORT_MULTICAST_ROUTER, "mcast_router", 1},
	{unix.IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT, "mcast_eht_hosts_limit", 4},
	{unix.IFLA_BRPORT_MCAST_MAX_GROUPS, "mcast_max_groups", 4},
	{unix.IFLA_BRPORT_PROXYARP, "proxy_arp", 1},
	{unix.IFLA_BRPORT_PROXYARP_WIFI, "proxy_arp_wifi", 1},
	{unix.IFLA_BRPORT_NEIGH_SUPPRESS, "neigh_suppress", 1},
	{unix.IFLA_BRPORT_NEIGH_VLAN_SUPPRESS, "neigh_vlan_suppress", 1},
	{unix.IFLA_BRPORT_VLAN_TUNNEL, "vlan_tunnel", 1},
	{unix.IFLA_BRPORT_GROUP_FWD_MASK, "group_fwd_mask", 2},
	{unix.IFLA_BRPORT_ISOLATED, "isolated", 1},
	{unix.IFLA_BRPORT_LOCKED, "locked", 1},
	{unix.IFLA_BRPORT_MAB, "mab", 1},
	{unix.IFLA_BRPORT_BACKUP_NHID, "backup_nhid", 4},
}

// ErrNoPort is about a device that is no port of a bridge (any more).
var ErrNoPort = errors.New("it is no port of a bridge")

// PortSettings returns the settings of a bridge port; [ErrNoPort] if it is none.
func (l *Links) PortSettings(ifindex int) (PortSettings, error) {
	s, err := l.portSettings(ifindex)
	if err != nil {
		return PortSettings{}, failed(err, "read the bridge port's settings of device", ifindex)
	}
	return s, nil
}

func (l *Links) portSettings(ifindex int) (PortSettings, error) {
	data, err := l.byIndex(ifindex, rtextFilterSkipStats)
	if err != nil {
		return PortSettings{}, err
	}
	options, backup, err := decodePort(data)
	if err != nil {
		return PortSettings{}, err
	}
	s := PortSettings{Options: options}
	if backup != 0 {
		port, err := l.ByIndex(backup)
		if err != nil {
			return PortSettings{}, fmt.Errorf("the backup port: %w", err)
		}
		s.BackupPort = port.Name
	}
	s.VLANs, err = l.vlans(ifindex)
	return s, err
}

// decodePort reads what net/bridge/br_netlink.c: br_port_fill_attrs wrote, and
// the ifindex of the backup port. An option of a size that it cannot have is as
// good as absent: it must never be read as "off".
func decodePort(data []byte) (options map[string]uint32, backup int, err error) {
	m, err := parseLinkMessage(data)
	if err != nil {
		return nil, 0, err
	}
	info := find(m.attributes, unix.IFLA_LINKINFO)
	if nlenc.String(find(info, unix.IFLA_INFO_SLAVE_KIND)) != "bridge" {
		return nil, 0, ErrNoPort
	}
	settings := find(info, unix.IFLA_INFO_SLAVE_DATA)
	options = make(map[string]uint32, len(portOptions))
	for _, o := range portOptions {
		if v := find(settings, o.number); len(v) == o.size {
			options[o.name] = uint32(number(v))
		}
	}
	// Sent only where there is one.
	return options, int(number(find(settings, unix.IFLA_BRPORT_BACKUP_PORT))), nil
}

// ApplyPortSettings gives a bridge port the settings, as far as they differ from
// those that it has. Options that s lacks are left alone, and so are the VLANs where
// s.VLANs is nil. The kernel may do one part of it and refuse another, without
// undoing the first: so the settings are read again at the end, and the error names
// all that differ.
func (l *Links) ApplyPortSettings(ifindex int, s PortSettings) error {
	return failed(l.applyPortSettings(ifindex, s), "set the bridge port's settings of device", ifindex)
}

func (l *Links) applyPortSettings(ifindex int, want PortSettings) error {
	have, err := l.portSettings(ifindex)
	if err != nil {
		return err
	}
	err = errors.Join(l.setOptions(ifindex, have, want), l.setVLANs(ifindex, have.VLANs, want.VLANs))
	have, readErr := l.portSettings(ifindex)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if wrong := differences(have, want); len(wrong) > 0 {
		err = errors.Join(err, errors.New(strings.Join(wrong, ", ")))
	}
	return err
}

// setOptions sets the options that differ, and the backup port.
func (l *Links) setOptions(ifindex int, have, want PortSettings) error {
	differing := optionsToSet(have.Options, want.Options)
	if len(differing) == 0 && have.BackupPort == want.BackupPort {
		return nil
	}
	backup := Link{} // 0 takes it away
	if want.BackupPort != "" {
		var err error
		if backup, err = l.ByName(want.BackupPort); err != nil {
			return fmt.Errorf("the backup port: %w", err)
		}
	}
	return l.set(unix.AF_BRIDGE, ifindex, 0, 0, func(e *netlink.AttributeEncoder) {
		e.Nested(unix.IFLA_PROTINFO, func(e *netlink.AttributeEncoder) error {
			for _, o := range differing {
				o.encode(e, want.Options[o.name])
			}
			if have.BackupPort != want.BackupPort {
				e.Uint32(unix.IFLA_BRPORT_BACKUP_PORT, uint32(backup.Ifindex))
			}
			return nil
		})
	})
}

// optionsToSet are those that differ. One that this kernel lacks is not sent: the
// kernel would ignore it.
func optionsToSet(have, want map[string]uint32) (differing []portOption) {
	for _, o := range portOptions {
		value, wanted := want[o.name]
		if now, known := have[o.name]; wanted && known && now != value {
			differing = append(differing, o)
		}
	}
	return differing
}

func (o portOption) encode(e *netlink.AttributeEncoder, value uint32) {
	switch o.size {
	case 1:
		e.Uint8(o.number, uint8(value))
	case 2:
		e.Uint16(o.number, uint16(value))
	default:
		e.Uint32(o.number, value)
	}
}

// differences says what a port has otherwise than it should, a clause each. An
// option that the kernel lacks is none as long as it should be off.
func differences(have, want PortSettings) (wrong []string) {
	for _, o := range portOptions {
		value, wanted := want.Options[o.name]
		now, known := have.Options[o.name]
		switch {
		case !wanted || now == value:
		case !known:
			wrong = append(wrong, fmt.Sprintf("this kernel has no %s", o.name))
		default:
			wrong = append(wrong, fmt.Sprintf("%s is %d and not %d", o.name, now, value))
		}
	}
	if have.BackupPort != want.BackupPort {
		wrong = append(wrong, fmt.Sprintf("the backup port is %q and not %q", have.BackupPort, want.BackupPort))
	}
	return append(wrong, vlanDifferences(have.VLANs, want.VLANs)...)
}
