package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// outcome is how a script ended in one machine.
type outcome struct {
	names   []string // in the order of the script
	results map[string]string
	fast    uint64 // frames on the fast path
	slow    uint64 // frames that shunt passed up
	reasons string // why bridges were not eligible
	errors  []string
	ended   bool
}

// whole is the name under which a script's own exit code counts as a subtest:
// a script that stops half-way is not the same as one that passes.
const whole = "(the script)"

// subtest is a line that log_test of lib.sh prints.
var subtest = regexp.MustCompile(`^TEST: (.*?)\s+\[\s*(\w+)\s*\]$`)

// read takes in a line that the machine printed.
func (o *outcome) read(line string) {
	if m := subtest.FindStringSubmatch(line); m != nil {
		o.add(m[1], m[2])
		return
	}
	said, ok := strings.CutPrefix(line, "guest: ")
	if !ok {
		return
	}
	what, rest, _ := strings.Cut(said, " ")
	switch what {
	case "exit":
		o.ended = true
		o.add(whole, exitName(rest))
	case "frames":
		fmt.Sscan(rest, &o.fast, &o.slow)
	case "reasons":
		o.reasons = rest
	case "error":
		o.errors = append(o.errors, rest)
	}
}

// add counts names that occur more than once: "ping", "ping #2".
func (o *outcome) add(name, result string) {
	if result == "OK" {
		result = "PASS"
	}
	if o.results == nil {
		o.results = make(map[string]string)
	}
	unique := name
	for n := 2; o.results[unique] != ""; n++ {
		unique = fmt.Sprintf("%s #%d", name, n)
	}
	o.results[unique] = result
	o.names = append(o.names, unique)
}

// exitName reads the exit codes of kselftest.
func exitName(code string) string {
	switch code {
	case "0":
		return "PASS"
	case "4":
		return "SKIP"
	}
	return "FAIL"
}

// finish notes how the machine ended.
func (o *outcome) finish(err error) {
	if err != nil {
		o.errors = append(o.errors, err.Error())
	}
	if !o.ended {
		o.add(whole, "NONE")
	}
}

// result is that of a subtest, also if the script did not come to it.
func (o *outcome) result(name string) string {
	if r := o.results[name]; r != "" {
		return r
	}
	return "NONE"
}

// row is a script with its outcomes, by whether shunt ran.
type row struct {
	script
	outcomes map[bool]outcome
}

// compared says whether it ran in both modes.
func (r row) compared() bool { return len(r.outcomes) == 2 }

// idle says whether shunt did nothing where it should have.
func (r row) idle() bool {
	with, ran := r.outcomes[true]
	return ran && r.crosses && with.fast == 0
}

// names are the subtests of all outcomes, in the order of the script.
func (r row) names() (names []string) {
	for _, shunt := range []bool{false, true} {
		for _, name := range r.outcomes[shunt].names {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// differing are the subtests whose results are not the same.
func (r row) differing() (names []string) {
	without, with := r.outcomes[false], r.outcomes[true]
	for _, name := range r.names() {
		if r.compared() && without.result(name) != with.result(name) {
			names = append(names, name)
		}
	}
	return names
}

// print writes a line for every subtest.
func (r row) print(w io.Writer) {
	fmt.Fprintf(w, "\n--- %s\n", r.path)
	differing := r.differing()
	for _, name := range r.names() {
		for _, shunt := range []bool{false, true} {
			if o, ok := r.outcomes[shunt]; ok {
				fmt.Fprintf(w, "%-5s", o.result(name))
			}
		}
		mark := ""
		if slices.Contains(differing, name) {
			mark = "   <- differs"
		}
		fmt.Fprintf(w, "%s%s\n", name, mark)
	}
	for _, shunt := range []bool{false, true} {
		for _, e := range r.outcomes[shunt].errors {
			fmt.Fprintf(w, "%s: %s\n", modeName(shunt), e)
		}
	}
	fmt.Fprintln(w)
}

// judge writes a line for every script, and returns an error if one differs, if
// a machine or a daemon failed, or if there was nothing to compare.
func judge(w io.Writer, rows []row) error {
	differing, failed, idle := 0, 0, 0
	fmt.Fprintf(w, "%-52s %-24s %-24s %7s %9s %9s\n", "script", "without", "with", "differ", "fast", "slow")
	for _, r := range rows {
		without, with := r.outcomes[false], r.outcomes[true]
		fmt.Fprintf(w, "%-52s %-24s %-24s %7d %9d %9d %s\n",
			r.path, without.summary(), with.summary(), len(r.differing()), with.fast, with.slow, with.reasons)
		differing += len(r.differing())
		failed += len(without.errors) + len(with.errors)
		if r.idle() {
			idle++
		}
	}
	switch {
	case differing > 0:
		return fmt.Errorf("%d subtests differ", differing)
	case failed > 0:
		return fmt.Errorf("%d machines or daemons failed", failed)
	case idle > 0:
		return fmt.Errorf("in %d scripts whose frames cross the bridge none took the fast path: they compare nothing", idle)
	case len(rows) == 0:
		return fmt.Errorf("no script of this kernel matches")
	}
	return nil
}

// summary counts the results, such as "12 PASS 1 SKIP".
func (o *outcome) summary() string {
	var parts []string
	for _, result := range []string{"PASS", "FAIL", "XFAIL", "SKIP", "NONE"} {
		n := 0
		for name, r := range o.results {
			if name != whole && r == result {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, result))
		}
	}
	if r := o.results[whole]; r != "" && r != "PASS" {
		parts = append(parts, "script "+r)
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " ")
}
