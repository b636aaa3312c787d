package fdbsync

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

var _ accel.BridgeChecker = (*Syncer)(nil)

// survey is what shunt doctor asks of a data plane that has no bridge open; tcprog
// serves it.
type survey interface {
	// Ability says how changes in the kernel would reach the programs of a bridge
	// that filters VLANs.
	Ability() accel.Revocation
	// ForeignOn says what tc programs of others on a port mean for it, as Coexist
	// does, and names them.
	ForeignOn(bridge, port int) (accel.Reason, []string, error)
}

// CheckBridges judges the bridges of the namespace as the daemon does, by the same
// functions, and samples the traffic of those that no daemon works on.
func (s *Syncer) CheckBridges(ctx context.Context, h *accel.Host, x accel.Examination) []accel.Finding {
	plane, err := accel.Use[survey](h)
	if err != nil {
		return []accel.Finding{bridgesNote(err)}
	}
	k, err := s.asking()
	if err != nil {
		return []accel.Finding{bridgesNote(err)}
	}
	defer k.close()
	e := examiner{Examination: x, kernel: k, plane: plane}
	if e.links, err = lookAtAll(nil, k, nil); err != nil {
		return []accel.Finding{bridgesNote(err)}
	}
	e.fw, e.fwErr = s.firewall()
	return e.examine(ctx)
}

// askingKernel skips what cannot be read: what lacks it is not known, and judged so.
func askingKernel() (kernel, error) { return dialRoute(func(error) {}) }

func bridgesNote(err error) accel.Finding {
	return accel.Finding{Check: "bridges", Level: accel.LevelNote, Text: "cannot be looked at: " + err.Error(), Advice: "run it as root"}
}

// examiner is one shunt doctor.
type examiner struct {
	accel.Examination
	kernel kernel
	plane  survey
	links  map[int]link
	fw     firewall
	fwErr  error
}

func (e *examiner) examine(ctx context.Context) []accel.Finding {
	bridges, err := e.choose()
	if err != nil {
		return []accel.Finding{{Check: "bridge", Level: accel.LevelFail, Bridge: e.Bridge, Text: err.Error()}}
	}
	if len(bridges) == 0 {
		return []accel.Finding{{Check: "bridges", Level: accel.LevelNote, Text: "there is none in this network namespace",
			Advice: "ip link show type bridge lists them; shunt doctor works in the namespace that it is started in"}}
	}
	var findings []accel.Finding
	var judged []*judgement
	for _, l := range bridges {
		j := e.judge(l)
		findings = append(findings, e.findingsOf(j)...)
		if _, served := e.Served[l.name]; !served {
			judged = append(judged, j)
		}
	}
	return append(findings, e.sample(ctx, judged)...)
}

// choose returns the bridges to look at in the order of their names; an error if
// the one that was named is none.
func (e *examiner) choose() ([]link, error) {
	if e.Bridge != "" {
		l, err := checkKind(e.Bridge, e.links)
		return []link{l}, err
	}
	var bridges []link
	for _, l := range e.links {
		if l.kind == "bridge" {
			bridges = append(bridges, l)
		}
	}
	slices.SortFunc(bridges, func(a, b link) int { return cmp.Compare(a.name, b.name) })
	return bridges, nil
}

// judgement is a bridge as the daemon would have it once all is mirrored.
type judgement struct {
	link  link
	gate  accel.Gate
	ports map[int]accel.Port
	// others are the tc programs of others, by port.
	others map[int][]string
	errs   map[int]error
	// can says how changes would reach the bridge's programs.
	can accel.Revocation
}

// judge lets a mirror that tells nobody take the bridge, with every entry confirmed
// and every program attached.
func (e *examiner) judge(l link) *judgement {
	m := &mirror{
		name: l.name, on: true, present: true, synced: true, link: l, ports: make(map[int]*member),
		bypass: e.Served[l.name].Netfilter == "bypass",
	}
	m.takePorts(e.links, e.fw)
	j := &judgement{
		link: l, ports: make(map[int]accel.Port), can: e.plane.Ability(),
		others: make(map[int][]string), errs: make(map[int]error),
	}
	j.can.VLANs = j.can.VLANs || !l.bridge.vlanFiltering
	for ifindex, p := range m.ports {
		p.attached = true
		p.around.tc, j.others[ifindex], j.errs[ifindex] = e.plane.ForeignOn(l.ifindex, ifindex)
		j.ports[ifindex] = p.want()
	}
	j.gate = m.wantGate(e.fw, e.fwErr)
	return j
}

