package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shunt-dev/shunt/integration/machine"
)

// initScript is the machine's first process. systemd gives services a root of their
// own by pivot_root(2), which the kernel refuses on the root that it unpacks: so that
// is mounted over itself.
const initScript = `#!/bin/sh
mount --bind / /mnt
cd /mnt
mount --move /mnt /
exec chroot . /lib/systemd/systemd
`

// unit runs what tries the package, once all is up. What it prints goes to the
// host.
const unit = `[Unit]
Description=Try the package of shunt
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/packagetest/guest
WorkingDirectory=/root
Environment=HOME=/root LC_ALL=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
`

// buildInitrd joins the root with what is tried on it.
func buildInitrd(o options, dir, root string, m machine.Machine) error {
	ours := filepath.Join(dir, "ours")
	if err := addOwn(ours, o); err != nil {
		return err
	}
	if err := machine.CopyModules(filepath.Join(ours, "usr"), m.Kernel); err != nil {
		return err
	}
	for _, c := range o.copies {
		if err := copyTo(ours, c); err != nil {
			return err
		}
	}
	archive := filepath.Join(dir, "ours.cpio")
	if err := machine.Archive(archive, "-C", ours, "."); err != nil {
		return err
	}
	initrd, err := os.Create(m.Initrd)
	if err != nil {
		return err
	}
	defer initrd.Close()
	return machine.Join(initrd, root, archive)
}

// addOwn puts in what boots, what tries and what is tried.
func addOwn(ours string, o options) error {
	const wants = "etc/systemd/system/multi-user.target.wants"
	for _, sub := range []string{wants, "packagetest", "root"} {
		if err := os.MkdirAll(filepath.Join(ours, sub), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("../packagetest.service", filepath.Join(ours, wants, "packagetest.service")); err != nil {
		return err
	}
	// Nobody logs in, and what the tests print would be cut up.
	if err := os.Symlink("/dev/null", filepath.Join(ours, "etc/systemd/system/serial-getty@ttyS0.service")); err != nil {
		return err
	}
	for path, text := range map[string]string{
		"init": initScript, "etc/systemd/system/packagetest.service": unit, "etc/hostname": "shunt-test\n",
		"etc/hosts": "127.0.0.1 localhost\n127.0.1.1 shunt-test\n::1 localhost\n",
	} {
		if err := os.WriteFile(filepath.Join(ours, path), []byte(text), 0o755); err != nil {
			return err
		}
	}
	if err := machine.Build(filepath.Join(ours, "packagetest/guest"), "./integration/packagetest/guest"); err != nil {
		return err
	}
	if o.doc == "" {
		return buildPackages(filepath.Join(ours, "packagetest"), "1.0.0", "1.0.1")
	}
	return addPage(ours, o.doc)
}

// addPage puts in the commands of a page and the package that they install.
func addPage(ours, page string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	script := scriptOf(page, string(text))
	if err := os.WriteFile(filepath.Join(ours, "packagetest/page"), []byte(script), 0o755); err != nil {
		return err
	}
	return buildPackages(filepath.Join(ours, "root"), "1.0.0")
}

// copyTo puts in a file that the command line names as FILE:PATH.
func copyTo(ours, what string) error {
	from, to, ok := strings.Cut(what, ":")
	if !ok || !filepath.IsAbs(to) {
		return fmt.Errorf("-copy %s: must be FILE:PATH with an absolute path", what)
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	to = filepath.Join(ours, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
