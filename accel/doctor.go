package accel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// How long shunt doctor looks at the frames of a bridge.
const (
	defaultSample = 2 * time.Second
	longestSample = time.Minute
)

func (a *app) doctorCommand() *cobra.Command {
	var f ClientFlags
	var x Examination
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether shunt works on this machine; change nothing",
		Long: "Check whether shunt works on this machine, and on the bridges of this network\n" +
			"namespace. Nothing is attached or changed.\n\n" +
			"For each bridge it says what share of its traffic the fast path would take, from\n" +
			"the counters of a daemon that works on it, or else from a sample: packet sockets\n" +
			"look at the heads of the frames that arrive at its ports, as long as --sample\n" +
			"says or until Ctrl-C, and these are judged by the bridge's table. The exit code\n" +
			"is 1 if shunt cannot run here.",
		Example: "  shunt doctor\n  shunt doctor --bridge br0 --sample 10s",
	}
	f.Add(cmd)
	addBridge(cmd, &x.Bridge)
	cmd.Flags().DurationVar(&x.Sample, "sample", defaultSample, "look at frames for this `time`; 0: do not")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkExamination(x); err != nil {
			return &UsageError{err}
		}
		findings := a.examine(cmd.Context(), f.Socket, x)
		if err := Print(cmd, f, findings, Screen.findings); err != nil {
			return err
		}
		if failed(findings) {
			return errors.New("shunt cannot run here: see the lines marked fail")
		}
		return nil
	}
	return cmd
}

func checkExamination(x Examination) error {
	if x.Sample < 0 || x.Sample > longestSample {
		return fmt.Errorf("--sample %v: it may be 0 to %v", x.Sample, longestSample)
	}
	if x.Bridge == "" {
		return nil
	}
	if err := CheckInterfaceName(x.Bridge); err != nil {
		return fmt.Errorf("--bridge: %w", err)
	}
	return nil
}

// examine asks everyone who can tell whether shunt would work here. Nothing is
// changed. The machine comes first, and then one bridge after the other.
func (a *app) examine(ctx context.Context, socket string, x Examination) []Finding {
	served, daemon := lookForDaemon(ctx, socket)
	x.Served = served.bridges(x.Bridge)
	privileges := a.checkPrivileges()
	findings := []Finding{privileges, checkKernel(), checkLockdown(), checkLimits(), daemon}
	if privileges.Level == LevelFail {
		// What is tried without rights tells of the rights, and not of the machine.
		return append(findings, Finding{Check: "the rest", Level: LevelNote,
			Text: "not looked at without these privileges: what the kernel can do, the firewall and the bridges"})
	}
	life := newLifecycle(a.plugins, nil)
	for _, checker := range serving[Checker](life.components) {
		findings = append(findings, checker.Check(ctx)...)
	}
	before := served.count(ctx, x)
	host := life.examinationHost()
	for _, checker := range serving[BridgeChecker](life.components) {
		findings = append(findings, checker.CheckBridges(ctx, host, x)...)
	}
	findings = append(findings, served.findings(ctx, x, before)...)
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Bridge, b.Bridge) })
	return findings
}

// examinationHost lets checkers find each other. The namespace is left out where
// it cannot be read.
func (l *lifecycle) examinationHost() *Host {
	config := DefaultConfig()
	namespace, err := CurrentNamespace()
	if err != nil {
		namespace = Namespace{}
	}
	return &Host{
		Logger: slog.New(slog.DiscardHandler), Config: &config, Namespace: namespace,
		Tracer: tracenoop.NewTracerProvider().Tracer("doctor"), Meter: metricnoop.NewMeterProvider().Meter("doctor"),
		fail: func(error) {}, peers: l.components,
	}
}

func (a *app) checkPrivileges() Finding {
	if err := a.privileges(); err != nil {
		return Finding{Check: "privileges", Level: LevelFail, Text: err.Error(), Advice: "sudo shunt doctor"}
	}
	return Finding{Check: "privileges", Level: LevelOK, Text: "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON are there"}
}

