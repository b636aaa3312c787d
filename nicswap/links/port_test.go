package links

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// oddValues are values that no option has by itself.
func oddValues(s PortSettings) map[string]uint32 {
	odd := make(map[string]uint32)
	for name, value := range s.Options {
		switch name {
		case "cost", "mcast_eht_hosts_limit", "mcast_max_groups":
			odd[name] = value + 17
		case "priority":
			odd[name] = 9
		case "mcast_router":
			odd[name] = 2
		case "group_fwd_mask":
			odd[name] = 0x4000
		case "learning": // MAB needs it
			odd[name] = 1
		default:
			odd[name] = 1 - value
		}
	}
	delete(odd, "backup_nhid") // there is no nexthop
	return odd
}

// TestPortSettingsGoToAnotherPort, every one of them, through JSON as they are
// journalled.
func TestPortSettingsGoToAnotherPort(t *testing.T) {
	l := newLinks(t)
	p1 := l.port(t)
	for _, p := range []string{"p2", "p3"} {
		run(t, "ip link add "+p+" type veth peer name h"+p)
		run(t, "ip link set "+p+" master br0")
	}
	plain, err := l.PortSettings(p1)
	must(t, err)
	for _, name := range []string{"cost", "priority", "hairpin", "guard", "root_block", "fastleave", "learning", "flood", "mcast_flood", "bcast_flood",
		"mcast_to_unicast", "mcast_router", "mcast_eht_hosts_limit", "proxy_arp", "proxy_arp_wifi", "neigh_suppress", "vlan_tunnel",
		"group_fwd_mask", "isolated", "locked"} { // since 6.1 or before
		if _, ok := plain.Options[name]; !ok {
			t.Errorf("the kernel tells nothing of %s", name)
		}
	}
	odd := plain
	odd.Options, odd.BackupPort = oddValues(plain), "p3"
	must(t, l.ApplyPortSettings(p1, odd))
	read, err := l.PortSettings(p1)
	must(t, err)
	if read.BackupPort != "p3" {
		t.Errorf("the backup port is %q", read.BackupPort)
	}
	for name, value := range odd.Options {
		if read.Options[name] != value {
			t.Errorf("%s is %d, want %d", name, read.Options[name], value)
		}
	}

	text, err := json.Marshal(read)
	must(t, err)
	var journalled PortSettings
	must(t, json.Unmarshal(text, &journalled))
	p2 := l.named(t, "p2").Ifindex
	must(t, l.ApplyPortSettings(p2, journalled))
	if got, err := l.PortSettings(p2); err != nil || !reflect.DeepEqual(got, read) {
		t.Errorf("the other port has %+v (%v), want %+v", got, err, read)
	}
	must(t, l.ApplyPortSettings(p1, plain))
	if got, err := l.PortSettings(p1); err != nil || !reflect.DeepEqual(got, plain) {
		t.Errorf("set back it has %+v (%v), want %+v", got, err, plain)
	}
}

// TestPortSettingsAreThoseOfBridge8 for a few that it shows.
func TestPortSettingsAreThoseOfBridge8(t *testing.T) {
	l := newLinks(t)
	p1 := l.port(t)
	run(t, "bridge link set dev p1 cost 77 priority 5 hairpin on guard on learning off isolated on")
	s, err := l.PortSettings(p1)
	must(t, err)
	for name, want := range map[string]uint32{"cost": 77, "priority": 5, "hairpin": 1, "guard": 1, "learning": 0, "isolated": 1, "root_block": 0} {
		if got := s.Options[name]; got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	must(t, l.ApplyPortSettings(p1, PortSettings{Options: map[string]uint32{"root_block": 1, "flood": 0, "hairpin": 0}}))
	out := run(t, "bridge -d link show dev p1")
	for _, want := range []string{"cost 77", "priority 5", "hairpin off", "guard on", "root_block on", "learning off", " flood off", "isolated on"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

// TestApplyNamesWhatDiffers: the kernel refuses the whole of it for one option
// that cannot be, or does a part.
func TestApplyNamesWhatDiffers(t *testing.T) {
	l := newLinks(t)
	p1 := l.port(t)
	err := l.ApplyPortSettings(p1, PortSettings{Options: map[string]uint32{"cost": 0, "isolated": 1}})
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ERANGE) {
		t.Errorf("a cost of 0: %v", err)
	}
	if err == nil || !strings.Contains(err.Error(), "cost is 2 and not 0") {
		t.Errorf("the cost is not named: %v", err)
	}
	s, readErr := l.PortSettings(p1)
	must(t, readErr)
	if named := strings.Contains(err.Error(), "isolated is 0 and not 1"); named == (s.Options["isolated"] == 1) {
		t.Errorf("isolated is %d, and the error is: %v", s.Options["isolated"], err)
	}
	err = l.ApplyPortSettings(p1, PortSettings{BackupPort: "none0"})
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), `the backup port is "" and not "none0"`) {
		t.Errorf("a backup port that is gone: %v", err)
	}
}

