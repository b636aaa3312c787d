package announce

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

var (
	theirs  = netip.MustParseAddr("192.0.2.1")
	theirs6 = netip.MustParseAddr("2001:db8::17:1")
)

// answering is an outside that has the addresses.
func answering(t *testing.T) *outside {
	o := newOutside(t)
	o.run("ip address add 192.0.2.1/24 dev far")
	o.run("ip address add 2001:db8::17:1/64 dev far nodad")
	return o
}

func TestProbe(t *testing.T) {
	answering(t)
	m1 := device(t, "m1").Index
	for _, addr := range []netip.Addr{theirs, theirs6, netip.MustParseAddr("::ffff:192.0.2.1")} {
		must(t, Probe(t.Context(), m1, macOf(t, "m1"), 0, 0, addr))
	}
}

// TestProbeIsAnsweredOverThisDevice and no other: that is what is asked.
func TestProbeIsAnsweredOverThisDevice(t *testing.T) {
	answering(t)
	run(t, "ip link add m2 type veth peer name h2")
	run(t, "ip link set m2 up")
	run(t, "ip link set h2 up")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	asked := make(chan error, 1)
	m1, m2, from := device(t, "m1").Index, device(t, "m2").Index, macOf(t, "m1")
	// A socket that was opened on this thread is in its namespace for good.
	s, err := openSocket(m2, unix.ETH_P_ALL)
	must(t, err)
	defer s.Close()
	q := question{from: from, addr: theirs}
	go func() { asked <- s.probe(ctx, q, q.frame()) }()
	must(t, Probe(t.Context(), m1, from, 0, 0, theirs))
	if err := <-asked; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over the other: %v", err)
	}
}

// TestProbeOverStandby: a program at tc drops all that arrives there.
func TestProbeOverStandby(t *testing.T) {
	answering(t)
	m1 := device(t, "m1").Index
	const drop = 2 // TC_ACT_SHOT
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, drop), asm.Return()},
	})
	must(t, err)
	defer program.Close()
	attached, err := link.AttachTCX(link.TCXOptions{Interface: m1, Program: program, Attach: ebpf.AttachTCXIngress})
	must(t, err)
	defer attached.Close()
	for _, addr := range []netip.Addr{theirs, theirs6} {
		must(t, Probe(t.Context(), m1, macOf(t, "m1"), 0, 0, addr))
	}
}

