package nicswap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/accel"
)

// commands are nicswap's part of the command line.
func commands() []*cobra.Command {
	return []*cobra.Command{groupsCommand(), swapsCommand(), swapCommand(), adoptCommand(), releaseCommand(), upgradeCommand(connect)}
}

func groupsCommand() *cobra.Command {
	return readCommand("groups", "Show the stable ports and their members", showGroups)
}

func swapsCommand() *cobra.Command {
	return readCommand("swaps", "Show the last swaps, the newest first", showSwaps)
}

// readCommand makes a command that asks the daemon for a list, of all groups or of
// one.
func readCommand[T any](name, short string, show func(accel.Screen, []T) error) *cobra.Command {
	var f accel.ClientFlags
	var group string
	cmd := &cobra.Command{Use: name, Short: short}
	f.Add(cmd)
	cmd.Flags().StringVar(&group, "group", "", "only this `group`")
	accel.CompleteFlag(cmd, "group", groupsOf(&f))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var list []T
		if err := f.Client().Do(cmd.Context(), http.MethodGet, "/v1/"+name+query(group), nil, &list); err != nil {
			return err
		}
		return accel.Print(cmd, f, list, show)
	}
	return cmd
}

func query(group string) string {
	if group == "" {
		return ""
	}
	return "?group=" + url.QueryEscape(group)
}

func swapCommand() *cobra.Command {
	var f accel.ClientFlags
	var r SwapRequestV1
	var follow bool
	cmd := &cobra.Command{
		Use:   "swap GROUP...",
		Short: "Move groups to another member, without losing a frame",
		Long: "Move groups to another member, one after the other, up to the first that fails.\n\n" +
			"A failure before the flip leaves everything as it was; a target that is lost\n" +
			"after it is left again. The exit code is 1 if a group was not moved. Who\n" +
			"interrupts the command aborts a swap that has not flipped yet.",
		Example: "  shunt swap uplink --to eth1\n" +
			"  shunt swap uplink storage --to physical\n" +
			"  shunt swap uplink --to eth1 --dry-run",
	}
	cmd.Args = func(cmd *cobra.Command, groups []string) error {
		if len(groups) > 0 && r.To == "" {
			return fmt.Errorf("%q needs --to MEMBER; see \"%s --help\"", cmd.CommandPath(), cmd.CommandPath())
		}
		return needs("GROUP")(cmd, groups)
	}
	f.Add(cmd)
	cmd.Flags().StringVar(&r.To, "to", "", "a `member`, or the first that is physical or virtual")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&follow, "follow", false, "tell of every phase on stderr")
	cmd.ValidArgsFunction = accel.Complete(groupsOf(&f))
	accel.CompleteFlag(cmd, "to", targetsOf(&f))
	cmd.RunE = func(cmd *cobra.Command, groups []string) error {
		r.Groups = groups
		end := func() {}
		if follow {
			end = followSwaps(cmd, f.Client(), groups)
		}
		var swaps []SwapV1
		err := f.Client().Do(cmd.Context(), http.MethodPost, "/v1/swap", r, &swaps)
		end()
		if err != nil {
			return err
		}
		return errors.Join(accel.Print(cmd, f, swaps, showSwapped), failure(swaps, groups))
	}
	return cmd
}

// needs makes the check for commands that want one argument or more.
func needs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%q needs a %s; see \"%s --help\"", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

// one makes the check for commands that want exactly one.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%q needs one %s; see \"%s --help\"", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

