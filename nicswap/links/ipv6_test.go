package links

import (
	"os"
	"testing"
)

// TestQuietIPv6: what is quiet has no address, also when it comes up, and gets
// one again when it is set back.
func TestQuietIPv6(t *testing.T) {
	l := newLinks(t)
	run(t, "ip link add v1 type veth peer name v2")
	run(t, "ip link set v2 up")
	run(t, "ip link set v1 up")
	before, err := l.IPv6("v1")
	must(t, err)
	if before.Disabled || before.AddrGenMode == addrGenModeNone {
		t.Fatalf("at first it is %+v", before)
	}
	if !hasLinkLocal(t, l, "v1") {
		t.Fatal("at first it has no address")
	}
	must(t, l.QuietIPv6("v1"))
	must(t, l.QuietIPv6("v1")) // again
	run(t, "ip link set v1 down")
	run(t, "ip link set v1 up")
	if hasLinkLocal(t, l, "v1") {
		t.Error("it has an address")
	}
	// The thread's own, as it is the test's.
	text, err := os.ReadFile("/proc/sys/net/ipv6/conf/v1/disable_ipv6")
	must(t, err)
	if s, err := l.IPv6("v1"); err != nil || !s.Disabled || string(text) != "1\n" {
		t.Errorf("it is %+v (%v), the kernel's setting %q", s, err, text)
	}
	must(t, l.SetIPv6("v1", before))
	if s, err := l.IPv6("v1"); err != nil || s != before {
		t.Errorf("set back it is %+v (%v)", s, err)
	}
	if !hasLinkLocal(t, l, "v1") {
		t.Error("set back it has no address")
	}
}

// TestQuietIPv6WithoutProc: in a container the settings cannot be written.
func TestQuietIPv6WithoutProc(t *testing.T) {
	l := newLinks(t)
	must(t, l.sysctl.Close())
	l.sysctl = nil
	run(t, "ip link add v1 type veth peer name v2")
	run(t, "ip link set v1 up")
	run(t, "ip link set v2 up")
	run(t, "ip address add fe80::17/64 dev v1 nodad")
	must(t, l.QuietIPv6("v1"))
	if hasLinkLocal(t, l, "v1") {
		t.Error("it has an address")
	}
	run(t, "ip link set v1 down")
	run(t, "ip link set v1 up")
	if hasLinkLocal(t, l, "v1") {
		t.Error("it has an address again")
	}
}

func hasLinkLocal(t *testing.T, l *Links, name string) bool {
	t.Helper()
	addresses, err := l.Addresses(l.named(t, name).Ifindex)
	must(t, err)
	for _, a := range addresses {
		if a.Prefix.Addr().IsLinkLocalUnicast() {
			return true
		}
	}
	return false
}
