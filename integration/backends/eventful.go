package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
	"github.com/shunt-dev/shunt/integration/swaplab"
)

const metricsAddress = "127.0.0.1:9464"

// eventful is a lab with a shunt to which everything happens.
type eventful struct {
	lab    *swaplab.Lab
	daemon *server
	client *accel.Client

	traffic *swaplab.Traffic
	stop    context.CancelFunc // of the churn
	churned sync.WaitGroup
	failed  error // of the churn, after churned
}

const eventfulConfig = `
bridges: [` + lab.BridgeName + `]
groups:
  - {name: uplink, bridge: ` + lab.BridgeName + `, members: [m1, m2], drain: 200ms}
`

// newEventful returns when shunt is ready.
func newEventful(ctx context.Context, p place) (e *eventful, err error) {
	e = new(eventful)
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if e.lab, err = swaplab.New(2); err != nil {
		return nil, err
	}
	for _, name := range []string{"m1", "m2"} {
		if _, err := e.lab.AddMember(name, swaplab.Veth); err != nil {
			return nil, err
		}
	}
	config, socket := filepath.Join(p.dir, "shunt.yaml"), filepath.Join(p.dir, "shunt.sock")
	if err := os.WriteFile(config, []byte(eventfulConfig), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(p.shunt, "run", "--config", config, "--socket", socket, "--state-dir", filepath.Join(p.dir, "state"))
	cmd.Env = append(os.Environ(), "OTEL_METRICS_EXPORTER=prometheus", "OTEL_EXPORTER_PROMETHEUS_HOST=127.0.0.1", "OTEL_EXPORTER_PROMETHEUS_PORT=9464")
	if e.daemon, err = serve(e.lab.Host.Bridge, "http://"+metricsAddress, cmd); err != nil {
		return nil, err
	}
	e.client = accel.NewClient(socket)
	if err := e.daemon.await(ctx, e.ready); err != nil {
		return nil, err
	}
	return e, e.lab.Host.AwaitForwarding()
}

// ready fails until shunt and its group are.
func (e *eventful) ready(ctx context.Context) error {
	status, err := e.client.Status(ctx, "")
	if err != nil || !status.Ready {
		return errors.Join(err, errors.New("shunt is not ready"))
	}
	return e.groupIs(ctx, "ready")
}

func (e *eventful) groupIs(ctx context.Context, state string) error {
	var groups []struct {
		State string `json:"state"`
	}
	err := e.client.Do(ctx, http.MethodGet, "/v1/groups", nil, &groups)
	if err == nil && (len(groups) != 1 || groups[0].State != state) {
		err = fmt.Errorf("the groups are %v, not %s", groups, state)
	}
	return err
}

// happen makes one event after the other, while frames flow and stations come and go.
func (e *eventful) happen(ctx context.Context, s *scraper) (err error) {
	if e.traffic, err = e.lab.StartTraffic(lab.Pace{PerSecond: 5_000, Burst: 8, Gentle: true}); err != nil {
		return err
	}
	churn, stop := context.WithCancel(ctx)
	e.stop = stop
	e.churned.Go(func() { e.failed = e.churn(churn) })
	for _, event := range []struct {
		what string
		do   func(context.Context, *scraper) error
	}{
		{"swaps that go well", e.swapTwice},
		{"a swap that fails", e.failToSwap},
		{"more events than the kernel can keep for shunt", e.overrun},
		{"the fast path is switched off and on", e.switchOff},
		{"the members are lost, the last one too", e.loseMembers},
	} {
		fmt.Println("happens:", event.what)
		if err := event.do(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", event.what, err)
		}
	}
	return nil
}

const crowd = 5

// churn lets stations come and go behind the second host's port, on and on.
func (e *eventful) churn(ctx context.Context) error {
	const stations, rest = 20, 200 * time.Millisecond
	again := time.NewTicker(rest)
	defer again.Stop()
	for {
		if err := e.introduce(stations); err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
		if err := e.forget(); err != nil {
			return err
		}
	}
}

func (e *eventful) introduce(stations int) error {
	return swaplab.Introduce(e.lab.Host.Hosts[1], crowd, stations)
}

func (e *eventful) forget() error {
	return e.lab.Host.Bridge.Run("bridge fdb flush dev " + e.lab.Host.Hosts[1].Port + " master dynamic")
}

func (e *eventful) swapTwice(ctx context.Context, _ *scraper) error {
	for _, to := range []string{"m2", "m1"} {
		if result, err := e.swap(ctx, to); err != nil || result != "done" {
			return errors.Join(err, fmt.Errorf("the swap to %s is %s", to, result))
		}
	}
	return nil
}

func (e *eventful) swap(ctx context.Context, to string) (result string, err error) {
	var swaps []struct {
		Result string `json:"result"`
	}
	body := map[string]any{"groups": []string{"uplink"}, "to": to}
	if err := e.client.Do(ctx, http.MethodPost, "/v1/swap", body, &swaps); err != nil {
		return "", err
	}
	if len(swaps) != 1 {
		return "", fmt.Errorf("there were %d swaps", len(swaps))
	}
	return swaps[0].Result, nil
}

// failToSwap asks for a member that another device sits on.
func (e *eventful) failToSwap(ctx context.Context, _ *scraper) error {
	bridge := e.lab.Host.Bridge
	if err := bridge.Run("ip link add link m2 name upper type macvlan"); err != nil {
		return err
	}
	result, err := e.swap(ctx, "m2")
	if err == nil && result != "failed" {
		err = fmt.Errorf("it is %s", result)
	}
	return errors.Join(err, bridge.Run("ip link del upper"))
}

// overrun stops the daemon until the kernel has no room for the events of the bridge.
func (e *eventful) overrun(ctx context.Context, s *scraper) error {
	pid := e.daemon.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	if err := errors.Join(e.overfill(ctx, pid), syscall.Kill(pid, syscall.SIGCONT)); err != nil {
		return err
	}
	return s.awaitData(ctx, "shunt_netlink_overruns_total > 0")
}

// overfill makes events until the kernel has dropped one that was for the process.
func (e *eventful) overfill(ctx context.Context, pid int) error {
	const stations = 30_000
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		if err := errors.Join(e.introduce(stations), e.forget()); err != nil {
			return err
		}
		if dropped, err := eventsDropped(pid); dropped || err != nil {
			return err
		}
	}
	return fmt.Errorf("the kernel has room for every event: %w", ctx.Err())
}

