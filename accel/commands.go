package accel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace"
)

// commands makes the host's own commands.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.runCommand(),
		readCommand("status", "Show the bridges, and why one takes the slow path", "FAST and SLOW are frames of all ports, SHARE is the part of them that was fast.", (*Client).Status, Screen.status),
		readCommand("ports", "Show the ports of the bridges", "FAST and SLOW are frames that arrived on the port.", (*Client).Ports, Screen.ports),
		readCommand("fdb", "Show the stations that shunt knows", "A station that is not ACTIVE waits to be verified, and takes the slow path.", (*Client).FDB, Screen.fdb),
		readCommand("reasons", "Show what became of the frames, ranked", "BYTES have the Ethernet headers in them.", (*Client).Reasons, Screen.reasons),
		explainCommand(),
		switchCommand("on", "Switch the fast path on", true),
		switchCommand("off", "Switch the fast path off: every frame takes the bridge", false),
		a.detachCommand(),
		a.doctorCommand(),
		versionCommand(),
	}
}

func addBridge(cmd *cobra.Command, bridge *string) {
	cmd.Flags().StringVar(bridge, "bridge", "", "only this `bridge`")
}

// readCommand makes a command that asks the daemon one thing and shows it. columns
// says what the names of the columns do not.
func readCommand[T any](name, short, columns string, ask func(*Client, context.Context, string) (T, error), show func(Screen, T) error) *cobra.Command {
	var f ClientFlags
	var bridge string
	cmd := &cobra.Command{Use: name, Short: short, Long: short + ".\n\n" + columns}
	f.Add(cmd)
	addBridge(cmd, &bridge)
	CompleteFlag(cmd, "bridge", f.bridges)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		result, err := ask(f.Client(), cmd.Context(), bridge)
		if err != nil {
			return err
		}
		return Print(cmd, f, result, show)
	}
	return cmd
}

func explainCommand() *cobra.Command {
	var f ClientFlags
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Show what would become of a frame, and why",
		Long: "Show what would become of a frame, and why. The data plane itself is asked;\n" +
			"nothing is sent, counted or changed.\n\n" +
			"--src and --dst make a small frame (60 bytes, EtherType 0x88b5). --frame gives\n" +
			"a whole one instead, in hexadecimal, from the destination address on, without\n" +
			"its tag and its checksum. --vlan adds a tag to either; VLAN 0 is a tag with a\n" +
			"priority only. The exit code does not depend on the verdict.",
		Example: "  shunt explain --in p1 --src 52:54:00:00:00:01 --dst 52:54:00:00:00:02\n" +
			"  shunt explain --in p1 --vlan 10 --frame 525400000002525400000001080045...",
	}
	f.Add(cmd)
	flags := cmd.Flags()
	flags.String(flagOf(paramIn), "", "the `port` where the frame arrives")
	flags.String(flagOf(paramSource), "", "its source `address`")
	flags.String(flagOf(paramDest), "", "its destination `address`")
	flags.String(flagOf(paramVLAN), "", "the `VLAN` of its tag, 0 to 4094 (default no tag)")
	flags.String(flagOf(paramProtocol), "", "the tag's `kind`, 802.1Q or 802.1ad\n(default that of the bridge)")
	flags.String(flagOf(paramFrame), "", "the whole frame, in `hex`")
	CompleteFlag(cmd, flagOf(paramIn), f.ports)
	CompleteFlag(cmd, flagOf(paramProtocol), Words("802.1Q", "802.1ad"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		params := make(url.Values)
		for _, param := range explainParams {
			if flag := flags.Lookup(flagOf(param)); flag.Changed {
				params.Set(param, flag.Value.String())
			}
		}
		if _, err := readAsked(params, func(param string) string { return "--" + flagOf(param) }); err != nil {
			return Usagef("%w; see \"shunt explain --help\"", err)
		}
		result, err := f.Client().Explain(cmd.Context(), params)
		if err != nil {
			return err
		}
		return Print(cmd, f, result, Screen.explanation)
	}
	return cmd
}

// flagOf is a query's parameter as a flag.
func flagOf(param string) string { return strings.ReplaceAll(param, "_", "-") }

