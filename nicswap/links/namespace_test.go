package links

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newLinks puts the test on a thread in a network namespace of its own, which
// ends with the test, and opens it.
func newLinks(t *testing.T) *Links {
	t.Helper()
	runtime.LockOSThread() // and never unlock it: the thread must not be used again
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace: %v (the tests need root)", err)
	}
	l, err := Open()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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

func (l *Links) named(t *testing.T, name string) Link {
	t.Helper()
	link, err := l.ByName(name)
	must(t, err)
	return link
}

// port makes a bridge br0 with the port p1, whose other end is h1, and returns
// the port's ifindex.
func (l *Links) port(t *testing.T) int {
	t.Helper()
	run(t, "ip link add br0 type bridge")
	run(t, "ip link add p1 type veth peer name h1")
	run(t, "ip link set p1 master br0")
	return l.named(t, "p1").Ifindex
}

// otherNamespace makes another network namespace, and returns its file's path.
func otherNamespace(t *testing.T) string {
	t.Helper()
	opened := make(chan *os.File)
	go func() {
		runtime.LockOSThread()
		var file *os.File
		if err := unix.Unshare(unix.CLONE_NEWNET); err == nil {
			file, _ = os.Open("/proc/thread-self/ns/net")
		}
		opened <- file
	}()
	file := <-opened
	if file == nil {
		t.Fatal("make another network namespace")
	}
	t.Cleanup(func() { file.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd())
}