// followSwaps tells of phases while a swap runs, and returns what ends that. The first
// line of the events says that none will be missed.
func followSwaps(cmd *cobra.Command, client *accel.Client, groups []string) (end func()) {
	ctx, cancel := context.WithCancel(cmd.Context())
	var telling sync.WaitGroup
	following := make(chan struct{})
	begun := sync.OnceFunc(func() { close(following) })
	telling.Go(func() {
		defer begun()
		err := client.Stream(ctx, "/v1/events", func(line json.RawMessage) error {
			begun()
			var event EventV1
			if err := json.Unmarshal(line, &event); err != nil {
				return err
			}
			if event.Event == eventPhase && slices.Contains(groups, event.Group) {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", accel.Printable(event.Group), accel.Printable(event.Phase))
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "shunt: the events cannot be followed: %s\n", accel.Printable(err.Error()))
		}
	})
	<-following
	return func() {
		cancel()
		telling.Wait()
	}
}

// failure is the error of a command of which a swap failed, and says what was not
// even tried.
func failure(swaps []SwapV1, groups []string) error {
	if len(swaps) == 0 {
		return errors.New("the daemon did not say what became of the swap")
	}
	last := swaps[len(swaps)-1]
	if last.Result == resultDone || last.Result == resultPlanned {
		return nil
	}
	text := fmt.Sprintf("%s is not moved to %s: %s", last.Group, last.To, last.Error)
	if rest := groups[len(swaps):]; len(rest) > 0 {
		text += fmt.Sprintf("; not tried: %s", strings.Join(rest, ", "))
	}
	return errors.New(text)
}

func adoptCommand() *cobra.Command {
	var f accel.ClientFlags
	var r AdoptRequestV1
	cmd := &cobra.Command{
		Use:   "adopt PORT",
		Short: "Make a stable port of a port of a bridge",
		Long: "Make a stable port of a port of a bridge. The port's device becomes the first\n" +
			"member and keeps its name; its settings, VLANs and addresses go to the stable\n" +
			"port. It costs a moment of traffic, which --dry-run describes. If a further\n" +
			"member cannot be used it is refused, and nothing is changed. Release turns it\n" +
			"back.",
		Example: "  shunt adopt eth0 --group uplink --member eth1 --dry-run",
		Args:    one("PORT"),
	}
	f.Add(cmd)
	cmd.Flags().StringVar(&r.Group, "group", "", "the `name` of the group and the stable port\n(default PORT.s)")
	cmd.Flags().StringArrayVar(&r.Members, "member", nil, "a further `member`; may be given again")
	cmd.ValidArgsFunction = accel.Complete(accel.Interfaces("brport"))
	accel.CompleteFlag(cmd, "member", accel.Interfaces(""))
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only say what would be done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Port = args[0]
		return change(cmd, f, "adopt", r)
	}
	return cmd
}

func releaseCommand() *cobra.Command {
	var f accel.ClientFlags
	var r ReleaseRequestV1
	cmd := &cobra.Command{
		Use:   "release GROUP",
		Short: "Put the active member into the bridge, and remove the stable port",
		Long: "Put the active member into the bridge in the place of its stable port, which is\n" +
			"removed. A group of the configuration must be removed there first.",
		Args: one("GROUP"),
	}
	f.Add(cmd)
	cmd.ValidArgsFunction = accel.Complete(groupsOf(&f))
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only say what would be done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Group = args[0]
		return change(cmd, f, "release", r)
	}
	return cmd
}

// change asks for an adoption or a release.
func change(cmd *cobra.Command, f accel.ClientFlags, what string, body any) error {
	var result ChangeV1
	if err := f.Client().Do(cmd.Context(), http.MethodPost, "/v1/"+what, body, &result); err != nil {
		return err
	}
	return accel.Print(cmd, f, result, showChange)
}

var stateColours = map[string]accel.Colour{
	groupReady: accel.Green, groupSwapping: accel.Green, groupUpgrading: accel.Yellow, groupDegraded: accel.Yellow, groupDown: accel.Red,
	memberActive: accel.Green, memberStandby: accel.Green, memberNoCarrier: accel.Yellow, memberMissing: accel.Yellow,
}

// showGroups shows a row for every group, and one for each member below it.
func showGroups(s accel.Screen, groups []GroupV1) error {
	t := accel.Table{Headings: []string{"GROUP", "BRIDGE", "STATE", "KIND", ">MTU"}}
	for _, g := range groups {
		t.Rows = append(t.Rows, accel.Row{
			Cells: []string{g.Group, g.Bridge, g.State, "-", "-"}, Colours: map[int]accel.Colour{2: stateColours[g.State]},
		})
		for _, m := range g.Members {
			t.Rows = append(t.Rows, memberRow(m))
		}
		last := &t.Rows[len(t.Rows)-1]
		last.Notes = groupNotes(g)
	}
	return s.Table(t)
}

func memberRow(m MemberV1) accel.Row {
	mtu := fmt.Sprint(m.MTU)
	if m.State == memberMissing {
		mtu = "-"
	}
	return accel.Row{Cells: []string{"  " + m.Member, "", m.State, memberKind(m), mtu}, Colours: map[int]accel.Colour{2: stateColours[m.State]}}
}

// groupNotes say what is not in the table.
func groupNotes(g GroupV1) (notes []string) {
	if g.Why != "" {
		notes = append(notes, g.Why)
	}
	if g.Adopted {
		notes = append(notes, fmt.Sprintf("adopted: \"shunt release %s\" puts the active member into the bridge again", g.Group))
	}
	if g.Drained > 0 {
		notes = append(notes, fmt.Sprintf("drained: %s frames were delivered from members that were left", accel.FormatFrames(g.Drained)))
	}
	return append(notes, droppedNotes(g.Dropped)...)
}

