// Package machine boots one of Debian's kernels in QEMU, without KVM, on a root of
// Debian or one of its caller's own.
package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// metaPackages name the packages that depend on the newest kernel of a series.
var metaPackages = map[string]string{"6.1": "linux-image-amd64", "6.12": "linux-image-6.12-amd64"}

// Kernel is an unpacked kernel package.
type Kernel struct {
	Release string // as uname -r says
	Root    string
}

func (k Kernel) vmlinuz() string { return filepath.Join(k.Root, "boot", "vmlinuz-"+k.Release) }

// Modules is the directory of its modules.
func (k Kernel) Modules() string { return filepath.Join(k.Root, "lib", "modules", k.Release) }

// FetchKernel downloads and unpacks the newest kernel of the series below
// cache, unless that was done before.
func FetchKernel(series, cache string) (Kernel, error) {
	meta, ok := metaPackages[series]
	if !ok {
		return Kernel{}, fmt.Errorf("no kernel %s: it may be 6.1 or 6.12", series)
	}
	pkg, err := dependency(meta)
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Release: strings.TrimPrefix(pkg, "linux-image-"), Root: filepath.Join(cache, pkg)}
	return k, Once(k.Root, func(dir string) error {
		return FetchPackage(pkg, func(deb string) error { return Command("", "dpkg-deb", "-x", deb, dir) })
	})
}

// dependency returns the kernel package that a meta-package stands for.
func dependency(meta string) (string, error) {
	out, err := exec.Command("apt-cache", "depends", meta).Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for %s: %w (run apt-get update first)", meta, err)
	}
	for line := range strings.Lines(string(out)) {
		if _, pkg, ok := strings.Cut(line, "Depends: "); ok && strings.HasPrefix(pkg, "linux-image-") {
			return strings.TrimSpace(pkg), nil
		}
	}
	return "", fmt.Errorf("apt does not know a kernel behind %s: run apt-get update first", meta)
}

// FetchPackage downloads a package of Debian and hands its file to use.
func FetchPackage(pkg string, use func(deb string) error) error {
	dir, err := os.MkdirTemp("", "shunt-deb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // apt downloads as a user of its own
		return err
	}
	fmt.Println("download", pkg)
	if err := Command(dir, "apt-get", "download", pkg); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) != 1 {
		return errors.Join(err, fmt.Errorf("%d packages were downloaded", len(files)))
	}
	return use(files[0])
}

// Once makes the directory to with fill, unless it is there: half of it never
// is.
func Once(to string, fill func(dir string) error) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(to), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := fill(dir); err != nil {
		return err
	}
	return os.Rename(dir, to)
}

// Command runs a program whose output matters only if it fails.
func Command(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}
