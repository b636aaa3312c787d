// Package demo registers the command "shunt demo": hosts on a real bridge in
// network namespaces of its own, real traffic with the fast path off and on,
// and what was measured.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
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
		Args:  cobra.NoArgs,
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
	if os.Geteuid() != 0 {
		return errors.New("demo makes network namespaces and loads BPF programs: run it as root, sudo shunt demo")
	}
	progress := out
	if asJSON {
		progress = io.Discard
	}
	s := &scene{progress: progress}
	defer func() { err = errors.Join(err, s.remove()) }()
	if err := s.build(ctx); err != nil {
		return interrupted(ctx, err)
	}
	r, err := s.measure(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "    ")
		return encoder.Encode(r)
	}
	return r.print(out)
}

// interrupted says so instead of what the interruption broke.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("demo was interrupted (%w); everything that it made is removed", context.Cause(ctx))
	}
	return err
}

// scene is what the demo builds.
type scene struct {
	progress io.Writer
	dir      string // of the control socket
	lab      *lab.Lab
	daemon   *daemon
	client   *accel.Client
}

func (s *scene) say(format string, args ...any) { fmt.Fprintf(s.progress, format+"\n", args...) }

// build makes two hosts on a bridge and starts shunt beside it.
func (s *scene) build(ctx context.Context) (err error) {
	s.say("building two hosts on a bridge, in network namespaces")
	if s.lab, err = lab.New(lab.Options{Hosts: 2}); err != nil {
		return fmt.Errorf("build the hosts: %w", err)
	}
	if s.dir, err = os.MkdirTemp("", "shunt-demo-"); err != nil {
		return err
	}
	s.say("starting shunt beside the bridge")
	if s.daemon, err = startDaemon(s.lab.Bridge, s.dir); err != nil {
		return err
	}
	s.client = accel.NewClient(s.daemon.socket)
	return s.awaitReady(ctx)
}

const (
	readyTimeout = 20 * time.Second
	lookAgain    = 20 * time.Millisecond
)

func (s *scene) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		status, err := s.client.Status(ctx, "")
		if err == nil && status.Ready {
			return nil
		}
		select {
		case <-again.C:
		case <-s.daemon.ended:
			return fmt.Errorf("shunt did not start: %s", s.daemon.words())
		case <-ctx.Done():
			return fmt.Errorf("shunt did not become ready: %w", ctx.Err())
		}
	}
}

// remove ends the daemon, which takes its programs along, and the namespaces.
func (s *scene) remove() error {
	var errs []error
	if s.daemon != nil {
		errs = append(errs, s.daemon.stop())
	}
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
