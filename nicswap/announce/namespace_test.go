package announce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// newNamespace puts the test on a thread in a network namespace of its own, which
// ends with the test, and whose devices send nothing by themselves.
func newNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlock it: the thread must not be used again
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace: %v (the tests need root)", err)
	}
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0))
}

// outside is another network namespace, with the device far in it, which is the
// other end of the test's device m1.
type outside struct {
	file *os.File
	t    *testing.T
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	newNamespace(t)
	opened := make(chan *os.File)
	go func() {
		runtime.LockOSThread()
		var file *os.File
		if err := unix.Unshare(unix.CLONE_NEWNET); err == nil {
			file, _ = os.Open("/proc/thread-self/ns/net")
		}
		opened <- file
	}()
	o := &outside{<-opened, t}
	if o.file == nil {
		t.Fatal("make another network namespace")
	}
	t.Cleanup(func() { o.file.Close() })
	run(t, "ip link add m1 type veth peer name far")
	run(t, fmt.Sprintf("ip link set far netns /proc/%d/fd/%d", os.Getpid(), o.file.Fd()))
	run(t, "ip link set m1 up")
	o.run("ip link set far up")
	awaitRunning(t, "m1")
	return o
}

// run runs a command line in the namespace outside.
func (o *outside) run(line string) string {
	o.t.Helper()
	return run(o.t, fmt.Sprintf("nsenter --net=/proc/%d/fd/%d %s", os.Getpid(), o.file.Fd(), line))
}

// run runs a command line in the test's namespace, and returns what it prints.
func run(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wire makes the devices m1 and h1, the ends of a wire, and returns m1's ifindex
// and a socket that sees every frame that arrives at h1.
func wire(t *testing.T) (ifindex int, far *socket) {
	t.Helper()
	newNamespace(t)
	run(t, "ip link add m1 type veth peer name h1")
	run(t, "ip link set m1 up")
	run(t, "ip link set h1 up")
	awaitRunning(t, "m1")
	far, err := openSocket(device(t, "h1").Index, unix.ETH_P_ALL)
	must(t, err)
	t.Cleanup(func() { far.Close() })
	must(t, unix.SetsockoptInt(int(far.Fd()), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	must(t, unix.SetNonblock(int(far.Fd()), true)) // Fd made it blocking
	return device(t, "m1").Index, far
}

// awaitRunning waits until what is sent through the device is not dropped.
func awaitRunning(t *testing.T, name string) {
	t.Helper()
	l, err := links.Open()
	must(t, err)
	defer l.Close()
	w, err := l.Subscribe()
	must(t, err)
	if now, err := l.ByName(name); err != nil || now.Running {
		must(t, errors.Join(err, w.Close()))
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	running := false
	must(t, w.Run(ctx, func(e links.Event) {
		if running = running || e.Name == name && e.Running; running {
			cancel()
		}
	}))
	if !running {
		t.Fatalf("%s has no carrier", name)
	}
}

func device(t *testing.T, name string) *net.Interface {
	t.Helper()
	d, err := net.InterfaceByName(name)
	must(t, err)
	return d
}

func macOf(t *testing.T, name string) accel.MAC {
	t.Helper()
	return accel.MAC(device(t, name).HardwareAddr)
}

// arrived returns the next frame that arrives, with its tag.
func (s *socket) arrived(t *testing.T) []byte {
	t.Helper()
	raw, err := s.SyscallConn()
	must(t, err)
	b, control := make([]byte, 2000), make([]byte, 100)
	var n, controls int
	var failed error
	must(t, s.SetReadDeadline(time.Now().Add(10*time.Second)))
	err = raw.Read(func(fd uintptr) bool {
		n, controls, _, _, failed = unix.Recvmsg(int(fd), b, control, unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN
	})
	if err != nil || failed != nil {
		t.Fatalf("no frame arrives: %v %v", err, failed)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	must(t, err)
	for _, m := range messages {
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(unsafe.SliceData(m.Data)))
		if m.Header.Type == unix.PACKET_AUXDATA && aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
			tag := binary.BigEndian.AppendUint16(nil, aux.Vlan_tpid)
			tag = binary.BigEndian.AppendUint16(tag, aux.Vlan_tci)
			return append(append(append([]byte{}, b[:12]...), tag...), b[12:n]...)
		}
	}
	return b[:n]
}
