package accel

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Config is the whole configuration, after defaults and command line.
type Config struct {
	// Bridges are the names of the bridges to accelerate.
	Bridges []string
	// AllBridges takes every bridge that is or appears in the namespace. Bridges
	// are then only those to which options were given.
	AllBridges bool
	// BypassNetfilter are the names of the bridges for which the operator wrote
	// "netfilter: bypass": no packet filter keeps them from the fast path.
	BypassNetfilter []string
	// Attach is "auto", "tcx" or "clsact".
	Attach string
	// Redirect is how frames leave a bridge for which Redirects says nothing.
	Redirect string
	// Redirects is how frames leave bridges, by name: [RedirectEgress], [RedirectPeer]
	// or [RedirectAuto].
	Redirects map[string]string
	// MaxStations is the size of a bridge's station map, in entries.
	MaxStations int
	// Lease is how long the fast path outlives a daemon that hangs or dies. 0
	// leaves it to what the kernel can do: no lease where every change takes
	// effect at once without the daemon (Revocation.AtOnce), 2 s elsewhere.
	Lease time.Duration
	// Socket is the control socket's path.
	Socket string
	// Groups are the stable ports and their members.
	Groups []Group
	// StateDir keeps the journals of swaps and what adopt found.
	StateDir string
}

// DefaultSocket is where the daemon listens unless it is told otherwise.
const DefaultSocket = "/run/shunt/shunt.sock"

// DefaultStateDir is where swaps are journalled unless the daemon is told otherwise.
const DefaultStateDir = "/var/lib/shunt"

// DefaultConfig returns what holds without a file and without flags. It names
// no bridge.
func DefaultConfig() Config {
	return Config{Attach: "auto", Redirect: RedirectEgress, MaxStations: 65536, Socket: DefaultSocket, StateDir: DefaultStateDir}
}

// How frames leave by a port that is a veth.
const (
	// RedirectEgress gives them to the device in the bridge.
	RedirectEgress = "egress"
	// RedirectPeer gives them straight to its far end, where that is possible; where
	// the kernel does not let it, the daemon does not start.
	RedirectPeer = "peer"
	// RedirectAuto is RedirectPeer where the kernel lets it, and RedirectEgress elsewhere.
	RedirectAuto = "auto"
)

// RedirectOf is how frames leave the bridge of that name.
func (c Config) RedirectOf(bridge string) string { return cmp.Or(c.Redirects[bridge], c.Redirect) }

// RedirectsToPeers says whether there may be a bridge whose frames go straight to far
// ends.
func (c Config) RedirectsToPeers() bool {
	all := append(slices.Collect(maps.Values(c.Redirects)), c.Redirect)
	return slices.ContainsFunc(all, func(how string) bool { return how != RedirectEgress })
}

// What netfilter: may say of a bridge.
const (
	netfilterRespect = "respect"
	netfilterBypass  = "bypass"
)

const (
	minLease = 100 * time.Millisecond
	maxLease = 2 * time.Second
	// mostStations keeps a mistyped number from taking all memory: the map is
	// allocated in full when the bridge is opened.
	mostStations = 4 << 20
	// maxConfig is far beyond any sensible configuration, in bytes.
	maxConfig = 1 << 20
	// maxSocketPath is the room in sockaddr_un, without the final zero byte.
	maxSocketPath = 107
	// maxInterfaceName is IFNAMSIZ without the final zero byte.
	maxInterfaceName = 15
)

// readConfig returns the defaults with the file's values over them.
func readConfig(path string) (Config, error) {
	text, err := readTrusted(path)
	if err != nil {
		return Config{}, err
	}
	config, err := parseConfig(text)
	if err != nil {
		return Config{}, fmt.Errorf("%s%w", path, err)
	}
	return config, nil
}

// readTrusted reads a file that nobody but root and the daemon's own user can
// change: whoever writes the configuration decides what a privileged daemon
// does.
func readTrusted(path string) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO must not wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if err := checkTrusted(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%s is larger than 1 MiB: that is no configuration of shunt", path)
	}
	return text, nil
}

func checkTrusted(path string, info os.FileInfo) error {
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case owner != 0 && owner != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, who could change what the daemon does: chown root %s", path, owner, path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %04o): chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// parseConfig reads the text of a configuration file. Its errors begin with
// ":LINE: ", so that the caller only has to put the file's name before them.
func parseConfig(text []byte) (Config, error) {
	config := DefaultConfig()
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return config, nil // an empty file says nothing, which is no mistake
	} else if err != nil {
		return Config{}, syntaxError(err)
	}
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		return Config{}, at(&second, "a second document; write everything in one")
	} else if !errors.Is(err, io.EOF) {
		return Config{}, syntaxError(err)
	}
	return config, config.read(document.Content[0])
}