func switchCommand(name, short string, on bool) *cobra.Command {
	var f ClientFlags
	var bridge string
	cmd := &cobra.Command{Use: name, Short: short}
	f.Add(cmd)
	addBridge(cmd, &bridge)
	CompleteFlag(cmd, "bridge", f.bridges)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		bridges, err := f.Client().Switch(cmd.Context(), bridge, on)
		if err != nil {
			return err
		}
		return Print(cmd, f, bridges, Screen.switched)
	}
	return cmd
}

func (a *app) detachCommand() *cobra.Command {
	var f ClientFlags
	cmd := &cobra.Command{
		Use:   "detach",
		Short: "End the daemon and take the fast path out of the kernel",
		Long: "End the daemon and take everything of shunt out of the kernel but stable ports.\n" +
			"Without a daemon, remove what one has left in this network namespace.\n\n" +
			"Stable ports stay and go on to carry traffic, without the fast path; they are\n" +
			"named. \"shunt release\" removes them.",
	}
	f.Add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		result, err := f.Client().Detach(cmd.Context())
		if errors.Is(err, errNoDaemon) {
			result, err = a.cleanUp(cmd.Context())
		}
		// What was removed is said even if something else could not be.
		if err != nil && len(result.Removed) == 0 {
			return err
		}
		return errors.Join(Print(cmd, f, result, Screen.detached), err)
	}
	return cmd
}

// cleanUp removes what a daemon that is gone has left.
func (a *app) cleanUp(ctx context.Context) (DetachV1, error) {
	result := DetachV1{Bridges: []string{}, Removed: []string{}, Kept: []string{}}
	if err := a.privileges(); err != nil {
		return result, err
	}
	if err := a.alone(); err != nil {
		return result, err
	}
	namespace, err := CurrentNamespace()
	if err != nil {
		return result, err
	}
	var errs []error
	for _, cleaner := range serving[Cleaner](newLifecycle(a.plugins, nil).components) {
		removed, err := cleaner.Clean(ctx, namespace)
		result.Removed = append(result.Removed, removed...)
		errs = append(errs, err)
	}
	return result, errors.Join(errs...)
}

// refuseOtherDaemon keeps the programs of a daemon that listens at another
// socket from being removed under it.
func refuseOtherDaemon() error {
	bridges, err := claimedBridges()
	if err != nil || len(bridges) == 0 {
		return err
	}
	who := "another socket"
	if holder, err := claimHolder(bridges[0]); err == nil {
		who = fmt.Sprintf("another socket (process %d)", holder.Pid)
	}
	return fmt.Errorf("a daemon works on %s here and listens at %s: name it with --socket", nameClaims(bridges), who)
}

func versionCommand() *cobra.Command {
	var f ClientFlags
	cmd := &cobra.Command{Use: "version", Short: "Show the version"}
	f.addJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return Print(cmd, f, map[string]string{"version": Version()}, func(s Screen, v map[string]string) error {
			_, err := fmt.Fprintln(s, "shunt", v["version"])
			return err
		})
	}
	return cmd
}

// runFlags are the configuration as the command line gives it.
type runFlags struct {
	bridges                                           []string
	all                                               bool
	file, socket, stateDir, attach, redirect          string
	level                                             slog.Level
	allGiven, socketGiven, stateDirGiven, attachGiven bool
	redirectGiven                                     bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Accelerate bridges until stopped; in the foreground",
		Long: "Accelerate bridges until stopped; in the foreground.\n\n" +
			"The bridges are those named with --bridge or in the file of --config. With\n" +
			"--all-bridges they are all that are in this network namespace or appear in it;\n" +
			"what the file says of a bridge by name holds there too. One daemon with\n" +
			"--all-bridges runs in a network namespace, and no other beside it.",
		Example: "  shunt run --bridge br0\n" +
			"  shunt run --all-bridges\n" +
			"  shunt run --config /etc/shunt/shunt.yaml",
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.bridges, "bridge", nil, "accelerate this `bridge`; may be given again")
	flags.BoolVar(&f.all, "all-bridges", false, "accelerate every bridge that is or appears here")
	flags.StringVar(&f.file, "config", "", "read this `file`; flags beat it")
	flags.StringVar(&f.socket, "socket", DefaultSocket, "listen at this `path`")
	flags.StringVar(&f.stateDir, "state-dir", DefaultStateDir, "keep journals at this `path`")
	flags.StringVar(&f.attach, "attach", "auto", "the tc `hook`: auto, tcx or clsact")
	flags.StringVar(&f.redirect, "redirect", RedirectEgress, "`way` out: auto, egress or peer")
	flags.TextVar(&f.level, "log-level", slog.LevelInfo, "least `level`: debug, info, warn or error")
	CompleteFlag(cmd, "bridge", Interfaces("bridge"))
	CompleteFlag(cmd, "attach", Words("auto", "tcx", "clsact"))
	CompleteFlag(cmd, "redirect", Words(RedirectAuto, RedirectEgress, RedirectPeer))
	CompleteFlag(cmd, "log-level", Words("debug", "info", "warn", "error"))
	CompleteFile(cmd, "config", "yaml", "yml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.allGiven, f.socketGiven = flags.Changed("all-bridges"), flags.Changed("socket")
		f.stateDirGiven, f.attachGiven = flags.Changed("state-dir"), flags.Changed("attach")
		f.redirectGiven = flags.Changed("redirect")
		// The daemon outlives whoever started it: its traces are its own.
		return a.run(trace.ContextWithRemoteSpanContext(cmd.Context(), trace.SpanContext{}), f)
	}
	return cmd
}

