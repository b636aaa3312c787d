package pages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The settings on the pages, and those that are delivered, are read without complaint.
func TestSettingsOnThePagesAreRead(t *testing.T) {
	checked := 0
	eachPage(t, func(name, text string) {
		for _, block := range Blocks(text) {
			if block.Kind != Config {
				continue
			}
			checked++
			if complaint := complaintOf(t, block.Text); complaint != "" {
				t.Errorf("%s:%d: %s", name, block.Line, complaint)
			}
		}
	})
	if checked < 5 {
		t.Errorf("found %d blocks of settings only", checked)
	}
	if complaint := complaintOf(t, read(t, "packaging/shunt.yaml"), "--bridge br0"); complaint != "" {
		t.Error(complaint)
	}
	for _, wrong := range []string{"bridgs: [br0]\n", "bridges: [br0]\nlease: 1y\n"} {
		if complaintOf(t, wrong) == "" {
			t.Errorf("%q passes", wrong)
		}
	}
}

// complaintOf returns what the daemon says of a file before it looks for its bridges;
// there are none.
func complaintOf(t *testing.T, settings string, flags ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := sandbox(t, `timeout 10 "$SHUNT" run --config `+file+" "+strings.Join(flags, " "))
	if err == nil {
		t.Errorf("the daemon works without a bridge:\n%s", out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, file) {
			return strings.TrimSpace(line)
		}
	}
	if !strings.Contains(out, "there is no interface") {
		t.Errorf("the daemon does not come to its bridges:\n%s", out)
	}
	return ""
}

// The units on the pages are what systemd takes as drop-ins of the service. Files of
// systemd-networkd are read by networkd itself, where their page is run.
func TestUnitsOnThePagesAreTaken(t *testing.T) {
	checked := 0
	eachPage(t, func(name, text string) {
		for _, block := range Blocks(text) {
			if block.Kind == Unit {
				checked++
				if out, err := verify(t, block.Text); err != nil || out != "" {
					t.Errorf("%s:%d: %v %s", name, block.Line, err, out)
				}
			}
		}
	})
	if checked == 0 {
		t.Error("there are no units")
	}
	if out, _ := verify(t, "[Unit]\nBeforre=network-online.target\n"); out == "" {
		t.Error("a mistake in a unit is not noticed")
	}
}

// verify asks systemd about the service with a drop-in.
func verify(t *testing.T, dropIn string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	service := strings.ReplaceAll(read(t, "packaging/shunt.service"), "/usr/bin/shunt", binary)
	for path, text := range map[string]string{"shunt.service": service, "shunt.service.d/page.conf": dropIn} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", filepath.Join(dir, "shunt.service"))
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	out, err := cmd.CombinedOutput()
	var about []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) || strings.Contains(line, "shunt") {
			about = append(about, line)
		}
	}
	return strings.Join(about, ""), err
}
