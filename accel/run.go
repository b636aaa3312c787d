package accel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.opentelemetry.io/otel/codes"
)

// stopTimeout is how long the components may take to remove everything. The
// kernel's locks are the only thing that they wait for.
const stopTimeout = 20 * time.Second

// errDetached ends a daemon that was asked to with detach.
var errDetached = errors.New("asked to detach")

// service is one run of the daemon.
type service struct {
	config  Config
	plugins []Plugin
	logger  *slog.Logger
	// namespaces is the directory with the names of network namespaces.
	namespaces string

	life   *lifecycle
	claims *claims
	socket *controlSocket
	api    *api
	watch  *namespaceWatch
}

// run works until ctx ends, a component fails, the network namespace loses its
// name, or detach is asked for. Then it removes everything. It returns nil
// unless something went wrong.
func (s *service) run(ctx context.Context) error {
	working, end := context.WithCancelCause(ctx)
	defer end(nil)
	if err := s.prepare(working, end); err != nil {
		return err
	}
	err := s.open(end)
	if err == nil {
		err = s.work(working)
	}
	switch {
	case errors.Is(err, errDetached), ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		err = nil // the end that was asked for
	}
	return errors.Join(err, s.close(err))
}

// prepare makes the components and lets them check everything. It changes
// nothing.
func (s *service) prepare(ctx context.Context, end context.CancelCauseFunc) error {
	namespace, err := CurrentNamespace()
	if err != nil {
		return err
	}
	s.life = newLifecycle(s.plugins, s.logger)
	v, err := newView(s.life)
	if err != nil {
		return err
	}
	if err := s.life.provision(ctx, Host{Config: &s.config, Namespace: namespace, fail: end}); err != nil {
		return err
	}
	s.logger = s.life.logger
	s.api = newAPI(s.firstStatus(namespace), v, s.life.tracers, s.life.meters, func() { end(errDetached) }, s.logger)
	return nil
}

// firstStatus is what the daemon answers while its components start.
func (s *service) firstStatus(namespace Namespace) StatusV1 {
	status := StatusV1{Version: Version(), PID: os.Getpid(), Namespace: namespace.Inode, Bridges: []BridgeV1{}}
	if s.config.AllBridges {
		return status // which ones there are is not known yet
	}
	for _, name := range s.config.Bridges {
		status.Bridges = append(status.Bridges, BridgeV1{
			Name: name, Reason: Syncing, Text: Syncing.Text(),
			Netfilter: describeNetfilter(slices.Contains(s.config.BypassNetfilter, name)),
		})
	}
	return status
}

// open takes what only one daemon may have, and answers from then on.
func (s *service) open(end context.CancelCauseFunc) (err error) {
	if s.claims, err = claimBridges(s.config, s.logger); err != nil {
		return err
	}
	if s.socket, err = listenControl(s.config.Socket); err != nil {
		return err
	}
	s.api.serve(s.socket.Listener)
	s.watch, err = watchNamespace(s.namespaces, func(name string) {
		end(fmt.Errorf("network namespace %s was deleted: nothing is left to do", name))
	})
	return err
}

// work starts the components and returns why they shall stop.
func (s *service) work(ctx context.Context) error {
	saveMemory()
	s.warnOfBypass()
	if err := s.start(ctx); errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return context.Cause(ctx)
	} else if err != nil {
		return err
	}
	if err := giveBackMemory(); err != nil {
		s.logger.Debug("the memory of the start is kept", "error", err)
	}
	s.awaitEnd(ctx)
	s.logger.Info("stopping", "because", context.Cause(ctx))
	return context.Cause(ctx)
}

// start starts the components and tells everyone that they work. It is one trace,
// in which they have their own spans.
func (s *service) start(ctx context.Context) error {
	begin := time.Now()
	ctx, span := s.life.tracers.Tracer("accel").Start(ctx, "start")
	defer span.End()
	if err := s.life.start(ctx); err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
		return err
	}
	s.api.setReady()
	s.notify(daemon.SdNotifyReady)
	span.AddEvent("ready")
	s.logger.InfoContext(ctx, "ready", "bridges", s.config.Bridges, "all_bridges", s.config.AllBridges, "socket", s.config.Socket, "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// warnOfBypass tells of every bridge whose firewall was given up, at every start.
func (s *service) warnOfBypass() {
	for _, name := range s.config.BypassNetfilter {
		s.logger.Warn("netfilter: bypass is configured: "+bypassText, "bridge", name)
	}
}

// close removes everything, the socket last: while it is there, the daemon is.
// Those who wait for detach learn the outcome, which is that of the run if
// nothing fails here.
func (s *service) close(outcome error) error {
	s.notify(daemon.SdNotifyStopping)
	s.api.quiesce()
	s.watch.stop()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	s.life.settle(ctx)
	err := s.life.stop(ctx)
	s.claims.release()
	if s.socket != nil {
		err = errors.Join(err, s.socket.remove())
	}
	s.api.finish(errors.Join(outcome, err))
	return err
}

// notify tells systemd, if it listens.
func (s *service) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.logger.Warn("systemd does not take the notification", "state", state, "error", err)
	}
}