// TestOptionThatThisKernelLacks: off is as good as absent, on is not.
func TestOptionThatThisKernelLacks(t *testing.T) {
	have := PortSettings{Options: map[string]uint32{"learning": 1}}
	want := PortSettings{Options: map[string]uint32{"learning": 1, "mab": 0}}
	if wrong := differences(have, want); len(wrong) > 0 {
		t.Errorf("off: %v", wrong)
	}
	want.Options["mab"] = 1
	if wrong := differences(have, want); len(wrong) != 1 || !strings.Contains(wrong[0], "mab") {
		t.Errorf("on: %v", wrong)
	}
	if set := optionsToSet(have.Options, want.Options); len(set) > 0 {
		t.Errorf("it would be sent: %v", set)
	}
}

func TestNoPort(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	v1 := l.named(t, "v1").Ifindex
	if _, err := l.PortSettings(v1); !errors.Is(err, ErrNoPort) {
		t.Errorf("read: %v", err)
	}
	if err := l.ApplyPortSettings(v1, PortSettings{}); !errors.Is(err, ErrNoPort) {
		t.Errorf("applied: %v", err)
	}
}

// TestDecodePort: an option of a size that it cannot have is not read as off.
func TestDecodePort(t *testing.T) {
	data := message(t, "link-port")
	options, backup, err := decodePort(data)
	must(t, err)
	want := map[string]uint32{
		"cost": 77, "priority": 5, "hairpin": 1, "guard": 1, "root_block": 0, "fastleave": 0, "learning": 0, "flood": 1, "mcast_flood": 1,
		"bcast_flood": 1, "mcast_to_unicast": 0, "mcast_router": 1, "mcast_eht_hosts_limit": 512, "mcast_max_groups": 0, "proxy_arp": 0, "proxy_arp_wifi": 0,
		"neigh_suppress": 0, "neigh_vlan_suppress": 0, "vlan_tunnel": 0, "group_fwd_mask": 0, "isolated": 1, "locked": 0, "mab": 0,
	}
	if backup != 3 || !maps.Equal(options, want) {
		t.Errorf("%v, backup %d", options, backup)
	}
	whole, broken := []byte{5, 0, unix.IFLA_BRPORT_ISOLATED, 0, 1}, []byte{6, 0, unix.IFLA_BRPORT_ISOLATED, 0, 1}
	if !bytes.Contains(data, whole) {
		t.Fatal("there is nothing to break")
	}
	data = bytes.Replace(data, whole, broken, 1)
	options, _, err = decodePort(data)
	must(t, err)
	if value, ok := options["isolated"]; ok {
		t.Errorf("isolated of two bytes is %d", value)
	}
}

// TestNoVLANAndNoFilteringDiffer, also when they were journalled: a port that is in
// no VLAN must not be left in the one that the kernel gives to every port.
func TestNoVLANAndNoFilteringDiffer(t *testing.T) {
	for _, s := range []PortSettings{{VLANs: nil}, {VLANs: []VLANs{}}} {
		text, err := json.Marshal(s)
		must(t, err)
		var journalled PortSettings
		must(t, json.Unmarshal(text, &journalled))
		if (journalled.VLANs == nil) != (s.VLANs == nil) {
			t.Errorf("%#v comes back as %#v", s.VLANs, journalled.VLANs)
		}
	}
}