// findingsOf puts a judgement into words.
func (e *examiner) findingsOf(j *judgement) []accel.Finding {
	findings := e.eligible(j)
	findings = append(findings, j.portFindings()...)
	findings = append(findings, e.offloads(j)...)
	findings = append(findings, j.guarantees())
	for i := range findings {
		findings[i].Bridge = j.link.name
	}
	return findings
}

// eligible says whether the bridge is, and if it is not all that keeps it from it, so
// that an operator who has seen to one reason does not meet the next.
func (e *examiner) eligible(j *judgement) []accel.Finding {
	about := fmt.Sprintf("%d ports", len(j.ports))
	if j.link.bridge.vlanFiltering {
		about += ", filters VLANs"
	}
	if j.gate.Reason == accel.Fast {
		return []accel.Finding{{Check: "eligible", Level: accel.LevelOK, Text: "yes; " + about}}
	}
	findings := []accel.Finding{e.whyNot(j, "no: ", j.gate.Reason)}
	findings[0].Text += "; " + about
	for _, r := range e.reasons(j) {
		if r != j.gate.Reason {
			findings = append(findings, e.whyNot(j, "and: ", r))
		}
	}
	return findings
}

// reasons are all that keep a bridge on the slow path but that it is down, of which
// its gate tells first.
func (e *examiner) reasons(j *judgement) []accel.Reason {
	reasons := bridgeReasons(j.link)
	if !j.gate.BypassNetfilter {
		reasons = append(reasons, e.fw.reasons(e.fwErr)...)
	}
	return slices.Compact(reasons)
}

func (e *examiner) whyNot(j *judgement, about string, r accel.Reason) accel.Finding {
	f := reasonFinding("eligible", about, r, j.link.name, "")
	if above := e.above(j.link.ifindex); r == accel.Promiscuous && above != "" {
		f.Text += "; on top of it: " + above
	}
	return f
}

