// Command deb makes the Debian package of shunt: the program, the service, its
// configuration, manual pages, completions and licences.
//
//	go run ./packaging/deb [-version 1.2.3] [-o DIR]
//
// It is run in the root of the repository and needs Go and git only. Without
// -version the package has that of the commit.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// nfpm is what packs the files that nfpm.yaml names.
const nfpm = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.44.0"

func main() {
	version := flag.String("version", "", "the package's `version` (default that of the commit)")
	to := flag.String("o", "dist", "write the package to this `directory`")
	flag.Parse()
	if err := run(*version, *to); err != nil {
		fmt.Fprintln(os.Stderr, "deb:", err)
		os.Exit(1)
	}
}

func run(version, to string) (err error) {
	if version == "" {
		if version, err = versionOfCommit(); err != nil {
			return err
		}
	}
	date, err := git("log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	parts, err := os.MkdirTemp("", "shunt-deb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(parts)
	p := pack{version: version, date: date, parts: parts}
	if err := p.make(); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return p.pack(to)
}

// pack is a package in the making.
type pack struct {
	version string
	date    string // of the commit, in seconds since 1970
	parts   string // the directory of what is made for it
}

// make makes what is not in the repository.
func (p pack) make() error {
	binary := filepath.Join(p.parts, "shunt")
	if err := p.build(binary); err != nil {
		return err
	}
	if err := writeManual(filepath.Join(p.parts, "man"), p.version, p.date); err != nil {
		return err
	}
	if err := writeCompletions(filepath.Join(p.parts, "completions")); err != nil {
		return err
	}
	return writeLicences(filepath.Join(p.parts, "third-party-licences.gz"), binary)
}

// build compiles the program without cgo, so that it needs no C library, and
// without the paths of this machine.
func (p pack) build(to string) error {
	cmd := exec.Command("go", "build", "-trimpath",
		"-ldflags", "-s -w -X github.com/shunt-dev/shunt/accel.version="+p.version, "-o", to, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return command(cmd)
}

// pack runs nfpm. Times in the package are the commit's: the same commit makes the
// same package.
func (p pack) pack(to string) error {
	cmd := exec.Command("go", "run", nfpm, "package", "--packager", "deb", "--config", "packaging/nfpm.yaml", "--target", to)
	cmd.Env = append(os.Environ(),
		"SHUNT_VERSION="+p.version, "SHUNT_ARCH="+runtime.GOARCH, "SHUNT_PARTS="+p.parts, "SOURCE_DATE_EPOCH="+p.date)
	if err := command(cmd); err != nil {
		return err
	}
	fmt.Println(filepath.Join(to, fmt.Sprintf("shunt_%s_%s.deb", p.version, runtime.GOARCH)))
	return nil
}

func command(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

func git(args ...string) (string, error) {
	out, err := exec.Command("git", args...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
