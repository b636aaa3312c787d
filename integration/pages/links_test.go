package pages

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mentioned is a page that is named in a sentence or linked to, as seen from the page
// itself or from the root.
var mentioned = regexp.MustCompile("[(`]((?:\\.\\./)*[a-zA-Z0-9_/-]+\\.md)[)`]")

// Every page that is mentioned is there.
func TestEveryPageThatIsMentionedIsThere(t *testing.T) {
	eachPage(t, func(name, text string) {
		for _, found := range mentioned.FindAllStringSubmatch(text, -1) {
			places := []string{filepath.Join(filepath.Dir(name), found[1]), found[1]}
			if !slices.ContainsFunc(places, isThere) {
				t.Errorf("%s mentions %s, which is not there", name, found[1])
			}
		}
	})
}

func isThere(name string) bool {
	_, err := os.Stat(filepath.Join(root, name))
	return err == nil
}

// The index has every page for operators.
func TestTheIndexHasEveryPage(t *testing.T) {
	index := read(t, "docs/README.md")
	eachPage(t, func(name, _ string) {
		page, ok := strings.CutPrefix(name, "docs/")
		if ok && page != "README.md" && !strings.Contains(index, "("+page+")") {
			t.Errorf("%s is not in the index", name)
		}
	})
}