// syntaxError turns "yaml: line 3: ..." into the form of all other errors.
func syntaxError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if line, what, ok := strings.Cut(rest, ": "); ok {
			return fmt.Errorf(":%s: this is not YAML: %s", line, what)
		}
	}
	return fmt.Errorf(": this is not YAML: %s", text)
}

// at is an error at the place of a node.
func at(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf(":%d: %s", n.Line, fmt.Sprintf(format, args...))
}

// configKeys has the reader of every key's value.
var configKeys = map[string]func(*Config, *yaml.Node) error{
	"all_bridges":  (*Config).readAllBridges,
	"bridges":      (*Config).readBridges,
	"attach":       (*Config).readAttach,
	"redirect":     (*Config).readRedirect,
	"max_stations": (*Config).readMaxStations,
	"lease":        (*Config).readLease,
	"socket":       (*Config).readSocket,
	"state_dir":    (*Config).readStateDir,
	"groups":       (*Config).readGroups,
}

// read takes the values of the whole file.
func (c *Config) read(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return at(n, "expected keys with values, such as bridges: [br0]")
	}
	if err := readKeys(n, configKeys, c); err != nil {
		return err
	}
	return c.checkGroups(valueOf(n, "groups"))
}

// readKeys reads a mapping into the object that it describes.
func readKeys[T any](n *yaml.Node, readers map[string]func(T, *yaml.Node) error, object T) error {
	return eachKey(n, slices.Sorted(maps.Keys(readers)), func(key string, value *yaml.Node) error {
		return readers[key](object, value)
	})
}

// valueOf finds a key's value in a mapping; nil without the key.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// eachKey calls f for every key of a mapping, and refuses keys that are not
// known or that come twice.
func eachKey(n *yaml.Node, known []string, f func(key string, value *yaml.Node) error) error {
	seen := make(map[string]int)
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !slices.Contains(known, key.Value) {
			return at(key, "unknown key %q; %s", key.Value, suggestion(key.Value, known))
		}
		if line, ok := seen[key.Value]; ok {
			return at(key, "%s is given twice, first on line %d", key.Value, line)
		}
		seen[key.Value] = key.Line
		if value.Kind == yaml.AliasNode {
			return at(value, "%s is an alias; write the value out", key.Value)
		}
		if err := f(key.Value, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) readBridges(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return at(n, "bridges must be a list of names, such as [br0]")
	}
	seen := make(map[string]int)
	for _, item := range n.Content {
		bridge, err := readBridge(item)
		if err != nil {
			return err
		}
		if line, ok := seen[bridge.name]; ok {
			return at(item, "bridge %s is listed twice, first on line %d", bridge.name, line)
		}
		seen[bridge.name] = item.Line
		c.Bridges = append(c.Bridges, bridge.name)
		if bridge.bypassNetfilter {
			c.BypassNetfilter = append(c.BypassNetfilter, bridge.name)
		}
		if bridge.redirect != "" {
			if c.Redirects == nil {
				c.Redirects = make(map[string]string)
			}
			c.Redirects[bridge.name] = bridge.redirect
		}
	}
	return nil
}

// bridgeOptions are an item of bridges.
type bridgeOptions struct {
	name            string
	bypassNetfilter bool
	redirect        string // empty: as the others
}

// readBridge reads a bridge: its name, or an object with a name and options.
func readBridge(n *yaml.Node) (b bridgeOptions, err error) {
	switch n.Kind {
	case yaml.ScalarNode:
		b.name, err = readBridgeName(n)
		return b, err
	case yaml.MappingNode:
		err = eachKey(n, []string{"name", "netfilter", "redirect"}, func(key string, value *yaml.Node) (err error) {
			switch key {
			case "netfilter":
				b.bypassNetfilter, err = readNetfilter(value)
			case "redirect":
				b.redirect, err = readRedirect(value)
			default:
				b.name, err = readBridgeName(value)
			}
			return err
		})
		if err == nil && b.name == "" {
			err = at(n, "a bridge needs a name, such as name: br0")
		}
		return b, err
	}
	return b, at(n, "a bridge must be a name such as br0")
}

// readNetfilter says whether the packet filter is bypassed. There is no third
// word, and no other way to ask for it: who gives up a firewall writes it out.
func readNetfilter(n *yaml.Node) (bypass bool, err error) {
	if n.Kind == yaml.ScalarNode && (n.Value == netfilterRespect || n.Value == netfilterBypass) {
		return n.Value == netfilterBypass, nil
	}
	return false, at(n, "netfilter must be %s or %s, not %s", netfilterRespect, netfilterBypass, describe(n))
}

