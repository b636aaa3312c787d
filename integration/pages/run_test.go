package pages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// rig is what a page takes for granted, in commands for the sandbox, and what must be
// true when all of its own were run.
type rig struct{ given, then string }

// runnable are the pages whose commands are run, in their order.
var runnable = map[string]rig{
	"README.md":                 {given: `copy_of_tree; SHUNT=$PWD/shunt; ./run-tests() { :; }; bridge_of_pages`, then: `nothing_left`},
	"docs/bench.md":             {then: `grep -q '</svg>' bench.svg`},
	"docs/never-accelerated.md": {given: `bridge_of_pages; shunt run --bridge br0`},
	"docs/operating.md":         {given: `bridge_of_pages; settings 'bridges: [br0]'`},
	"docs/plugins.md":           {given: `copy_of_tree; SHUNT=$PWD/shunt`},
	"docs/telemetry.md":         {given: `bridge_of_pages`}, // no collector is there, which costs a daemon nothing
	"docs/recipes/libvirt.md": {
		given: `bridge_of_pages; settings 'bridges: [br0]'
			ip link add virbr0 type bridge mcast_snooping 0; ip link set virbr0 up; host guest3 vnet3 virbr0 3; host guest4 vnet4 virbr0 4; greet guest3 4
			nft add table ip libvirt_network; nft add chain ip libvirt_network guest_nat '{ type nat hook postrouting priority srcnat; }'`,
		then: `says '"active":"eth1"' groups`,
	},
	"docs/recipes/proxmox.md": {
		given: `bridge_named vmbr0 tap100i0 fwpr101p0; bridge_named fwbr101i0`,
		then:  `fast vmbr0; fast fwbr101i0`,
	},
	"docs/recipes/docker.md": {
		given: `bridge_named docker0 veth1 veth2
			nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'`,
		then: `slow docker0 br_netfilter; settings 'bridges: [{name: docker0, netfilter: bypass}]'; systemctl restart shunt; fast docker0`,
	},
	"docs/recipes/incus.md": {
		given: `bridge_named incusbr0 veth1 veth2`,
		then: `fast incusbr0; soon says isolated explain --in veth1 --src 52:54:00:00:00:01 --dst 52:54:00:00:00:02
			nft add table inet incus; nft add chain inet incus fwd.incusbr0 '{ type filter hook forward priority 0; }'
			slow incusbr0 br_netfilter
			nft add table bridge incus; nft add chain bridge incus forward_c '{ type filter hook forward priority 0; }'
			slow incusbr0 bridge_netfilter`,
	},
	"docs/recipes/networkd.md": {
		given: `networkd_of_pages; bridge_of_pages; ip link del br0; ip link set eth0 down; ip link set eth1 down`,
		then: `restart_networkd; soon says '"state":"ready"' groups; ip link show uplink | grep 'master br0'; fast br0
			untouched eth0 eth1 uplink uplink-stub; ip address show br0 | grep 192.0.2.10`,
	},
}

// elsewhere are the pages with commands that are not run here, and why.
var elsewhere = map[string]string{
	"docs/install.md":     "integration/packagetest runs it, on a clean Debian",
	"docs/performance.md": "integration/benchvm is what they run, in QEMU",
	"docs/upgrades.md":    "its firmware and its drivers are not here; TestUpgradeOfTwoGroupsLosesNothing and the README upgrade",
}

// passedOver are lists of commands that the shell goes on behind, though one fails.
var passedOver = regexp.MustCompile(`(?m)^[^'"]*&&[^'"]*\n.`)

// Every page for operators is run, or says who runs it.
func TestEveryPageWithCommandsIsRun(t *testing.T) {
	eachPage(t, func(name, text string) {
		if name != "README.md" && !strings.HasPrefix(name, "docs/") {
			return // for those who work on shunt
		}
		_, here := runnable[name]
		if _, there := elsewhere[name]; !here && !there && scriptOf(name, text) != "" {
			t.Errorf("nothing runs the commands of %s", name)
		}
		for _, block := range Blocks(text) {
			if here && block.Kind == Shell && passedOver.MatchString(block.Text) {
				t.Errorf("%s:%d: a command that fails before && would be passed over: write it on a line of its own", name, block.Line)
			}
		}
	})
}

// The commands of the pages work, one after the other, as they stand there.
func TestPagesWork(t *testing.T) {
	for name, rig := range runnable {
		t.Run(name, func(t *testing.T) {
			script := scriptOf(name, read(t, name))
			if script == "" {
				t.Fatal("there are no commands on the page")
			}
			out, err := sandbox(t, rig.given+"\n"+script+rig.then)
			t.Log(out)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// A page with a command that fails is noticed, and where.
func TestACommandThatFailsIsNoticed(t *testing.T) {
	for _, page := range []string{
		"    sudo shunt status\n", // no daemon
		"    sudo shunt run --bridge br0\n\n    sudo shunt status\n\n    sudo shunt explain --in p9 --src 52:54:00:00:00:01 --dst 52:54:00:00:00:02\n",
		"    sudo shunt run --bridge br0\n    false\n    sudo shunt status\n",
		"    true\n\n    false && true\n",
		"    sudo shunt run --bridge br9\n",
	} {
		if out, err := sandbox(t, "bridge_of_pages\n"+scriptOf("page.md", page)); err == nil {
			t.Errorf("%q passes:\n%s", page, tail(out))
		}
	}
}

// scriptOf makes a script of a page's commands, which says before each block where it
// stands; empty if there are none.
func scriptOf(name, page string) string {
	var b strings.Builder
	for _, block := range Blocks(page) {
		if block.Kind == Shell {
			fmt.Fprintf(&b, "echo '== %s:%d'\nset -x\n%s\n{ ended=$?; set +x; } 2>/dev/null\n[ $ended = 0 ]\n", name, block.Line, block.Text)
		}
	}
	return b.String()
}

// pageTimeout is far beyond what any page takes.
const pageTimeout = 5 * time.Minute

// sandbox runs a script in namespaces of its own, which end with it and everything
// in it.
func sandbox(t *testing.T, script string) (string, error) {
	t.Helper()
	rig, err := os.ReadFile("testdata/sandbox.sh")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pageTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-euo", "pipefail", "-c", string(rig)+"\n"+script+"\ninterrupt\n")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "SHUNT="+binary, "TREE="+tree, "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("the page fails in the last of these lines: %w", err)
	}
	return string(out), err
}

// tail is the end of what was printed, which has what failed.
func tail(out string) string { return out[max(0, len(out)-6000):] }
