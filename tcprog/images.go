package tcprog

import (
	"fmt"
	"hash/maphash"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// What is read live of a port and of a bridge, at one moment: see bpf/images.h.
type (
	portImage   = shuntPortImage
	bridgeImage = shuntBridgeImage
)

// images are those of a bridge's ports, by slot, mapped into the daemon.
type images struct {
	page []byte
	of   []portImage
}

// mapImages returns nil unless the kernel's state is read live.
func mapImages(m *ebpf.Map, mode uint32) (*images, error) {
	if mode != modeLive {
		return nil, nil
	}
	page, err := memoryOf(m)
	if err != nil {
		return nil, fmt.Errorf("map what is known of the ports: %w", err)
	}
	return &images{page: page, of: unsafe.Slice((*portImage)(unsafe.Pointer(&page[0])), maxSlots)}, nil
}

func (i *images) unmap() error {
	if i == nil {
		return nil
	}
	return unix.Munmap(i.page)
}

// storeImage stores the port's state as it was at the version of the record. A record
// for a version that nobody remembers is true for nothing.
func (br *bridge) storeImage(slot uint32, rec *shuntPort) {
	if br.images == nil {
		return
	}
	image, known := imageOf[portImage](br.changes, rec.Seen)
	if !known {
		rec.Seen = void
	}
	br.images.of[slot] = image
}

// setGate shuts the gate, or prepares it so that renew opens it.
func (br *bridge) setGate(g accel.Gate) {
	var image bridgeImage
	if br.images != nil {
		var known bool
		if image, known = imageOf[bridgeImage](br.changes, g.Seen); !known {
			g.Seen = void
		}
	}
	br.control.setGate(g, image)
}

// past remembers what the last versions stood for: the daemon looks at a device long
// before it stores what it then learned of it, and may look again in between.
type past struct {
	seed     maphash.Seed
	new, old map[uint64]any // images, by version
}

// pastVersions is how many are remembered at least: all ports of some bridges.
const pastVersions = 1 << 13

// keep returns the version that stands for the image.
func (p *past) keep(image any) (version uint64) {
	if p.new == nil {
		p.seed, p.new = maphash.MakeSeed(), make(map[uint64]any)
	}
	version = maphash.Comparable(p.seed, image)
	if p.new[version] == nil && len(p.new) >= pastVersions {
		p.new, p.old = make(map[uint64]any), p.new
	}
	p.new[version] = image
	return version
}

func (p *past) find(version uint64) any {
	if image := p.new[version]; image != nil {
		return image
	}
	return p.old[version]
}
