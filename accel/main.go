package accel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/propagation"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// Main is the whole program: it runs the command that the arguments name, with
// the plugins that have registered, and exits.
func Main() {
	os.Exit(newApp().main(untilSignal(), os.Args[1:]))
}

// Command is the whole command line of the plugins that have registered, for those
// who write about it, such as the maker of the manual pages.
func Command() *cobra.Command { return newApp().rootCommand() }

func newApp() *app {
	plugins, err := registered()
	if err != nil {
		panic("accel: " + err.Error()) // a mistake in the program
	}
	return &app{
		plugins: plugins, stdout: os.Stdout, stderr: os.Stderr,
		privileges: checkPrivileges, alone: refuseOtherDaemon, namespaces: namedNamespaces,
	}
}

// untilSignal returns a context that ends with the first signal. The second
// one ends the process at once, as if nobody had asked for signals.
func untilSignal() context.Context {
	wanted := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		wanted = append(wanted, syscall.SIGHUP)
	}
	// Room for two: the second must not be lost while the first is handled.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, wanted...)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		cancel(fmt.Errorf("signal: %v", <-signals))
		passOver(signals, sameWish)
		second := <-signals
		for second == syscall.SIGHUP { // a terminal, or a parent, can be gone more than once
			second = <-signals
		}
		signal.Reset(second)
		syscall.Kill(os.Getpid(), second.(syscall.Signal))
	}()
	return ctx
}

// sameWish is how long further signals count as the first one. One wish may come
// as several: from the terminal and from a parent, or once for every thread of a
// parent that was killed (PR_SET_PDEATHSIG).
const sameWish = time.Second

func passOver(signals <-chan os.Signal, d time.Duration) {
	over := time.After(d)
	for {
		select {
		case <-signals:
		case <-over:
			return
		}
	}
}

// app is the program with everything that it takes from outside.
type app struct {
	plugins        []Plugin
	stdout, stderr io.Writer
	privileges     func() error
	alone          func() error // fails while a daemon works in the network namespace
	namespaces     string
}

// main runs one command and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(withCallersTrace(ctx))
	if err == nil && cmd == root && !isPlain(root) {
		err = unknownCommand(root, root.Flags().Args()) // asked for the help of it
	}
	if err == nil {
		return exitOK
	}
	complaints := NewScreen(a.stderr)
	for line := range strings.Lines(err.Error()) {
		complaints.complain("shunt: ", strings.TrimSuffix(line, "\n"))
	}
	var usage *UsageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}

// withCallersTrace puts what a command does into the trace of whoever started it,
// which TRACEPARENT and TRACESTATE name (W3C trace context).
func withCallersTrace(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		"traceparent": os.Getenv("TRACEPARENT"),
		"tracestate":  os.Getenv("TRACESTATE"),
	})
}

// UsageError is a mistake on the command line. It makes the exit code 2.
type UsageError struct{ err error }

func (e *UsageError) Error() string { return e.err.Error() }

// Unwrap returns the mistake.
func (e *UsageError) Unwrap() error { return e.err }

// Usagef makes a UsageError; commands of plugins use it too.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "shunt",
		Short:         "A bypass lane for existing Linux bridges",
		Version:       Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          unknownCommand,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SuggestionsMinimumDistance = 2
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddCommand(a.commands()...)
	for _, p := range a.plugins {
		if p.Commands != nil {
			root.AddCommand(p.Commands()...)
		}
	}
	helpOfCommands(root)
	makeStrict(root)
	return root
}

// helpOfCommands keeps cobra from showing the help of the whole for what is no command.
func helpOfCommands(root *cobra.Command) {
	show := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if cmd != root || isPlain(root) {
			show(cmd, args)
		}
	})
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Args = func(_ *cobra.Command, args []string) error {
		if named, _, _ := root.Find(args); named != root || len(args) == 0 {
			return nil
		}
		return unknownCommand(root, args)
	}
}

// isPlain says whether the command line names nothing but the program itself.
func isPlain(root *cobra.Command) bool { return root.Flags().NArg() == 0 }

// unknownCommand is what remains when no command was found.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return Usagef("no command is given; \"shunt help\" lists them")
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return Usagef("unknown command %q; did you mean %q?", args[0], near[0])
	}
	return Usagef("unknown command %q; \"shunt help\" lists them", args[0])
}

// makeStrict turns every mistake on the command line into a UsageError.
func makeStrict(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usagef("%w; see \"%s --help\"", err, cmd.CommandPath())
	})
	check := cmd.Args
	if check == nil {
		check = noArgs
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		// Cobra would check the flags later, and not mark the error.
		for _, err := range []error{check(cmd, args), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()} {
			if err != nil {
				return &UsageError{err}
			}
		}
		return nil
	}
	for _, sub := range cmd.Commands() {
		makeStrict(sub)
	}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%q takes no argument, but got %q; see \"%s --help\"", cmd.CommandPath(), args[0], cmd.CommandPath())
}

// version is what the linker was told (-X), for packages.
var version string

// Version is that of the package or the module, and of the commit where Go knows
// only that.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
