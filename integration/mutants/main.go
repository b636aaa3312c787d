// Command mutants breaks shunt on purpose, one guard at a time, in a copy of
// the tree, and wants the test of that guard to fail. It is how every guarantee
// was seen to be held by its test.
//
//	go run ./integration/mutants [REGEXP]
//
// runs the mutants whose name matches. It needs root, and for changes to the
// BPF sources the clang of "just generate".
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
)

// mutant is one way of breaking shunt.
type mutant struct {
	name     string // the guarantee that goes
	file     string
	old, new string // the change; old stands in file exactly once
	pkg, run string // the test that must fail
	kernel   string // of Debian's, if this machine's own cannot show it
}

func main() {
	if err := runAll(); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func runAll() error {
	chosen, err := chosenBy(os.Args[1:])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "shunt-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	if err := copyTree(dir); err != nil {
		return err
	}
	survivors := 0
	for _, m := range chosen {
		select {
		case <-stop:
			return errors.New("interrupted")
		default:
		}
		if err := try(dir, m); err != nil {
			survivors++
			fmt.Printf("SURVIVED  %s\n          %v\n", m.name, err)
			continue
		}
		fmt.Printf("red       %s (%s)\n", m.name, m.run)
	}
	fmt.Printf("%d passed, %d failed\n", len(chosen)-survivors, survivors)
	if survivors > 0 {
		return fmt.Errorf("%d mutants were not noticed", survivors)
	}
	return nil
}

func chosenBy(args []string) ([]mutant, error) {
	if len(args) == 0 {
		return mutants, nil
	}
	pattern, err := regexp.Compile(args[0])
	if err != nil {
		return nil, err
	}
	var chosen []mutant
	for _, m := range mutants {
		if pattern.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	return chosen, nil
}

// copyTree copies the files that git knows or would know.
func copyTree(dir string) error {
	list, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("list the files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and git was not told yet
		}
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// try breaks the tree in dir, runs the test, and mends the tree again. It
// returns an error if the test passed, or failed for want of a build.
func try(dir string, m mutant) error {
	path := filepath.Join(dir, m.file)
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := bytes.Count(whole, []byte(m.old)); n != 1 {
		return fmt.Errorf("%q stands %d times in %s, want once", m.old, n, m.file)
	}
	broken := bytes.Replace(whole, []byte(m.old), []byte(m.new), 1)
	if err := os.WriteFile(path, broken, 0o644); err != nil {
		return err
	}
	isBPF := strings.HasPrefix(m.file, "tcprog/bpf/")
	defer func() {
		os.WriteFile(path, whole, 0o644)
		if isBPF {
			generate(dir)
		}
	}()
	if isBPF {
		if err := generate(dir); err != nil {
			return err
		}
	}
	return wantFailure(dir, m)
}

func generate(dir string) error {
	cmd := exec.Command("go", "generate", "./tcprog")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("generate: %w\n%s", err, out)
	}
	return nil
}

func wantFailure(dir string, m mutant) error {
	args := []string{"test", "-count=1", "-timeout=120s", "-run", m.run, m.pkg}
	if m.kernel != "" {
		args = []string{"run", "./integration/vm", "-kernel", m.kernel, "--", "-test.run", m.run}
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("%s passes", m.run)
	case !bytes.Contains(out, []byte("--- FAIL")):
		return fmt.Errorf("%s did not run: %s", m.run, out)
	}
	return nil
}
