package fdbsync

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// kernelTable is what bridge(8) says of br0: the port of each address, "" for
// the host's own.
func kernelTable(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("bridge", "-j", "fdb", "show").Output()
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		MAC, Ifname, Master, State string
		Flags                      []string
	}
	if err := json.Unmarshal(out, &rows); err != nil {
		t.Fatal(err)
	}
	table := make(map[string]string)
	for _, r := range rows {
		if r.Master != "br0" || slices.Contains(r.Flags, "self") {
			continue
		}
		if table[r.MAC] = r.Ifname; r.State == "permanent" {
			table[r.MAC] = ""
		}
	}
	return table
}

// awaitEqual waits until the data plane has the kernel's whole table, active,
// and nothing else, and the gate is open.
func (b *bench) awaitEqual(t *testing.T) {
	t.Helper()
	eventually(t, "the map equals the kernel's table", func() bool {
		br, ok := b.plane.named("br0")
		if !ok || br.gate.Reason != accel.Fast {
			return false
		}
		held := make(map[string]string)
		for k, s := range br.stations {
			if !s.Active {
				return false
			}
			if held[k.MAC.String()] = ""; !s.Local {
				held[k.MAC.String()] = br.ports[s.Port].Name
			}
		}
		return maps.Equal(held, kernelTable(t))
	})
}

// entries writes n lines for bridge -batch, behind other ports every turn.
func entries(command string, n, turn int, kind string) string {
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "fdb %s 02:00:00:01:%02x:%02x dev p%d master %s\n", command, i>>8, i&0xff, 1+(i+turn)%3, kind)
	}
	return lines.String()
}

func runBatch(t *testing.T, lines string) {
	t.Helper()
	cmd := exec.Command("bridge", "-batch", "-")
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bridge: %v: %s", err, out)
	}
}

func TestTableIsEqualAfterChurn(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		runBatch(t, entries("add", 2000, 0, "static"))
		b.awaitEqual(t)
		for turn := range 6 {
			runBatch(t, entries("replace", 2000, turn, "dynamic"))
			sh(t, fmt.Sprintf("ip link set p%d type bridge_slave fdb_flush", 1+turn%3))
		}
		b.awaitEqual(t)
	})
}

// TestTableIsEqualAfterLossesWithoutEnd loses events again and again, also while
// the tables are read anew. A later loss makes good what an earlier one cost, so
// that it cannot tell whether a single one is: TestSilenceAfterLoss does.
func TestTableIsEqualAfterLossesWithoutEnd(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge)
		b := newBench(t)
		b.buffer = 1 // the kernel makes it the least that there is
		b.start(t)
		for turn := range 8 {
			runBatch(t, entries("replace", 2000, turn, "dynamic"))
			runBatch(t, entries("del", 700, turn, ""))
		}
		b.awaitEqual(t)
		if !slices.Contains(b.plane.log(), "gate syncing") {
			t.Error("no event was lost: the test proves nothing")
		}
	})
}

// TestSilenceAfterLoss holds the listener against the kernel, which tells of a
// loss once and drops in silence from then on, until its queue was empty: what
// happens after it told must not be lost.
func TestSilenceAfterLoss(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge)
		l, err := newListener(func() (*netlink.Conn, error) { return dialEvents(1, func(err error) { t.Log(err) }) })
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		runBatch(t, entries("add", 500, 0, "static")) // nobody reads
		for err == nil {
			_, err = l.receive()
		}
		if err != errOverrun {
			t.Fatal(err)
		}
		sh(t, "bridge fdb add 02:00:00:00:00:07 dev p1 master static")
		must(t, l.conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		for heard := false; !heard; {
			messages, err := l.receive()
			if err != nil {
				t.Fatalf("after the loss station 7 was not heard of: %v", err)
			}
			for _, m := range messages {
				n, err := decodeNeigh(m.Data) // the bridge may tell of its own addresses
				heard = heard || err == nil && n.station.MAC == at(7, 0).MAC
			}
		}
	})
}

// TestFramesTeachTheTable lets the bridge learn from frames, not from commands.
func TestFramesTeachTheTable(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		b := startBench(t)
		const mac = "02:00:00:00:00:07"
		for _, n := range []string{"1", "2", "3", "1"} {
			sendFrom(t, "h"+n, mac)
			b.awaitStation(t, mac, "p"+n)
		}
		sh(t, "ip link set br0 type bridge fdb_flush")
		b.awaitStation(t, mac, "")
		b.awaitEqual(t)
	})
}

// sendFrom sends a broadcast frame with that source out of a device.
func sendFrom(t *testing.T, device, mac string) {
	t.Helper()
	source, err := accel.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	i, err := net.InterfaceByName(device)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	frame := slices.Concat([]byte{255, 255, 255, 255, 255, 255}, source[:], []byte{0x88, 0xb5}, make([]byte, 46))
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
		t.Fatal(err)
	}
}

// TestAnotherDeviceOfTheSameNumber: a device that takes another's number carries
// no program, however alike it looks when it is asked for.
func TestAnotherDeviceOfTheSameNumber(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		sh(t, testBridge+"ip link del p1; ip link add p1 index 101 type veth peer name h1; ip link set p1 master br0 up; ip link set h1 up")
		b := newBench(t).start(t)
		b.awaitGate(t, accel.Fast)
		b.Syncer.mu.Lock() // it learns of all at once
		sh(t, "ip link del p1; ip link add p1 index 101 type veth peer name h1; ip link set p1 master br0 up; ip link set h1 up")
		b.Syncer.mu.Unlock()
		eventually(t, "p1 is attached anew", func() bool {
			n := 0
			for _, call := range b.plane.log() {
				if call == "attach p1" {
					n++
				}
			}
			return n == 2
		})
		b.awaitEqual(t)
	})
}
