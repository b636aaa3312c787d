package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

// A driver that carries a member of each of two groups is exchanged under traffic:
// its devices are deleted and made again, and neither bridge port notices.
func TestUpgradeOfTwoGroupsLosesNothing(t *testing.T) {
	testUpgrade(t, lab.Pace{PerSecond: 10_000, Burst: 16, Gentle: true})
}

func testUpgrade(t *testing.T, pace lab.Pace) {
	x := newSwapLab(t, rigOptions{guests: 2})
	second, err := x.l.AddOutside()
	x.must(err)
	for name, m := range map[string]struct {
		outside *lab.Lab
		kind    swaplab.Kind
	}{
		"m1": {x.l.Outside, swaplab.Veth}, "m2": {x.l.Outside, swaplab.Macvlan},
		"m3": {second, swaplab.Veth}, "m4": {second, swaplab.Macvlan},
	} {
		_, err := x.l.AddMemberTo(m.outside, name, m.kind)
		x.must(err)
	}
	x.start(groupConfig{name: uplink, port: stable, members: []string{"m1", "m2"}},
		groupConfig{name: "other", port: "up1", members: []string{"m3", "m4"}})
	first := x.trafficAt(pace)
	const another = 21
	beside, err := x.l.StartTrafficBetween(x.l.Host.Hosts[1], second.Hosts[0], another, pace)
	x.must(err)
	t.Cleanup(func() { beside.Stop() })
	x.must(beside.AwaitFlow(100))

	entries, before := x.entries(), x.allGroups()
	w := x.watch()
	outcome := x.upgrade("--driver", "veth", x.remake())
	t.Logf("%+v", outcome)
	if slices.Sort(outcome.Upgraded); outcome.Result != "done" || !slices.Equal(outcome.Upgraded, []string{"m1", "m3"}) {
		t.Errorf("the upgrade: %+v", outcome)
	}
	x.awaitReady()
	x.expectUnnoticed(w)
	for _, traffic := range []*swaplab.Traffic{first, beside} {
		const ordered = true
		x.expectWhole(x.stopTraffic(traffic), ordered)
	}
	if after := x.entries(); !slices.Equal(after, entries) {
		t.Errorf("the bridge's table was %v and is %v", entries, after)
	}
	for n, g := range x.allGroups() {
		if g.Ifindex != before[n].Ifindex || g.Active != before[n].Active {
			t.Errorf("group %s was %+v and is %+v", g.Group, before[n], g)
		}
		old := memberOf(before[n], g.Active).Ifindex
		if memberOf(g, g.Active).Ifindex == old {
			t.Errorf("member %s still has ifindex %d: it was not made again", g.Active, old)
		}
	}
}

// remake writes the script that deletes a veth member and makes it again, as a
// driver that is loaded again does.
func (x *swapRig) remake() string {
	x.t.Helper()
	ip, err := exec.LookPath("ip") // a shell may have one of its own that can less
	x.must(err)
	nsenter, err := exec.LookPath("nsenter")
	x.must(err)
	text := "#!/bin/sh -ex\ncase $1 in\n"
	for _, g := range x.groups {
		for _, name := range g.members {
			if m := x.l.Member(name); m.Kind == swaplab.Veth {
				outside := m.Outside().Bridge.Path()
				text += fmt.Sprintf("%s)\n\t%s link del %s\n\t%s link add %s type veth peer name %s netns %s\n\t%s link set %s up\n"+
					"\t%s --net=%s %s link set %s master %s up ;;\n",
					name, ip, name, ip, name, m.Far, outside, ip, name, nsenter, outside, ip, m.Far, lab.BridgeName)
			}
		}
	}
	path := filepath.Join(x.t.TempDir(), "remake")
	x.must(os.WriteFile(path, []byte(text+"esac\n"), 0o700))
	return path
}

// upgraded is what shunt upgrade -j prints, as far as it matters here.
type upgraded struct {
	Result, Error string
	Upgraded      []string
}

// upgrade runs shunt upgrade where the members are, with the script as its command.
func (x *swapRig) upgrade(of, name, script string) (outcome upgraded) {
	x.t.Helper()
	cmd := exec.Command(binary, "upgrade", of, name, "--socket", x.d.socket, "-j", "--", script, "{member}")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	x.must(x.l.Host.Bridge.Start(cmd))
	if err := cmd.Wait(); err != nil {
		x.t.Fatalf("shunt upgrade: %v: %s%s", err, stderr.String(), stdout.String())
	}
	x.must(json.Unmarshal(stdout.Bytes(), &outcome))
	return outcome
}
