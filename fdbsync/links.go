package fdbsync

import (
	"errors"

	"golang.org/x/sys/unix"
)

// look asks how an interface is now. Its version is read first, so that what
// changes in between is noticed: see [Dataplane].
func look(plane Dataplane, k kernel, links map[int]link, ifindex int) error {
	seen := plane.Version(ifindex)
	l, exists, err := k.link(ifindex)
	if err != nil {
		return err
	}
	if !exists {
		delete(links, ifindex)
		return nil
	}
	l.seen = seen
	if isInFiltering(l, links) {
		if l.vlans, err = k.vlans(ifindex); err != nil {
			return err
		}
	}
	links[ifindex] = l
	return nil
}

// lookAtAll asks for all interfaces. One that was not known before has version
// 0: no program watches it yet.
func lookAtAll(plane Dataplane, k kernel, known map[int]link) (map[int]link, error) {
	seen := make(map[int]uint64, len(known))
	for ifindex := range known {
		seen[ifindex] = plane.Version(ifindex)
	}
	links, err := k.links()
	if err != nil {
		return nil, err
	}
	for ifindex, l := range links {
		l.seen = seen[ifindex]
		if isInFiltering(l, links) {
			if l.vlans, err = k.vlans(ifindex); err != nil {
				return nil, err
			}
		}
		links[ifindex] = l
	}
	return links, nil
}

// isInFiltering says whether the link is a port of a bridge that filters VLANs.
func isInFiltering(l link, links map[int]link) bool {
	return l.port.isPort && links[l.master].bridge.vlanFiltering
}

// isAboutAbsent says whether an error is of the kind that comes of asking for a
// device, an entry or a program that is gone by now.
func isAboutAbsent(err error) bool {
	for _, errno := range []error{unix.ENODEV, unix.ENOENT, unix.ESRCH, unix.ENXIO, unix.ENOLINK} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
