// Package bench registers the command "shunt bench": the same traffic over a bridge
// without shunt and over one with it, in turn, in network namespaces of its own on the
// kernel of whoever asks.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/beside"
)

func init() {
	accel.Register(accel.Plugin{Name: "bench", Commands: func() []*cobra.Command {
		return []*cobra.Command{command()}
	}})
}

// options are those of the command line.
type options struct {
	asJSON   bool
	plot     string
	only     []string
	rounds   int
	duration time.Duration
	redirect string // how frames leave shunt's bridge
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Compare the bridge without and with shunt on this machine's kernel",
		Long: "Compare the bridge without and with shunt on this machine's kernel, between hosts\n" +
			"in network namespaces: one bridge has shunt beside it and an equal one has not,\n" +
			"each measurement is made on both in turn, and half way they change places.\n\n" +
			"It takes about a minute, on a machine that has a CPU to spare. Nothing of this\n" +
			"machine is touched, and nothing is left.",
		Example: "  shunt bench\n  shunt bench --only frames --rounds 50 --plot bench.svg",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return run(cmd, o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.asJSON, "json", "j", false, "print JSON")
	flags.StringVar(&o.plot, "plot", "", "draw the comparison into this `file`, as SVG")
	flags.StringSliceVar(&o.only, "only", groups, "measure these only, with commas between `them`")
	flags.IntVar(&o.rounds, "rounds", 20, "measure everything `this` often")
	flags.DurationVar(&o.duration, "duration", 100*time.Millisecond, "the `time` of each measurement")
	flags.StringVar(&o.redirect, "redirect", accel.RedirectEgress, "`way` out of shunt: auto, egress or peer")
	accel.CompleteFlag(cmd, "redirect", accel.Words(accel.RedirectAuto, accel.RedirectEgress, accel.RedirectPeer))
	accel.CompleteFile(cmd, "plot", "svg")
	accel.CompleteFlag(cmd, "only", accel.Words(groups...))
	return cmd
}

// What the options may be. The bridge forgets a station after 300 s, and each is heard of
// once in a round.
const (
	mostRounds       = 10_000
	shortestDuration = time.Millisecond
	longestDuration  = 5 * time.Second
)

func (o options) check() error {
	if o.rounds < 1 || o.rounds > mostRounds {
		return accel.Usagef("--rounds %d: it may be 1 to %d", o.rounds, mostRounds)
	}
	if o.duration < shortestDuration || o.duration > longestDuration {
		return accel.Usagef("--duration %v: it may be %v to %v", o.duration, shortestDuration, longestDuration)
	}
	if err := accel.CheckRedirect(o.redirect); err != nil {
		return accel.Usagef("--redirect %v", err)
	}
	_, err := probesOf(o.only)
	return err
}

// run measures, prints and draws. What cannot be written is found before it measures.
func run(cmd *cobra.Command, o options) (err error) {
	if err := beside.CheckRoot("bench"); err != nil {
		return err
	}
	picture, err := openPicture(o.plot)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, picture.close()) }()
	report, err := measure(cmd.Context(), o)
	if err != nil {
		return beside.Interrupted(cmd.Context(), "bench", err)
	}
	if err := picture.draw(report); err != nil {
		return err
	}
	if o.asJSON {
		return accel.WriteJSON(cmd.OutOrStdout(), report)
	}
	return report.print(accel.NewScreen(cmd.OutOrStdout()))
}

// measure builds the two bridges, compares them, and removes them, whatever happens in
// between.
func measure(ctx context.Context, o options) (r Report, err error) {
	probes, err := probesOf(o.only)
	if err != nil {
		return r, err
	}
	b := &bench{probes: probes, rounds: o.rounds, duration: o.duration, redirect: o.redirect, progress: newProgress(os.Stderr)}
	defer func() { err = errors.Join(err, b.remove()) }()
	r = describeMachine()
	if err := b.build(); err != nil {
		return r, err
	}
	if err := b.compare(ctx); err != nil {
		return r, err
	}
	r.take(b)
	return r, nil
}

// probesOf returns what is measured for the groups of that name, in an order of its own.
func probesOf(names []string) (chosen []probe, err error) {
	wanted := make(map[string]bool)
	for _, name := range names {
		wanted[name] = true
	}
	for _, p := range probes {
		if wanted[p.group] {
			chosen = append(chosen, p)
		}
	}
	for _, group := range groups {
		delete(wanted, group)
	}
	for name := range wanted {
		return nil, accel.Usagef("--only %s: there is %s", name, strings.Join(groups, ", "))
	}
	if len(chosen) == 0 {
		return nil, accel.Usagef("--only names nothing: there is %s", strings.Join(groups, ", "))
	}
	return chosen, nil
}

// progress is a line for who waits at a terminal, and nothing elsewhere.
type progress struct {
	to      *os.File // nil where nobody looks
	written int
}

func newProgress(f *os.File) *progress {
	if !accel.IsTerminal(f) {
		return &progress{}
	}
	return &progress{to: f}
}

// say replaces what the line said before.
func (p *progress) say(format string, args ...any) {
	if p.to == nil {
		return
	}
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(p.to, "\r%-*s", p.written, text)
	p.written = len(text)
}

// end leaves an empty line, and the cursor at its begin.
func (p *progress) end() {
	p.say("")
	p.say("")
}
