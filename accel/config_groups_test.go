package accel

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestGroupMistakes(t *testing.T) {
	const file = "bridges: [br0, br1]\ngroups:\n"
	one := func(keys string) string { return file + "- {name: up, bridge: br0, members: [m0], " + keys + "}" }
	policy := func(keys string) string { return one("policy: {" + keys + "}") }
	const aRate = ` must be a number per second such as 100000, 500M or 2.5G, not `
	for text, want := range map[string]string{
		"groups: up":                           `:1: groups must be a list, each with name, bridge and members`,
		"groups:":                              `:1: groups must be a list, each with name, bridge and members`,
		"groups: [up]":                         `:1: a group must have keys with values, such as name: uplink`,
		"group: []":                            `:1: unknown key "group"; did you mean "groups"?`,
		file + "- {}":                          `:3: a group needs a name, such as name: uplink`,
		file + "- name: up":                    `:3: group up needs a bridge, such as bridge: br0`,
		file + "- {name: up, bridge: br0}":     `:3: group up needs members, such as members: [eth0, eth1]`,
		file + "- bridge: br0\n  member: [m0]": `:4: unknown key "member"; did you mean "members"?`,
		one("nme: x"):                          `:3: unknown key "nme"; did you mean "name"?`,
		one("name: x"):                         `:3: name is given twice, first on line 3`,
		one("port: &x p, probe: *x"):           `:3: probe is an alias; write the value out`,
		file + "- name: 7":                     `:3: name must be a name such as uplink, not 7; quote it if that is the name`,
		file + "- name: a@b":                   `:3: "a@b" cannot be the name of a group: it must begin with a letter or digit, and have only those, -, _ and . in it`,
		file + "- name: -a":                    `:3: "-a" cannot be the name of a group: it must begin with a letter or digit, and have only those, -, _ and . in it`,
		file + "- name: a-very-long-name":      `:3: "a-very-long-name" is longer than the 15 characters of an interface name`,
		file + "- bridge: [br0]":               `:3: a bridge must be a name such as br0, not a list; quote it if that is the name`,
		file + "- bridge: a/b":                 `:3: "a/b" cannot be the name of an interface: no slash, colon or space may be in it`,
		one("port: 1"):                         `:3: port must be the name of an interface such as eth0, not 1; quote it if that is the name`,
		one("port: a b"):                       `:3: "a b" cannot be the name of an interface: no slash, colon or space may be in it`,
		file + "- members: m0":                 `:3: members must be a list of interfaces, such as [eth0, eth1]`,
		file + "- {name: u, bridge: br0, members: []}": `:3: group u needs members, such as members: [eth0, eth1]`,
		file + "- members:\n  - m0\n  - 1":             `:5: a member must be the name of an interface such as eth0, not 1; quote it if that is the name`,
		file + "- members: ['a:b']":                    `:3: "a:b" cannot be the name of an interface: no slash, colon or space may be in it`,
		file + "- members:\n  - m0\n  - m0":            `:5: member m0 is listed twice`,
		one("drain: 1"):                                `:3: drain must be a duration from 0s to 1m0s, not 1`,
		one("drain: -1s"):                              `:3: drain must be a duration from 0s to 1m0s, not "-1s"`,
		one("drain: 61s"):                              `:3: drain must be a duration from 0s to 1m0s, not "61s"`,
		one("drain: [1s]"):                             `:3: drain must be a duration from 0s to 1m0s, not a list`,
		one("announce: 1"):                             `:3: announce must be true or false, not 1`,
		one("announce: no"):                            `:3: announce must be true or false, not "no"`,
		one("announce_rate: 0"):                        `:3: announce_rate must be a number from 1 to 100000, in frames/s, not 0`,
		one("announce_rate: 100001"):                   `:3: announce_rate must be a number from 1 to 100000, in frames/s, not 100001`,
		one("announce_rate: '5'"):                      `:3: announce_rate must be a number from 1 to 100000, in frames/s, not "5"`,
		one("probe: gateway"):                          `:3: probe must be the IP address of a host, such as 192.0.2.1, not "gateway"`,
		one("probe: 192.0.2.0/24"):                     `:3: probe must be the IP address of a host, such as 192.0.2.1, not "192.0.2.0/24"`,
		one("probe: 0.0.0.0"):                          `:3: probe must be the IP address of a host, such as 192.0.2.1, not "0.0.0.0"`,
		one("probe: 224.0.0.1"):                        `:3: probe must be the IP address of a host, such as 192.0.2.1, not "224.0.0.1"`,
		one("probe: '::1'"):                            `:3: probe must be the IP address of a host, such as 192.0.2.1, not "::1"`,
		one("probe: 'fe80::1%eth0'"):                   `:3: probe must be the IP address of a host, such as 192.0.2.1, not "fe80::1%eth0"`,
		one("probe: '::ffff:192.0.2.1'"):               `:3: probe must be the IP address of a host, such as 192.0.2.1, not "::ffff:192.0.2.1"`,
		one("probe: "):                                 `:3: probe must be the IP address of a host, such as 192.0.2.1, not empty`,
		one("policy: fast"):                            `:3: policy must have keys with values, such as above_bits: 500M and below_bits: 300M`,
		policy("above: 1"):                             `:3: unknown key "above"; known: above_bits, above_packets, below_bits, below_packets, hold`,
		policy(""):                                     `:3: a policy needs above_packets and below_packets, or above_bits and below_bits`,
		policy("hold: 1s"):                             `:3: a policy needs above_packets and below_packets, or above_bits and below_bits`,
		policy("above_bits: 1M"):                       `:3: above_bits needs below_bits`,
		policy("below_bits: 1M"):                       `:3: below_bits needs above_bits`,
		policy("above_packets: 5"):                     `:3: above_packets needs below_packets`,
		policy("below_packets: 5, above_bits: 2, below_bits: 1"): `:3: below_packets needs above_packets`,
		policy("above_bits: 1M, below_bits: 1000k"):              `:3: below_bits must be less than above_bits, or the group would go to and fro`,
		policy("above_packets: 5, below_packets: 6"):             `:3: below_packets must be less than above_packets, or the group would go to and fro`,
		policy("above_bits: 0, below_bits: 0"):                   `:3: above_bits` + aRate + `0`,
		policy("above_bits: -1, below_bits: 0"):                  `:3: above_bits` + aRate + `-1`,
		policy("above_packets: 1e6"):                             `:3: above_packets` + aRate + `1e6`,
		policy("above_packets: 1m"):                              `:3: above_packets` + aRate + `"1m"`,
		policy("above_packets: [1]"):                             `:3: above_packets` + aRate + `a list`,
		policy("above_packets: "):                                `:3: above_packets` + aRate + `empty`,
		policy("hold: 99ms"):                                     `:3: hold must be a duration from 100ms to 1h0m0s, not "99ms"`,
		policy("hold: 61m"):                                      `:3: hold must be a duration from 100ms to 1h0m0s, not "61m"`,

		// What only shows between groups, and between them and the bridges.
		one("port: p") + "\n- {name: up, bridge: br1, port: q, members: [m1]}": `:4: group up is listed twice, first on line 3`,
		one("port: p") + "\n- {name: vm, bridge: br1, port: p, members: [m1]}": `:4: port p of group vm is that of group up already`,
		one("port: vm") + "\n- {name: vm, bridge: br1, members: [m1]}":         `:4: port vm of group vm is that of group up already`,
		one("port: m0"): `:3: port m0 of group up is a member of group up: shunt makes the port, so give it a name of its own`,
		one("port: m1") + "\n- {name: vm, bridge: br1, members: [m1]}": `:3: port m1 of group up is a member of group vm: shunt makes the port, so give it a name of its own`,
		one("port: p") + "\n- {name: vm, bridge: br1, members: [p]}":   `:3: port p of group up is a member of group vm: shunt makes the port, so give it a name of its own`,
		one("port: br1"): `:3: br1 in group up is a bridge: a bridge is neither port nor member`,
		file + "- {name: up, bridge: br0, members: [br1]}":                                      `:3: br1 in group up is a bridge: a bridge is neither port nor member`,
		"groups: [{name: br7, bridge: br7, members: [m0]}]":                                     `:1: br7 in group br7 is a bridge: a bridge is neither port nor member`,
		file + "- name: up\n  members: [m0]\n  bridge: br7":                                     `:5: bridge br7 of group up is not among bridges; add it there`,
		"groups:\n- {name: up, bridge: br7, members: [m0]}\nbridges: [br0]":                     `:2: bridge br7 of group up is not among bridges; add it there`,
		"groups:\n- {name: up, bridge: br7, members: [m0]}\nall_bridges: false\nbridges: [br0]": `:2: bridge br7 of group up is not among bridges; add it there`,
	} {
		_, err := parseConfig([]byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestGroupValues(t *testing.T) {
	for text, want := range map[string]Group{
		"{name: up, bridge: br0, members: [m0]}": {
			Name: "up", Bridge: "br0", Port: "up", Members: []string{"m0"}, Drain: time.Second, Announce: true, AnnounceRate: 5000,
		},
		"{name: up, bridge: br0, members: ['7', m0], port: p@1, drain: 0, announce: false, announce_rate: 100000, probe: 192.0.2.1}": {
			Name: "up", Bridge: "br0", Port: "p@1", Members: []string{"7", "m0"}, AnnounceRate: 100_000, Probe: netip.MustParseAddr("192.0.2.1"),
		},
		"{name: up, bridge: br0, members: [m0], drain: 1m, probe: 'fe80::1', policy: {above_bits: 2.5G, below_bits: 500M}}": {
			Name: "up", Bridge: "br0", Port: "up", Members: []string{"m0"}, Drain: time.Minute, Announce: true, AnnounceRate: 5000,
			Probe:  netip.MustParseAddr("fe80::1"),
			Policy: &GroupPolicy{AboveBits: 2_500_000_000, BelowBits: 500_000_000, Hold: 10 * time.Second},
		},
		"{name: up, bridge: br0, members: [m0], policy: {above_packets: 100k, below_packets: 99999, above_bits: 2, below_bits: 1, hold: 1h}}": {
			Name: "up", Bridge: "br0", Port: "up", Members: []string{"m0"}, Drain: time.Second, Announce: true, AnnounceRate: 5000,
			Policy: &GroupPolicy{AbovePackets: 100_000, BelowPackets: 99_999, AboveBits: 2, BelowBits: 1, Hold: time.Hour},
		},
	} {
		got, err := parseConfig([]byte("bridges: [br0]\ngroups:\n- " + text))
		if err != nil || !reflect.DeepEqual(got.Groups, []Group{want}) {
			t.Errorf("%s: got %+v, %v", text, got.Groups, err)
		}
	}
	// A physical member may be shared, which only the daemon can see; and the
	// bridges may be left to the command line.
	const shared = "groups: [{name: a, bridge: br0, members: [v0, p0]}, {name: b, bridge: br1, members: [v1, p0]}]\n"
	for _, more := range []string{"", "all_bridges: true", "all_bridges: true\nbridges: [br0]", "bridges: [br1, br0]"} {
		if got, err := parseConfig([]byte(shared + more)); err != nil || len(got.Groups) != 2 {
			t.Errorf("%q: got %+v, %v", more, got.Groups, err)
		}
	}
	if got, err := parseConfig([]byte("groups: []")); err != nil || len(got.Groups) != 0 {
		t.Errorf("got %+v, %v", got.Groups, err)
	}
}

// TestGroupsNeedTheirBridge whatever the command line says about bridges.
func TestGroupsNeedTheirBridge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	const group = "groups: [{name: up, bridge: br1, members: [m0]}]\n"
	stray := "group up in " + path + " is on bridge br1, which is not accelerated then: write --bridge br1 too, or take the group out"
	for _, c := range []struct {
		file  string
		flags runFlags
		want  string
	}{
		{"bridges: [br0, br1]", runFlags{}, ""},
		{"bridges: [br0, br1]", runFlags{bridges: []string{"br1"}}, ""},
		{"bridges: [br0, br1]", runFlags{bridges: []string{"br0"}}, stray},
		{"all_bridges: true", runFlags{}, ""},
		{"all_bridges: true", runFlags{bridges: []string{"br0"}}, stray},
		{"all_bridges: true\nbridges: [br0]", runFlags{allGiven: true}, stray},
		{"", runFlags{bridges: []string{"br0", "br1"}}, ""},
		{"", runFlags{bridges: []string{"br0"}}, stray},
		{"", runFlags{all: true, allGiven: true}, ""},
	} {
		if err := os.WriteFile(path, []byte(group+c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		c.flags.file, c.flags.attach, c.flags.socket, c.flags.stateDir = path, "auto", DefaultSocket, DefaultStateDir
		got, err := c.flags.config()
		if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%+v: got %v", c, err)
		}
		if err == nil && len(got.Groups) != 1 {
			t.Errorf("%+v: got %+v", c, got.Groups)
		}
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]uint64{
		"1": 1, "0": 0, "1k": 1000, "500M": 500_000_000, "10G": 10_000_000_000, "2.5G": 2_500_000_000, "1T": 1_000_000_000_000,
		"0.001k": 1, "007": 7, "18446744073709551615": 1<<64 - 1,
	} {
		if got, ok := parseRate(text); !ok || got != want {
			t.Errorf("%q: got %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{
		"", "k", ".5G", "1.G", "1.5", "0.0001k", "1K", "1Mi", "1 M", "M1", "1kk", "1.2.3G", "-1", "+1", "0x10", "1_000", "1e9",
		"18446744073709551616", "18446744073710T", "99999999999999999999999G",
	} {
		if got, ok := parseRate(text); ok {
			t.Errorf("%q: got %d", text, got)
		}
	}
}

func TestGroupNames(t *testing.T) {
	for _, name := range []string{"a", "7", "uplink", "up-0_1.2", "Abcdefghijklmno"} {
		if err := CheckGroupName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", ".a", "-a", "_a", "a b", "a/b", "a:b", "a@b", "ü", "aü", "a\x00", "abcdefghijklmnop"} {
		if CheckGroupName(name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

// TestPackagedGroupsAreAnExample takes the marks off the example, which is then a
// configuration.
func TestPackagedGroupsAreAnExample(t *testing.T) {
	text, err := os.ReadFile("../packaging/shunt.yaml")
	if err != nil {
		t.Fatal(err)
	}
	before, example, _ := strings.Cut(string(text), "\n#groups:")
	example = strings.ReplaceAll("\n#groups:"+example, "\n#", "\n")
	got, err := parseConfig([]byte(before + "\nbridges: [br0]" + example))
	if err != nil || len(got.Groups) != 1 {
		t.Fatalf("got %+v, %v", got.Groups, err)
	}
	g, want := got.Groups[0], DefaultGroup()
	if g.Drain != want.Drain || g.Announce != want.Announce || g.AnnounceRate != want.AnnounceRate || g.Policy == nil || g.Policy.Hold != defaultHold {
		t.Errorf("what the example shows is not the default: %+v", g)
	}
	for key := range groupKeys {
		if !strings.Contains(example, key+":") {
			t.Errorf("%s is not shown", key)
		}
	}
	for key := range policyKeys {
		if !strings.Contains(example, key+":") {
			t.Errorf("%s is not shown", key)
		}
	}
}
