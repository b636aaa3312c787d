package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CopyTools copies programs of this machine to the directory tools of a root, and
// the libraries that they need to where they look for them.
func CopyTools(root string, names []string) error {
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := CopyFile(path, filepath.Join(root, "tools", filepath.Base(name)), 0o755); err != nil {
			return err
		}
		libraries, err := librariesOf(path)
		if err != nil {
			return err
		}
		for _, library := range libraries {
			if err := CopyFile(library, filepath.Join(root, library), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// librariesOf returns the files that ldd names for a program.
func librariesOf(program string) (files []string, err error) {
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("list the libraries of %s: %w", program, err)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, strings.TrimSuffix(word, ":"))
		}
	}
	return files, nil
}

// CopyNeeded copies these modules to a root, and those that they need.
func CopyNeeded(root string, k Kernel, modules []string) error {
	to := filepath.Join(root, "lib/modules", k.Release)
	for _, name := range modules {
		paths, err := k.closure(name)
		if err != nil {
			return err
		}
		for _, path := range paths {
			relative, err := filepath.Rel(k.Modules(), path)
			if err != nil {
				return err
			}
			if err := CopyFile(path, filepath.Join(to, relative), 0o644); err != nil {
				return err
			}
		}
	}
	for _, list := range []string{"modules.order", "modules.builtin"} {
		if err := CopyFile(filepath.Join(k.Modules(), list), filepath.Join(to, list), 0o644); err != nil {
			return err
		}
	}
	return Command("", "/sbin/depmod", "-b", root, k.Release)
}

// HasModule returns an error where the kernel has no such module, nor has it built
// in.
func (k Kernel) HasModule(name string) error {
	_, err := k.closure(name)
	return err
}

// closure returns the files of a module and of those that it needs; none if the
// kernel has it built in.
func (k Kernel) closure(name string) (paths []string, err error) {
	if err := k.index(); err != nil {
		return nil, err
	}
	out, err := exec.Command("/sbin/modprobe", "-d", k.Root, "-S", k.Release, "--show-depends", name).Output()
	if err != nil {
		return nil, fmt.Errorf("kernel %s has no module %s: %w", k.Release, name, err)
	}
	for line := range strings.Lines(string(out)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "insmod "); ok {
			paths = append(paths, strings.Fields(path)[0])
		}
	}
	return paths, nil
}

// index writes what modprobe looks modules up in, unless it is there.
func (k Kernel) index() error {
	if _, err := os.Stat(filepath.Join(k.Modules(), "modules.dep")); err == nil {
		return nil
	}
	return Command("", "/sbin/depmod", "-b", k.Root, k.Release)
}

// CopyFile copies a file and makes the directories above it.
func CopyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}
