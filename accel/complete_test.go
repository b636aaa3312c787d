package accel

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestCompletion(t *testing.T) {
	socket := socketPath(t)
	startDaemon(t, socket, sample()).ready(t)
	a := newTestApp(sample().plugin())
	for _, c := range []struct{ line, want string }{
		{"stat", "status\tShow the bridges, and why one takes the slow path"},
		{"status --socket " + socket + " --bridge ", "a-long-bridge-n br0 br1 br9"},
		{"status --socket /nonexistent --bridge ", ""},
		{"explain --socket " + socket + " --in ", "a-long-port-nam p1 p2"},
		{"run --attach ", "auto clsact tcx"},
		{"run --log-level ", "debug error info warn"},
		{"run --config ", "yaml yml"},
	} {
		words := append([]string{"__completeNoDesc"}, strings.Split(c.line, " ")...)
		if !strings.Contains(c.line, " ") {
			words[0] = "__complete"
		}
		code, out, _ := a.call(t, words...)
		if got := completed(out); code != 0 || got != c.want {
			t.Errorf("%s: got %d %q, want %q", c.line, code, got, c.want)
		}
	}
}

// completed are the words, sorted, without the last line, which is for the shell.
func completed(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(slices.Sorted(slices.Values(lines[:len(lines)-1])), " ")
}

func TestCompletionOfInterfaces(t *testing.T) {
	needRoot(t)
	out, err := exec.Command("unshare", "--net", "--mount", "sh", "-ec", `
mount -t sysfs sys /sys
ip link add br0 type bridge
ip link add p1 type veth peer name h1
ip link set p1 master br0
SHUNT_TEST_AS_PROGRAM=1 "$0" __completeNoDesc run --bridge ""`, os.Args[0]).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "br0\n") {
		t.Errorf("%v: %s", err, out)
	}
}
