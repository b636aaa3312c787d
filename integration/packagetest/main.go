// Command packagetest tries the Debian package as its users will: on a clean Debian
// with systemd, in QEMU without KVM. It installs, starts, hangs, upgrades, removes
// and purges shunt under numbered frames, and prints what it found.
//
//	go run ./integration/packagetest [-kernel 6.1|6.12] [-timeout 40m]
//
// With -doc it runs the commands of a page instead, on a machine that has nothing
// but the package in /root, and fails at the first that fails:
//
//	go run ./integration/packagetest -doc docs/install.md [-copy FILE:PATH]... [-download PACKAGE]...
//
// It needs what the selftests need, see integration/machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/integration/machine"
)

// suites are the releases of Debian that have such a kernel.
var suites = map[string]string{"6.1": "bookworm", "6.12": "trixie"}

// rootPackages are what a server has that somebody works at.
var rootPackages = []string{
	"systemd-sysv", "udev", "dbus", "kmod", "iproute2", "iputils-ping", "procps", "sudo", "man-db", "bash-completion",
	"curl", "jq", "ca-certificates",
}

// options are what the command line says.
type options struct {
	kernel   string
	doc      string // a page whose commands are run
	copies   list   // FILE:PATH
	download list
}

// list is a flag that may be given again.
type list []string

func (l *list) String() string         { return strings.Join(*l, " ") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

func main() {
	var o options
	flag.StringVar(&o.kernel, "kernel", "6.12", "the `series` of Debian's kernel: 6.1 or 6.12")
	flag.StringVar(&o.doc, "doc", "", "run the commands of this Markdown `file`")
	flag.Var(&o.copies, "copy", "`FILE:PATH`: put a file of this machine there; may be given again")
	flag.Var(&o.download, "download", "let this `package` lie ready for apt; may be given again")
	timeout := flag.Duration("timeout", 40*time.Minute, "end the machine after this `time`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "packagetest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, timeout time.Duration) error {
	if err := machine.CheckTools(machine.RootTools); err != nil {
		return err
	}
	m, remove, err := prepare(o)
	if err != nil {
		return err
	}
	defer remove()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("it took too long"))
	defer cancel()
	verdict := "none"
	err = m.Boot(ctx, func(line string) {
		if v, ok := strings.CutPrefix(line, "guest: verdict "); ok {
			verdict = v
		}
		fmt.Println(line)
	})
	if ctx.Err() == nil && verdict != "passed" {
		return errors.Join(err, fmt.Errorf("the verdict of %s is %s", m.Kernel.Release, verdict))
	}
	return err
}

// prepare fetches and makes what the machine boots from; remove takes away what is
// not kept for the next time.
func prepare(o options) (m machine.Machine, remove func(), err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return m, nil, err
	}
	cache = filepath.Join(cache, "shunt")
	if m.Kernel, err = machine.FetchKernel(o.kernel, filepath.Join(cache, "vm")); err != nil {
		return m, nil, err
	}
	root, err := machine.FetchRoot(machine.Root{
		Suite: suites[o.kernel], Packages: rootPackages, Download: o.download, Manuals: true,
	}, filepath.Join(cache, "packagetest"))
	if err != nil {
		return m, nil, err
	}
	dir, err := os.MkdirTemp("", "shunt-packagetest-")
	if err != nil {
		return m, nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	m.Initrd = filepath.Join(dir, "initrd")
	if err := buildInitrd(o, dir, root, m); err != nil {
		remove()
		return m, nil, err
	}
	return m, remove, nil
}

// buildPackages makes the packages of two versions, of which the second is newer.
func buildPackages(to string, versions ...string) error {
	for _, version := range versions {
		fmt.Println("make the package of version", version)
		cmd := exec.Command("go", "run", "./packaging/deb", "-version", version, "-o", to)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	return nil
}
