package links

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func address(prefix string) Address {
	return Address{Prefix: netip.MustParsePrefix(prefix), Valid: Forever, Preferred: Forever}
}

// TestAddressesGoToAnotherDevice, through JSON as they are journalled, and ip(8)
// shows the same there.
func TestAddressesGoToAnotherDevice(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	for _, a := range []string{
		"192.0.2.1/24 broadcast 192.0.2.255",
		"192.0.2.2/24",
		"192.0.3.2/24 label v1:odd scope link metric 77",
		"198.51.100.1 peer 198.51.100.2/32 noprefixroute",
		"203.0.113.1/25 valid_lft 3000 preferred_lft 2000",
		"2001:db8::1/64 nodad",
		"2001:db8::2 peer 2001:db8::3/128 nodad scope site",
		"fe80::17/64 nodad scope link",
	} {
		run(t, "ip address add "+a+" dev v1")
	}
	v1, v2 := l.named(t, "v1").Ifindex, l.named(t, "v2").Ifindex
	read, err := l.Addresses(v1)
	must(t, err)
	if read[0].Flags != 0 {
		t.Errorf("the kernel's own flags are kept: %+v", read[0])
	}
	text, err := json.Marshal(read)
	must(t, err)
	var journalled []Address
	must(t, json.Unmarshal(text, &journalled))
	for _, a := range journalled {
		must(t, l.AddAddress(v2, a))
		must(t, l.AddAddress(v2, a)) // again
	}
	again, err := l.Addresses(v2)
	must(t, err)
	if len(read) != 8 || !reflect.DeepEqual(without(again), without(read)) {
		t.Errorf("read %+v\nthen %+v", read, again)
	}
	if one, other := shown(t, "v1"), shown(t, "v2"); one != other {
		t.Errorf("ip shows\n%s\nand\n%s", one, other)
	}
	for _, a := range read {
		must(t, l.DeleteAddress(v1, a))
		must(t, l.DeleteAddress(v1, a)) // again
	}
	if left, err := l.Addresses(v1); err != nil || len(left) > 0 {
		t.Errorf("left are %+v (%v)", left, err)
	}
}

// without are the addresses without what the time that passes changes.
func without(addresses []Address) (rest []Address) {
	for _, a := range addresses {
		if a.Valid != Forever {
			a.Valid, a.Preferred = 0, 0
		}
		rest = append(rest, a)
	}
	return rest
}

// shown is what ip(8) shows of a device's addresses, without its names and times.
func shown(t *testing.T, device string) string {
	t.Helper()
	var rest []string
	for line := range strings.Lines(run(t, "ip address show dev "+device)) {
		if strings.Contains(line, "inet") {
			rest = append(rest, strings.TrimSuffix(strings.TrimSpace(line), " "+device))
		}
	}
	return strings.Join(rest, "\n")
}

func TestAddressWithAnEnd(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	v1 := l.named(t, "v1").Ifindex
	a := address("203.0.113.1/25")
	a.Valid, a.Preferred = 3000, 2000
	must(t, l.AddAddress(v1, a))
	got, err := l.Addresses(v1)
	must(t, err)
	if len(got) != 1 || got[0].Valid > 3000 || got[0].Valid < 2000 || got[0].Preferred > 2000 || got[0].Preferred < 1000 {
		t.Errorf("read %+v", got)
	}
}

func TestHasAddresses(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	v1 := l.named(t, "v1").Ifindex
	for _, c := range []struct {
		address string
		want    bool
	}{{"", false}, {"fe80::17/64", false}, {"2001:db8::1/64", true}, {"192.0.2.1/24", true}} {
		if c.address != "" {
			run(t, "ip address add "+c.address+" dev v1")
		}
		got, err := l.HasAddresses(v1)
		must(t, err)
		if got != c.want {
			t.Errorf("with %q: %v", c.address, got)
		}
		if c.want {
			run(t, "ip address del "+c.address+" dev v1")
		}
	}
}
