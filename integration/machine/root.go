package machine

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Root is a small Debian.
type Root struct {
	Suite    string
	Packages []string // beside what every Debian has
	// Download are packages that lie ready for apt, which has no network in a
	// machine.
	Download []string
	// Manuals are kept, which are left out otherwise.
	Manuals bool
}

// FetchRoot makes a root as a cpio archive below cache, unless that was done
// before, and returns its path.
func FetchRoot(r Root, cache string) (string, error) {
	dir := filepath.Join(cache, fmt.Sprintf("root-%s-%.4x", r.Suite, sha256.Sum256(fmt.Append(nil, r))))
	return filepath.Join(dir, "root.cpio"), Once(dir, func(dir string) error {
		fmt.Println("make a root of Debian", r.Suite)
		tar := filepath.Join(dir, "root.tar")
		args := append(r.options(), r.Suite, tar, "http://deb.debian.org/debian")
		if err := Command(dir, "mmdebstrap", args...); err != nil {
			return err
		}
		defer os.Remove(tar)
		return Archive(filepath.Join(dir, "root.cpio"), "@"+tar)
	})
}

func (r Root) options() []string {
	options := []string{"--variant=minbase", "--include=" + strings.Join(r.Packages, ",")}
	if !r.Manuals {
		options = append(options, "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
			"--dpkgopt=path-exclude=/usr/share/locale/*")
	}
	if len(r.Download) > 0 {
		install := `chroot "$1" apt-get install --yes --no-install-recommends --download-only ` + strings.Join(r.Download, " ")
		options = append(options, "--skip=cleanup/apt", "--customize-hook="+install)
	}
	return options
}

// Archive writes a cpio archive that the kernel takes; args are bsdtar's.
func Archive(to string, args ...string) error {
	return Command("", "bsdtar", append([]string{"--format=newc", "--uid=0", "--gid=0", "-cf", to}, args...)...)
}

// Join writes the files one after the other: the kernel unpacks archives that
// follow each other one over the other.
func Join(to io.Writer, paths ...string) error {
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

// moduleDirs are where the modules are that a network without hardware needs.
var moduleDirs = []string{
	"kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch/x86/crypto",
	"kernel/drivers/net/bonding", "kernel/drivers/net/team", "kernel/drivers/net/vxlan",
}

// CopyModules copies the drivers of virtual devices and all of the network to a
// root.
func CopyModules(root string, k Kernel) error {
	to := filepath.Join(root, "lib", "modules", k.Release)
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
	if err := Command(k.Modules(), "cp", args...); err != nil {
		return err
	}
	return Command("", "/sbin/depmod", "-b", root, k.Release)
}

// Build compiles a program for a machine, whose C library is another one: without
// cgo.
func Build(to, pkg string) error {
	cmd := exec.Command("go", "build", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// CheckTools names the packages of the tools that are missing here; tools has the
// package of each.
func CheckTools(tools map[string]string) error {
	var missing []string
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("packages are missing: apt-get install %s", strings.Join(missing, " "))
}

// RootTools are the tools that a machine with a root needs, with their packages.
var RootTools = map[string]string{
	"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "bsdtar": "libarchive-tools",
	"/sbin/depmod": "kmod", "xz": "xz-utils", "apt-get": "apt", "dpkg-deb": "dpkg",
}
