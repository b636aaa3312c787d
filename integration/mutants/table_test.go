package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant whose text moved would show a survivor only when somebody runs it.
func TestMutantsFitTheSources(t *testing.T) {
	for _, m := range mutants {
		source, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("%s: %q stands %d times in %s, want once", m.name, m.old, n, m.file)
		}
	}
}
