package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/shunt-dev/shunt/integration/machine"
)

// modules are what the rows need of the kernel.
var modules = []string{
	"bridge", "veth", "dummy", "sch_ingress", "cls_bpf", "cls_flower", "act_mirred",
	"openvswitch", "nf_tables", "nft_fwd_netdev", "nft_meta_bridge", "br_netfilter",
}

// loaded are those of them that are loaded at the start: br_netfilter costs every
// frame of a bridge something.
const loaded = "bridge veth sch_ingress cls_bpf"

// tools are what the rows are set up with, and the packages that have it.
var tools = map[string]string{
	"ip": "iproute2", "bridge": "iproute2", "tc": "iproute2", "nft": "nftables", "dash": "dash",
}

// needed are the tools of this machine, and the packages that have it.
var needed = map[string]string{
	"qemu-system-x86_64": "qemu-system-x86", "/bin/busybox": "busybox-static", "cpio": "cpio",
	"/sbin/depmod": "kmod", "apt-get": "apt", "dpkg-deb": "dpkg", "ldd": "libc-bin",
	"ip": "iproute2", "bridge": "iproute2", "tc": "iproute2", "nft": "nftables", "dash": "dash",
}

// initScript is the machine's first process, until the guest takes its place.
const initScript = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/tools:/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /sys/fs/bpf
mount -t bpf bpf /sys/fs/bpf
echo /bin/modprobe > /proc/sys/kernel/modprobe
echo # what the firmware wrote has no end of line
for module in %s; do modprobe $module || echo "bench: error no module $module"; done
exec /guest
`

// buildInitrd makes a root of busybox, tools, modules, the guest and shunt.
func buildInitrd(dir string, k machine.Kernel) (string, error) {
	root := filepath.Join(dir, "root")
	for _, sub := range []string{"bin", "sbin", "proc", "sys", "dev", "tmp", "run", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			return "", err
		}
	}
	if err := machine.CopyFile("/bin/busybox", filepath.Join(root, "bin", "busybox"), 0o755); err != nil {
		return "", err
	}
	if err := machine.CopyTools(root, slices.Collect(maps.Keys(tools))); err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{"shunt": ".", "guest": "./integration/benchvm/guest"} {
		if err := machine.Build(filepath.Join(root, name), pkg); err != nil {
			return "", err
		}
	}
	if err := machine.CopyNeeded(root, k, modules); err != nil {
		return "", err
	}
	script := fmt.Appendf(nil, initScript, loaded)
	if err := os.WriteFile(filepath.Join(root, "init"), script, 0o755); err != nil {
		return "", err
	}
	initrd := filepath.Join(dir, "initrd")
	return initrd, machine.Command(root, "sh", "-c", "find . | cpio -o -H newc --quiet > "+initrd)
}
