package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/integration/benchvm/rows"
)

// figuresOf are those of a kernel where these rows were counted.
func figuresOf(counts map[string]float64) *kernelFigures {
	return &kernelFigures{Series: "6.12", Release: "6.12.1", Counts: maps.Clone(counts), Missing: map[string]string{}}
}

var counts = map[string]float64{"drop": 4000, "floor": 5000, "bridge": 6000, "shunt": 5100, "drop-tagged": 4200, "shunt-tagged": 5400}

func TestGrowthOfTheFastPathFails(t *testing.T) {
	for name, c := range map[string]struct {
		row   string
		count float64
		fails bool
	}{
		"the same":              {"shunt", 5100, false},
		"less":                  {"shunt", 5000, false},
		"within 1 %":            {"shunt", 5111, false},
		"more than 1 %":         {"shunt", 5112, true},
		"more than 1 %, tagged": {"shunt-tagged", 5413, true},
		"the bridge itself":     {"bridge", 6500, false},
		"what is subtracted":    {"drop", 3980, true},
	} {
		measured := figuresOf(counts)
		measured.Counts[c.row] = c.count
		err := compare(figuresOf(counts), measured)
		if grown := new(grownError); errors.As(err, &grown) != c.fails || !c.fails && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGrowthWithAnotherKernelSaysSo(t *testing.T) {
	measured := figuresOf(map[string]float64{"drop": 4000, "shunt": 5200})
	measured.Release = "6.12.2"
	if err := compare(figuresOf(counts), measured); err == nil || !strings.Contains(err.Error(), "6.12.1, and this is 6.12.2") {
		t.Errorf("%v", err)
	}
}

func TestNothingComparedFails(t *testing.T) {
	if compare(nil, figuresOf(counts)) == nil {
		t.Error("no figures are committed, and it was not noticed")
	}
	if compare(figuresOf(counts), figuresOf(map[string]float64{"drop": 4000, "floor": 5000})) == nil {
		t.Error("no row of shunt was measured, and it was not noticed")
	}
	if compare(figuresOf(map[string]float64{"drop": 4000}), figuresOf(counts)) == nil {
		t.Error("the row has no committed figure, and it was not noticed")
	}
}

func TestFiguresOfAnotherKernelGo(t *testing.T) {
	f := &figures{}
	f.take(figuresOf(counts))
	f.take(figuresOf(map[string]float64{"shunt": 5000}))
	if got := f.of("6.12").Counts; got["shunt"] != 5000 || got["bridge"] != 6000 {
		t.Errorf("%v: the row that was measured is to be new, the others are to stay", got)
	}
	changed := figuresOf(map[string]float64{"shunt-tagged": 5100})
	changed.Programs = "another"
	f.take(changed)
	if got := f.of("6.12").Counts; got["shunt"] != 0 || got["shunt-tagged"] != 5100 || got["bridge"] != 6000 {
		t.Errorf("%v: of other programs of shunt the rows are to go, and those without shunt to stay", got)
	}
	newer := figuresOf(map[string]float64{"shunt": 4900})
	newer.Release = "6.12.2"
	f.take(newer)
	if got := f.of("6.12").Counts; len(got) != 1 || len(f.Kernels) != 1 {
		t.Errorf("%v: those of the kernel before are to go", got)
	}
}

func TestEveryRowHasWhatItIsComparedWith(t *testing.T) {
	keys := make(map[string]bool)
	for _, r := range rows.All {
		if keys[r.Key] {
			t.Errorf("%s is there twice", r.Key)
		}
		keys[r.Key] = true
		if r.Base() == nil {
			t.Errorf("%s has nothing to be subtracted", r.Key)
		}
		if (r.Daemon != "") != (r.Guarantees != "") {
			t.Errorf("%s does not name the guarantees in force, or has none to name", r.Key)
		}
	}
}

func TestTableFitsTheScreen(t *testing.T) {
	k := figuresOf(map[string]float64{})
	for _, r := range rows.All {
		k.Counts[r.Key] = 12345
	}
	for line := range strings.Lines(tableOf(k)) {
		if len(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("%q is %d columns wide", line, len(line))
		}
	}
}

func TestPageIsThatOfTheFigures(t *testing.T) {
	f, err := readFigures(filepath.Join("..", "..", figuresFile))
	if err != nil {
		t.Fatal(err)
	}
	want, err := page(f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("..", "..", pageFile))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf(`%s is not what %s and page.md say: run "go run ./integration/benchvm -page"`, pageFile, figuresFile)
	}
}
