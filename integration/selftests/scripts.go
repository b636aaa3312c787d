package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/shunt-dev/shunt/integration/machine"
)

// script is one of tools/testing/selftests.
type script struct {
	path string
	// crosses: unicast goes from port to port in it, so that shunt must have
	// something to do. In the others hosts talk to the bridge's own device.
	crosses bool
}

// scripts are those that are about bridges. A kernel need not have all of them.
var scripts = []script{
	{"net/forwarding/bridge_vlan_unaware.sh", true},
	{"net/forwarding/bridge_vlan_aware.sh", true},
	{"net/forwarding/bridge_locked_port.sh", true},
	{"net/forwarding/bridge_port_isolation.sh", true},
	{"net/forwarding/bridge_sticky_fdb.sh", false},
	{"net/forwarding/bridge_fdb_learning_limit.sh", false},
	{"net/forwarding/bridge_vlan_mcast.sh", false},
	{"net/forwarding/no_forwarding.sh", false},
	{"net/forwarding/router_bridge.sh", false},
	{"net/forwarding/router_bridge_1d.sh", false},
	{"net/forwarding/router_bridge_vlan.sh", false},
	{"net/forwarding/router_bridge_vlan_upper.sh", false},
	{"net/forwarding/router_bridge_vlan_upper_pvid.sh", false},
	{"net/forwarding/router_bridge_pvid_vlan_upper.sh", false},
	{"net/forwarding/router_bridge_lag.sh", false},
	{"net/forwarding/router_bridge_1d_lag.sh", false},
	{"net/fdb_flush.sh", false},
	{"net/test_bridge_backup_port.sh", false},
	{"net/test_bridge_neigh_suppress.sh", false},
}

// known has, by series, the directory that the scripts were unpacked to.
var known = make(map[string]string)

// exists says whether the series has the script.
func exists(series string, s script) bool {
	_, err := os.Stat(filepath.Join(known[series], s.path))
	return err == nil
}

// fetchScripts unpacks the kernel's selftests of the network from Debian's
// package of its source, unless that was done before.
func fetchScripts(series, cache string) (string, error) {
	pkg := "linux-source-" + series
	dir := filepath.Join(cache, pkg)
	known[series] = dir
	return dir, machine.Once(dir, func(dir string) error {
		return machine.FetchPackage(pkg, func(deb string) error { return unpackScripts(deb, pkg, dir) })
	})
}

// unpackScripts takes the one directory out of the archive in the package.
func unpackScripts(deb, pkg, to string) error {
	const pipe = `set -o pipefail
dpkg-deb --fsys-tarfile "$1" | bsdtar -xOf - "./usr/src/$2.tar.xz" | xz -dcT0 |
	bsdtar -xf - -C "$3" --strip-components 4 "$2/tools/testing/selftests/net*"`
	if err := machine.Command("", "bash", "-c", pipe, "bash", deb, pkg, to); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	return nil
}

// root is what the scripts run on: beside what every Debian has, what they call. It
// is the release whose iproute2 knows all that Linux 6.12 can do.
var root = machine.Root{Suite: "trixie", Packages: []string{
	"iproute2", "iputils-ping", "iputils-arping", "tcpdump", "ethtool", "nftables", "iptables", "jq", "netsniff-ng",
	"procps", "kmod", "ndisc6", "netbase", "libteam-utils",
}}
