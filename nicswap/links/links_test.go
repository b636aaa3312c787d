package links

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

func TestKinds(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	run(t, "ip tuntap add t1 mode tap")
	run(t, "ip link add m1 link v1 address 02:00:00:00:00:07 type macvlan mode passthru")
	run(t, "ip link add m2 link v2 type macvtap mode bridge")
	run(t, "ip link add br0 type bridge")
	run(t, "ip link set t1 master br0")
	run(t, "ip link set v2 up promisc on mtu 1400")
	v1, v2, br0 := l.named(t, "v1"), l.named(t, "v2"), l.named(t, "br0")
	for name, want := range map[string]Link{
		"lo": {Loopback: true, MTU: 65536},
		"v2": {Kind: "veth", Driver: "veth", Lower: v1.Ifindex, MTU: 1400, MinMTU: 68, MaxMTU: 65535, Up: true, Promisc: true, Ethernet: true},
		"t1": {Kind: "tun", Driver: "tun", Master: br0.Ifindex, MTU: 1500, MinMTU: 68, MaxMTU: 65521, Ethernet: true},
		"m1": {Kind: "macvlan", Driver: "macvlan", MacvlanMode: "passthru", Lower: v1.Ifindex, MTU: 1500, MinMTU: 68, MaxMTU: 65535, Ethernet: true},
		"m2": {Kind: "macvtap", Driver: "macvlan", MacvlanMode: "bridge", Lower: v2.Ifindex, MTU: 1400, MinMTU: 68, MaxMTU: 65535, Ethernet: true},
	} {
		got := l.named(t, name)
		want.Name, want.Ifindex, want.MAC = name, got.Ifindex, got.MAC
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
		again, err := l.ByIndex(got.Ifindex)
		must(t, err)
		if again != got {
			t.Errorf("%s by its ifindex is %+v", name, again)
		}
		all, err := l.All()
		must(t, err)
		if !slices.Contains(all, got) {
			t.Errorf("%s is not among all: %+v", name, all)
		}
	}
	if mac := l.named(t, "m1").MAC; mac.String() != l.named(t, "v1").MAC.String() {
		t.Errorf("a passthru macvlan has %s", mac) // it gives its address to the lower
	}
}

