package pages

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The example of a plugin is a plugin: the program with its one import line has its
// command, the daemon answers it, and what it watches is right.
func TestTheExamplePluginWorks(t *testing.T) {
	program := filepath.Join(t.TempDir(), "shunt")
	if out, err := exec.Command("go", "build", "-o", program, root+"/integration/exampleplugin").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := sandbox(t, "SHUNT="+program+`
bridge_of_pages
shunt run --bridge br0
[ "$(shunt outages -j)" = "[]" ]
ip link set br0 down
soon says '"reason":"bridge_down".*"ended":null' outages
ip link set br0 up
soon says '"reason":"bridge_down".*"ended":"' outages
shunt outages
interrupt TERM
cat $log
`)
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(out))
	}
	for _, wanted := range []string{"BRIDGE  BEGAN", "bridge_down", "a bridge has left the fast path", "plugin=outages"} {
		if !strings.Contains(out, wanted) {
			t.Errorf("%q is missing in\n%s", wanted, out)
		}
	}
	if parses([]string{"outages"}) == nil {
		t.Error("shunt without the plugin has the command, too")
	}
}

// The code on the page of plugins is that of the example, and the example differs from
// the program in one line.
func TestThePageOfPluginsShowsTheExample(t *testing.T) {
	program := read(t, "integration/exampleplugin/main.go")
	example := program + read(t, "integration/exampleplugin/outages/outages.go")
	shown := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, "docs/plugins.md"), -1)
	if len(shown) == 0 {
		t.Error("the page shows no code")
	}
	for _, code := range shown {
		if !strings.Contains(example, code[1]) {
			t.Errorf("this is not in the example:\n%s", code[1])
		}
	}
	original := read(t, "main.go")
	for line := range strings.Lines(program) {
		if strings.Contains(line, "_ \"") && !strings.Contains(line, "exampleplugin") && !strings.Contains(original, line) {
			t.Errorf("the program does not import%s", line)
		}
	}
	for line := range strings.Lines(original) {
		if strings.Contains(line, "_ \"") && !strings.Contains(line, "/demo\"") && !strings.Contains(line, "/bench\"") && !strings.Contains(program, line) {
			t.Errorf("the example does not import%s", line)
		}
	}
}