// checkKernel only shows the release: what the kernel can do is found by trying
// it, which the plugins do.
func checkKernel() Finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Finding{Check: "kernel", Level: LevelNote, Text: fmt.Sprintf("the release cannot be read: %v", err)}
	}
	release, machine := unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])
	return Finding{Check: "kernel", Level: LevelOK, Text: fmt.Sprintf("Linux %s on %s", release, machine)}
}

// servedBridges are what a daemon works on, and how to ask it more.
type servedBridges struct {
	client *Client
	status StatusV1
}

// lookForDaemon says whether a daemon answers, and what it works on here: one of
// another network namespace has other bridges, perhaps of the same names.
func lookForDaemon(ctx context.Context, socket string) (servedBridges, Finding) {
	client := NewClient(socket)
	status, err := client.Status(ctx, "")
	if err != nil {
		return servedBridges{}, Finding{Check: "daemon", Level: LevelNote, Text: err.Error()}
	}
	f := Finding{Check: "daemon", Level: LevelOK, Text: fmt.Sprintf("version %s answers at %s", status.Version, socket)}
	if status.Version != Version() {
		f.Level = LevelNote
		f.Text += fmt.Sprintf("; this is version %s", Version())
		f.Advice = "restart the daemon"
	}
	if here, err := CurrentNamespace(); err == nil && here.Inode != status.Namespace {
		f.Text += ", for another network namespace"
		return servedBridges{}, f
	}
	return servedBridges{client, status}, f
}

// bridges are those that exist, or the one of that name.
func (d servedBridges) bridges(name string) map[string]BridgeV1 {
	served := make(map[string]BridgeV1)
	for _, b := range d.status.Bridges {
		if b.Present && (name == "" || b.Name == name) {
			served[b.Name] = b
		}
	}
	return served
}

// counted is what a daemon had counted at a moment.
type counted struct {
	at      time.Time
	reasons map[string][]ReasonV1 // by bridge
	errs    map[string]error
}

func (d servedBridges) count(ctx context.Context, x Examination) counted {
	c := counted{time.Now(), make(map[string][]ReasonV1), make(map[string]error)}
	for name := range x.Served {
		c.reasons[name], c.errs[name] = d.client.Reasons(ctx, name)
	}
	return c
}

// findings say what the daemon makes of its bridges. It waits until the time of
// the sample is over.
func (d servedBridges) findings(ctx context.Context, x Examination, before counted) []Finding {
	if len(x.Served) == 0 {
		return nil
	}
	over := time.NewTimer(time.Until(before.at.Add(x.Sample)))
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
	}
	after := d.count(context.WithoutCancel(ctx), x) // an interrupt ends the wait, and no more
	var findings []Finding
	for name, b := range x.Served {
		findings = append(findings, servedFinding(b))
		if err := errors.Join(before.errs[name], after.errs[name]); err != nil {
			findings = append(findings, Finding{Check: "traffic", Level: LevelNote, Bridge: name, Text: err.Error()})
			continue
		}
		findings = append(findings, TrafficFinding(name, forecastOf(name, before, after)))
	}
	return findings
}

func servedFinding(b BridgeV1) Finding {
	if b.Eligible {
		return Finding{Check: "daemon", Level: LevelOK, Bridge: b.Name, Text: "the daemon has the fast path open"}
	}
	return Finding{Check: "daemon", Level: LevelNote, Bridge: b.Name,
		Text: fmt.Sprintf("the daemon keeps it on the slow path: %s: %s", b.Reason, b.Text), Advice: b.Advice, Reason: b.Reason}
}

// forecastOf is what the daemon counted between two moments.
func forecastOf(bridge string, before, after counted) Forecast {
	sum := make(map[Reason]Count)
	for _, r := range after.reasons[bridge] {
		sum[r.Reason] = Count{r.Frames, r.Bytes}
	}
	for _, r := range before.reasons[bridge] {
		now := sum[r.Reason]
		sum[r.Reason] = Count{now.Packets - min(r.Frames, now.Packets), now.Bytes - min(r.Bytes, now.Bytes)}
	}
	f := Forecast{Source: SourceDaemon, Seconds: after.at.Sub(before.at).Seconds(), Reasons: Rank(sum, bridge)}
	for _, n := range sum {
		f.Frames += n.Packets
	}
	f.Looked, f.Fast, f.FastIfEligible = f.Frames, sum[Fast].Packets, sum[Fast].Packets
	return f
}

