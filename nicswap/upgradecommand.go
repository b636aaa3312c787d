package nicswap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/accel"
)

// memberWord stands for the member's name in the command of an upgrade.
const memberWord = "{member}"

// upgradeFlags are the command line of upgrade.
type upgradeFlags struct {
	socket, driver string
	timeout        time.Duration
	json           bool
}

// connect is the way to a daemon.
func connect(socket string) upgradeDaemon { return accel.NewClient(socket) }

// upgradeCommand makes the command upgrade; connect makes the way to the daemon.
func upgradeCommand(connect func(socket string) upgradeDaemon) *cobra.Command {
	var f upgradeFlags
	cmd := &cobra.Command{
		Use:   "upgrade GROUP|--driver NAME [flags] -- CMD [ARG|{member}]...",
		Short: "Run a command for members while they are out of service",
		Long: "Run a command for members while they are out of service: for those of a group\n" +
			"in turn, or for all that have a driver together. The groups keep their traffic\n" +
			"on other members meanwhile, and get it back when all is done.\n\n" +
			"The command is run here, by you and in this terminal; the daemon runs nothing.\n" +
			"{member} in it is replaced by the member's name. With --driver and without\n" +
			"{member} it is run once, for all members. It has ended when the new driver or\n" +
			"firmware is there; the member must be back, under the same name, within the\n" +
			"time of --timeout. The first that is not, or whose command fails, ends it all.\n\n" +
			"Ctrl-C ends it after the current member, a second Ctrl-C at once. The command\n" +
			"itself does not get the first: half a firmware helps nobody.",
		Example: "  shunt upgrade uplink -- flash-firmware --device {member} new.bin\n" +
			"  shunt upgrade --driver ixgbe -- sh -c 'modprobe -r ixgbe && modprobe ixgbe'",
	}
	flags := cmd.Flags()
	flags.StringVar(&f.socket, "socket", accel.DefaultSocket, "daemon's `socket`")
	flags.StringVar(&f.driver, "driver", "", "upgrade all members that have this `driver`, in all groups")
	flags.DurationVar(&f.timeout, "timeout", backTimeout, "the `time` for a member to be back")
	flags.BoolVarP(&f.json, "json", "j", false, "print JSON, at the end")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		return accel.Complete(groupsOf(&accel.ClientFlags{Socket: f.socket}))(cmd, args, word)
	}
	accel.CompleteFile(cmd, "socket")
	var request UpgradeRequestV1
	var argv []string
	cmd.Args = func(cmd *cobra.Command, args []string) (err error) {
		request, argv, err = f.request(args, cmd.ArgsLenAtDash())
		return err
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c := &upgradeClient{daemon: connect(f.socket), argv: argv, out: cmd.OutOrStdout(), execute: f.execute}
		c.quiet = f.json
		outcome, err := c.run(cmd.Context(), request)
		if f.json && outcome.ID != "" {
			err = errors.Join(json.NewEncoder(c.out).Encode(outcome), err)
		}
		return err
	}
	return cmd
}

// request reads the arguments, of which those from dash on are the command.
func (f upgradeFlags) request(args []string, dash int) (r UpgradeRequestV1, argv []string, err error) {
	if dash < 0 || dash == len(args) {
		return r, nil, errors.New("no command is given; write it behind --, as in \"shunt upgrade uplink -- CMD {member}\"")
	}
	names, argv := args[:dash], args[dash:]
	switch {
	case len(names) > 1 || len(names) == 1 && f.driver != "":
		return r, nil, fmt.Errorf("one group or one driver is upgraded at a time, not %s", strings.Join(append(names, f.driver), " "))
	case len(names) == 0 && f.driver == "":
		return r, nil, errors.New("name a group, or a driver with --driver")
	case f.timeout < time.Second || f.timeout > mostTimeout:
		return r, nil, fmt.Errorf("--timeout must be between 1s and %v", mostTimeout)
	}
	r = UpgradeRequestV1{Driver: f.driver, TimeoutMS: f.timeout.Milliseconds()}
	if len(names) == 1 {
		r.Group = names[0]
	}
	r.Each = slices.ContainsFunc(argv, func(arg string) bool { return strings.Contains(arg, memberWord) })
	return r, argv, findCommand(argv[0])
}

// findCommand finds a mistyped command before anything is taken out of service.
func findCommand(name string) error {
	if strings.Contains(name, memberWord) {
		return nil
	}
	_, err := exec.LookPath(name)
	return err
}

// execute runs a command with the terminal and the rights of the caller. What -j
// prints stays alone on the standard output.
func (f upgradeFlags) execute(argv []string) error {
	out := os.Stdout
	if f.json {
		out = os.Stderr
	}
	return execute(argv, os.Stdin, out, os.Stderr)
}

