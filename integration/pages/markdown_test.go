package pages

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBlocks(t *testing.T) {
	page := "# A page\n\n    one\n\n    two\n\nWords\n    that go on.\n\n    bridges: [br0]\n\n" +
		"```ini\n[Match]\n```\n\n- a list\n\n```sh\nthree\n```\n```\nprinted\n```\n\n1. more\n\n        four \\\n            five\n"
	want := []Block{
		{3, Shell, "one\n\ntwo"}, {10, Config, "bridges: [br0]"}, {13, Unit, "[Match]"}, {19, Shell, "three"}, {22, Other, "printed"},
		{27, Shell, "four \\\n    five"},
	}
	if diff := cmp.Diff(want, Blocks(page)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestInline(t *testing.T) {
	page := "See `shunt status` and `x`.\n\n    not `this`\n\n```\nnor `this`\n```\nbut `that`\n"
	want := []Block{{1, Shell, "shunt status"}, {1, Shell, "x"}, {8, Shell, "but that"[4:]}}
	if diff := cmp.Diff(want, Inline(page)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCommands(t *testing.T) {
	text := "A=1 sudo ./shunt run \\\n  --bridge br0 # said\n" +
		"for n in 1 2; do echo 'a b' | tee -a \"x y\" >/dev/null; done\n" +
		"kill $(pidof shunt) && true\n"
	want := [][]string{
		{"A=1", "sudo", "./shunt", "run", "--bridge", "br0"},
		{"for", "n", "in", "1", "2"}, {"do", "echo", "a b"}, {"tee", "-a", "x y"}, {"done"},
		{"pidof", "shunt"}, {"kill", "$(pidof shunt)"}, {"true"},
	}
	if diff := cmp.Diff(want, Commands(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
