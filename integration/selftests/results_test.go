package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// outcomeOf reads what a machine printed.
func outcomeOf(output string, err error) outcome {
	var o outcome
	for line := range strings.Lines(output) {
		o.read(strings.TrimRight(line, "\r\n"))
	}
	o.finish(err)
	return o
}

const printed = `TEST: ping                                                          [ OK ]
TEST: Locked port ipv4                                              [FAIL]
	Ping did not work
TEST: ping                                                          [SKIP]
INFO: Add and delete a VLAN on bridge port veth1
guest: exit 0
guest: frames 12 34
`

func TestSubtestsAreRead(t *testing.T) {
	o := outcomeOf(printed, nil)
	want := []string{"ping", "Locked port ipv4", "ping #2", whole}
	if !slices.Equal(o.names, want) {
		t.Errorf("the subtests are %q, want %q", o.names, want)
	}
	for name, result := range map[string]string{"ping": "PASS", "Locked port ipv4": "FAIL", "ping #2": "SKIP", whole: "PASS"} {
		if o.result(name) != result {
			t.Errorf("%q is %s, want %s", name, o.result(name), result)
		}
	}
	if o.fast != 12 || o.slow != 34 || len(o.errors) != 0 {
		t.Errorf("frames %d fast, %d slow, errors %q; want 12, 34, none", o.fast, o.slow, o.errors)
	}
}

// A difference must be found wherever it is: in a result, in what one of the
// two did not come to, and in how the script ended.
func TestEveryDifferenceFails(t *testing.T) {
	for name, with := range map[string]string{
		"result":   strings.Replace(printed, "[SKIP]", "[ OK ]", 1),
		"missing":  strings.Replace(printed, "TEST: Locked", "Locked", 1),
		"more":     "TEST: another [ OK ]\n" + printed,
		"exit":     strings.Replace(printed, "exit 0", "exit 1", 1),
		"no end":   strings.Replace(printed, "guest: exit 0\n", "", 1),
		"a daemon": printed + "guest: error shunt in namespace \"\": it ended\n",
	} {
		r := row{script{"script", true}, map[bool]outcome{false: outcomeOf(printed, nil), true: outcomeOf(with, nil)}}
		if judge(new(strings.Builder), []row{r}) == nil {
			t.Errorf("%s: the difference was not found", name)
		}
	}
}

func TestSameResultsPass(t *testing.T) {
	same := row{script{"script", true}, map[bool]outcome{false: outcomeOf(printed, nil), true: outcomeOf(printed, nil)}}
	if err := judge(new(strings.Builder), []row{same}); err != nil {
		t.Errorf("the same results twice: %v", err)
	}
}

// Where no frame takes the fast path, equal results say nothing.
func TestIdleShuntFails(t *testing.T) {
	idle := strings.Replace(printed, "frames 12 34", "frames 0 34", 1)
	r := row{script{"script", true}, map[bool]outcome{false: outcomeOf(printed, nil), true: outcomeOf(idle, nil)}}
	if judge(new(strings.Builder), []row{r}) == nil {
		t.Error("shunt did nothing, and it was not noticed")
	}
	r.crosses = false
	if err := judge(new(strings.Builder), []row{r}); err != nil {
		t.Errorf("a script whose frames do not cross the bridge: %v", err)
	}
}

func TestMachineThatFailsFails(t *testing.T) {
	once := row{script{"script", true}, map[bool]outcome{false: outcomeOf(printed, errors.New("it took too long"))}}
	if judge(new(strings.Builder), []row{once}) == nil {
		t.Error("a machine that failed was not noticed")
	}
	if judge(new(strings.Builder), nil) == nil {
		t.Error("nothing ran, and it was not noticed")
	}
}
