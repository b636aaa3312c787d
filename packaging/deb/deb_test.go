package main

import (
	"bytes"
	"compress/gzip"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVersionsAreInDebiansOrder(t *testing.T) {
	for _, c := range []struct{ described, want string }{
		{"1b71db8", "0~20260102030405.1b71db8"},
		{"1b71db8-dirty", "0~20260102030405.1b71db8+changed"},
		{"v1.2.3-0-g1b71db8", "1.2.3"},
		{"v1.2.3-rc.1-0-g1b71db8", "1.2.3~rc.1"},
		{"v1.2.3-5-g1b71db8", "1.2.3+5.1b71db8"},
		{"v1.2.3-5-g1b71db8-dirty", "1.2.3+5.1b71db8+changed"},
	} {
		if got := debianVersion(c.described, "20260102030405"); got != c.want {
			t.Errorf("%s: got %s, want %s", c.described, got, c.want)
		}
	}
}

// The manual would lack the commands of a part that only the program has.
func TestManualIsOfTheProgramsParts(t *testing.T) {
	program, manual := imports(t, "../../main.go"), imports(t, "manual.go")
	for _, path := range program {
		if !slices.Contains(manual, path) {
			t.Errorf("main.go imports %s, and manual.go does not", path)
		}
	}
}

// imports are the packages of this module that a file imports.
func imports(t *testing.T, file string) (paths []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		if strings.Contains(i.Path.Value, "shunt-dev/shunt/") {
			paths = append(paths, i.Path.Value)
		}
	}
	return paths
}

func TestManualHasAPageForEveryCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if err := writeManual(dir, "1.2.3", "1767323045"); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"shunt", "shunt-run", "shunt-status", "shunt-swap", "shunt-demo", "shunt-bench", "shunt-doctor"} {
		text := uncompressed(t, filepath.Join(dir, page+".8.gz"))
		for _, part := range []string{".TH", `"8"`, "shunt 1.2.3", "Jan 2026", ".SH NAME"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is not in\n%s", page, part, text)
			}
		}
	}
	rest, err := filepath.Glob(filepath.Join(dir, "*.8"))
	if err != nil || len(rest) > 0 {
		t.Errorf("not compressed: %v %v", rest, err)
	}
}

func uncompressed(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCompletionsForThreeShells(t *testing.T) {
	dir := t.TempDir()
	if err := writeCompletions(dir); err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string]string{"shunt": "__start_shunt", "_shunt": "#compdef shunt", "shunt.fish": "complete -c shunt"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), part) {
			t.Errorf("%s: %q is not in it (%v)", name, part, err)
		}
	}
}

func TestModuleWithoutLicenceIsRefused(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	if err := addLicences(&b, "example.org/m", dir); err == nil || !strings.Contains(err.Error(), "example.org/m") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE.md"), []byte("do what you want\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := addLicences(&b, "example.org/m", dir); err != nil {
		t.Error(err)
	}
	if !strings.Contains(b.String(), "example.org/m: LICENSE.md") || !strings.Contains(b.String(), "do what you want") {
		t.Errorf("got %s", b.String())
	}
}