// above names the devices on top of a bridge that take frames from it.
func (e *examiner) above(bridge int) string {
	var names []string
	for _, l := range e.links {
		if l.lower == bridge && l.kind != "vlan" {
			names = append(names, l.name+" ("+l.kind+")")
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// portFindings says which ports are not eligible, those of one reason together.
func (j *judgement) portFindings() []accel.Finding {
	if len(j.ports) == 0 {
		return []accel.Finding{{Check: "ports", Level: accel.LevelNote, Text: "the bridge has none"}}
	}
	type why struct{ in, out accel.Reason }
	names := make(map[why][]string)
	var behindVLAN []string
	for _, ifindex := range slices.Sorted(maps.Keys(j.ports)) {
		p := j.ports[ifindex]
		name := p.Name
		if others := j.others[ifindex]; len(others) > 0 {
			name += " (" + strings.Join(others, "; ") + ")"
		}
		if err := j.errs[ifindex]; err != nil {
			name += " (" + err.Error() + ")"
		}
		names[why{p.In, p.Out}] = append(names[why{p.In, p.Out}], name)
		if p.HasVLANDevices {
			behindVLAN = append(behindVLAN, p.Name)
		}
	}
	var findings []accel.Finding
	if all := names[why{}]; len(all) == len(j.ports) {
		findings = append(findings, accel.Finding{Check: "ports", Level: accel.LevelOK, Text: "all are eligible"})
	}
	for _, w := range slices.SortedFunc(maps.Keys(names), func(a, b why) int { return cmp.Or(cmp.Compare(a.in, b.in), cmp.Compare(a.out, b.out)) }) {
		if w == (why{}) {
			continue
		}
		direction := ""
		if w.in == accel.Fast {
			direction = "as egress, "
		}
		findings = append(findings, reasonFinding("ports", strings.Join(names[w], ", ")+": "+direction, w.out, j.link.name, onlyOne(names[w])))
	}
	if len(behindVLAN) > 0 {
		findings = append(findings, accel.Finding{Check: "ports", Level: accel.LevelNote,
			Text: strings.Join(behindVLAN, ", ") + ": " + accel.Tagged.String() + ": VLAN devices are on it, so tagged frames that arrive there take the bridge"})
	}
	return findings
}

// onlyOne is the port that the advice can name; "" if there are several.
func onlyOne(names []string) string {
	if len(names) > 1 {
		return ""
	}
	name, _, _ := strings.Cut(names[0], " ")
	return name
}

// reasonFinding says a reason as shunt status does.
func reasonFinding(check, about string, r accel.Reason, bridge, port string) accel.Finding {
	return accel.Finding{Check: check, Level: accel.LevelNote, Text: about + r.String() + ": " + r.Text(), Advice: accel.Advise(r, bridge, port), Reason: r}
}

// guarantees says how soon a change counts on this bridge.
func (j *judgement) guarantees() accel.Finding {
	f := accel.Finding{Check: "guarantees", Level: accel.LevelOK, Text: j.can.State + ": what the kernel deletes, moves or changes takes effect with the next frame"}
	if weaker := j.can.Weaker(); weaker != "" {
		f.Level, f.Text = accel.LevelNote, j.can.State+": "+weaker
	}
	if lease := leaseOf(0, j.can); lease > 0 {
		f.Text += fmt.Sprintf("; the lease is %v", lease)
	} else {
		f.Text += "; no lease is needed"
	}
	return f
}

// sample looks at the traffic of bridges, of all at the same time.
func (e *examiner) sample(ctx context.Context, bridges []*judgement) []accel.Finding {
	if e.Sample == 0 {
		return nil
	}
	var ports []int
	for _, j := range bridges {
		ports = slices.AppendSeq(ports, maps.Keys(j.ports))
	}
	if len(ports) == 0 {
		return nil
	}
	sample, err := takeSample(ctx, ports, e.Sample)
	var findings []accel.Finding
	for _, j := range bridges {
		if len(j.ports) > 0 {
			findings = append(findings, e.traffic(j, sample, err))
		}
	}
	return findings
}

func (e *examiner) traffic(j *judgement, sample *sample, err error) accel.Finding {
	stations := make(map[accel.StationKey]accel.Station)
	if err == nil {
		err = readAll(e.kernel, j.link.ifindex, func(s accel.Station) { stations[s.StationKey] = s })
	}
	if err != nil {
		return accel.Finding{Check: "traffic", Level: accel.LevelNote, Bridge: j.link.name,
			Text: "cannot be sampled: " + err.Error(), Advice: "run it as root, with CAP_NET_RAW; or leave it out with --sample 0"}
	}
	return accel.TrafficFinding(j.link.name, j.forecast(sample, stations))
}

// forecast judges what the sample saw at the bridge's ports.
func (j *judgement) forecast(sample *sample, stations map[accel.StationKey]accel.Station) accel.Forecast {
	asIs := &judge{judgement: j, gate: j.gate, stations: stations}
	eligible := &judge{judgement: j, gate: j.gate, stations: stations}
	eligible.gate.Reason = accel.Fast
	f := accel.Forecast{Source: accel.SourceSample, Seconds: sample.took.Round(time.Millisecond).Seconds()}
	sum, otherwise := make(map[accel.Reason]accel.Count), make(map[accel.Reason]accel.Count)
	for port := range j.ports {
		seen := sample.ports[port]
		f.Looked += uint64(len(seen.arrivals))
		if len(seen.arrivals) == 0 {
			continue
		}
		f.Frames += seen.total
		seen.addTo(sum, asIs)
		seen.addTo(otherwise, eligible)
	}
	f.Fast, f.FastIfEligible = sum[accel.Fast].Packets, otherwise[accel.Fast].Packets
	f.Reasons = accel.Rank(sum, j.link.name)
	return f
}
