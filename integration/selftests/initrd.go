package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/shunt-dev/shunt/integration/selftests/machine"
)

// moduleDirs are where the modules are that a network without hardware needs.
var moduleDirs = []string{
	"kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch/x86/crypto",
	"kernel/drivers/net/bonding", "kernel/drivers/net/team", "kernel/drivers/net/vxlan",
}

// initScript is the machine's first process. The shell takes in the orphans
// that the scripts leave.
const initScript = `#!/bin/sh
export PATH=/selftests/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mkdir -p /dev/net
echo # what the firmware wrote has no end of line
ip link set lo up
/selftests/guest
`

// ipWrapper stands before ip(8) in the machine, see guest/hook.go.
const ipWrapper = `#!/bin/sh
hook() { /selftests/guest hook "$@"; }
case "$1 $2" in
"netns add")
	/usr/sbin/ip "$@" && hook enter "$3"
	exit ;;
"netns del" | "netns delete" | "netns pids")
	hook leave "$3" ;;
*)
	case " $* " in
	*" link del"* | *" nomaster "*) hook count ;;
	esac ;;
esac
exec /usr/sbin/ip "$@"
`

// buildInitrd joins the root, the kernel's modules, the scripts and the
// programs in one file that the caller removes. The kernel unpacks archives
// that follow each other one over the other.
func buildInitrd(root, source string, k machine.Kernel) (path string, err error) {
	dir, err := os.MkdirTemp("", "shunt-selftests-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := copyModules(dir, k); err != nil {
		return "", err
	}
	if err := addOwn(dir, source); err != nil {
		return "", err
	}
	ours := filepath.Join(dir, "ours.cpio")
	if err := archive(ours, "-C", dir, "init", "lib", "selftests"); err != nil {
		return "", err
	}
	initrd, err := os.CreateTemp("", "shunt-selftests-initrd-")
	if err != nil {
		return "", err
	}
	defer initrd.Close()
	return initrd.Name(), join(initrd, root, ours)
}

// addOwn puts the scripts and our programs in. The programs are built without
// cgo: the C library in the machine is another one.
func addOwn(dir, source string) error {
	own := filepath.Join(dir, "selftests")
	if err := os.MkdirAll(filepath.Join(own, "bin"), 0o755); err != nil {
		return err
	}
	if err := machine.Command("", "cp", "-r", source, filepath.Join(own, "scripts")); err != nil {
		return err
	}
	for name, pkg := range map[string]string{"shunt": ".", "guest": "./integration/selftests/guest"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(own, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(own, "bin", "ip"), []byte(ipWrapper), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "init"), []byte(initScript), 0o755)
}

// copyModules copies the drivers of virtual devices and all of the network.
func copyModules(dir string, k machine.Kernel) error {
	to := filepath.Join(dir, "lib", "modules", k.Release)
	drivers, err := filepath.Glob(filepath.Join(k.Modules(), "kernel/drivers/net/*.ko*"))
	if err != nil {
		return err
	}
	paths := []string{"modules.order", "modules.builtin", "modules.builtin.modinfo"}
	paths = append(paths, moduleDirs...)
	for _, driver := range drivers {
		paths = append(paths, filepath.Join("kernel/drivers/net", filepath.Base(driver)))
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	args := append([]string{"--parents", "-r", "-t", to}, paths...)
	if err := machine.Command(k.Modules(), "cp", args...); err != nil {
		return err
	}
	return machine.Command("", "/sbin/depmod", "-b", dir, k.Release)
}

// join writes the files one after the other.
func join(to io.Writer, paths ...string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(to, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
