// Package demo registers the command "shunt demo": hosts on a real bridge in
// network namespaces of its own, real traffic with the fast path off and on, an
// uplink that is exchanged under load, and what was measured.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/beside"
	"github.com/shunt-dev/shunt/integration/spantree"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

func init() {
	accel.Register(accel.Plugin{Name: "demo", Commands: func() []*cobra.Command {
		return []*cobra.Command{command()}
	}})
}

func command() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show shunt at work between hosts of its own, in network namespaces",
		Long: "Show shunt at work between hosts of its own, in network namespaces: traffic with\n" +
			"the fast path off and on, and an uplink that is exchanged under load.\n\n" +
			"Nothing of this machine is touched, and nothing is left. With OTEL_TRACES_EXPORTER=otlp\n" +
			"the traces go where the OTEL_* environment variables say, too.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demonstrate(cmd.Context(), cmd.OutOrStdout(), asJSON)
		},
	}
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return cmd
}

// demonstrate builds, measures, prints, and removes what it built, whatever
// happens in between.
func demonstrate(ctx context.Context, out io.Writer, asJSON bool) (err error) {
	if err := beside.CheckRoot("demo"); err != nil {
		return err
	}
	progress := out
	if asJSON {
		progress = io.Discard
	}
	s := &scene{progress: progress}
	defer func() { err = errors.Join(err, s.remove()) }()
	if err := s.build(ctx); err != nil {
		return beside.Interrupted(ctx, "demo", err)
	}
	r, err := s.measure(ctx)
	if err != nil {
		return beside.Interrupted(ctx, "demo", err)
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "    ")
		return encoder.Encode(r)
	}
	return r.print(out, s.swapTrace)
}

// scene is what the demo builds.
type scene struct {
	progress  io.Writer
	lab       *swaplab.Lab
	collector *collector
	daemon    *beside.Daemon
	client    *accel.Client
	swapTrace *spantree.Tree // of the last swap
}

func (s *scene) say(format string, args ...any) { fmt.Fprintf(s.progress, format+"\n", args...) }

// build makes two hosts on a bridge with an uplink, and starts shunt beside it.
func (s *scene) build(ctx context.Context) (err error) {
	s.say("building two hosts on a bridge with an uplink, in network namespaces")
	if s.lab, err = swaplab.New(2); err != nil {
		return fmt.Errorf("build the hosts: %w", err)
	}
	if err := s.layCables(); err != nil {
		return err
	}
	bridge := s.lab.Host.Bridge
	if s.collector, err = newCollector(ctx, bridge); err != nil {
		return err
	}
	s.say("starting shunt beside the bridge")
	if s.daemon, err = beside.Start(bridge, configuration, s.collector.environment()); err != nil {
		return err
	}
	s.client = s.daemon.Client()
	if err := s.daemon.AwaitReady(ctx, s.uplinkReady); err != nil {
		return err
	}
	return s.lab.Host.AwaitForwarding()
}

// remove ends the daemon, which takes its programs along, and the namespaces. The
// collector takes what the daemon sends at its end.
func (s *scene) remove() error {
	var errs []error
	if s.daemon != nil {
		errs = append(errs, s.daemon.Stop())
	}
	if s.collector != nil {
		errs = append(errs, s.collector.close())
	}
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	return errors.Join(errs...)
}