// TrafficFinding puts a forecast into words.
func TrafficFinding(bridge string, f Forecast) Finding {
	found := Finding{Check: "traffic", Level: LevelOK, Bridge: bridge, Traffic: &f}
	duration := fmt.Sprintf("%.3g s", f.Seconds)
	if f.Frames == 0 {
		found.Text = fmt.Sprintf("no frame arrived in %s, so nothing can be said", duration)
		found.Advice = "try again under load, or for longer with --sample"
		return found
	}
	would, how := "would take", "sampled"
	if f.Source == SourceDaemon {
		would, how = "took", "the daemon counted them"
	} else if f.Looked < f.Frames {
		how = fmt.Sprintf("%s of them looked at", FormatFrames(f.Looked))
	}
	found.Text = fmt.Sprintf("%s of %s frames in %s %s the fast path (%s)", FormatShare(f.Fast, f.Frames), FormatFrames(f.Frames), duration, would, how)
	if f.FastIfEligible > f.Fast {
		found.Text += fmt.Sprintf("; %s if the bridge were eligible", FormatShare(f.FastIfEligible, f.Frames))
	}
	return found
}

// failed says whether a finding keeps shunt from running.
func failed(findings []Finding) bool {
	for _, f := range findings {
		if f.Level == LevelFail {
			return true
		}
	}
	return false
}

var levelColours = map[string]Colour{LevelOK: Green, LevelNote: Yellow, LevelFail: Red}

// findings shows the machine, and then each bridge under its name.
func (s Screen) findings(findings []Finding) error {
	var b strings.Builder
	bridge := ""
	for _, f := range findings {
		if f.Bridge != bridge {
			bridge = f.Bridge
			fmt.Fprintf(&b, "bridge %s\n", Printable(bridge))
		}
		s.finding(&b, f)
	}
	b.WriteString(summary(findings))
	_, err := s.Write([]byte(b.String()))
	return err
}

// findingIndent is where the texts begin, behind level and check.
var findingIndent = strings.Repeat(" ", len("note  bridge chains  "))

func (s Screen) finding(b *strings.Builder, f Finding) {
	var text strings.Builder
	s.behind(&text, findingIndent, findingIndent, f.Text)
	level := s.Paint(levelColours[f.Level], fmt.Sprintf("%-4s", f.Level))
	head := fmt.Sprintf("  %-*s", len(findingIndent)-len("note  "), f.Check)
	b.WriteString(level + head + strings.TrimPrefix(text.String(), findingIndent))
	if f.Traffic != nil {
		s.forecast(b, *f.Traffic)
	}
	if f.Advice != "" {
		s.behind(b, findingIndent+"advice: ", findingIndent, f.Advice)
	}
}

// ofBridge: the reason is the state of the bridge.
func (r Reason) ofBridge() bool { return r >= Off }

// mainReasons is how many reasons of the slow path are shown.
const mainReasons = 4

func (s Screen) forecast(b *strings.Builder, f Forecast) {
	shown := 0
	for _, r := range f.Reasons {
		if r.Reason == Fast || shown == mainReasons {
			continue
		}
		shown++
		part := fmt.Sprintf("%s%6s  ", findingIndent, FormatShare(r.Frames, f.Frames))
		further := strings.Repeat(" ", len(part))
		s.behind(b, part, further, r.Reason.String()+": "+r.Text)
		if r.Advice != "" && !r.Reason.ofPort() && !r.Reason.ofBridge() { // else it was said above
			s.behind(b, further+"advice: ", further, r.Advice)
		}
	}
}

// summary is the last line, for who reads no other.
func summary(findings []Finding) string {
	levels := make(map[string]int)
	for _, f := range findings {
		levels[f.Level]++
	}
	if fails := levels[LevelFail]; fails > 0 {
		return fmt.Sprintf("shunt cannot run here: failed %d, notes %d, ok %d\n", fails, levels[LevelNote], levels[LevelOK])
	}
	return fmt.Sprintf("shunt can run here: notes %d, ok %d\n", levels[LevelNote], levels[LevelOK])
}
