package nicswap

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

func TestStateDirIsChecked(t *testing.T) {
	directory := t.TempDir()
	file := filepath.Join(directory, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		directory:                              accel.LevelOK,
		filepath.Join(directory, "not", "yet"): accel.LevelOK,
		filepath.Join(file, "below"):           accel.LevelNote,
	} {
		if f := checkStateDir(path); f.Level != want || !strings.Contains(f.Text, path) {
			t.Errorf("%s: %+v", path, f)
		}
	}
	if _, err := os.Stat(filepath.Join(directory, "not")); err == nil {
		t.Error("the check has made a directory")
	}
}

// TestAFullStateDirIsSaid for blocks and for inodes.
func TestAFullStateDirIsSaid(t *testing.T) {
	for options, fill := range map[string]func(string) error{
		"size=16k":    func(path string) error { return os.WriteFile(path, make([]byte, 16<<10), 0o600) },
		"nr_inodes=2": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		directory := t.TempDir()
		if err := unix.Mount("tmpfs", directory, "tmpfs", 0, options); err != nil {
			t.Fatalf("needs root: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(directory, 0) })
		if f := checkStateDir(directory); f.Level != accel.LevelOK {
			t.Errorf("%s, empty: %+v", options, f)
		}
		if err := fill(filepath.Join(directory, "file")); err != nil {
			t.Fatal(err)
		}
		if f := checkStateDir(directory); f.Level != accel.LevelNote || !strings.Contains(f.Text, directory+": the disk is full") || f.Advice == "" {
			t.Errorf("%s, full: %+v", options, f)
		}
	}
}

func TestAnnouncementsNeedAPacketSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	if f := checkAnnouncements(); f.Level != accel.LevelOK {
		t.Errorf("as root: %+v", f)
	}
	found := make(chan accel.Finding)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends without its capabilities
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
		}
		found <- checkAnnouncements()
	}()
	if f := <-found; f.Level != accel.LevelNote || !strings.Contains(f.Advice, "CAP_NET_RAW") {
		t.Errorf("without capabilities: %+v", f)
	}
}
