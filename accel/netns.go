package accel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// namedNamespaces is where ip(8) keeps the names of network namespaces.
const namedNamespaces = "/run/netns"

// namespaceWatch waits for the name of the daemon's network namespace to go.
// The namespace itself lives as long as the daemon does, but once its name is
// gone nobody can reach it, and the daemon would keep it alive for nothing.
type namespaceWatch struct {
	events *os.File
	done   chan struct{}
}

// watchNamespace calls gone with the last name that the process's network
// namespace had in dir, once that name is removed or names another namespace.
// It returns nil when the namespace has no name there.
func watchNamespace(dir string, gone func(name string)) (*namespaceWatch, error) {
	self, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	// Watch first and look then: a name that goes in between is seen.
	events, err := watchDirectory(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	name := nameOf(self, dir)
	if name == "" {
		return nil, events.Close()
	}
	w := &namespaceWatch{events, make(chan struct{})}
	go w.wait(self, dir, name, gone)
	return w, nil
}

// watchDirectory returns a file that has something to read whenever an entry
// of the directory comes or goes. Closing it ends a read.
func watchDirectory(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	const change = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_DELETE_SELF
	if _, err := unix.InotifyAddWatch(fd, dir, change); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

func (w *namespaceWatch) wait(self os.FileInfo, dir, name string, gone func(string)) {
	defer close(w.done)
	// What the events say does not matter: the names are looked at again.
	events := make([]byte, 4096)
	for {
		if _, err := w.events.Read(events); err != nil {
			return
		}
		now := nameOf(self, dir)
		if now == "" {
			gone(name)
			return
		}
		name = now
	}
}

// stop ends the watch and waits for it.
func (w *namespaceWatch) stop() {
	if w == nil {
		return
	}
	w.events.Close()
	<-w.done
}

// nameOf returns a name of the namespace in dir, or "".
func nameOf(namespace os.FileInfo, dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(dir, entry.Name()))
		if err == nil && os.SameFile(info, namespace) {
			return entry.Name()
		}
	}
	return ""
}
