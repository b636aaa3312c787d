package tcprog

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

const mostRefused = 16 // MOST_REFUSED in bpf/shunt.c

// Of two flows with one place the one that has it keeps it for a while, or each frame of
// theirs would be decided anew; and gives it up in the end.
func TestAFlowKeepsItsPlaceForAWhile(t *testing.T) {
	l := newLab(t, "auto")
	br := l.open()
	l.stayOnOneCPU()
	rival := bob
	for n := uint32(0); rival == bob || flowIndex(alice, rival) != flowIndex(alice, bob); n++ {
		binary.BigEndian.PutUint32(rival[2:], n)
	}
	l.learn(accel.Station{StationKey: key(rival), Port: otherPort})
	l.expect(frame(alice, bob), accel.Fast)
	for n := 1; n <= mostRefused; n++ {
		l.expect(frame(alice, rival), accel.Fast)
		want := bob
		if n == mostRefused {
			want = rival
		}
		if got := l.holder(br, flowIndex(alice, bob)); got != want {
			t.Fatalf("behind %d frames of the other flow the place is that of %v, want %v", n, got, want)
		}
	}
	l.must(l.d.Revoke(testBridge, []accel.StationKey{key(rival)}))
	l.expect(frame(alice, bob), accel.Fast)
	if got := l.holder(br, flowIndex(alice, bob)); got != bob {
		t.Errorf("a flow that has ended keeps the place from %v for %v", bob, got)
	}
}

// stayOnOneCPU lets the programs run where the flows are looked for.
func (l *lab) stayOnOneCPU() {
	l.t.Helper()
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(0)
	l.must(unix.SchedSetaffinity(0, &set))
}

// holder is the destination of the flow that has a place on the first CPU.
func (l *lab) holder(br *bridge, place uint64) (m accel.MAC) {
	l.t.Helper()
	var head [8]byte
	binary.LittleEndian.PutUint64(head[:], l.flows(br)[place].Head)
	copy(m[:], head[:])
	return m
}
