package announce

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

var (
	alice = accel.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	bob   = accel.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x57}
)

// zeros are n bytes in hex.
func zeros(n int) string { return strings.Repeat("00", n) }

// The frames for alice, byte for byte, without tags.
var (
	aliceRARP = "ffffffffffff" + "525400123456" + "8035" + "0001" + "0800" + "06" + "04" + "0003" +
		"525400123456" + "00000000" + "525400123456" + "00000000" + zeros(18)
	aliceARP = "ffffffffffff" + "525400123456" + "0806" + "0001" + "0800" + "06" + "04" + "0001" +
		"525400123456" + "c0000201" + "000000000000" + "c0000201" + zeros(18)
	aliceNA = "333300000001" + "525400123456" + "86dd" + "60000000" + "0020" + "3a" + "ff" +
		"20010db8" + zeros(11) + "01" + "ff02" + zeros(13) + "01" +
		"88" + "00" + "CCCC" + "a0000000" + "20010db8" + zeros(11) + "01" + "0201" + "525400123456"
)

// withChecksum puts in what the sum of all comes to, worked out another way.
func withChecksum(frame string) string {
	data, err := hex.DecodeString(strings.Replace(frame, "CCCC", "0000", 1))
	if err != nil {
		panic(err)
	}
	pseudo := append(append([]byte{}, data[22:54]...), 0, 0, 0, byte(len(data)-54), 0, 0, 0, 58)
	sum := 0
	for i, b := range append(pseudo, data[54:]...) {
		sum += int(b) << (8 * (1 - i%2))
	}
	sum = 0xffff - sum%0xffff
	data[56], data[57] = byte(sum>>8), byte(sum)
	return hex.EncodeToString(data)
}

