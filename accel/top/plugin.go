// Package top registers the command "shunt top": a live view of what each bridge
// and port forwards on each path, why the rest takes the slow path, and the stable
// ports with their members and swaps.
//
// It asks the daemon as any client does. Groups and swaps are another plugin's; of
// a daemon without them the rest is shown.
package top

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/accel"
)

func init() {
	accel.Register(accel.Plugin{Name: "top", Commands: func() []*cobra.Command {
		return []*cobra.Command{command()}
	}})
}

// shortestInterval keeps top from being the load that it shows.
const shortestInterval = 100 * time.Millisecond

// options are what the command line says.
type options struct {
	socket   string
	bridge   string
	interval time.Duration
	once     bool
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch what each port forwards on each path, and swaps as they happen",
		Long: "Watch what each bridge and port forwards on the fast and the slow path, in\n" +
			"frames and bits of frames with their Ethernet headers per second; what keeps\n" +
			"frames on the slow path, ranked; and the stable ports, with their swaps.\n\n" +
			"The arrows, j and k, PgUp, PgDn, Home and End scroll, Tab goes to the other part\n" +
			"of the screen, q ends. A terminal that cannot be drawn on (TERM=dumb) gets one\n" +
			"screen below the other. --once prints a single one, also into a pipe, after one\n" +
			"interval.",
		Example: "  shunt top --bridge br0 --interval 2s\n  shunt top --once",
	}
	flags := cmd.Flags()
	flags.StringVar(&o.socket, "socket", accel.DefaultSocket, "daemon's `socket`")
	flags.StringVar(&o.bridge, "bridge", "", "only this `bridge`")
	flags.DurationVar(&o.interval, "interval", time.Second, "`time` between two readings")
	flags.BoolVar(&o.once, "once", false, "print one screen and end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) }
	return cmd
}

func (o options) run(ctx context.Context, out io.Writer) error {
	if o.interval < shortestInterval {
		return accel.Usagef("--interval must be %v or more, not %v", shortestInterval, o.interval)
	}
	d := daemon{client: accel.NewClient(o.socket), bridge: o.bridge}
	m := model{screen: accel.NewScreen(out), interval: o.interval}
	if o.once {
		return o.printOnce(ctx, d, m)
	}
	if f, ok := out.(*os.File); !ok || !accel.IsTerminal(f) {
		return errors.New("top needs a terminal; \"shunt top --once\" prints one screen anywhere")
	}
	if os.Getenv("TERM") == "dumb" {
		return o.printOn(ctx, d, m)
	}
	return o.draw(ctx, d, m, out)
}

// printOnce prints one screen: two readings of one daemon make rates.
func (o options) printOnce(ctx context.Context, d daemon, m model) error {
	for range 2 {
		r := d.read(ctx)
		if r.err != nil {
			return r.err
		}
		m = m.take(r)
		if m.rated() {
			return m.print()
		}
		if !wait(ctx, o.interval) {
			return errors.New("interrupted")
		}
	}
	return errors.New("another daemon has taken over meanwhile: look again")
}

// printOn prints a screen after each reading, until ctx ends.
func (o options) printOn(ctx context.Context, d daemon, m model) error {
	for {
		m = m.take(d.read(ctx))
		if ctx.Err() != nil {
			return nil
		}
		if err := m.print(); err != nil {
			return err
		}
		if !wait(ctx, o.interval) {
			return nil
		}
	}
}

// draw shows the view until the operator or ctx ends it.
func (o options) draw(ctx context.Context, d daemon, m model, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	program := tea.NewProgram(m, tea.WithOutput(out), tea.WithoutSignalHandler())
	defer context.AfterFunc(ctx, program.Quit)()
	var reading sync.WaitGroup
	reading.Go(func() { d.watch(ctx, o.interval, program.Send) })
	reading.Go(func() { d.follow(ctx, o.interval, program.Send) })
	_, err := program.Run()
	cancel()
	reading.Wait()
	return err
}

// wait is false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
