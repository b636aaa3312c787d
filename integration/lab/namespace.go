// Package lab builds small networks in network namespaces: a bridge, hosts
// behind its ports, and streams of numbered frames between them. The tests and
// the demo stand on it. It needs root and nothing else; namespaces have no name
// and go with the process that made them.
package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace, held by a descriptor.
type Namespace struct {
	file *os.File
}

// NewNamespace makes a network namespace without IPv6, so that no frame is sent
// that nobody asked for, and with its loopback device up.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w (it needs root)", err)
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		n.file = file
		return noIPv6()
	})
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// thisNamespace is that of the process.
func thisNamespace() (*Namespace, error) {
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	return &Namespace{file}, nil
}

// noIPv6 turns IPv6 off for the devices to come; a kernel without it has no such
// file.
func noIPv6() error {
	for _, which := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// onThread runs f on a thread of its own, which ends with it: whatever f did to
// the thread is gone.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- f()
	}()
	return <-result
}

// Do runs f on a thread in the namespace. What f opens there stays there.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// Start starts the command in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Run runs a command line in the namespace: words with blanks between them, no
// shell.
func (n *Namespace) Run(line string) error {
	words := strings.Fields(line)
	cmd := exec.Command(words[0], words[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// WriteSys writes a file below /sys that belongs to a device of the namespace: a
// mount of sysfs shows the namespace of who mounted it.
func (n *Namespace) WriteSys(path, value string) error {
	return n.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
			return fmt.Errorf("mount sysfs: %w", err)
		}
		return os.WriteFile(path, []byte(value), 0)
	})
}

// Dial connects to an address as the namespace sees it. A socket stays in the namespace
// where it was made.
func (n *Namespace) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Path is the namespace's file, for programs that take one.
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Close lets go of the namespace. The kernel removes it, and the devices in it,
// when no process is in it any more.
func (n *Namespace) Close() error {
	if n == nil || n.file == nil {
		return nil
	}
	return n.file.Close()
}

// Inode is the number of the namespace.
func (n *Namespace) Inode() (uint64, error) {
	var stat unix.Stat_t
	err := unix.Fstat(int(n.file.Fd()), &stat)
	return stat.Ino, err
}
