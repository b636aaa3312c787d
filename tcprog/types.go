package tcprog

import (
	"sync"
	"weak"

	"github.com/cilium/ebpf/btf"
)

// kernelTypes are the kernel's own types, by which every program is fitted to it. To
// read them takes longer than to load a program, so a bridge's ports share them; they
// are megabytes, so nobody keeps them when the ports have their programs.
type kernelTypes struct {
	mu   sync.Mutex
	last weak.Pointer[btf.Cache]
}

// get returns the types that were read last, or if the garbage collector has them by
// now some that are read when they are needed.
func (k *kernelTypes) get() *btf.Cache {
	k.mu.Lock()
	defer k.mu.Unlock()
	types := k.last.Value()
	if types == nil {
		types = btf.NewCache()
		k.last = weak.Make(types)
	}
	return types
}
