package main

import (
	"os"
	"path/filepath"

	"github.com/shunt-dev/shunt/integration/machine"
)

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
// programs in one file that the caller removes.
func buildInitrd(root, source string, k machine.Kernel) (path string, err error) {
	dir, err := os.MkdirTemp("", "shunt-selftests-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := machine.CopyModules(dir, k); err != nil {
		return "", err
	}
	if err := addOwn(dir, source); err != nil {
		return "", err
	}
	ours := filepath.Join(dir, "ours.cpio")
	if err := machine.Archive(ours, "-C", dir, "init", "lib", "selftests"); err != nil {
		return "", err
	}
	initrd, err := os.CreateTemp("", "shunt-selftests-initrd-")
	if err != nil {
		return "", err
	}
	defer initrd.Close()
	return initrd.Name(), machine.Join(initrd, root, ours)
}

// addOwn puts the scripts and our programs in.
func addOwn(dir, source string) error {
	own := filepath.Join(dir, "selftests")
	if err := os.MkdirAll(filepath.Join(own, "bin"), 0o755); err != nil {
		return err
	}
	if err := machine.Command("", "cp", "-r", source, filepath.Join(own, "scripts")); err != nil {
		return err
	}
	for name, pkg := range map[string]string{"shunt": ".", "guest": "./integration/selftests/guest"} {
		if err := machine.Build(filepath.Join(own, name), pkg); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(own, "bin", "ip"), []byte(ipWrapper), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "init"), []byte(initScript), 0o755)
}
