package pages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository, binary the shunt that the pages are held against.
const root = "../.."

var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shunt-pages-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "shunt")
	if out, err := exec.Command("go", "build", "-o", binary, root).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build shunt: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// eachPage calls f with the name and text of every page of the repository.
func eachPage(t *testing.T, f func(name, text string)) {
	t.Helper()
	patterns := []string{"*.md", "*/*.md", "*/*/*.md"}
	found := 0
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			f(name, read(t, name))
			found++
		}
	}
	if found < 10 {
		t.Errorf("found %d pages: this is not the repository", found)
	}
}

// read returns the text of a page.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// ofExamples are the commands of plugins that the pages make; TestTheExamplePluginWorks
// knows them.
var ofExamples = []string{"outages"}

// Every command of shunt on any page, within a sentence too, is one that the program
// has, with flags that it has.
func TestEveryCommandIsOneOfTheProgram(t *testing.T) {
	checked := 0
	eachPage(t, func(name, text string) {
		for _, block := range append(Blocks(text), Inline(text)...) {
			if block.Kind != Shell {
				continue
			}
			for _, words := range Commands(block.Text) {
				args, ok := OfShunt(words)
				if !ok {
					continue
				}
				checked++
				if slices.Contains(ofExamples, args[0]) {
					continue
				}
				if err := parses(args); err != nil {
					t.Errorf("%s:%d: shunt %s: %v", name, block.Line, strings.Join(args, " "), err)
				}
			}
		}
	})
	t.Logf("%d commands", checked)
	if checked < 40 {
		t.Errorf("found %d commands only", checked)
	}
}

// parses lets the program read a command line without doing anything: it looks at the
// flags before it helps.
func parses(args []string) error {
	if strings.HasPrefix(args[0], "-") {
		return runs(args, "")
	}
	return runs(append([]string{args[0], "--help"}, args[1:]...), "shunt "+args[0])
}

// runs wants the program to succeed and to print something.
func runs(args []string, wanted string) error {
	out, err := exec.Command(binary, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	if !strings.Contains(string(out), wanted) {
		return fmt.Errorf("there is no such command")
	}
	return nil
}

// A command or a flag that does not exist is noticed; else the test above says nothing.
func TestMistakesInCommandsAreNoticed(t *testing.T) {
	for _, line := range []string{
		"sudo ./shunt stauts", "shunt status --brigde br0", "shunt swap uplink --two eth1",
		"nsenter --net=/run/netns/a shunt rn", "OTEL_TRACES_EXPORTER=otlp \\\n shunt run --bridgee br0",
		"kill $(shunt status -x)",
	} {
		found := false
		for _, words := range Commands(line) {
			if args, ok := OfShunt(words); ok {
				found = true
				if parses(args) == nil {
					t.Errorf("%q passes", line)
				}
			}
		}
		if !found {
			t.Errorf("no command of shunt is seen in %q", line)
		}
	}
}