// execute runs a command that gets neither the terminal's Ctrl-C nor its end, and ends
// with this process.
func execute(argv []string, in io.Reader, out, errs io.Writer) error {
	// What is ignored stays ignored over exec; Go itself has no way to start a
	// process so.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `trap "" INT HUP; exec "$@"`, "sh"}, argv...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // the signal comes when the thread ends
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// upgradeDaemon is what upgrade asks of the daemon; accel.Client serves it.
type upgradeDaemon interface {
	// DoStream sends body and calls each with every line of the answer.
	DoStream(ctx context.Context, method, path string, body any, each func(json.RawMessage) error) error
	Do(ctx context.Context, method, path string, body, result any) error
}

// upgradeClient is the client's part of an upgrade.
type upgradeClient struct {
	daemon  upgradeDaemon
	argv    []string
	execute func(argv []string) error
	quiet   bool

	mu  sync.Mutex // Ctrl-C comes at any time
	out io.Writer

	outcome UpgradeV1
	stop    func() // ends the waiting for Ctrl-C
}

// run is an upgrade. ctx ends with the first Ctrl-C, which the daemon is told; the
// second ends this process, and with it the stream that holds the upgrade.
func (c *upgradeClient) run(ctx context.Context, r UpgradeRequestV1) (UpgradeV1, error) {
	c.stop = func() {}
	defer func() { c.stop() }()
	holding := context.WithoutCancel(ctx)
	err := c.daemon.DoStream(holding, http.MethodPost, "/v1/upgrades", r, func(line json.RawMessage) error {
		var step UpgradeStepV1
		if err := json.Unmarshal(line, &step); err != nil {
			return err
		}
		if step.Step == "begin" {
			c.stop = c.watch(ctx, step.ID)
		}
		return c.take(holding, step)
	})
	switch {
	case err != nil:
		return c.outcome, err
	case c.outcome.ID == "":
		return c.outcome, errors.New("the daemon ended before the upgrade did: see \"shunt groups\" and its log")
	case c.outcome.Error != "":
		return c.outcome, errors.New(c.outcome.Error)
	}
	return c.outcome, nil
}

// watch asks the daemon to stop after the current member when ctx ends. It returns
// what ends the watch and waits for it.
func (c *upgradeClient) watch(ctx context.Context, id string) func() {
	asked := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(asked)
		c.say("it ends after the current member; Ctrl-C again ends it at once")
		if err := c.daemon.Do(context.WithoutCancel(ctx), http.MethodPost, "/v1/upgrades/"+id+"/stop", nil, nil); err != nil {
			c.say("it does not: " + err.Error())
		}
	})
	return func() {
		if !unwatch() {
			<-asked
		}
	}
}

// take does what a step asks for, and says what it tells.
func (c *upgradeClient) take(ctx context.Context, step UpgradeStepV1) error {
	members, groups := strings.Join(step.Members, ", "), strings.Join(step.Groups, ", ")
	switch step.Step {
	case "begin":
		c.say(fmt.Sprintf("upgrading %s of %s", members, groups))
	case "moved":
		c.say(fmt.Sprintf("%s: on %s", groups, step.Member))
	case "away":
		c.say(fmt.Sprintf("%s: out of service, running the command", members))
		return c.command(ctx, step)
	case "back":
		c.say(members + ": in service")
	case "end":
		c.outcome = *step.Upgrade
		switch {
		case c.outcome.Result == "done":
			c.say(fmt.Sprintf("done in %.1f s", c.outcome.DurationMS/1000))
		case c.outcome.Result == "failed" && len(c.outcome.Left) > 0:
			c.say("not touched: " + strings.Join(c.outcome.Left, ", "))
		}
	}
	return nil
}

// command runs the command and tells the daemon how it went.
func (c *upgradeClient) command(ctx context.Context, step UpgradeStepV1) error {
	argv := make([]string, len(c.argv))
	for i, arg := range c.argv {
		argv[i] = strings.ReplaceAll(arg, memberWord, step.Member)
	}
	done := UpgradeDoneV1{Member: step.Member}
	if err := c.execute(argv); err != nil {
		done.Error = err.Error()
	}
	return c.daemon.Do(ctx, http.MethodPost, "/v1/upgrades/"+step.ID+"/done", done, nil)
}

// say writes a line of progress, in pieces that fit 80 columns.
func (c *upgradeClient) say(line string) {
	if c.quiet {
		return
	}
	const width = 80
	length := 0
	var b strings.Builder
	for word := range strings.FieldsSeq(line) {
		switch {
		case length == 0:
		case length+1+len(word) > width:
			b.WriteString("\n  ")
			length = 2
		default:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(c.out, b.String())
}
