// Package tcprog is the data plane: one BPF program at the tc ingress of every
// bridge port, the maps that the programs of a bridge share, and their pins.
//
// The way of a frame is told in bpf/shunt.c. The files here follow the life of
// a bridge: bridge.go opens it and takes over what an earlier daemon left,
// control.go holds its gate, lease and epochs, stations.go its table, port.go
// its ports, vlans.go their memberships; changes.go notices what the kernel
// changes, and revoke.go what it deletes; tcx.go and clsact.go are the two hooks;
// wires.go makes stable ports and their members one; counters.go reads what the
// programs counted; explain.go asks them about a
// frame; clean.go removes all of it.
//
// Pins stand under /sys/fs/bpf/shunt/net-INODE/bridge-IFINDEX/SCHEMA, in
// numbers because bpffs refuses names with dots.
package tcprog