// eventsDropped tells whether a netlink socket in the process's namespace was full
// (net/netlink/af_netlink.c: netlink_native_seq_show).
func eventsDropped(pid int) (bool, error) {
	sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", pid))
	if err != nil {
		return false, err
	}
	lines := strings.Split(strings.TrimSpace(string(sockets)), "\n")
	drops := slices.Index(strings.Fields(lines[0]), "Drops")
	if drops < 0 {
		return false, fmt.Errorf("the kernel tells of no drops: %q", lines[0])
	}
	for _, line := range lines[1:] {
		if fields := strings.Fields(line); drops < len(fields) && fields[drops] != "0" {
			return true, nil
		}
	}
	return false, nil
}

func (e *eventful) switchOff(ctx context.Context, s *scraper) error {
	if _, err := e.client.Switch(ctx, "", false); err != nil {
		return err
	}
	if err := s.awaitData(ctx, `shunt_bridge_eligible{shunt_reason="off"} == 0`); err != nil {
		return err
	}
	if _, err := e.client.Switch(ctx, "", true); err != nil {
		return err
	}
	return s.awaitData(ctx, `shunt_bridge_eligible{shunt_reason="fast"} == 1`)
}

func (e *eventful) loseMembers(ctx context.Context, s *scraper) error {
	members := []*swaplab.Member{e.lab.Member("m1"), e.lab.Member("m2")}
	for _, m := range members {
		if err := m.SetCarrier(false); err != nil {
			return err
		}
		if err := s.awaitData(ctx, `shunt_swaps_total{shunt_cause="loss"}`); err != nil {
			return err
		}
	}
	if err := s.awaitData(ctx, `ALERTS{alertname="ShuntGroupDown", alertstate="firing"}`); err != nil {
		return err
	}
	for _, m := range members {
		if err := e.lab.Outside.Bridge.Run("ip link set " + m.Far + " up"); err != nil {
			return err
		}
	}
	return s.await(ctx, func(ctx context.Context) error { return e.groupIs(ctx, "ready") })
}

// close ends everything, the daemon before the lab.
func (e *eventful) close() error {
	var errs []error
	if e.stop != nil {
		e.stop()
		e.churned.Wait()
		errs = append(errs, e.failed)
	}
	if e.traffic != nil {
		_, err := e.traffic.Stop()
		errs = append(errs, err)
	}
	if e.daemon != nil {
		e.daemon.stop()
	}
	if e.lab != nil {
		errs = append(errs, e.lab.Close())
	}
	return errors.Join(errs...)
}
