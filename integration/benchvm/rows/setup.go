package rows

import (
	"fmt"
	"strings"
)

// bigTable gives shunt room for more entries than it takes by default.
const bigTable = "bridges: [br0]\nmax_stations: 262144\n"

// straight lets shunt send frames to the far ends of ports.
const straight = "bridges: [{name: br0, redirect: peer}]\n"

// bridgeOf makes a bridge with one port, beside which a stable port is to come.
func bridgeOf(port string) string { return fmt.Sprintf(halfBridge, port) }

// stablePort is shunt's configuration for one whose only member is that.
func stablePort(member string) string {
	return fmt.Sprintf("bridges: [br0]\ngroups:\n  - name: bench\n    bridge: br0\n    members: [%s]\n", member)
}

// ports makes so many more ports, of devices without traffic.
func ports(n int) string {
	return fmt.Sprintf(`modprobe dummy
for n in $(seq %d); do
	echo "link add d$n type dummy"
	echo "link set d$n master br0 up"
done | ip -batch -
`, n)
}

func noPorts(n int) string {
	return fmt.Sprintf("for n in $(seq %d); do echo link del d$n; done | ip -batch -\n", n)
}

// Of returns the row with that key, or nil.
func Of(key string) *Row {
	for i := range All {
		if All[i].Key == key {
			return &All[i]
		}
	}
	return nil
}

// Base is the row whose count is subtracted from that of r.
func (r Row) Base() *Row {
	for i, other := range All {
		if r.Over == other.Key || r.Over == "" && other.Program == Drop && other.Frame == r.baseFrame() {
			return &All[i]
		}
	}
	return nil
}

// baseFrame is the frame that is dropped to compare with. All kinds without a tag
// cost the same up to the port.
func (r Row) baseFrame() Frame {
	if r.Frame == Length {
		return Plain
	}
	return r.Frame
}

// Floor is the constant redirect of the same frame.
func (r Row) Floor() *Row {
	for i, other := range All {
		if other.Program == Redirect && other.Frame == r.baseFrame() {
			return &All[i]
		}
	}
	return nil
}

// Bridge is what the kernel's bridge alone does with the same frames.
func (r Row) Bridge() *Row {
	for i, other := range All {
		if other.isBridge() && other.Setup == r.Setup && other.Flows == r.Flows && other.Frame == r.Frame {
			return &All[i]
		}
	}
	return Of("bridge")
}

func (r Row) isBridge() bool {
	return strings.Contains(r.Setup, plainBridge) && r.Setup != nftBridge && r.Program == "" && r.Daemon == ""
}
