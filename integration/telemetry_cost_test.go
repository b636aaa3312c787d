package integration

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/telemetry/otlptest"
)

var costRounds = flag.Int("telemetry.rounds", 1, "how `often` to compare the cost of a frame with and without telemetry, each time on new bridges")

// lane is a daemon with two stations, and the port program that a frame between
// them meets.
type lane struct {
	l       *lab.Lab
	d       *daemon
	port    int
	program *ebpf.Program
	info    *ebpf.ProgramInfo
	frame   []byte
	runs    uint64
	took    []float64 // ns/frame, of every measurement
}

// newLane makes one, with telemetry to a backend if there is one.
func newLane(t *testing.T, exports bool) *lane {
	t.Helper()
	p := &lane{l: newLab(t, lab.Options{Hosts: 2})}
	if exports {
		r := backend(t, p.l.Bridge)
		p.d = startDaemon(t, p.l)
		expect(t, r, "metrics are sent", func(got otlptest.Received) bool { return len(got.Of("shunt.frames")) > 0 })
	} else {
		forgetBackend(t)
		p.d = startDaemon(t, p.l)
	}
	a, b := hostStation(t, p.l.Hosts[0]), hostStation(t, p.l.Hosts[1])
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	p.d.awaitActive(a.mac, b.mac)
	p.frame = lab.Frame{Source: a.mac, Destination: b.mac, Stream: 1}.Bytes()
	p.find(t, a.port)
	return p
}

func forgetBackend(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
}

// find finds the program at the port.
func (p *lane) find(t *testing.T, port string) {
	t.Helper()
	var rows []accel.PortV1
	p.d.decode(&rows, "ports")
	p.port = rows[slices.IndexFunc(rows, func(r accel.PortV1) bool { return r.Port == port })].Ifindex
	err := p.l.Bridge.Do(func() error {
		attached, err := link.QueryPrograms(link.QueryOptions{Target: p.port, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return err
		}
		if len(attached.Programs) != 1 {
			return fmt.Errorf("%d programs are at %s", len(attached.Programs), port)
		}
		if p.program, err = ebpf.NewProgramFromID(attached.Programs[0].ID); err != nil {
			return err
		}
		p.info, err = p.program.Info()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.program.Close() })
}

// measure runs the program that often on the frame, on one CPU, and takes down what
// one run took.
func (p *lane) measure(times uint32) error {
	return p.l.Bridge.Do(func() error {
		var first unix.CPUSet
		first.Set(0)
		if err := unix.SchedSetaffinity(0, &first); err != nil { // of this thread, which ends with this
			return err
		}
		began := time.Now()
		err := repeat(p.program, p.port, p.frame, times)
		p.took = append(p.took, float64(time.Since(began).Nanoseconds())/float64(times))
		p.runs += uint64(times)
		return err
	})
}

// repeat has the kernel run the program on a frame, which is not forwarded
// (BPF_PROG_TEST_RUN). The device is one of the thread's namespace.
func repeat(program *ebpf.Program, ifindex int, frame []byte, times uint32) error {
	skb := struct { // struct __sk_buff
		_       [40]byte
		ifindex uint32
		_       [148]byte
	}{ifindex: uint32(ifindex)}
	attr := struct { // union bpf_attr
		fd, retval, sizeIn, sizeOut uint32
		dataIn, dataOut             uint64
		repeat, duration            uint32
		contextIn, contextOut       uint32
		context, contextBack        uint64
		_                           [4]uint32
	}{
		fd: uint32(program.FD()), sizeIn: uint32(len(frame)), dataIn: uint64(uintptr(unsafe.Pointer(&frame[0]))),
		repeat: times, contextIn: uint32(unsafe.Sizeof(skb)), context: uint64(uintptr(unsafe.Pointer(&skb))),
	}
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		runtime.KeepAlive(frame)
		runtime.KeepAlive(&skb)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return fmt.Errorf("run the program: %w", errno)
		}
	}
}

// The cost of a frame is the same with telemetry and without: the program is, and
// it takes the same time while everything is exported five times a second. The
// time is told and not judged; a third bridge, without telemetry as the first, tells
// how far two that are alike are apart.
func TestTelemetryCostsNoFrame(t *testing.T) {
	var with, control []float64
	for round := range *costRounds {
		t.Run("round", func(t *testing.T) {
			ratio, alike := compareCosts(t, round)
			with, control = append(with, ratio), append(control, alike)
		})
	}
	t.Logf("with telemetry a frame costs %+.2f %% (median of %d rounds: %s)", median(with), len(with), percents(with))
	t.Logf("and two bridges without are %+.2f %% apart (%s)", median(control), percents(control))
}

// compareCosts returns how much more a frame costs with telemetry than without,
// and on a second bridge without, in percent. Which one is made first, and so where
// in memory, goes round.
func compareCosts(t *testing.T, round int) (with, control float64) {
	const batches, times = 300, 5000
	var three [3]*lane
	for n := range three {
		n = (n + round) % len(three)
		three[n] = newLane(t, n == 1)
	}
	off, on, alike := three[0], three[1], three[2]
	if off.info.Tag != on.info.Tag || off.info.Tag == "" {
		t.Errorf("the program is %s, and with telemetry %s", off.info.Tag, on.info.Tag)
	}
	lanes := three[:]
	before := make(map[*lane]uint64)
	for _, p := range lanes {
		before[p] = p.d.reasons()[accel.Fast]
	}
	for n := range batches {
		for i := range lanes { // none is always behind the same
			p := lanes[(n+i)%len(lanes)]
			if err := p.measure(times); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range lanes {
		if fast := p.d.reasons()[accel.Fast] - before[p]; fast < p.runs*999/1000 {
			t.Errorf("only %d of %d frames were fast: something else was measured", fast, p.runs)
		}
	}
	t.Logf("a frame takes %.1f ns without, %.1f ns with telemetry, %.1f ns without", median(off.took), median(on.took), median(alike.took))
	return dearer(on, off), dearer(alike, off)
}

// dearer says by how many percent a is dearer than b: the median of what every two
// measurements say that were made together.
func dearer(a, b *lane) float64 {
	var ratios []float64
	for n := range a.took {
		ratios = append(ratios, 100*(a.took[n]/b.took[n]-1))
	}
	return median(ratios)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func percents(values []float64) string {
	var list []string
	for _, v := range values {
		list = append(list, fmt.Sprintf("%+.2f", v))
	}
	return strings.Join(list, ", ")
}
