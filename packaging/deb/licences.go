package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// licenceFile is what the licences of a Go module are called.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)`)

// writeLicences collects the licences of everything that is linked into the
// program: that of Go, and those of the modules. A module without one must not be
// given to others.
func writeLicences(to, binary string) error {
	dirs, err := linkedModules(binary)
	if err != nil {
		return err
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find Go: %w", err)
	}
	var b bytes.Buffer
	b.WriteString("What is linked into shunt beside its own code, and under which licences.\n")
	if err := addLicences(&b, "Go", strings.TrimSpace(string(goroot))); err != nil {
		return err
	}
	for _, m := range dirs {
		if err := addLicences(&b, m.name, m.dir); err != nil {
			return err
		}
	}
	return writeCompressed(to, b.Bytes())
}

// module is one that is linked in.
type module struct{ name, dir string }

// linkedModules asks the program what is in it, and Go where that is.
func linkedModules(binary string) (modules []module, err error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read what is linked: %w", err)
	}
	args := []string{"list", "-m", "-f", "{{.Path}} {{.Version}}\t{{.Dir}}"}
	for _, dep := range info.Deps {
		args = append(args, dep.Path)
	}
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("find the modules: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		name, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		modules = append(modules, module{name, dir})
	}
	return modules, nil
}

func addLicences(b *bytes.Buffer, name, dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for the licence of %s: %w", name, err)
	}
	found := false
	for _, f := range files {
		if f.IsDir() || !licenceFile.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "\n%s\n%s: %s\n%s\n\n%s", strings.Repeat("=", 80), name, f.Name(), strings.Repeat("=", 80), text)
		found = true
	}
	if !found {
		return fmt.Errorf("%s has no licence in %s", name, dir)
	}
	return nil
}
