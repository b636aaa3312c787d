package fdbsync

import (
	"context"
	"slices"
	"strings"

	"github.com/shunt-dev/shunt/accel"
)

var _ accel.Checker = (*Syncer)(nil)

// Check says which packet filters of the namespace keep bridges and ports on
// the slow path. It needs neither Provision nor Start.
func (s *Syncer) Check(context.Context) []accel.Finding {
	fw, err := s.firewall()
	if err != nil {
		return []accel.Finding{{
			Check: "firewall", Level: accel.LevelNote, Text: err.Error() + ": every bridge would take the slow path",
			Advice: "run it as root",
		}}
	}
	return fw.findings()
}

// findings puts into words what was found; nothing of it keeps shunt from
// running.
func (f firewall) findings() []accel.Finding {
	found := []accel.Finding{f.brNetfilterFinding()}
	if f.bridge {
		found = append(found, finding("bridge chains", accel.BridgeNetfilter))
	}
	if len(f.devices) > 0 {
		on := finding("netdev chains", accel.PortNetfilter)
		on.Text += ": " + f.deviceNames()
		found = append(found, on)
	}
	return found
}

func (f firewall) brNetfilterFinding() accel.Finding {
	switch {
	case !f.brNetfilter:
		return accel.Finding{Check: "br_netfilter", Level: accel.LevelOK, Text: "it is not there: bridged frames see no IP rules"}
	case f.ip:
		found := finding("br_netfilter", accel.BrNetfilter)
		found.Text += " (whatever bridge-nf-call-iptables says: the kernel does not tell of its changes)"
		return found
	}
	return accel.Finding{
		Check: "br_netfilter", Level: accel.LevelOK,
		Text: "it is there, and no IP chains are: IP headers are checked on the fast path as it does",
	}
}

func finding(check string, r accel.Reason) accel.Finding {
	return accel.Finding{Check: check, Level: accel.LevelNote, Text: r.Text(), Advice: r.Advice()}
}

func (f firewall) deviceNames() string {
	var names []string
	for name := range f.devices {
		if name == "" {
			name = "any device"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
