package nicswap

import (
	"context"
	"net/netip"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/nicswap/announce"
	"github.com/shunt-dev/shunt/nicswap/links"
)

// Wires is what nicswap needs of the data plane; tcprog serves it. Ports and
// members are named by ifindex. A wire is pinned: it carries traffic without the
// daemon, and what an earlier daemon left is taken over as it is.
type Wires interface {
	// OpenWire puts the programs on a stable port, which may not be in its bridge
	// yet, or takes over those that are there, with members, active one and drain.
	// Members that are gone are forgotten.
	OpenWire(port int) (accel.WireState, error)
	// CloseWire takes all programs off the stable port and its members.
	CloseWire(port int) error
	// AddMember puts the program on a member, which then carries nothing until it
	// is made active: what arrives on it is dropped and counted. Adding one that is
	// there exchanges nothing. The error is syscall.ENODEV where it is gone.
	AddMember(port, member int) error
	// RemoveMember takes the program off a member that is neither active nor
	// draining. Removing one that is gone is no error.
	RemoveMember(port, member int) error
	// PrepareFlip begins a new generation: from here on the programs remember what
	// the port sends, so that they know it when the outside floods it back.
	PrepareFlip(port int) error
	// Flip makes a member active (0: none) and the one that was active, draining,
	// by one store. It returns the one that drains from then on.
	Flip(port, to int) (from int, err error)
	// Guard makes the programs know the active member and its standby: where the one
	// has lost its carrier they flip to the other by themselves, with the next frame,
	// if the kernel lets them see it. The error is syscall.ENODEV where one is gone;
	// with an error they know nobody.
	Guard(port int, members [2]accel.Guard) error
	// Settle returns when no program acts any more on what they knew before.
	Settle()
	// Members returns who is active and draining now, also if a program made them so.
	// It waits for nothing that takes long.
	Members(port int) (accel.WireNow, error)
	// EndDrain ends the drain, or what PrepareFlip began, if this member is active.
	EndDrain(port, active int) error
	// WireState returns how the port is wired now.
	WireState(port int) (accel.WireState, error)
	// WireCounts returns what the wire's programs counted beside the port's own
	// counters: what they dropped, by reason, and accel.Drained for what they
	// delivered from a draining member.
	WireCounts(port int) (map[accel.Reason]accel.Count, error)
	// Carrier says whether a device is up and has its carrier in this instant, and
	// waits for no lock. The error is errors.ErrUnsupported where the kernel cannot
	// be asked like that.
	Carrier(ifindex int) (bool, error)
	// Foreign says whether programs or filters of somebody else are at the device's
	// tc hooks, which a wire would keep from seeing, or be kept from by.
	Foreign(ifindex int) (bool, error)
}

// Bridges is what nicswap needs to know of the bridges; fdbsync serves it.
type Bridges interface {
	Bridges() []accel.BridgeState
	// FDB returns the mirrored stations of a bridge.
	FDB(bridge string) ([]accel.Station, error)
}

// devices is what nicswap asks of network devices; package links serves it.
// Every method may be called from several goroutines. An error about a device
// that is not there is links.ErrGone.
type devices interface {
	ByName(name string) (links.Link, error)
	ByIndex(ifindex int) (links.Link, error)
	All() ([]links.Link, error)
	HasAddresses(ifindex int) (bool, error)
	Uppers(ifindex int) ([]links.Link, error)
	SetUp(ifindex int, up bool) error
	SetMTU(ifindex, mtu int) error
	SetPromisc(ifindex int, on bool) error
	DisableLRO(name string) error
	// HasCarrier asks the driver; what the kernel tells of a carrier may come later.
	HasCarrier(name string) (bool, error)
	QuietIPv6(name string) error
	IPv6(name string) (links.IPv6, error)
	SetIPv6(name string, s links.IPv6) error
	CreatePort(name string, mac accel.MAC, mtu int) (port, stub links.Link, err error)
	Delete(ifindex int) error
	SetMaster(ifindex, master int) error
	PortSettings(ifindex int) (links.PortSettings, error)
	ApplyPortSettings(ifindex int, s links.PortSettings) error
	Addresses(ifindex int) ([]links.Address, error)
	AddAddress(ifindex int, a links.Address) error
	DeleteAddress(ifindex int, a links.Address) error
	Counters(ifindex int) (links.Counters, error)
	// Subscribe begins to listen. The watch that it returns calls changed for
	// everything that happens from then on, until ctx ends.
	Subscribe() (watch, error)
	Close() error
}

// watch tells of changes of devices until ctx ends.
type watch func(ctx context.Context, changed func(links.Event)) error

// host are the devices of the network namespace.
type host struct{ *links.Links }

func openHost() (devices, announcer, error) {
	l, err := links.Open()
	if err != nil {
		return nil, nil, err
	}
	return host{l}, sender{}, nil
}

// Subscribe begins to listen.
func (h host) Subscribe() (watch, error) {
	w, err := h.Links.Subscribe()
	if err != nil {
		return nil, err
	}
	return w.Run, nil
}

// announcer sends on a member; package announce serves it.
type announcer interface {
	// Send announces the stations, at most perSecond frames a second, and returns
	// how many frames were sent.
	Send(ctx context.Context, ifindex int, stations []announce.Station, perSecond int) (frames int, err error)
	// Probe returns nil once the address has answered over the device.
	Probe(ctx context.Context, ifindex int, from accel.MAC, addr netip.Addr) error
	// Addresses are the known addresses of stations.
	Addresses() (map[accel.MAC][]netip.Addr, error)
}

// sender sends over the network namespace's devices.
type sender struct{}

// Send announces stations.
func (sender) Send(ctx context.Context, ifindex int, stations []announce.Station, perSecond int) (frames int, err error) {
	return announce.Send(ctx, ifindex, stations, perSecond)
}

// Probe asks without a tag.
func (sender) Probe(ctx context.Context, ifindex int, from accel.MAC, addr netip.Addr) error {
	return announce.Probe(ctx, ifindex, from, 0, 0, addr)
}

// Addresses are those that this host has learned.
func (sender) Addresses() (map[accel.MAC][]netip.Addr, error) { return announce.Addresses() }
