package fdbsync

import (
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// Dataplane is what fdbsync needs of the data plane; tcprog serves it. Bridges
// and ports are named by ifindex. No method is called by two goroutines at
// once.
type Dataplane interface {
	// OpenBridge prepares an empty table for the bridge, its gate shut. What an
	// earlier daemon left for this bridge is taken over: programs stay
	// attached, counters go on, stations are forgotten.
	OpenBridge(b accel.Bridge) error
	// CloseBridge shuts the gate, detaches every port and removes all maps and
	// pins of the bridge. Closing a bridge that is not open is no error.
	CloseBridge(bridge int) error
	// Revocation says how changes in the kernel reach the bridge's programs.
	Revocation(bridge int) accel.Revocation
	// Version is a number that changes whenever the kernel changed the device, a
	// port or the bridge itself, where programs can see it; for the bridge it
	// covers the namespace's netfilter hooks too. Read it first, then ask the
	// kernel how the device is and which hooks there are, and hand it back as
	// Seen: what changed in between is noticed by the next frame, which then
	// takes the slow path. 0 for a device that is not watched.
	Version(ifindex int) uint64
	// SetGate opens or shuts the fast path of the bridge; the next frame obeys.
	SetGate(bridge int, g accel.Gate) error
	// Renew lets the fast path live on for d from now; for ever if d is 0.
	// Without it the gate shuts by itself. It has no effect while the gate's
	// reason is not Fast.
	Renew(bridge int, d time.Duration) error
	// AttachPort puts the program on the port's tc ingress and sets the port.
	AttachPort(bridge int, p accel.Port) error
	// SetPort changes what the program knows of an attached port. The error is
	// syscall.ENOENT where it is not attached any more: a wire that is closed
	// takes the program off its stable port.
	SetPort(bridge int, p accel.Port) error
	// DetachPort takes the program off the port; stations that still name the
	// port are dead from then on. Detaching a port that is gone is no error.
	DetachPort(bridge, port int) error
	// Coexist says what other tc programs on the port mean for it: Fast, or
	// PortForeignTC where the port must be left to the kernel.
	Coexist(bridge, port int) (accel.Reason, error)
	// Admit inserts candidates: inactive, and only where no entry exists
	// (BPF_NOEXIST; an entry that exists is left alone). It returns how many
	// did not fit into the map.
	Admit(bridge int, stations []accel.Station) (unmirrored int, err error)
	// Activate makes candidates active, and only those that still exist
	// (BPF_EXIST). It returns those that were revoked meanwhile.
	Activate(bridge int, stations []accel.Station) (lost []accel.StationKey, err error)
	// Revoke removes entries; when it returns, no later frame uses them.
	Revoke(bridge int, keys []accel.StationKey) error
	// Stations begins to read what the map holds: each call of what it returns calls f
	// for the next piece, and says whether there is more. What comes or goes meanwhile
	// may be shown or not.
	Stations(bridge int) (next func(f func(accel.Station)) (more bool, err error))
	// Revocations counts the entries that the program itself revoked since the
	// bridge was opened.
	Revocations(bridge int) (uint64, error)
}
