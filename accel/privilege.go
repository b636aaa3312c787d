package accel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// neededCapabilities in the order of the error message. CAP_SYS_ADMIN implies
// the two that were split from it (kernel/capability.c, bpf_capable).
var neededCapabilities = []struct {
	name  string
	bit   uint
	admin bool
}{
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false},
	{"CAP_BPF", unix.CAP_BPF, true},
	{"CAP_PERFMON", unix.CAP_PERFMON, true},
}

// checkPrivileges says what this process lacks to change the data plane.
func checkPrivileges() error {
	effective, err := effectiveCapabilities("/proc/self/status")
	if err != nil {
		return err
	}
	if missing := missingCapabilities(effective); len(missing) > 0 {
		return fmt.Errorf("this needs %s, which the process does not have: use sudo", enumerate(missing))
	}
	return nil
}

func effectiveCapabilities(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read the process's capabilities: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if hex, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("%s has no line CapEff", path))
}

func missingCapabilities(effective uint64) []string {
	admin := effective&(1<<unix.CAP_SYS_ADMIN) != 0
	var missing []string
	for _, c := range neededCapabilities {
		if effective&(1<<c.bit) == 0 && !(c.admin && admin) {
			missing = append(missing, c.name)
		}
	}
	return missing
}

// enumerate writes a list as a sentence does: a, b and c.
func enumerate(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
