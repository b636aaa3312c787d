package swaplab

import (
	"errors"
	"fmt"

	"github.com/shunt-dev/shunt/integration/lab"
)

// Kind is what a member is.
type Kind string

// The kinds of members. A macvlan is one in passthru mode on a veth, as the only
// one of a NIC would be; a tap has a pump that carries its frames outside.
const (
	Veth    Kind = "veth"
	Tap     Kind = "tap"
	Macvlan Kind = "macvlan"
)

// Member is a NIC of the host, a port of nothing, and its far end outside.
type Member struct {
	Name string // of the device
	Kind Kind
	Far  string // of the switch's port

	l       *Lab
	outside *lab.Lab
	pump    *pump // of a tap
}

// AddMember makes a member, up, and its far end.
func (l *Lab) AddMember(name string, kind Kind) (*Member, error) {
	return l.AddMemberTo(l.Outside, name, kind)
}

// AddMemberTo is AddMember with the far end at another switch.
func (l *Lab) AddMemberTo(outside *lab.Lab, name string, kind Kind) (*Member, error) {
	m := &Member{Name: name, Kind: kind, Far: "x" + name, l: l, outside: outside}
	l.members = append(l.members, m)
	return m, m.Make()
}

// Outside is the switch that the far end belongs to.
func (m *Member) Outside() *lab.Lab { return m.outside }

// Lower is the device that the host's cable is in: the member itself, or what a
// macvlan sits on.
func (m *Member) Lower() string {
	if m.Kind == Macvlan {
		return "l" + m.Name
	}
	return m.Name
}

// devices are those of the host that frames of the member pass.
func (m *Member) devices() []string {
	if m.Kind == Macvlan {
		return []string{m.Lower(), m.Name}
	}
	return []string{m.Name}
}

// Make makes the member and its far end, again after Delete. Both ends of a cable
// get the same ifindex, a new one each time: the kernel then tells of their carrier
// as it does of a NIC's, late, and not at once as it does of what it sees to be half
// a pair (net/core/link_watch.c: linkwatch_urgent_event).
func (m *Member) Make() (err error) {
	host, outside := m.l.Host.Bridge, m.outside.Bridge
	if m.Kind == Tap {
		if m.pump, err = newPump(host, m.Name, outside, m.Far); err != nil {
			return err
		}
	} else if err := host.Run(fmt.Sprintf("ip link add %s index %d type veth peer name %s index %d netns %s",
		m.Lower(), m.l.newIndex(), m.Far, m.l.lastIndex, outside.Path())); err != nil {
		return err
	}
	lines := []string{"ip link set " + m.Lower() + " up"}
	if m.Kind == Macvlan {
		lines = append(lines, "ip link add link "+m.Lower()+" name "+m.Name+" type macvlan mode passthru",
			"ip link set "+m.Name+" up")
	}
	for _, line := range lines {
		if err := host.Run(line); err != nil {
			return err
		}
	}
	return m.PlugIn()
}

// PlugIn makes the far end a port of the switch, and waits until it forwards.
func (m *Member) PlugIn() error {
	if err := m.outside.Bridge.Run("ip link set " + m.Far + " master " + lab.BridgeName + " up"); err != nil {
		return err
	}
	return m.outside.AwaitForwarding()
}

// Delete deletes the member and its far end. It is no error if they are gone.
func (m *Member) Delete() error {
	if m.Kind == Tap {
		return m.pump.close()
	}
	err := m.l.Host.Bridge.Run("ip link del " + m.Lower())
	if _, gone := m.l.Host.Bridge.Counters(m.Lower()); gone != nil {
		return nil
	}
	return err
}

// SetCarrier pulls the cable out of the member, or puts it in again and waits until
// the switch forwards there, and leaves the member's own settings alone. A tap's
// carrier is its reader's to set.
func (m *Member) SetCarrier(on bool) error {
	if m.Kind == Tap {
		return m.pump.setCarrier(on)
	}
	state := map[bool]string{true: "up", false: "down"}[on]
	if err := m.outside.Bridge.Run("ip link set " + m.Far + " " + state); err != nil || !on {
		return err
	}
	return m.outside.AwaitForwarding()
}

// Overflowed returns how many frames a tap dropped because the pump was late: a
// loss that the lab made.
func (m *Member) Overflowed() (uint64, error) {
	if m.Kind != Tap {
		return 0, nil
	}
	in, err := m.l.Host.Bridge.Counters(m.Name)
	out, failed := m.outside.Bridge.Counters(m.Far)
	return in.TxDropped + out.TxDropped, errors.Join(err, failed)
}
