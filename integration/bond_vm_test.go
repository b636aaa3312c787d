//go:build vm

package integration

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

// What a stable port does when its active member loses the carrier, beside what a
// bond in active-backup mode does. One table; nothing is asserted on the times.
func TestCarrierLossBesideABond(t *testing.T) {
	pace := lab.Pace{PerSecond: 1_000, Gentle: true} // an emulated machine
	table := fmt.Sprintf("\nshunt: %v", measureShunt(t, pace))
	for _, miimon := range []int{1, 100} {
		table += fmt.Sprintf("bond, miimon %d: %v", miimon, measureBond(t, miimon, pace))
	}
	t.Log(table)
}

func measureBond(t *testing.T, miimon int, pace lab.Pace) lossTimes {
	x := newSwapLab(t, rigOptions{})
	for _, line := range []string{fmt.Sprintf("ip link add bond0 type bond mode active-backup miimon %d", miimon), "ip link set bond0 up"} {
		x.must(x.l.Host.Bridge.Run(line))
	}
	for n := range 2 {
		m := x.addMember(n+1, swaplab.Veth)
		x.must(x.l.Host.Bridge.Run("ip link set " + m.Name + " down"))
		x.must(x.l.Host.Bridge.Run("ip link set " + m.Name + " master bond0"))
	}
	x.must(x.l.Host.Bridge.Run("ip link set bond0 master " + lab.BridgeName))
	restored := func(active, standby string) {
		await(t, "both of the bond's devices have a carrier", func() bool {
			return x.bonded(active).State == netlink.BondStateActive && x.bonded(standby).MiiStatus == netlink.BondLinkUp
		})
	}
	restored("m1", "m2")
	x.must(x.l.Host.AwaitForwarding())
	return x.loseCarriers(pace, "m1", restored)
}

// bonded is what the bond says of one of its devices.
func (x *swapRig) bonded(device string) (slave netlink.BondSlave) {
	x.t.Helper()
	x.must(x.l.Host.Bridge.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		s, ok := link.Attrs().Slave.(*netlink.BondSlave)
		if !ok {
			return fmt.Errorf("%s is no part of a bond", device)
		}
		slave = *s
		return nil
	}))
	return slave
}
