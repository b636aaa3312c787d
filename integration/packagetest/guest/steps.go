package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shunt-dev/shunt/integration/lab"
)

const (
	oldVersion, newVersion = "1.0.0", "1.0.1"
	// mostExposure is what systemd-analyze may say of the service.
	mostExposure = 3.0
)

// tryPackage goes through the life of the package, with traffic from the first start
// on.
func tryPackage() error {
	r, err := newRig()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		try  func() error
	}{
		{"a fresh installation starts nothing", r.underTraffic(r.install)},
		{"the manual is there", manual},
		{"bash completes", bashCompletes},
		{"without a bridge in its configuration the service says so", r.startUnconfigured},
		{"the service starts, and is ready when systemctl returns", r.underTraffic(r.start)},
		{"the service is not exposed", exposure},
		{"known unicast takes the fast path", r.fastPath},
		{"a port becomes a stable one", r.adopt},
		{"a daemon that hangs is killed and started again", r.underTraffic(r.hang)},
		{"the package is upgraded", r.underTraffic(r.upgrade)},
		{"the package is removed, and the stable port stays", r.underTraffic(r.remove)},
		{"a purge keeps what the stable port needs", r.underTraffic(r.purgeWired)},
		{"another installation takes the stable port up", r.underTraffic(r.takeUp)},
		{"the stable port is released", r.release},
		{"the package is removed for good", r.underTraffic(r.purge)},
	} {
		fmt.Println("guest: ===", step.name)
		if err := step.try(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func packageOf(version string) string {
	found, _ := filepath.Glob("/packagetest/shunt_" + version + "_*.deb")
	return strings.Join(found, " ")
}

func (r *rig) install() error {
	if err := apt("install", packageOf(oldVersion)); err != nil {
		return err
	}
	return errors.Join(
		wantOutput("disabled", "systemctl", "is-enabled", "shunt.service"),
		wantOutput("inactive", "systemctl", "is-active", "shunt.service"),
		wantOutput("shunt version "+oldVersion, "shunt", "--version"),
		wantOutput("", "systemctl", "--failed", "--quiet", "--no-legend"))
}

func manual() error {
	for _, page := range []string{"shunt", "shunt-run", "shunt-swap"} {
		if err := wantOutput("/usr/share/man/man8/"+page+".8.gz", "man", "-w", page); err != nil {
			return err
		}
	}
	text, err := output("man", "shunt-run")
	if err == nil && !strings.Contains(text, "Accelerate bridges until stopped") {
		err = fmt.Errorf("man shunt-run shows\n%s", text)
	}
	return err
}

// bashCompletes asks as bash does when Tab is pressed.
func bashCompletes() error {
	const press = `source /usr/share/bash-completion/bash_completion
source /usr/share/bash-completion/completions/shunt
COMP_WORDS=(shunt stat) COMP_CWORD=1 COMP_LINE="shunt stat" COMP_POINT=10
__start_shunt 2>/dev/null # compopt is for bash alone
echo "${COMPREPLY[@]}"`
	text, err := output("bash", "-c", press)
	if err == nil && !strings.HasPrefix(text, "status") {
		err = fmt.Errorf("\"shunt stat\" is completed to %q", text)
	}
	return err
}

// startUnconfigured is what who starts the service at once sees.
func (r *rig) startUnconfigured() error {
	if _, err := output("systemctl", "start", "shunt.service"); err == nil {
		return errors.New("it starts")
	}
	log, err := output("journalctl", "--no-pager", "--output=cat", "--unit=shunt.service")
	if err == nil && !strings.Contains(log, "no bridge is named") {
		err = fmt.Errorf("the log does not say why:\n%s", log)
	}
	_, stopped := output("systemctl", "stop", "shunt.service")
	return errors.Join(err, stopped)
}

func (r *rig) start() error {
	if err := configure(); err != nil {
		return err
	}
	if _, err := output("systemctl", "enable", "--now", "shunt.service"); err != nil {
		return err
	}
	status, err := r.status()
	if err == nil && (!status.Ready || len(status.Bridges) != 1 || !status.Bridges[0].Eligible) {
		err = fmt.Errorf("systemctl start has returned, and the status is %+v", status)
	}
	return err
}

// configure names the bridge.
func configure() error {
	f, err := os.OpenFile("/etc/shunt/shunt.yaml", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "bridges: [%s]\n", lab.BridgeName)
	return errors.Join(err, f.Close())
}

func exposure() error {
	text, err := output("systemd-analyze", "security", "--no-pager", "shunt.service")
	if err != nil {
		return err
	}
	_, verdict, _ := strings.Cut(text, "Overall exposure level for shunt.service: ")
	var level float64
	if _, err := fmt.Sscan(verdict, &level); err != nil {
		return fmt.Errorf("no figure in\n%s", text)
	}
	fmt.Printf("guest: exposure %.1f\n", level)
	if level > mostExposure {
		return fmt.Errorf("the exposure is %.1f, and may be %.1f", level, mostExposure)
	}
	return nil
}

func (r *rig) fastPath() error {
	return r.underTraffic(func() error { return r.awaitFast() })()
}

func (r *rig) adopt() error {
	_, err := output("shunt", "adopt", r.stablePort(), "--group", group)
	return err
}

// hang stops the daemon as a debugger does. Only the watchdog can notice.
func (r *rig) hang() error {
	before, err := property("NRestarts")
	if err != nil {
		return err
	}
	pid, err := property("MainPID")
	if err != nil {
		return err
	}
	if _, err := output("kill", "-STOP", pid); err != nil {
		return err
	}
	err = await("systemd starts the daemon again", func() bool {
		now, err := property("NRestarts")
		active, err2 := property("ActiveState")
		return errors.Join(err, err2) == nil && now != before && active == "active"
	})
	log, logged := output("journalctl", "--no-pager", "--output=cat", "--unit=shunt.service")
	if logged == nil && !strings.Contains(log, "Watchdog timeout") {
		logged = errors.New("it was not the watchdog")
	}
	if err := errors.Join(err, logged); err != nil {
		return err
	}
	return r.awaitFast()
}

func (r *rig) upgrade() error {
	if err := apt("install", packageOf(newVersion)); err != nil {
		return err
	}
	status, err := r.status()
	if err == nil && status.Version != newVersion {
		err = fmt.Errorf("the daemon is still of version %s", status.Version)
	}
	if err != nil {
		return err
	}
	return r.awaitFast()
}

func (r *rig) remove() error {
	if err := apt("remove", "shunt"); err != nil {
		return err
	}
	if _, err := os.Stat("/usr/bin/shunt"); !errors.Is(err, os.ErrNotExist) {
		return errors.New("the program is still there")
	}
	pins := pinned()
	fmt.Println("guest: pins that stay", len(pins))
	for _, pin := range pins {
		if strings.Contains(pin, "/bridge-") {
			return fmt.Errorf("%s is still there", pin)
		}
	}
	if len(pins) == 0 {
		return errors.New("the stable port's wire is gone")
	}
	return nil
}

func (r *rig) purgeWired() error {
	if err := apt("purge", "shunt"); err != nil {
		return err
	}
	_, gone := os.Stat("/etc/shunt")
	_, kept := os.Stat("/var/lib/shunt")
	if kept != nil || !errors.Is(gone, os.ErrNotExist) {
		return fmt.Errorf("/var/lib/shunt: %v, /etc/shunt: %v", kept, gone)
	}
	return nil
}

func (r *rig) takeUp() error {
	if err := apt("install", packageOf(newVersion)); err != nil {
		return err
	}
	if err := r.start(); err != nil {
		return err
	}
	groups, err := output("shunt", "groups")
	if err == nil && !strings.Contains(groups, group) {
		err = fmt.Errorf("shunt groups shows\n%s", groups)
	}
	return err
}

func (r *rig) release() error {
	_, err := output("shunt", "release", group)
	return err
}

func (r *rig) purge() error {
	if err := apt("purge", "shunt"); err != nil {
		return err
	}
	for _, path := range []string{"/etc/shunt", "/var/lib/shunt", "/run/shunt", "/etc/systemd/system/multi-user.target.wants/shunt.service"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there: %v", path, err)
		}
	}
	if pins := pinned(); len(pins) > 0 {
		return fmt.Errorf("pins are still there: %v", pins)
	}
	return nil
}

// pinned is what is pinned of shunt.
func pinned() (paths []string) {
	filepath.WalkDir("/sys/fs/bpf/shunt", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}