func TestPhysical(t *testing.T) {
	for name, want := range map[string]Link{
		"link-physical": {
			Name: "eth0", Ifindex: 4, Physical: true, MAC: accel.MAC{0x02, 0xfc, 0, 0, 0, 1}, MTU: 1400, MinMTU: 68, MaxMTU: 65535,
			Up: true, Carrier: true, Running: true, Ethernet: true,
		},
		"link-passthru": { // on a port
			Name: "m1", Ifindex: 7, Kind: "macvlan", MacvlanMode: "passthru", Lower: 6, MAC: accel.MAC{0x0e, 0xc7, 0xae, 0xcd, 0x52, 0xb0},
			MTU: 1500, MinMTU: 68, MaxMTU: 65535, Ethernet: true,
		},
	} {
		got, err := decodeLink(message(t, name))
		must(t, err)
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
}

func TestGone(t *testing.T) {
	l := newLinks(t)
	for name, err := range map[string]error{
		"by name":          second(l.ByName("none0")),
		"by a long name":   second(l.ByName("a-name-that-only-an-alternative-name-may-be-as-long-as")),
		"by no name":       second(l.ByName("")),
		"by ifindex":       second(l.ByIndex(77)),
		"by no ifindex":    second(l.ByIndex(0)),
		"addresses":        second(l.HasAddresses(77)),
		"counters":         second(l.Counters(77)),
		"up":               l.SetUp(77, true),
		"nothing up":       l.SetUp(0, true),
		"MTU":              l.SetMTU(77, 1500),
		"promiscuous":      l.SetPromisc(77, true),
		"LRO":              l.DisableLRO("none0"),
		"LRO, long":        l.DisableLRO("a-name-that-is-too-long"),
		"IPv6":             l.QuietIPv6("none0"),
		"IPv6's file":      l.writeDisabled("none0", true),
		"delete":           l.Delete(77),
		"delete nothing":   l.Delete(0),
		"rename":           l.Rename(77, "some0"),
		"master":           l.SetMaster(77, 0),
		"settings":         second(l.PortSettings(77)),
		"apply settings":   l.ApplyPortSettings(77, PortSettings{}),
		"add an address":   l.AddAddress(77, address("192.0.2.1/24")),
		"delete addresses": l.DeleteAddress(77, address("192.0.2.1/24")),
	} {
		if !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAlternativeName(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	run(t, "ip link property add dev v1 altname short1 altname a-name-that-is-as-long-as-it-likes")
	for _, name := range []string{"short1", "a-name-that-is-as-long-as-it-likes"} {
		if got := l.named(t, name); got.Name != "v1" || got.Driver != "veth" {
			t.Errorf("%s is %+v", name, got)
		}
	}
}

func TestUppers(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	run(t, "ip link add br0 type bridge")
	run(t, "ip link set v2 master br0")
	run(t, "ip link add m1 link v1 type macvlan mode bridge")
	run(t, "ip link add m2 link v1 type macvlan mode bridge")
	for name, want := range map[string][]string{"v1": {"m1", "m2"}, "v2": nil, "m1": nil, "lo": nil} {
		uppers, err := l.Uppers(l.named(t, name).Ifindex)
		must(t, err)
		var got []string
		for _, u := range uppers {
			got = append(got, u.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("on top of %s are %v", name, got)
		}
	}
}

// TestCarrierFollowsTheStub, up and down, while the port itself is up all the
// time.
func TestCarrierFollowsTheStub(t *testing.T) {
	l := newLinks(t)
	mac := accel.MAC{2, 0, 0, 0, 0, 0x17}
	port, stub, err := l.CreatePort("uplink", mac, 1400)
	must(t, err)
	if port.Name != "uplink" || port.MAC != mac || port.MTU != 1400 || port.Up || port.Kind != "veth" || port.Lower != stub.Ifindex {
		t.Errorf("the port is %+v", port)
	}
	if stub.Name != StubName("uplink") || stub.MTU != 1400 || stub.Up || stub.Lower != port.Ifindex {
		t.Errorf("the stub is %+v", stub)
	}
	must(t, l.SetUp(port.Ifindex, true))
	for _, up := range []bool{false, true, false, true} {
		must(t, l.SetUp(stub.Ifindex, up))
		if got := l.named(t, "uplink"); !got.Up || got.Carrier != up {
			t.Errorf("with the stub up %v the port is %+v", up, got)
		}
		if has, err := l.HasCarrier("uplink"); has != up || err != nil {
			t.Errorf("with the stub up %v the port's carrier is %v: %v", up, has, err)
		}
	}
	must(t, l.Delete(port.Ifindex))
	if _, err := l.ByName(stub.Name); !errors.Is(err, ErrGone) {
		t.Errorf("without its port the stub is there: %v", err)
	}
	if _, err := l.HasCarrier("uplink"); !errors.Is(err, ErrGone) {
		t.Errorf("the carrier of a port that is gone: %v", err)
	}
}

func TestCreatePortWithTakenNames(t *testing.T) {
	l := newLinks(t)
	first, _, err := l.CreatePort("uplink", accel.MAC{}, 1500)
	must(t, err)
	if first.MAC == (accel.MAC{}) {
		t.Error("a port without an address")
	}
	if _, _, err := l.CreatePort("uplink", accel.MAC{}, 1500); !errors.Is(err, unix.EEXIST) {
		t.Errorf("the port's name is taken: %v", err)
	}
	run(t, "ip link add "+StubName("other")+" type bridge")
	if _, _, err := l.CreatePort("other", accel.MAC{}, 1500); !errors.Is(err, unix.EEXIST) {
		t.Errorf("the stub's name is taken: %v", err)
	}
	if _, err := l.ByName("other"); !errors.Is(err, ErrGone) {
		t.Errorf("half a port is there: %v", err)
	}
	if again := l.named(t, "uplink"); again.Ifindex != first.Ifindex {
		t.Errorf("the first port is %+v", again)
	}
}

func TestStubName(t *testing.T) {
	seen := make(map[string]string)
	for _, port := range []string{"up", "uplink", "0123456789", "0123456789a", "0123456789b", "0123456789abcde", "0123456789abcdf"} {
		stub := StubName(port)
		if len(stub) >= unix.IFNAMSIZ || stub == port || seen[stub] != "" {
			t.Errorf("the stub of %s is %s, and %s has it too", port, stub, seen[stub])
		}
		seen[stub] = port
	}
}

func TestSetMTU(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	v1 := l.named(t, "v1").Ifindex
	must(t, l.SetMTU(v1, 9000))
	for _, mtu := range []int{67, 65536, -1} {
		if err := l.SetMTU(v1, mtu); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%d: %v", mtu, err)
		} else if !strings.Contains(err.Error(), "mtu") {
			t.Errorf("the kernel's words are lost: %v", err)
		}
	}
	if got := l.named(t, "v1").MTU; got != 9000 {
		t.Errorf("the MTU is %d", got)
	}
}

func TestSetPromisc(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	v1 := l.named(t, "v1")
	for _, on := range []bool{true, false, true} {
		must(t, l.SetPromisc(v1.Ifindex, on))
		if got := l.named(t, "v1"); got.Promisc != on || got.Up {
			t.Errorf("after %v it is %+v", on, got)
		}
	}
}

func TestSetMasterAndRename(t *testing.T) {
	l := newLinks(t)
	p1 := l.port(t)
	br0 := l.named(t, "br0").Ifindex
	must(t, l.Rename(p1, "uplink"))
	if got := l.named(t, "uplink"); got.Ifindex != p1 || got.Master != br0 {
		t.Errorf("renamed it is %+v", got)
	}
	must(t, l.SetMaster(p1, 0))
	if got := l.named(t, "uplink"); got.Master != 0 {
		t.Errorf("taken out it is %+v", got)
	}
	must(t, l.SetMaster(p1, br0))
	if got := l.named(t, "uplink"); got.Master != br0 {
		t.Errorf("put in it is %+v", got)
	}
	if err := l.Rename(p1, "h1"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("renamed to one that there is: %v", err)
	}
}

// TestErrorLeavesNoAnswerBehind: what follows a refused question gets its own
// answer.
func TestErrorLeavesNoAnswerBehind(t *testing.T) {
	l := newLinks(t)
	for range 3 {
		if _, err := l.ByIndex(77); !errors.Is(err, ErrGone) {
			t.Fatal(err)
		}
		if got := l.named(t, "lo"); got.Name != "lo" {
			t.Fatalf("lo is %+v", got)
		}
	}
	// As when an answer was given up half-way.
	_, err := l.conn.Send(question(t))
	must(t, err)
	if _, err := l.ByName("lo"); err == nil {
		t.Error("another's answer is taken")
	}
	if got := l.named(t, "lo"); got.Name != "lo" {
		t.Errorf("then lo is %+v", got)
	}
}

func TestCounters(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link set lo up")
	run(t, "ip address add 192.0.2.1/32 dev lo")
	before, err := l.Counters(1)
	must(t, err)
	send(t, "192.0.2.1:9", 5)
	after, err := l.Counters(1)
	must(t, err)
	want := before
	want.TxPackets, want.RxPackets = before.TxPackets+5, before.RxPackets+5
	want.TxBytes, want.RxBytes = after.TxBytes, after.TxBytes-before.TxBytes+before.RxBytes
	if after != want || after.TxBytes < before.TxBytes+5*14 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestDisableLRO(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	run(t, "ip tuntap add t1 mode tap")
	for _, name := range []string{"v1", "t1", "lo"} {
		must(t, l.DisableLRO(name))
	}
}

// TestWorksWhereItWasOpened: methods are called from threads in whatever
// namespace.
func TestWorksWhereItWasOpened(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	run(t, "ip tuntap add t1 mode tap")
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	if out, err := exec.Command("ip", "link", "show", "v1").CombinedOutput(); err == nil {
		t.Fatalf("the thread is where it was: %s", out)
	}
	v1 := l.named(t, "v1")
	if v1.Driver != "veth" {
		t.Errorf("the driver is %q", v1.Driver)
	}
	must(t, l.DisableLRO("t1"))
	must(t, l.QuietIPv6("v1"))
	s, err := l.IPv6("v1")
	must(t, err)
	if !s.Disabled {
		t.Error("IPv6 is not disabled")
	}
}
