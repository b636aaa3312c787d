package announce

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

func TestAddresses(t *testing.T) {
	newNamespace(t)
	run(t, "ip link add m1 type veth peer name h1")
	for _, d := range []string{"m1", "h1"} {
		must(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+d+"/disable_ipv6", []byte("0"), 0))
		run(t, "ip link set "+d+" up")
	}
	for _, n := range []string{
		"192.0.2.1 lladdr 52:54:00:12:34:56 nud reachable dev m1",
		"192.0.2.1 lladdr 52:54:00:12:34:56 nud stale dev h1", // of two devices, the same
		"192.0.2.8 lladdr 52:54:00:12:34:56 nud stale dev m1",
		"2001:db8::1 lladdr 52:54:00:12:34:56 nud stale dev m1",
		"192.0.2.2 lladdr 52:54:00:12:34:57 nud permanent dev m1",
		"192.0.2.3 lladdr 52:54:00:12:34:57 nud noarp dev m1",
		"192.0.2.4 lladdr 52:54:00:12:34:57 nud reachable dev m1",
		"192.0.2.4 lladdr 52:54:00:12:34:58 nud reachable dev h1", // of two
	} {
		run(t, "ip neighbour add "+n)
	}
	run(t, "ip neighbour add 192.0.2.5 nud failed dev m1")
	got, err := Addresses()
	must(t, err)
	want := map[accel.MAC][]netip.Addr{alice: {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.8"), netip.MustParseAddr("2001:db8::1")}}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%v", got)
	}
}

func TestOldNeighbour(t *testing.T) {
	for age, want := range map[time.Duration]bool{0: true, oldestNeighbour: true, oldestNeighbour + time.Second: false} {
		if got := (neighbour{state: unix.NUD_STALE, confirmed: age}).isFresh(); got != want {
			t.Errorf("after %v: %v", age, got)
		}
	}
}

// FuzzDecodeNeighbour holds that whatever counts as an entry has both addresses.
func FuzzDecodeNeighbour(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 8, 0, 1, 0, 192, 0, 2, 1, 10, 0, 2, 0, 2, 0, 0, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		n, ok := decodeNeighbour(data)
		if ok && (!n.addr.IsValid() || n.mac == accel.MAC{} || n.confirmed < 0) {
			t.Errorf("an entry that cannot be: %+v", n)
		}
	})
}
