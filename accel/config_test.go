package accel

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"bridges: [br0]\natach: tcx":                `:2: unknown key "atach"; did you mean "attach"?`,
		"bridge: [br0]":                             `:1: unknown key "bridge"; did you mean "bridges"?`,
		"\n\ntelemetry: 1":                          `:3: unknown key "telemetry"; known: all_bridges, attach, bridges, groups, lease, max_stations, redirect, socket, state_dir`,
		"bridges: br0":                              `:1: bridges must be a list of names, such as [br0]`,
		"bridges:":                                  `:1: bridges must be a list of names, such as [br0]`,
		"bridges:\n  - br0\n  - 7":                  `:3: a bridge must be a name such as br0, not 7; quote it if that is the name`,
		"bridges: [[br0]]":                          `:1: a bridge must be a name such as br0`,
		"bridges: [~]":                              `:1: a bridge must be a name such as br0, not empty; quote it if that is the name`,
		"bridges:\n  - nam: br0":                    `:2: unknown key "nam"; did you mean "name"?`,
		"bridges:\n  - {}":                          `:2: a bridge needs a name, such as name: br0`,
		"bridges:\n  - br0\n  - name: br0":          `:3: bridge br0 is listed twice, first on line 2`,
		"bridges: [a-very-long-name]":               `:1: "a-very-long-name" is longer than the 15 characters of an interface name`,
		"bridges: [a/b]":                            `:1: "a/b" cannot be the name of an interface: no slash, colon or space may be in it`,
		"bridges: ['a b']":                          `:1: "a b" cannot be the name of an interface: no slash, colon or space may be in it`,
		"bridges: ['']":                             `:1: "" cannot be the name of an interface`,
		"bridges: ['..']":                           `:1: ".." cannot be the name of an interface`,
		"bridges: [{name: b, netfilter: off}]":      `:1: netfilter must be respect or bypass, not "off"`,
		"bridges: [{netfilter: bypass}]":            `:1: a bridge needs a name, such as name: br0`,
		"bridges: [{name: b, netfilter: [bypass]}]": `:1: netfilter must be respect or bypass, not a list`,
		"bridges: [{name: b, netfilter: }]":         `:1: netfilter must be respect or bypass, not empty`,
		"bridges: [{name: b, netfiler: bypass}]":    `:1: unknown key "netfiler"; did you mean "netfilter"?`,
		"netfilter: bypass":                         `:1: unknown key "netfilter"; known: all_bridges, attach, bridges, groups, lease, max_stations, redirect, socket, state_dir`,
		"all_bridges: 1":                            `:1: all_bridges must be true or false, not 1`,
		"all_bridges: yes":                          `:1: all_bridges must be true or false, not "yes"`,
		"all_bridges:":                              `:1: all_bridges must be true or false, not empty`,
		"lease: 0":                                  `:1: lease must be auto or a duration from 100ms to 2s, not 0`,
		"lease: [auto]":                             `:1: lease must be auto or a duration from 100ms to 2s, not a list`,
		"attach: xdp":                               `:1: attach must be auto, tcx or clsact, not "xdp"`,
		"redirect: straight":                        `:1: redirect must be auto, egress or peer, not "straight"`,
		"redirect: [peer]":                          `:1: redirect must be auto, egress or peer, not a list`,
		"bridges: [{name: b, redirect: yes}]":       `:1: redirect must be auto, egress or peer, not "yes"`,
		"attach: [tcx]":                             `:1: attach must be auto, tcx or clsact, not a list`,
		"attach: tcx\nattach: auto":                 `:2: attach is given twice, first on line 1`,
		"max_stations: many":                        `:1: max_stations must be a number from 1 to 4194304, not "many"`,
		"max_stations: 0":                           `:1: max_stations must be a number from 1 to 4194304, not 0`,
		"max_stations: 4194305":                     `:1: max_stations must be a number from 1 to 4194304, not 4194305`,
		"max_stations: 99999999999999999999":        `:1: max_stations must be a number from 1 to 4194304, not 99999999999999999999`,
		"max_stations: 1.5":                         `:1: max_stations must be a number from 1 to 4194304, not 1.5`,
		"lease: 2":                                  `:1: lease must be auto or a duration from 100ms to 2s, not 2`,
		"lease: 3s":                                 `:1: lease must be auto or a duration from 100ms to 2s, not "3s"`,
		"lease: 99ms":                               `:1: lease must be auto or a duration from 100ms to 2s, not "99ms"`,
		"lease: {}":                                 `:1: lease must be auto or a duration from 100ms to 2s, not an object`,
		"socket: shunt.sock":                        `:1: socket must be an absolute path such as /run/shunt/shunt.sock, not "shunt.sock"`,
		"socket: /" + strings.Repeat("x", 107):      `:1: socket is longer than the 107 characters that a socket's path may have`,
		"socket: true":                              `:1: socket must be a path such as /run/shunt/shunt.sock, not true`,
		"state_dir: lib":                            `:1: state_dir must be an absolute path such as /var/lib/shunt, not "lib"`,
		"state_dir: [/x]":                           `:1: state_dir must be a path such as /var/lib/shunt, not a list`,
		"- br0":                                     `:1: expected keys with values, such as bridges: [br0]`,
		"br0":                                       `:1: expected keys with values, such as bridges: [br0]`,
		"a: &x 1\nlease: *x":                        `:1: unknown key "a"; known: all_bridges, attach, bridges, groups, lease, max_stations, redirect, socket, state_dir`,
		"attach: &x auto\nlease: *x":                `:2: lease is an alias; write the value out`,
		"attach: auto\n---\nlease: 1s":              `:2: a second document; write everything in one`,
		"bridges: [br0\nattach: auto":               `:1: this is not YAML: did not find expected ',' or ']'`,
		"attach: auto\n\tlease: 1s":                 `:2: this is not YAML: found a tab character that violates indentation`,
	} {
		_, err := parseConfig([]byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestConfigValues(t *testing.T) {
	text := "bridges: [br0, {name: '7'}, {netfilter: bypass, name: b}, {name: r, netfilter: respect, redirect: peer}]\n" +
		"all_bridges: true\nattach: clsact\nredirect: auto\nmax_stations: 1000\nlease: 100ms\nsocket: /run/x\nstate_dir: /srv/x\n"
	got, err := parseConfig([]byte(text))
	want := Config{
		Bridges: []string{"br0", "7", "b", "r"}, AllBridges: true, BypassNetfilter: []string{"b"},
		Attach: "clsact", Redirect: RedirectAuto, Redirects: map[string]string{"r": RedirectPeer}, MaxStations: 1000, Lease: 100 * time.Millisecond, Socket: "/run/x", StateDir: "/srv/x",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n"} {
		got, err := parseConfig([]byte(empty))
		if err != nil || !reflect.DeepEqual(got, DefaultConfig()) {
			t.Errorf("%q: got %+v, %v", empty, got, err)
		}
	}
}

// It names no bridge: what is installed must accelerate nothing yet.
func TestPackagedConfigIsTheDefault(t *testing.T) {
	text, err := os.ReadFile("../packaging/shunt.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseConfig(text)
	want := DefaultConfig()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	want.Bridges, want.Redirects = []string{"br0"}, map[string]string{"br0": RedirectEgress}
	got, err = parseConfig([]byte(strings.NewReplacer("\n#bridges:", "\nbridges:", "\n#  - name: br0\n#    netfilter", "\n  - name: br0\n    netfilter", "\n#    redirect", "\n    redirect").Replace(string(text))))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("without the marks: got %+v, %v", got, err)
	}
}

func TestConfigFileMustBeTrusted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	write := func(text string, mode os.FileMode) {
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(path, want string) {
		t.Helper()
		if _, err := readConfig(path); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	expect(path, "read the configuration: open "+path+": no such file or directory")
	expect(dir, dir+" is not a regular file")
	expect("/dev/null", "/dev/null is not a regular file")
	write("lease: 9s", 0o600)
	expect(path, path+`:1: lease must be auto or a duration from 100ms to 2s, not "9s"`)
	write("lease: 1s", 0o620)
	expect(path, path+" can be written by others (mode 0620): chmod go-w "+path)
	write("lease: 1s", 0o602)
	expect(path, path+" can be written by others (mode 0602): chmod go-w "+path)
	write(strings.Repeat("#", maxConfig+1), 0o600)
	expect(path, path+" is larger than 1 MiB: that is no configuration of shunt")
	if os.Geteuid() != 0 {
		t.Fatal("giving a file away needs root")
	}
	write("lease: 1s", 0o600)
	if err := os.Chown(path, 1234, 0); err != nil {
		t.Fatal(err)
	}
	expect(path, path+" belongs to user 1234, who could change what the daemon does: chown root "+path)
}

func TestFlagsBeatTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("bridges: [{name: br0, redirect: peer}]\nattach: clsact\nsocket: /run/x\nlease: 1s\nstate_dir: /srv/x"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := runFlags{file: path, attach: "auto", socket: DefaultSocket, stateDir: DefaultStateDir}.config()
	if want := (Config{Bridges: []string{"br0"}, Attach: "clsact", Redirect: RedirectEgress, Redirects: map[string]string{"br0": RedirectPeer}, MaxStations: 65536, Lease: time.Second, Socket: "/run/x", StateDir: "/srv/x"}); err != nil || !reflect.DeepEqual(file, want) {
		t.Errorf("got %+v, %v", file, err)
	}
	flags, err := runFlags{
		file: path, bridges: []string{"br1"}, attach: "auto", attachGiven: true, socket: "/run/y", socketGiven: true,
		stateDir: "/srv/y", stateDirGiven: true, redirect: RedirectAuto, redirectGiven: true,
	}.config()
	if want := (Config{Bridges: []string{"br1"}, Attach: "auto", Redirect: RedirectAuto, MaxStations: 65536, Lease: time.Second, Socket: "/run/y", StateDir: "/srv/y"}); err != nil || !reflect.DeepEqual(flags, want) {
		t.Errorf("got %+v, %v", flags, err)
	}
}

// TestWhichBridges holds the command line's choice against the file's.
func TestWhichBridges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	const named = "bridges: [br0, {name: br1, netfilter: bypass}, {name: br2, netfilter: bypass}]\n"
	for _, c := range []struct {
		file    string
		flags   runFlags
		bridges []string
		all     bool
		bypass  []string
	}{
		{named, runFlags{}, []string{"br0", "br1", "br2"}, false, []string{"br1", "br2"}},
		{named, runFlags{bridges: []string{"br2", "br3"}}, []string{"br2", "br3"}, false, []string{"br2"}},
		{named, runFlags{all: true, allGiven: true}, []string{"br0", "br1", "br2"}, true, []string{"br1", "br2"}},
		{named + "all_bridges: true", runFlags{}, []string{"br0", "br1", "br2"}, true, []string{"br1", "br2"}},
		{named + "all_bridges: true", runFlags{bridges: []string{"br1"}}, []string{"br1"}, false, []string{"br1"}},
		{named + "all_bridges: true", runFlags{bridges: []string{"br0"}, all: true, allGiven: true}, []string{"br0"}, true, []string{"br1", "br2"}},
		{named + "all_bridges: true", runFlags{allGiven: true}, []string{"br0", "br1", "br2"}, false, []string{"br1", "br2"}},
		{"all_bridges: true", runFlags{}, nil, true, nil},
		{"", runFlags{all: true, allGiven: true}, nil, true, nil},
	} {
		if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		c.flags.file, c.flags.attach, c.flags.socket, c.flags.stateDir = path, "auto", DefaultSocket, DefaultStateDir
		got, err := c.flags.config()
		if err != nil || !slices.Equal(got.Bridges, c.bridges) || got.AllBridges != c.all || !slices.Equal(got.BypassNetfilter, c.bypass) {
			t.Errorf("%+v: got %+v, %v", c, got, err)
		}
	}
}

func TestLeaseIsAutoUnlessGiven(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "lease: auto": 0, "lease: 'auto'": 0, "lease: 2s": 2 * time.Second} {
		if got, err := parseConfig([]byte(text)); err != nil || got.Lease != want {
			t.Errorf("%q: got %v, %v", text, got.Lease, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("bridges: [br0, {name: br1, netfilter: bypass}]\nall_bridges: true\nattach: auto\nlease: 2s\nmax_stations: 1\nsocket: /x\nstate_dir: /x")
	f.Add("bridges: [b]\ngroups: [{name: g, bridge: b, port: p, members: [m, n], drain: 1s, announce: false, probe: '::1', policy: {above_bits: 2.5G, below_bits: 1}}]")
	f.Fuzz(func(t *testing.T, text string) {
		config, err := parseConfig([]byte(text))
		if err != nil {
			if !strings.HasPrefix(err.Error(), ":") {
				t.Errorf("an error without its place: %v", err)
			}
			return
		}
		if config.Lease != 0 && config.Lease < minLease || config.Lease > maxLease || config.MaxStations < 1 ||
			checkAttach(config.Attach) != nil || checkSocket(config.Socket) != nil || checkStateDir(config.StateDir) != nil {
			t.Errorf("accepted %+v", config)
		}
	})
}
