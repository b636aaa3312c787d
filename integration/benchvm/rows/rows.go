// Package rows lists what integration/benchvm measures: for each row of its table
// what stands between the port p1, where frames come in, and the port p2.
package rows

// Frame is a kind of frame.
type Frame string

// The kinds of frames, 60 bytes each; a tag is 4 bytes more.
const (
	Plain  Frame = "plain"  // EtherType 0x88b5, which nobody listens to
	Tagged Frame = "tagged" // the same in VLAN 10
	IP     Frame = "IPv4"   // UDP
	Length Frame = "802.3"  // a length in place of the EtherType
)

// Program is one that the benchmark itself puts at the ingress of p1: at tcx, or at
// clsact on a kernel without.
type Program string

// The programs, of one or two statements each.
const (
	Drop         Program = "drop"
	Redirect     Program = "redirect"      // to p2
	RedirectPeer Program = "redirect_peer" // to the far end of p2
	Pass         Program = "pass"          // to whatever is behind the program
)

// Daemon is how the shunt that runs notices what the kernel changes; "" is none.
type Daemon string

// The ways of noticing. shunt itself chooses Live, where it finds one of the kernel's
// functions traced by as many others as there is room for.
const (
	Traced Daemon = "traced"
	Live   Daemon = "live"
)

// Row is what stands between the ports.
type Row struct {
	Key   string // on the command line
	Group string // heading in the table
	Name  string // in the table
	Frame Frame
	// Back is what host 2 answers with, so that it is learned; "" is Frame.
	Back Frame
	// Setup and Undo are shell commands.
	Setup, Undo string
	Program     Program
	Daemon      Daemon
	Config      string // shunt's; "" names the bridge and nothing else
	Off         bool   // shunt runs, its fast path is off
	Refusal     string // what shunt ends with where the kernel cannot do what Config asks for
	Datapath    bool   // Open vSwitch's
	Stations    int    // behind p2; 0 is 1
	Flows       int    // to so many of them in turn; 0 is 1
	// Over is the row from which this one is told apart; "" is Drop for the frame.
	Over string
	// Slow rows are not measured unless they are asked for.
	Slow bool
	// Guarantees are those in force, where shunt runs.
	Guarantees string
}

// Result is what was measured.
type Result struct {
	Row string `json:"row"`
	// Count is the median of the instructions for one frame, nothing subtracted.
	Count float64 `json:"count"`
}

// IsFast says whether the row is shunt's fast path.
func (r Row) IsFast() bool { return r.Daemon != "" && r.Over == "" }

// What rows are set up with, in the terms of ip(8), bridge(8), tc(8) and nft(8).
const (
	plainBridge = `ip link add br0 type bridge mcast_snooping 0
ip link set p1 master br0
ip link set p2 master br0
ip link set br0 up
`
	filtering = plainBridge + `ip link set br0 type bridge vlan_filtering 1 vlan_default_pvid 0
`
	untaggedToTagged = filtering + `bridge vlan add dev p1 vid 10 pvid untagged
bridge vlan add dev p2 vid 10
`
	taggedToTagged = filtering + `bridge vlan add dev p1 vid 10
bridge vlan add dev p2 vid 10
`
	untaggedBoth = filtering + `bridge vlan add dev p1 vid 10 pvid untagged
bridge vlan add dev p2 vid 10 pvid untagged
`
	noBridge = `ip link del br0
`
	netfilter   = "modprobe br_netfilter\n"
	noNetfilter = "rmmod br_netfilter\n"

	halfBridge = `ip link add br0 type bridge mcast_snooping 0
ip link set %s master br0
ip link set br0 up
`
	// A wire holds without the daemon; its programs go some time after their pins.
	noWire = `ip link del bench
rm -r /sys/fs/bpf/shunt
for port in p1 p2; do tc qdisc del dev $port clsact 2>&1 || true; done
sleep 2
`
	flower = `tc qdisc add dev p1 clsact
tc filter add dev p1 ingress flower dst_mac 02:00:00:00:00:02 action mirred egress redirect dev p2
`
	nftForward = `nft add table netdev bench
nft add chain netdev bench in '{ type filter hook ingress device p1 priority 0; }'
nft add rule netdev bench in ether daddr 02:00:00:00:00:02 fwd to p2
`
	nftBridge = plainBridge + `nft add table bridge bench
nft add chain bridge bench forward '{ type filter hook forward priority 0; }'
nft add rule bridge bench forward ether daddr 02:00:00:00:00:02 accept
`
)

