package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const page = `# A page

Do this:

    echo one
    echo two

    echo three

and that, which is no code
    since it goes on from the line before.

` + "```sh\necho four \\\n    five\n```\n\n```yaml\nbridges: [br0]\n```\n\n```\noutput\n```\n\n````bash\necho '```'\n````\n"

func TestPageIsRunToItsEnd(t *testing.T) {
	out, err := exec.Command("bash", "-c", scriptOf("docs/a.md", page)).Output()
	want := "guest: docs/a.md:5\none\ntwo\nthree\nguest: docs/a.md:14\nfour five\nguest: docs/a.md:27\n```\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, cmp.Diff(want, string(out)))
	}
}

func TestPageEndsAtTheFirstCommandThatFails(t *testing.T) {
	for _, failing := range []string{"false", "false | cat", "echo $unset", "no-such-command"} {
		out, err := exec.Command("bash", "-c", scriptOf("a.md", "    echo one\n\ntext\n\n    "+failing+"\n    echo two\n\ntext\n\n    echo three\n")).Output()
		if err == nil || !strings.HasPrefix(string(out), "guest: a.md:1\none\nguest: a.md:5\n") || strings.Contains(string(out), "two") || strings.Contains(string(out), "three") {
			t.Errorf("%s: %v\n%s", failing, err, out)
		}
	}
}
