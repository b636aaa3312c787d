package twin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestScriptIsReadAsItIsWritten(t *testing.T) {
	for _, vlans := range []bool{false, true} {
		mix := Mix{Options: Options{Hosts: 5, VLANs: vlans}, Seed: 3, Changes: 500, Frames: 5000}
		want := slices.Collect(Generate(mix))
		got, err := Parse(Format(want, "a remark", "and\nanother"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("VLANs %v: a script of %d steps was read as one of %d", vlans, len(want), len(got))
		}
		frames, changes := 0, 0
		for _, s := range want {
			if s.is("send") {
				frames++
			}
			if s.isChange() {
				changes++
			}
		}
		if frames < mix.Frames || changes < mix.Changes*3/4 {
			t.Errorf("VLANs %v: %d frames and %d changes, want %d and %d", vlans, frames, changes, mix.Frames, mix.Changes)
		}
	}
}

func TestSameSeedMakesTheSameScript(t *testing.T) {
	mix := Mix{Options: Options{Hosts: 6}, Seed: 9, Changes: 50, Frames: 1000}
	same := func(a, b Mix) bool {
		return slices.EqualFunc(slices.Collect(Generate(a)), slices.Collect(Generate(b)), slices.Equal)
	}
	if !same(mix, mix) {
		t.Error("a seed makes two scripts")
	}
	other := mix
	other.Seed++
	if same(mix, other) {
		t.Error("two seeds make one script")
	}
}

func TestScriptsThatMakeNoSenseAreRefused(t *testing.T) {
	for text, says := range map[string]string{
		"check now":                          "takes no words",
		"fly p1":                             "no step begins",
		"port p1 isolated":                   "want port PORT OPTION VALUE",
		"send h1 02:00:00:00:01:00 raw 60":   "want send",
		"send h1 1 02:00:00:00:01:00 raw 60": "not an Ethernet address",
		"settle\nsend h1 02:00:00:00:01:00 02:00:00:00:02:00 cheese 60": `line 2: no frame is of kind "cheese"`,
		"send h1 02:00:00:00:01:00 02:00:00:00:02:00 raw 60 8100":       "tag",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

// A script fails if it has these steps in this order; nothing else may be left
// of it.
func TestShrinkLeavesWhatMatters(t *testing.T) {
	var steps []Step
	for n := range 1000 {
		steps = append(steps, line("mtu p1 %d", n))
	}
	matter := []int{17, 400, 401, 977}
	fails := func(try []Step) bool {
		for _, n := range matter {
			want := line("mtu p1 %d", n)
			if !slices.ContainsFunc(try, func(s Step) bool { return slices.Equal(s, want) }) {
				return false
			}
		}
		return true
	}
	if got := Shrink(steps, 1000, fails); len(got) != len(matter) || !fails(got) {
		t.Errorf("left %v of %v", got, matter)
	}
	tries := 0
	got := Shrink(steps, 12, func(try []Step) bool { tries++; return fails(try) })
	if tries > 12 || !fails(got) {
		t.Errorf("%d tries of 12, and %d steps that fail: %v", tries, len(got), fails(got))
	}
}

func TestFrameIsWhatItsStepSays(t *testing.T) {
	for text, want := range map[string]string{
		"send h1 02:00:00:00:01:00 02:00:00:00:02:00 raw 22 8100/5/3": "02 00 00 00 02 00 02 00 00 00 01 00 81 00 a0 03 88 b5 00 00 00 00 00 00 00 07",
		"send h1 02:00:00:00:01:00 02:00:00:00:02:00 ipv4 34":         "02 00 00 00 02 00 02 00 00 00 01 00 08 00 45 00 00 14 00 00 00 00 40 11 63 14 0a 63 01 00 0a 63 02 00",
		"send h1 02:00:00:00:01:00 02:00:00:00:02:00 llc 17":          "02 00 00 00 02 00 02 00 00 00 01 00 00 03 42 42 03",
	} {
		f, err := Step(strings.Fields(text)).frame()
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("% x", f.bytes(7)[vnetLen:]); got != want {
			t.Errorf("%s:\n%s, want\n%s", text, got, want)
		}
	}
}