func TestSend(t *testing.T) {
	m1, far := wire(t)
	stations := []Station{
		{MAC: alice, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1%x")}},
		{MAC: bob, Tag: 10, Addrs: []netip.Addr{{}, netip.MustParseAddr("ff02::1"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::ffff:192.0.2.2")}},
		{MAC: alice, Tag: 4094, TagProtocol: 0x88a8},
	}
	frames, err := Send(t.Context(), m1, stations, 1000)
	must(t, err)
	tagged := func(frame, tag string) string { return frame[:24] + tag + frame[24:] }
	toBob := func(frame string) string {
		return strings.ReplaceAll(strings.ReplaceAll(frame, "525400123456", "525400123457"), "c0000201", "c0000202")
	}
	want := []string{
		aliceRARP, toBob(tagged(aliceRARP, "8100000a")), tagged(aliceRARP, "88a80ffe"),
		aliceARP, withChecksum(aliceNA), toBob(tagged(aliceARP, "8100000a")),
	}
	if frames != len(want) {
		t.Errorf("%d frames were sent", frames)
	}
	for i, w := range want {
		if got := hex.EncodeToString(far.arrived(t)); got != w {
			t.Errorf("frame %d is\n%s, want\n%s", i, got, w)
		}
	}
}

// TestNeighboursBelieveIt: a kernel takes the addresses to be where it is told,
// and a router to be one still.
func TestNeighboursBelieveIt(t *testing.T) {
	o := newOutside(t)
	o.run("ip address add 192.0.2.9/24 dev far")
	o.run("ip address add 2001:db8::9/64 dev far nodad")
	o.run("ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:99 nud stale dev far")
	o.run("ip neighbour add 2001:db8::1 lladdr 02:00:00:00:00:99 nud stale router dev far")
	station := Station{MAC: alice, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	_, err := Send(t.Context(), device(t, "m1").Index, []Station{station}, 1000)
	must(t, err)
	for addr, want := range map[string]string{"192.0.2.1": "lladdr 52:54:00:12:34:56 ", "2001:db8::1": "lladdr 52:54:00:12:34:56 router "} {
		if got := o.run("ip neighbour show dev far to " + addr); !strings.Contains(got, want) {
			t.Errorf("the neighbour of %s is %s", addr, got)
		}
	}
}

// TestSendThroughAFullQueue: the device's queue has room for a few frames only, and
// none is lost.
func TestSendThroughAFullQueue(t *testing.T) {
	m1, far := wire(t)
	run(t, "tc qdisc add dev m1 root tbf rate 2mbit burst 1600 limit 1600")
	var stations []Station
	for i := range 200 {
		stations = append(stations, Station{MAC: accel.MAC{2, 0, 0, 0, 0, byte(i)}})
	}
	frames, err := Send(t.Context(), m1, stations, 1e6)
	must(t, err)
	if frames != len(stations) {
		t.Errorf("%d frames were sent", frames)
	}
	for i := range stations {
		if got := far.arrived(t); got[11] != byte(i) {
			t.Fatalf("frame %d is of %d", i, got[11])
		}
	}
}

func TestSendRefused(t *testing.T) {
	m1, _ := wire(t)
	if _, err := Send(t.Context(), m1, []Station{{MAC: alice}}, 0); err == nil {
		t.Error("at no rate")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := Send(ended, m1, []Station{{MAC: alice}}, 1); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %d, %v", n, err)
	}
	run(t, "ip link set m1 down")
	if n, err := Send(t.Context(), m1, []Station{{MAC: alice}}, 1); n != 0 || !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("over a device that is down: %d, %v", n, err)
	}
	run(t, "ip link del m1")
	if n, err := Send(t.Context(), m1, []Station{{MAC: alice}}, 1); n != 0 || !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) {
		t.Errorf("over a device that is gone: %d, %v", n, err)
	}
}

// fakeClock stands still until it is waited for.
type fakeClock struct {
	at    time.Time
	waits int
	last  time.Duration
	ended error
}

func (c *fakeClock) now() time.Time { return c.at }

func (c *fakeClock) wait(_ context.Context, d time.Duration) error {
	c.at = c.at.Add(d)
	c.waits++
	c.last = d
	return c.ended
}

// TestPace: no more than burst go at once, and then the rate is kept.
func TestPace(t *testing.T) {
	for _, perSecond := range []int{1, 10, 300, 2000, 30000} {
		c := &fakeClock{at: time.Unix(1000, 0)}
		p := newPace(perSecond, c)
		start := c.at
		for i := range 3000 {
			must(t, p.next(t.Context()))
			if i == burst-1 && c.waits > 0 {
				t.Errorf("%d/s: a burst is waited for", perSecond)
			}
			// Integer nanoseconds make it a little faster than was asked for.
			allowed := burst + c.at.Sub(start).Seconds()*float64(perSecond)*1.0001
			if float64(i+1) > allowed {
				t.Fatalf("%d/s: frame %d goes after %v", perSecond, i+1, c.at.Sub(start))
			}
			if float64(i+1)+2*burst < allowed {
				t.Fatalf("%d/s: frame %d goes only after %v", perSecond, i+1, c.at.Sub(start))
			}
		}
		if c.last < leastWait {
			t.Errorf("%d/s: it waits for %v: a busy loop", perSecond, c.last)
		}
		c.at = c.at.Add(time.Hour)
		before := c.waits
		for range burst + 1 {
			must(t, p.next(t.Context()))
		}
		if c.waits == before {
			t.Errorf("%d/s: after an hour more than a burst goes at once", perSecond)
		}
	}
}

func TestFullQueueIsWaitedOut(t *testing.T) {
	c := &fakeClock{at: time.Unix(1000, 0)}
	tries := 0
	full := func([]byte) error {
		if tries++; tries%3 != 0 {
			return unix.ENOBUFS
		}
		return nil
	}
	n, err := send(t.Context(), full, []Station{{MAC: alice}, {MAC: bob}}, newPace(100, c))
	if n != 2 || err != nil || tries != 6 || c.waits != 4 {
		t.Errorf("%d frames, %v, after %d tries and %d waits", n, err, tries, c.waits)
	}
	c.ended = context.Canceled
	always := func([]byte) error { return unix.ENOBUFS }
	if n, err := send(t.Context(), always, []Station{{MAC: alice}}, newPace(100, c)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("when it ends: %d frames, %v", n, err)
	}
}
