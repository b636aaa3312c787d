package accel

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// examine asks everyone who can tell whether shunt would work here. Nothing is
// changed.
func (a *app) examine(ctx context.Context, socket string) []Finding {
	findings := []Finding{a.checkPrivileges(), checkKernel(), checkDaemon(ctx, socket)}
	for _, checker := range serving[Checker](newLifecycle(a.plugins, nil).components) {
		findings = append(findings, checker.Check(ctx)...)
	}
	return findings
}

func (a *app) checkPrivileges() Finding {
	if err := a.privileges(); err != nil {
		return Finding{"privileges", LevelFail, err.Error(), "sudo shunt doctor"}
	}
	return Finding{Check: "privileges", Level: LevelOK, Text: "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON are there"}
}

// checkKernel only shows the release: what the kernel can do is found by trying
// it, which the plugins do.
func checkKernel() Finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Finding{Check: "kernel", Level: LevelNote, Text: fmt.Sprintf("the release cannot be read: %v", err)}
	}
	release, machine := unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])
	return Finding{Check: "kernel", Level: LevelOK, Text: fmt.Sprintf("Linux %s on %s", release, machine)}
}

func checkDaemon(ctx context.Context, socket string) Finding {
	status, err := NewClient(socket).Status(ctx, "")
	if err != nil {
		return Finding{Check: "daemon", Level: LevelNote, Text: err.Error()}
	}
	f := Finding{Check: "daemon", Level: LevelOK, Text: fmt.Sprintf("version %s answers at %s", status.Version, socket)}
	if status.Version != Version() {
		f.Level = LevelNote
		f.Text += fmt.Sprintf("; this is version %s", Version())
		f.Advice = "restart the daemon"
	}
	return f
}

// failed says whether a finding keeps shunt from running.
func failed(findings []Finding) bool {
	for _, f := range findings {
		if f.Level == LevelFail {
			return true
		}
	}
	return false
}
