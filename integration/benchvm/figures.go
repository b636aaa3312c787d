package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/shunt-dev/shunt/integration/benchvm/rows"
)

// figures is the file beside the page, from which the page is written.
type figures struct {
	Kernels []*kernelFigures `json:"kernels"`
}

// kernelFigures are those of one kernel.
type kernelFigures struct {
	Series  string `json:"series"`
	Release string `json:"release"`
	// Programs is a hash of the objects of shunt's programs.
	Programs string `json:"programs,omitempty"`
	// Counts are instructions for one frame, nothing subtracted, by the row's key.
	Counts map[string]float64 `json:"counts"`
	// Missing are the rows that the kernel cannot have, and why.
	Missing map[string]string `json:"missing,omitempty"`
}

func readFigures(path string) (*figures, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &figures{}
	return f, json.Unmarshal(text, f)
}

func (f *figures) write(path string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func (f *figures) of(series string) *kernelFigures {
	i := slices.IndexFunc(f.Kernels, func(k *kernelFigures) bool { return k.Series == series })
	if i < 0 {
		return nil
	}
	return f.Kernels[i]
}

// take puts what was measured in the place of what was. Rows that were not measured
// stay, if the kernel is still the same, and for those of shunt its programs.
func (f *figures) take(measured *kernelFigures) {
	old := f.of(measured.Series)
	switch {
	case old == nil:
		f.Kernels = append(f.Kernels, measured)
		return
	case old.Release != measured.Release:
		*old = *measured
		return
	}
	if old.Programs != measured.Programs {
		maps.DeleteFunc(old.Counts, func(key string, _ float64) bool { return isOfShunt(key) })
		old.Programs = measured.Programs
	}
	for key, count := range measured.Counts {
		old.Counts[key] = count
		delete(old.Missing, key)
	}
	for key, why := range measured.Missing {
		old.Missing[key] = why
		delete(old.Counts, key)
	}
}

// isOfShunt says whether shunt's programs are in the row's count.
func isOfShunt(key string) bool {
	r := rows.Of(key)
	return r == nil || r.Daemon != ""
}

// net is a row's count with that of its base subtracted.
func (k *kernelFigures) net(r rows.Row) (float64, bool) {
	count, ok := k.Counts[r.Key]
	base, has := k.Counts[r.Base().Key]
	return count - base, ok && has
}

// tolerance is by what share the fast path may grow.
const tolerance = 0.01

// compare returns an error that names every row of the fast path that has grown, and
// one that was measured and cannot be compared.
func compare(committed, measured *kernelFigures) error {
	if committed == nil {
		return fmt.Errorf("no figures of Linux %s are committed", measured.Series)
	}
	var grown []string
	compared := 0
	for _, r := range rows.All {
		if !r.IsFast() {
			continue
		}
		now, ok := measured.net(r)
		if !ok {
			continue
		}
		before, ok := committed.net(r)
		if !ok {
			return fmt.Errorf("row %s has no committed figure: run \"just bench-vm\"", r.Key)
		}
		compared++
		if now > before*(1+tolerance) {
			grown = append(grown, fmt.Sprintf("%s: %.0f instructions, %.0f before (%+.1f %%)", r.Key, now, before, (now/before-1)*100))
		}
	}
	if compared == 0 {
		return fmt.Errorf("no row of the fast path was measured")
	}
	if len(grown) > 0 {
		return &grownError{grown, committed.Release, measured.Release}
	}
	return nil
}

// grownError is that frames on the fast path cost more than the committed figures say.
type grownError struct {
	rows          []string
	before, after string // kernels
}

func (e *grownError) Error() string {
	text := "the fast path has grown by more than 1 %:\n"
	for _, row := range e.rows {
		text += "  " + row + "\n"
	}
	if e.before != e.after {
		text += fmt.Sprintf("The committed figures are of Linux %s, and this is %s.\n", e.before, e.after)
	}
	return text + "Take back what made it so. If it has to be, run \"just bench-vm\" and commit\n" +
		"docs/performance.json and docs/performance.md with the change, and say why there."
}
