package accel

import (
	"fmt"
	"os"
	"syscall"
)

// Namespace is a network namespace.
type Namespace struct {
	// Inode is the namespace's inode number: its identity while it lives.
	Inode uint64
}

// CurrentNamespace returns the namespace of the calling process.
func CurrentNamespace() (Namespace, error) {
	info, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return Namespace{}, fmt.Errorf("find the network namespace: %w", err)
	}
	return Namespace{Inode: info.Sys().(*syscall.Stat_t).Ino}, nil
}