func (c *Config) readAllBridges(n *yaml.Node) error {
	return readBool(n, "all_bridges", &c.AllBridges)
}

func readBool(n *yaml.Node, key string, value *bool) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(value) != nil {
		return at(n, "%s must be true or false, not %s", key, describe(n))
	}
	return nil
}

func readBridgeName(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return "", at(n, "a bridge must be a name such as br0, not %s; quote it if that is the name", describe(n))
	}
	if err := CheckInterfaceName(n.Value); err != nil {
		return "", at(n, "%s", err)
	}
	return n.Value, nil
}

func (c *Config) readAttach(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return at(n, "attach must be auto, tcx or clsact, not %s", describe(n))
	}
	if err := checkAttach(n.Value); err != nil {
		return at(n, "attach %s", err)
	}
	c.Attach = n.Value
	return nil
}

func (c *Config) readRedirect(n *yaml.Node) (err error) {
	c.Redirect, err = readRedirect(n)
	return err
}

func readRedirect(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || CheckRedirect(n.Value) != nil {
		return "", at(n, "redirect must be auto, egress or peer, not %s", describe(n))
	}
	return n.Value, nil
}

func (c *Config) readMaxStations(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&c.MaxStations) != nil ||
		c.MaxStations < 1 || c.MaxStations > mostStations {
		return at(n, "max_stations must be a number from 1 to %d, not %s", mostStations, describe(n))
	}
	return nil
}

func (c *Config) readLease(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.Value == "auto" {
		c.Lease = 0
		return nil
	}
	lease, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || lease < minLease || lease > maxLease {
		return at(n, "lease must be auto or a duration from %v to %v, not %s", minLease, maxLease, describe(n))
	}
	c.Lease = lease
	return nil
}

func (c *Config) readSocket(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return at(n, "socket must be a path such as %s, not %s", DefaultSocket, describe(n))
	}
	if err := checkSocket(n.Value); err != nil {
		return at(n, "socket %s", err)
	}
	c.Socket = n.Value
	return nil
}

func (c *Config) readStateDir(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return at(n, "state_dir must be a path such as %s, not %s", DefaultStateDir, describe(n))
	}
	if err := checkStateDir(n.Value); err != nil {
		return at(n, "state_dir %s", err)
	}
	c.StateDir = n.Value
	return nil
}

// describe says what was found in the place of something else.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "an object"
	case n.Tag == "!!null":
		return "empty"
	case n.Tag == "!!str":
		return fmt.Sprintf("%q", n.Value)
	}
	return n.Value
}

// CheckInterfaceName follows net/core/dev.c: dev_valid_name.
func CheckInterfaceName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q cannot be the name of an interface", name)
	case len(name) > maxInterfaceName:
		return fmt.Errorf("%q is longer than the %d characters of an interface name", name, maxInterfaceName)
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) }):
		return fmt.Errorf("%q cannot be the name of an interface: no slash, colon or space may be in it", name)
	}
	return nil
}

func checkAttach(attach string) error {
	known := []string{"auto", "tcx", "clsact"}
	if slices.Contains(known, attach) {
		return nil
	}
	return fmt.Errorf("must be auto, tcx or clsact, not %q", attach)
}

// CheckRedirect says what is wrong with a way for frames to leave, if anything is.
func CheckRedirect(redirect string) error {
	if slices.Contains([]string{RedirectAuto, RedirectEgress, RedirectPeer}, redirect) {
		return nil
	}
	return fmt.Errorf("must be auto, egress or peer, not %q", redirect)
}

func checkSocket(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("must be an absolute path such as %s, not %q", DefaultSocket, path)
	case len(path) > maxSocketPath:
		return fmt.Errorf("is longer than the %d characters that a socket's path may have", maxSocketPath)
	}
	return nil
}

func checkStateDir(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("must be an absolute path such as %s, not %q", DefaultStateDir, path)
	}
	return nil
}

// suggestion names the nearest of the known words, or all when none is near.
func suggestion(word string, known []string) string {
	nearest := slices.MinFunc(known, func(a, b string) int {
		return cmp.Compare(distance(word, a), distance(word, b))
	})
	if distance(word, nearest) <= max(2, len(nearest)/3) {
		return fmt.Sprintf("did you mean %q?", nearest)
	}
	return "known: " + strings.Join(known, ", ")
}

// distance is the number of letters to insert, remove or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := corner
			if a[i] != b[j] {
				replace++
			}
			corner = row[j+1]
			row[j+1] = min(replace, row[j]+1, corner+1)
		}
	}
	return row[len(b)]
}
