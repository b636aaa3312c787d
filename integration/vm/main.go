// Command vm runs shunt's integration tests on another kernel: it boots one of
// Debian's in QEMU, without KVM, with nothing in it but the tests.
//
//	go run ./integration/vm [-kernel 6.1|6.12] [-smp 2] [-timeout 20m] [-- TEST FLAGS]
//
// It needs qemu-system-x86, busybox-static, cpio, kmod and the tools that the
// tests use, and apt for the kernel's package, which it keeps in the user's cache
// directory. The tests are built with the tag vm: files *_vm_test.go hold those
// that need what only such a kernel has, VLANs above all.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/integration/machine"
)

// modules are loaded at the start: what the tests need of a kernel that has it
// all in modules.
var modules = []string{
	"bridge", "br_netfilter", "veth", "tun", "8021q", "macvlan", "dummy", "ifb", "bonding", "vxlan", "vrf",
	"sch_ingress", "cls_bpf", "cls_u32", "cls_matchall", "cls_flower", "act_gact", "act_vlan",
	"nf_tables", "nft_chain_nat", "nft_ct", "nft_compat", "nft_meta_bridge", "nft_reject_bridge",
	"nf_conntrack_bridge", "nfnetlink",
}

// spareModules are there for modprobe and are not loaded: a loaded
// ebtable_filter counts as a firewall on every bridge.
var spareModules = []string{"ebtables", "ebtable_filter", "ebtable_nat", "ebtable_broute"}

// optional are modules that not every series has.
var optional = map[string]bool{"nf_conntrack_bridge": true, "nft_compat": true, "act_vlan": true, "cls_flower": true}

// tools are what the tests run beside shunt, and the packages that have it.
var tools = map[string]string{
	"ip": "iproute2", "bridge": "iproute2", "tc": "iproute2", "nft": "nftables", "nsenter": "util-linux",
}

func main() {
	kernel := flag.String("kernel", "6.12", "the `series` of Debian's kernel: 6.1 or 6.12")
	cpus := flag.Int("smp", 2, "the `number` of the machine's CPUs")
	timeout := flag.Duration("timeout", 20*time.Minute, "end the machine after this `time`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if err := run(ctx, *kernel, *cpus, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, series string, cpus int, testFlags []string) error {
	if err := checkTools(); err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	k, err := machine.FetchKernel(series, filepath.Join(cache, "shunt", "vm"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "shunt-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	initrd, err := buildInitrd(dir, k, testFlags)
	if err != nil {
		return err
	}
	return boot(ctx, machine.Machine{Kernel: k, Initrd: initrd, CPUs: cpus})
}

func checkTools() error {
	needed := map[string]string{
		"qemu-system-x86_64": "qemu-system-x86", "/bin/busybox": "busybox-static", "cpio": "cpio",
		"/sbin/depmod": "kmod", "apt-get": "apt", "dpkg-deb": "dpkg", "ldd": "libc-bin",
	}
	maps.Copy(needed, tools)
	return machine.CheckTools(needed)
}

// initScript is the machine's first process. The last line that it prints tells
// how the tests ended.
const initScript = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/tools:/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /dev/net /sys/fs/bpf
mount -t bpf bpf /sys/fs/bpf
echo /bin/modprobe > /proc/sys/kernel/modprobe
for module in %s; do modprobe $module || echo "vm: no module $module"; done
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
uname -r
cd /tests
SHUNT_BINARY=/tests/shunt /tests/integration.test %s
echo "vm: exit $?"
poweroff -f
`

// buildInitrd makes a root of busybox, tools, modules, the tests and shunt.
func buildInitrd(dir string, k machine.Kernel, testFlags []string) (string, error) {
	root := filepath.Join(dir, "root")
	for _, sub := range []string{"bin", "sbin", "proc", "sys", "dev", "tmp", "run", "tests", "var/tmp"} {
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
	if err := buildTests(filepath.Join(root, "tests")); err != nil {
		return "", err
	}
	if err := copyModules(root, k); err != nil {
		return "", err
	}
	script := fmt.Sprintf(initScript, strings.Join(modules, " "), quote(testFlags))
	if err := os.WriteFile(filepath.Join(root, "init"), []byte(script), 0o755); err != nil {
		return "", err
	}
	initrd := filepath.Join(dir, "initrd")
	return initrd, machine.Command(root, "sh", "-c", "find . | cpio -o -H newc --quiet > "+initrd)
}

func quote(args []string) string {
	var b strings.Builder
	for _, a := range args {
		fmt.Fprintf(&b, " '%s'", strings.ReplaceAll(a, "'", `'\''`))
	}
	return b.String()
}

// buildTests compiles the tests and the program without cgo: they need no C
// library then.
func buildTests(dir string) error {
	if err := machine.Build(filepath.Join(dir, "shunt"), "."); err != nil {
		return err
	}
	cmd := exec.Command("go", "test", "-tags", "vm", "-c", "-o", filepath.Join(dir, "integration.test"), "./integration")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// copyModules copies the modules that are needed, and says which there are not.
func copyModules(root string, k machine.Kernel) error {
	var there []string
	for _, name := range slices.Concat(modules, spareModules) {
		if err := k.HasModule(name); err != nil && optional[name] {
			fmt.Println("vm:", err)
			continue
		}
		there = append(there, name)
	}
	return machine.CopyNeeded(root, k, there)
}

// boot runs the machine and passes on what it prints. The tests' exit code is
// the last word.
func boot(ctx context.Context, m machine.Machine) error {
	code := "none"
	err := m.Boot(ctx, func(line string) {
		if c, ok := strings.CutPrefix(line, "vm: exit "); ok {
			code = c
		}
		fmt.Println(line)
	})
	if ctx.Err() == nil && code != "0" {
		return errors.Join(err, fmt.Errorf("the tests on %s ended with exit code %s", m.Kernel.Release, code))
	}
	return err
}