// droppedNotes say what the wire dropped, and why.
func droppedNotes(dropped map[string]uint64) (notes []string) {
	for _, name := range slices.Sorted(maps.Keys(dropped)) {
		note := fmt.Sprintf("dropped: %s frames, %s", accel.FormatFrames(dropped[name]), name)
		for _, reason := range accel.Reasons() {
			if reason.String() == name {
				note += ": " + reason.Text()
			}
		}
		notes = append(notes, note)
	}
	return notes
}

func memberKind(m MemberV1) string {
	switch {
	case m.State == memberMissing:
		return "-"
	case m.LinkKind != "":
		return m.LinkKind
	case m.Driver != "":
		return m.Driver
	}
	return m.Kind
}

func resultColour(result string) accel.Colour {
	switch result {
	case resultDone, resultPlanned, resultRunning:
		return accel.Green
	case resultRolledBack:
		return accel.Yellow
	}
	return accel.Red
}

func showSwaps(s accel.Screen, swaps []SwapV1) error {
	t := accel.Table{Headings: []string{"BEGAN", "GROUP", "FROM", "TO", "RESULT", "CAUSE", ">FLIP"}}
	for _, v := range swaps {
		row := accel.Row{
			Cells: []string{
				v.Began.Local().Format("Jan _2 15:04:05"), v.Group, orElse(v.From, "-"), orElse(v.To, "-"), v.Result, v.Cause, flipTime(v.FlipNS),
			},
			Colours: map[int]accel.Colour{4: resultColour(v.Result)},
			Notes:   swapNotes(v),
		}
		t.Rows = append(t.Rows, row)
	}
	return s.Table(t)
}

func flipTime(ns int64) string {
	if ns == 0 {
		return "-"
	}
	return fmt.Sprintf("%d.%d us", ns/1000, ns%1000/100)
}

// swapNotes say what is not in the table.
func swapNotes(v SwapV1) (notes []string) {
	if v.Error != "" {
		notes = append(notes, v.Phase+": "+v.Error)
	}
	if v.Why != "" {
		notes = append(notes, "why: "+v.Why)
	}
	return append(notes, droppedNotes(v.Dropped)...)
}

// showSwapped tells how the swaps of one request went.
func showSwapped(s accel.Screen, swaps []SwapV1) error {
	for _, v := range swaps {
		group, from, to := accel.Printable(v.Group), accel.Printable(orElse(v.From, "no member")), accel.Printable(v.To)
		if v.Result == resultPlanned {
			fmt.Fprintf(s, "%s: would move from %s to %s\n", group, from, to)
			for _, sentence := range v.Plan {
				accel.WriteNote(s, sentence)
			}
			continue
		}
		if v.Phase == phaseResolve && v.Result == resultFailed { // it was not even begun
			fmt.Fprintf(s, "%s: %s\n", group, s.Paint(resultColour(v.Result), v.Result))
			continue
		}
		fmt.Fprintf(s, "%s: from %s to %s: %s\n", group, from, to, s.Paint(resultColour(v.Result), v.Result))
		if v.Result == resultDone {
			accel.WriteNote(s, fmt.Sprintf("flip %s, %d entries untouched, %d frames announced, %d drained", flipTime(v.FlipNS), v.Stations, v.Announced, v.Drained))
		}
		for _, note := range droppedNotes(v.Dropped) {
			accel.WriteNote(s, note)
		}
		if v.TraceID != "" {
			fmt.Fprintf(s, "    trace %s\n", v.TraceID)
		}
	}
	return nil
}

func showChange(s accel.Screen, c ChangeV1) error {
	if c.Done {
		fmt.Fprintf(s, "%s: done\n", accel.Printable(c.Group))
	} else {
		fmt.Fprintf(s, "%s: this would be done\n", accel.Printable(c.Group))
	}
	t := accel.Table{Headings: []string{"PORT", "BRIDGE", "MEMBER"}}
	row := accel.Row{Cells: []string{c.Port, c.Bridge, orElse(c.Member, "-")}, Notes: slices.Clone(c.Steps)}
	for _, cost := range c.Costs {
		row.Notes = append(row.Notes, "cost: "+cost)
	}
	t.Rows = []accel.Row{row}
	return s.Table(t)
}
