package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What cannot be written is found when it is opened.
func TestPicturesThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing", "bench.svg"), "/proc/bench.svg"} {
		if _, err := openPicture(path); err == nil || !strings.HasPrefix(err.Error(), "--plot: ") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

// Until there is a picture, the file is as it was: there, or not.
func TestAPictureThatIsNotDrawnLeavesTheFile(t *testing.T) {
	old, young := filepath.Join(t.TempDir(), "old.svg"), filepath.Join(t.TempDir(), "new.svg")
	if err := os.WriteFile(old, []byte("what was there"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{old, young} {
		p, err := openPicture(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(old); err != nil || string(text) != "what was there" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := os.Stat(young); !os.IsNotExist(err) {
		t.Errorf("a file is left: %v", err)
	}
}

// A picture replaces all of what was there, however long that was.
func TestAPictureReplacesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.svg")
	if err := os.WriteFile(path, []byte(strings.Repeat("old ", 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := openPicture(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.draw(aReport()); err != nil {
		t.Fatal(err)
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != string(plot(aReport())) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestNoPicture(t *testing.T) {
	p, err := openPicture("")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.draw(aReport()); err != nil {
		t.Error(err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}