func TestProbeWithoutAnAnswer(t *testing.T) {
	o := answering(t)
	m1, from := device(t, "m1").Index, macOf(t, "m1")
	refused := func(what, addr string, want error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := Probe(ctx, m1, from, 0, 0, netip.MustParseAddr(addr)); !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("nobody has it", "192.0.2.77", context.DeadlineExceeded)
	refused("nobody has it", "2001:db8::17:77", context.DeadlineExceeded)
	o.run("ip link set far down")
	refused("the cable is down", "192.0.2.1", context.DeadlineExceeded)
	refused("the cable is down", "2001:db8::17:1", context.DeadlineExceeded)
	run(t, "ip link set m1 down")
	refused("the device is down", "192.0.2.1", unix.ENETDOWN)
	for _, addr := range []string{"0.0.0.0", "ff02::1", "127.0.0.1"} {
		if err := Probe(t.Context(), m1, from, 0, 0, netip.MustParseAddr(addr)); err == nil {
			t.Errorf("%s is answered", addr)
		}
	}
}

// TestProbeUntilItIsAnswered: the question is asked again, byte for byte the same,
// and an answer in another VLAN, or to another, is none.
func TestProbeUntilItIsAnswered(t *testing.T) {
	m1, far := wire(t)
	from := macOf(t, "m1")
	s, err := openSocket(m1, unix.ETH_P_ALL)
	must(t, err)
	defer s.Close()
	q := question{from: from, tag: 10, addr: theirs}
	done := make(chan error, 1)
	go func() { done <- s.probe(t.Context(), q, insertTag(q.frame(), 10, 0x88a8)) }()

	mac := hex.EncodeToString(from[:])
	want := "ffffffffffff" + mac + "88a8000a" + "0806" + "0001080006040001" + mac + "00000000" + "000000000000" + "c0000201" + zeros(18)
	reply := func(to accel.MAC, addr string) []byte {
		return arp(to, alice, unix.ETH_P_ARP, arpReply, alice, netip.MustParseAddr(addr), to, netip.IPv4Unspecified())
	}
	for _, answer := range [][]byte{
		reply(from, "192.0.2.1"),
		insertTag(reply(from, "192.0.2.1"), 11, 0),
		insertTag(reply(bob, "192.0.2.1"), 10, 0),
		insertTag(reply(from, "192.0.2.2"), 10, 0),
		insertTag(gratuitousARP(alice, theirs), 10, 0),
		insertTag(reply(from, "192.0.2.1"), 10, 0x88a8),
	} {
		if got := hex.EncodeToString(far.arrived(t)); got != want {
			t.Fatalf("the question is %s, want %s", got, want)
		}
		select {
		case err := <-done:
			t.Fatalf("it is answered: %v", err)
		default:
		}
		must(t, far.send(answer))
	}
	must(t, <-done)
}

// TestSolicitation is byte for byte what RFC 4862 asks for.
func TestSolicitation(t *testing.T) {
	want := withChecksum("3333ff170001" + "525400123456" + "86dd" + "60000000" + "0018" + "3a" + "ff" +
		zeros(16) + "ff02" + zeros(9) + "01ff170001" +
		"87" + "00" + "CCCC" + "00000000" + "20010db8" + zeros(8) + "00170001")
	if got := hex.EncodeToString(solicitation(alice, theirs6)); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

func TestIsAnswered(t *testing.T) {
	q4, q6 := question{from: alice, addr: theirs}, question{from: alice, addr: theirs6}
	reply := arp(alice, bob, unix.ETH_P_ARP, arpReply, bob, theirs, alice, netip.IPv4Unspecified())
	advert := unsolicitedNA(bob, theirs6)
	if !q4.isAnswered(reply, 0) || !q6.isAnswered(advert, 0) {
		t.Fatal("the answers are none")
	}
	tooFar := slices.Clone(advert)
	tooFar[14+7] = 254
	for name, answered := range map[string]bool{
		"an NA for an ARP":        q4.isAnswered(advert, 0),
		"an ARP for an NA":        q6.isAnswered(reply, 0),
		"in a VLAN":               q4.isAnswered(reply, 1),
		"a request":               q4.isAnswered(gratuitousARP(bob, theirs), 0),
		"an NA of another":        q6.isAnswered(unsolicitedNA(bob, netip.MustParseAddr("2001:db8::18:1")), 0),
		"an NA from afar":         q6.isAnswered(tooFar, 0),
		"a solicitation":          q6.isAnswered(solicitation(alice, theirs6), 0),
		"nothing":                 q4.isAnswered(nil, 0),
		"an answer to another":    question{from: bob, addr: theirs}.isAnswered(reply, 0),
		"an answer that is short": q4.isAnswered(reply[:41], 0) || q6.isAnswered(advert[:77], 0),
	} {
		if answered {
			t.Errorf("%s is an answer", name)
		}
	}
}

// FuzzIsAnswered holds that no frame is misread beyond its end, and that whatever
// answers has the address in it.
func FuzzIsAnswered(f *testing.F) {
	f.Add(arp(alice, bob, unix.ETH_P_ARP, arpReply, bob, theirs, alice, netip.IPv4Unspecified()))
	f.Add(unsolicitedNA(bob, theirs6))
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, addr := range []netip.Addr{theirs, theirs6} {
			q := question{from: alice, addr: addr}
			if q.isAnswered(frame, 0) && !strings.Contains(string(frame), string(addr.AsSlice())) {
				t.Errorf("%x answers for %s", frame, addr)
			}
		}
	})
}
