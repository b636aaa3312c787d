package twin

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Step is one line of a script, in words. The first is the verb:
//
//	send h1 SRC DST KIND SIZE [TAG]...   host 1 sends a frame (see Frame)
//	check                                everything sent so far must have come alike
//	settle                               the daemon may catch up
//
// and the others change the configuration (see the table verbs). A change is
// followed by frames at once, while the daemon is stopped.
type Step []string

func (s Step) String() string { return strings.Join(s, " ") }

// isChange says whether the step changes the configuration.
func (s Step) isChange() bool { return !s.is("send") && !s.is("check") && !s.is("settle") }

func (s Step) is(verb string) bool { return s[0] == verb }

// line makes a step of its text.
func line(format string, args ...any) Step { return strings.Fields(fmt.Sprintf(format, args...)) }

// Parse reads a script: one step a line; what follows a # is a remark.
func Parse(text string) (steps []Step, err error) {
	number := 0
	for l := range strings.Lines(text) {
		number++
		l, _, _ = strings.Cut(l, "#")
		s := Step(strings.Fields(l))
		if len(s) == 0 {
			continue
		}
		if err := s.validate(); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

func (s Step) validate() error {
	switch {
	case s.is("check"), s.is("settle"):
		if len(s) > 1 {
			return fmt.Errorf("%q takes no words", s[0])
		}
		return nil
	case s.is("send"):
		_, err := s.frame()
		return err
	}
	v, ok := verbs[s[0]]
	if !ok {
		return fmt.Errorf("no step begins with %q", s[0])
	}
	if n := len(s) - 1; n < v.least || n > v.most {
		return fmt.Errorf("%q: want %s", s, v.words)
	}
	return nil
}

// Format writes a script as Parse reads it. The remarks come first, a line each.
func Format(steps []Step, remarks ...string) string {
	var b strings.Builder
	for _, r := range remarks {
		for l := range strings.SplitSeq(strings.TrimSpace(r), "\n") {
			fmt.Fprintln(&b, "#", l)
		}
	}
	for _, s := range steps {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

// ReadFile reads a script from a file.
func ReadFile(path string) ([]Step, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	steps, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return steps, nil
}

// Shrink returns a shorter script that still fails: it leaves out ever smaller
// pieces (Zeller and Hildebrandt's delta debugging) for as long as tries last.
// The script that is given is taken to fail.
func Shrink(steps []Step, tries int, fails func([]Step) bool) []Step {
	pieces := 2
	for len(steps) > 1 && tries > 0 {
		size := (len(steps) + pieces - 1) / pieces
		shorter := false
		for from := 0; from < len(steps) && tries > 0; from += size {
			rest := slices.Concat(steps[:from], steps[min(from+size, len(steps)):])
			if len(rest) == 0 {
				continue
			}
			tries--
			if fails(rest) {
				steps, shorter = rest, true
				pieces = max(pieces-1, 2)
				break
			}
		}
		switch {
		case shorter:
		case size == 1:
			return steps
		default:
			pieces = min(2*pieces, len(steps))
		}
	}
	return steps
}