// run is the command: it reads the configuration, makes sure of the
// privileges, and works.
func (a *app) run(ctx context.Context, f runFlags) error {
	config, err := f.config()
	if err != nil {
		return err
	}
	if err := a.privileges(); err != nil {
		return err
	}
	// Who reads the log may go away; that must not end the daemon before it
	// has removed everything.
	signal.Ignore(syscall.SIGPIPE)
	s := &service{config: config, plugins: a.plugins, logger: newLogger(f.level), namespaces: a.namespaces}
	return s.run(ctx)
}

// config puts the flags over the file over the defaults.
func (f runFlags) config() (Config, error) {
	if err := f.check(); err != nil {
		return Config{}, &UsageError{err}
	}
	config := DefaultConfig()
	if f.file != "" {
		var err error
		if config, err = readConfig(f.file); err != nil {
			return Config{}, err
		}
	}
	f.chooseBridges(&config)
	if f.socketGiven {
		config.Socket = f.socket
	}
	if f.stateDirGiven {
		config.StateDir = f.stateDir
	}
	if f.attachGiven {
		config.Attach = f.attach
	}
	if f.redirectGiven {
		config.Redirect, config.Redirects = f.redirect, nil
	}
	if len(config.Bridges) == 0 && !config.AllBridges {
		return Config{}, Usagef("no bridge is named: write --bridge br0 or --all-bridges, or bridges: [br0] or all_bridges: true in the file of --config")
	}
	if g, ok := config.strayGroup(); ok {
		return Config{}, Usagef("group %s in %s is on bridge %s, which is not accelerated then: write --bridge %s too, or take the group out", g.Name, f.file, g.Bridge, g.Bridge)
	}
	return config, nil
}

// chooseBridges puts the command line's choice over the file's. Names without
// --all-bridges are a choice against all. What the file says of a bridge by name
// holds if the bridge is among the chosen.
func (f runFlags) chooseBridges(config *Config) {
	if len(f.bridges) > 0 {
		config.Bridges = f.bridges
		config.AllBridges = false
	}
	if f.allGiven {
		config.AllBridges = f.all
	}
	if !config.AllBridges {
		config.BypassNetfilter = slices.DeleteFunc(config.BypassNetfilter, func(name string) bool {
			return !slices.Contains(config.Bridges, name)
		})
	}
}

// check looks at the values of the flags alone.
func (f runFlags) check() error {
	seen := make(map[string]bool)
	for _, name := range f.bridges {
		if err := CheckInterfaceName(name); err != nil {
			return fmt.Errorf("--bridge: %w", err)
		}
		if seen[name] {
			return fmt.Errorf("--bridge: %s is given twice", name)
		}
		seen[name] = true
	}
	if err := checkAttach(f.attach); err != nil {
		return fmt.Errorf("--attach %w", err)
	}
	if f.redirectGiven {
		if err := CheckRedirect(f.redirect); err != nil {
			return fmt.Errorf("--redirect %w", err)
		}
	}
	if err := checkSocket(f.socket); err != nil {
		return fmt.Errorf("--socket %w", err)
	}
	if err := checkStateDir(f.stateDir); err != nil {
		return fmt.Errorf("--state-dir %w", err)
	}
	return nil
}
