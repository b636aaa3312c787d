package accel

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// checkLockdown reads what the kernel is locked down to: at "confidentiality" no
// program may read the kernel's memory (security/lockdown/lockdown.c,
// LOCKDOWN_BPF_READ_KERNEL).
func checkLockdown() Finding {
	return lockdownFinding(os.ReadFile("/sys/kernel/security/lockdown"))
}

func lockdownFinding(modes []byte, err error) Finding {
	_, rest, _ := strings.Cut(string(modes), "[")
	mode, _, found := strings.Cut(rest, "]")
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return Finding{Check: "lockdown", Level: LevelNote, Text: fmt.Sprintf("cannot be read: %v", err)}
	case err != nil, !found:
		return Finding{Check: "lockdown", Level: LevelOK, Text: "the kernel tells of none"}
	case mode == "confidentiality":
		return Finding{Check: "lockdown", Level: LevelNote,
			Text:   "confidentiality: no program may read the kernel's memory, so changes cannot be traced",
			Advice: "boot with lockdown=integrity if that is enough; see revocation for what holds now"}
	}
	return Finding{Check: "lockdown", Level: LevelOK, Text: mode}
}

// fewFiles is how many open files a daemon with a few dozen ports needs.
const fewFiles = 1024

// checkLimits asks for the limit of open files, up to which a process raises its
// own when it starts: the daemon keeps some files open for each port.
func checkLimits() Finding {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return Finding{Check: "open files", Level: LevelNote, Text: fmt.Sprintf("the limit cannot be read: %v", err)}
	}
	return filesFinding(files.Max)
}

func filesFinding(most uint64) Finding {
	f := Finding{Check: "open files", Level: LevelOK, Text: fmt.Sprintf("up to %d", most)}
	if most == unix.RLIM_INFINITY {
		f.Text = "without a limit"
	}
	if most < fewFiles {
		f.Level = LevelNote
		f.Text += fmt.Sprintf("; each port needs some, and so does each client: a bridge with many needs %d", fewFiles)
		f.Advice = "ulimit -Hn, or LimitNOFILE= in the unit"
	}
	return f
}
