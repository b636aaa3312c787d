package pages

import (
	"slices"
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

// TestCommandsOfAPage takes them from between all else that a page has.
func TestCommandsOfAPage(t *testing.T) {
	page := `# A page

Do this:

    echo one
    echo two

    echo three

and that, which is no code
    since it goes on from the line before.

` + "```sh\necho four \\\n    five\n```\n\n```yaml\nbridges: [br0]\n```\n\n```\noutput\n```\n\n````bash\necho '```'\n````\n"
	want := []Block{
		{5, Shell, "echo one\necho two\n\necho three"},
		{14, Shell, "echo four \\\n    five"},
		{27, Shell, "echo '```'"},
	}
	commands := slices.DeleteFunc(Blocks(page), func(b Block) bool { return b.Kind != Shell })
	if diff := cmp.Diff(want, commands); diff != "" {
		t.Error(diff)
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
