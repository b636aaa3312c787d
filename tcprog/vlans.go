package tcprog

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/shunt-dev/shunt/accel"
)

// The flags of a membership in bpf/maps.h.
const (
	vlanUntagged   = 1
	vlanForwarding = 2
)

// storeVLANs makes the memberships of a slot those that are wanted. Nobody reads
// them meanwhile: the record of the slot does not say that it may be used.
func (br *bridge) storeVLANs(slot uint32, have, want accel.VLANs) error {
	if have == want {
		return nil
	}
	vlans := br.maps[shuntMapVlans]
	old := make(map[uint16]bool)
	for v := range have.All() {
		old[v.VID] = true
	}
	for v := range want.All() {
		delete(old, v.VID)
		if err := vlans.Update(shuntVlanKey{Slot: uint16(slot), Vid: v.VID}, flagsOf(v), ebpf.UpdateAny); err != nil {
			return fmt.Errorf("store VLAN %d: %w", v.VID, err)
		}
	}
	for vid := range old {
		err := vlans.Delete(shuntVlanKey{Slot: uint16(slot), Vid: vid})
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove VLAN %d: %w", vid, err)
		}
	}
	return nil
}

func flagsOf(v accel.VLAN) (flags uint32) {
	if v.Untagged {
		flags |= vlanUntagged
	}
	if v.Forwarding {
		flags |= vlanForwarding
	}
	return flags
}

// clearVLANs forgets the memberships that an earlier daemon left.
func (br *bridge) clearVLANs() error {
	vlans := br.maps[shuntMapVlans]
	var key shuntVlanKey
	var flags uint32
	var keys []shuntVlanKey
	rows := vlans.Iterate()
	for rows.Next(&key, &flags) {
		keys = append(keys, key)
	}
	errs := []error{rows.Err()}
	for _, key := range keys {
		errs = append(errs, vlans.Delete(key))
	}
	return errors.Join(errs...)
}