// The guarantees of docs/guarantees.md, in short.
const (
	all         = "all: what changes in the kernel voids flows (fexit, tracepoints)"
	allStraight = all + ", order kept"
	allLive     = "all: state read with every frame, entries revoked (tracepoints)"
	allIP       = all + ", IP headers checked"
	noneNew     = "all; these frames belong to the bridge"
	ofTheOff    = "the fast path is off"
)

const (
	untagged = "No VLANs, untagged"
	vlan     = "VLAN filtering"
	ip       = "IPv4, br_netfilter loaded without rules"
	wire     = "A stable port and its member"
	up       = "Frames that are passed up, over the bridge alone"
	scale    = "Scale"
)

// All are the rows in the order of the table.
var All = []Row{
	{Key: "drop", Group: untagged, Name: "drop at the port (is subtracted)", Frame: Plain, Program: Drop},
	{Key: "floor", Group: untagged, Name: "constant redirect: the floor", Frame: Plain, Program: Redirect},
	{Key: "peer", Group: untagged, Name: "constant redirect_peer", Frame: Plain, Program: RedirectPeer},
	{Key: "shunt", Group: untagged, Name: "shunt", Frame: Plain, Setup: plainBridge, Undo: noBridge, Daemon: Traced, Guarantees: all},
	{Key: "shunt-live", Group: untagged, Name: "shunt, live reads", Frame: Plain, Setup: plainBridge, Undo: noBridge, Daemon: Live, Guarantees: allLive},
	{Key: "shunt-peer", Group: untagged, Name: "shunt, redirect_peer", Frame: Plain, Setup: plainBridge, Undo: noBridge, Daemon: Traced, Config: straight, Refusal: "straight to the far end needs", Guarantees: allStraight},
	{Key: "bridge", Group: untagged, Name: "the kernel's bridge", Frame: Plain, Setup: plainBridge, Undo: noBridge},
	{Key: "flower", Group: untagged, Name: "tc flower, one rule", Frame: Plain, Setup: flower, Undo: "tc qdisc del dev p1 clsact\n"},
	{Key: "nft-fwd", Group: untagged, Name: "nft netdev ingress, one rule, fwd", Frame: Plain, Setup: nftForward, Undo: "nft delete table netdev bench\n"},
	{Key: "nft-bridge", Group: untagged, Name: "the bridge with one nft rule", Frame: Plain, Setup: nftBridge, Undo: noBridge + "nft delete table bridge bench\n"},
	{Key: "ovs", Group: untagged, Name: "Open vSwitch's datapath, one flow", Frame: Plain, Setup: "modprobe openvswitch\n", Datapath: true},

	{Key: "drop-tagged", Group: vlan, Name: "drop at the port, tagged (is subtracted)", Frame: Tagged, Program: Drop},
	{Key: "floor-tagged", Group: vlan, Name: "constant redirect, tagged", Frame: Tagged, Program: Redirect},
	{Key: "shunt-tagged", Group: vlan, Name: "shunt, tagged to tagged", Frame: Tagged, Setup: taggedToTagged, Undo: noBridge, Daemon: Traced, Guarantees: all},
	{Key: "shunt-push", Group: vlan, Name: "shunt, untagged to tagged", Frame: Plain, Back: Tagged, Setup: untaggedToTagged, Undo: noBridge, Daemon: Traced, Guarantees: all},
	{Key: "shunt-untagged", Group: vlan, Name: "shunt, untagged to untagged", Frame: Plain, Setup: untaggedBoth, Undo: noBridge, Daemon: Traced, Guarantees: all},
	{Key: "bridge-tagged", Group: vlan, Name: "the kernel's bridge, tagged to tagged", Frame: Tagged, Setup: taggedToTagged, Undo: noBridge},
	{Key: "bridge-push", Group: vlan, Name: "the kernel's bridge, untagged to tagged", Frame: Plain, Back: Tagged, Setup: untaggedToTagged, Undo: noBridge},
	{Key: "bridge-untagged", Group: vlan, Name: "the kernel's bridge, untagged", Frame: Plain, Setup: untaggedBoth, Undo: noBridge},

	{Key: "drop-ip", Group: ip, Name: "drop at the port (is subtracted)", Frame: IP, Program: Drop},
	{Key: "floor-ip", Group: ip, Name: "constant redirect", Frame: IP, Program: Redirect},
	{Key: "shunt-ip", Group: ip, Name: "shunt, IP headers checked", Frame: IP, Setup: netfilter + plainBridge, Undo: noBridge + noNetfilter, Daemon: Traced, Guarantees: allIP},
	{Key: "bridge-ip", Group: ip, Name: "the kernel's bridge", Frame: IP, Setup: netfilter + plainBridge, Undo: noBridge + noNetfilter},

	{Key: "wire-out", Group: wire, Name: "shunt, port to stable port's member", Frame: Plain, Setup: bridgeOf("p1"), Undo: noWire + noBridge, Daemon: Traced, Config: stablePort("p2"), Guarantees: all},
	{Key: "wire-in", Group: wire, Name: "shunt, member to port", Frame: Plain, Setup: bridgeOf("p2"), Undo: noWire + noBridge, Daemon: Traced, Config: stablePort("p1"), Guarantees: all},

	{Key: "pass", Group: up, Name: "a program that passes every frame", Frame: Plain, Setup: plainBridge, Undo: noBridge, Program: Pass, Over: "bridge"},
	{Key: "off", Group: up, Name: "shunt, the fast path off", Frame: Plain, Setup: plainBridge, Undo: noBridge, Daemon: Traced, Off: true, Over: "bridge", Guarantees: ofTheOff},
	{Key: "bridge-length", Group: up, Name: "the kernel's bridge, 802.3 length", Frame: Length, Setup: plainBridge, Undo: noBridge},
	{Key: "shunt-length", Group: up, Name: "shunt, a class of the bridge: 802.3 length", Frame: Length, Setup: plainBridge, Undo: noBridge, Daemon: Traced, Over: "bridge-length", Guarantees: noneNew},

	{Key: "bridge-1000", Group: scale, Name: "the kernel's bridge, 1,000 flows", Frame: Plain, Setup: plainBridge, Undo: noBridge, Stations: 1000, Flows: 1000},
	{Key: "shunt-1000", Group: scale, Name: "shunt, 1,000 flows", Frame: Plain, Setup: plainBridge, Undo: noBridge, Daemon: Traced, Stations: 1000, Flows: 1000, Guarantees: all},
	{Key: "shunt-fdb", Group: scale, Name: "shunt, 100,000 entries, 1 flow", Frame: Plain, Setup: plainBridge, Undo: noBridge, Daemon: Traced, Config: bigTable, Stations: 100000, Slow: true, Guarantees: all},
	{Key: "floor-ports", Group: scale, Name: "constant redirect, 1,000 ports", Frame: Plain, Setup: plainBridge + ports(998), Undo: noPorts(998) + noBridge, Program: Redirect, Slow: true},
	{Key: "shunt-ports", Group: scale, Name: "shunt, 1,000 ports, 1 flow", Frame: Plain, Setup: plainBridge + ports(998), Undo: noPorts(998) + noBridge, Daemon: Traced, Slow: true, Guarantees: all},
	{Key: "bridge-100000", Group: scale, Name: "the kernel's bridge, 100,000 flows", Frame: Plain, Setup: plainBridge, Undo: noBridge, Stations: 100000, Flows: 100000, Slow: true},
	{Key: "shunt-100000", Group: scale, Name: "shunt, 100,000 flows", Frame: Plain, Setup: plainBridge, Undo: noBridge, Daemon: Traced, Config: bigTable, Stations: 100000, Flows: 100000, Slow: true, Guarantees: all},
}
