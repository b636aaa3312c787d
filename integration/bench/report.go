package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// Report is what the benchmark measured, and what -j prints.
type Report struct {
	Version string `json:"version"`
	Kernel  string `json:"kernel"`
	Machine string `json:"machine"`
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"`
	// Load is the load average of the last minute before it began.
	Load        float64 `json:"load"`
	BrNetfilter bool    `json:"br_netfilter"`
	Attach      string  `json:"attach"`
	// Revocation and Weaker are the guarantees that were in force.
	Revocation accel.Revocation `json:"revocation"`
	Weaker     string           `json:"weaker,omitempty"`
	Rounds     int              `json:"rounds"`
	// Duration is that of each measurement, in milliseconds.
	Duration     float64       `json:"duration_milliseconds"`
	Fast         uint64        `json:"fast"`
	Slow         uint64        `json:"slow"`
	Repeated     int           `json:"repeated"`
	Measurements []Measurement `json:"measurements"`
}

// Measurement compares one figure, without shunt (off) and with it (on). Each has the
// median of the rounds and the quartiles, between which half of them lie.
type Measurement struct {
	Name      string  `json:"name"`
	Title     string  `json:"title"`
	Unit      string  `json:"unit"`
	Better    string  `json:"better"` // "more" or "less"
	OffLower  float64 `json:"off_lower"`
	OffMedian float64 `json:"off_median"`
	OffUpper  float64 `json:"off_upper"`
	OnLower   float64 `json:"on_lower"`
	OnMedian  float64 `json:"on_median"`
	OnUpper   float64 `json:"on_upper"`
	// The ratio is on over off of the same round.
	RatioLower  float64 `json:"ratio_lower"`
	RatioMedian float64 `json:"ratio_median"`
	RatioUpper  float64 `json:"ratio_upper"`
	Verdict     string  `json:"verdict"` // "better", "worse" or "same"
	Fast        uint64  `json:"fast"`
	Slow        uint64  `json:"slow"`
	// SendingShare is the part of a frame's time over the bridge that is the sender's,
	// 0 to 1, and ForwardingRatio the median ratio of what is left of the two times;
	// both are missing for what is not frames.
	SendingShare    float64 `json:"sending_share,omitempty"`
	ForwardingRatio float64 `json:"forwarding_ratio,omitempty"`
}

// describeMachine takes down where it runs.
func describeMachine() Report {
	r := Report{Version: accel.Version(), CPU: cpuModel(), CPUs: runtime.NumCPU()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		r.Kernel, r.Machine = unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Sscan(string(text), &r.Load)
	}
	return r
}

// cpuModel is empty where the kernel does not name it.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// take fills in what was measured.
func (r *Report) take(b *bench) {
	r.BrNetfilter, r.Attach, r.Weaker = b.brNetfilter, b.attach, b.status.Weaker
	r.Revocation = *b.status.Revocation
	r.Rounds, r.Duration = b.rounds, float64(b.duration.Nanoseconds())/1e6
	r.Repeated, r.Measurements = b.repeated, []Measurement{}
	for i, p := range b.probes {
		for n, m := range p.metrics {
			measurement := m.summarize(n, b.series[i])
			r.Measurements = append(r.Measurements, measurement)
			if n == 0 { // the frames are those of the probe
				r.Fast, r.Slow = r.Fast+measurement.Fast, r.Slow+measurement.Slow
			}
		}
	}
}

// summarize makes a measurement of what was measured in the rounds of the probe whose
// metric of that number it is.
func (m metric) summarize(number int, rounds []pair) Measurement {
	s := Measurement{Name: m.name, Title: m.title, Unit: m.unit.name, Better: "more"}
	if m.unit.less {
		s.Better = "less"
	}
	var off, on, ratios, shares, forwarding []float64
	for _, p := range rounds {
		off, on = append(off, p.off[number]), append(on, p.on[number])
		ratios = append(ratios, p.on[number]/p.off[number])
		s.Fast, s.Slow = s.Fast+p.fast, s.Slow+p.slow
		if offAlone, onAlone := 1/p.off[number]-1/p.sending, 1/p.on[number]-1/p.sending; p.sending > 0 && offAlone > 0 && onAlone > 0 {
			shares = append(shares, p.off[number]/p.sending)
			forwarding = append(forwarding, offAlone/onAlone)
		}
	}
	ratio := spreadOf(ratios)
	s.OffLower, s.OffMedian, s.OffUpper = spreadOf(off).each()
	s.OnLower, s.OnMedian, s.OnUpper = spreadOf(on).each()
	s.RatioLower, s.RatioMedian, s.RatioUpper = ratio.each()
	s.Verdict = m.unit.judge(ratios)
	if len(shares) > 0 {
		s.SendingShare, s.ForwardingRatio = quantile(shares, 0.5), quantile(forwarding, 0.5)
	}
	return s
}

// print writes the report for people.
func (r Report) print(s accel.Screen) error {
	if err := writeNotes(s, r.about()); err != nil {
		return err
	}
	fmt.Fprintln(s)
	t := accel.Table{Headings: []string{"TRAFFIC", ">BRIDGE", ">SHUNT", ">RATIO", ">QUARTILES", ">FORWARDING"}}
	for _, m := range r.Measurements {
		t.Rows = append(t.Rows, m.row())
	}
	if err := s.Table(t); err != nil {
		return err
	}
	fmt.Fprintln(s)
	return writeNotes(s, r.notes())
}

func writeNotes(s accel.Screen, notes []string) error {
	for _, note := range notes {
		if err := accel.WriteNote(s, note); err != nil {
			return err
		}
	}
	return nil
}

// about says where it was measured, and what was in force.
func (r Report) about() []string {
	cpus := fmt.Sprintf("%d CPUs", r.CPUs)
	if r.CPU != "" {
		cpus += " (" + r.CPU + ")"
	}
	lines := []string{
		fmt.Sprintf("Linux %s on %s, %s, load %.2f before", r.Kernel, r.Machine, cpus, r.Load),
		fmt.Sprintf("shunt %s, attached by %s: %s", r.Version, r.Attach, guarantees(r.Revocation)),
	}
	if r.Weaker != "" {
		lines = append(lines, "weaker: "+r.Weaker)
	}
	return lines
}

// guarantees says how changes reach the data plane, which is what a frame pays for.
func guarantees(r accel.Revocation) string {
	entries := "when netlink tells"
	if r.Entries {
		entries = "in the kernel at once"
	}
	return "stations are revoked " + entries + ", other changes are " + map[string]string{
		accel.StateTraced:  "traced: they are noticed at once, and a frame reads nothing",
		accel.StateLive:    "live: each frame reads the kernel's state",
		accel.StateNetlink: "noticed when netlink tells",
	}[r.State]
}

func (m Measurement) row() accel.Row {
	forwarding := "-"
	if m.SendingShare > 0 {
		forwarding = times(m.ForwardingRatio)
	}
	return accel.Row{
		Cells: []string{
			m.Title, m.format(m.OffMedian), m.format(m.OnMedian), times(m.RatioMedian),
			fmt.Sprintf("%.2f-%s", m.RatioLower, times(m.RatioUpper)), forwarding,
		},
		Colours: map[int]accel.Colour{3: map[string]accel.Colour{better: accel.Green, worse: accel.Yellow}[m.Verdict]},
	}
}

func times(ratio float64) string { return fmt.Sprintf("%.2fx", ratio) }

// format writes a figure with its unit.
func (m Measurement) format(value float64) string {
	switch m.Unit {
	case framesPerSecond.name:
		return fmt.Sprintf("%.1f k/s", value/1e3)
	case bitsPerSecond.name:
		return fmt.Sprintf("%.2f Gbit/s", value/1e9)
	default:
		return fmt.Sprintf("%.1f %s", value, m.Unit)
	}
}

// notes say what the table means, and what is not in shunt's favour first.
func (r Report) notes() []string {
	notes := []string{r.verdict()}
	notes = append(notes, fmt.Sprintf("medians of %d rounds of %g ms; the ratio is that of shunt to the bridge in the same round, and half of the rounds lie between its quartiles", r.Rounds, r.Duration))
	if first := r.Measurements[0]; first.SendingShare > 0 {
		notes = append(notes, fmt.Sprintf("forwarding: of the time of %s on the bridge %.0f %% is their sending; without that the ratio is %s", first.Title, 100*first.SendingShare, times(first.ForwardingRatio)))
	}
	notes = append(notes, fmt.Sprintf("fast path: %s of %s frames while shunt was there", accel.FormatShare(r.Fast, r.Fast+r.Slow), accel.FormatFrames(r.Fast+r.Slow)))
	if r.Repeated > 0 {
		notes = append(notes, fmt.Sprintf("repeated: %d measurements were made again, since something on this machine kept frames from the fast path", r.Repeated))
	}
	if r.BrNetfilter {
		notes = append(notes, "br_netfilter is loaded, so that the bridge lets it look at every frame of IP; a bridge without it is faster")
	}
	return notes
}

// verdict says where shunt is slower, in words.
func (r Report) verdict() string {
	var slower, undecided []string
	for _, m := range r.Measurements {
		switch m.Verdict {
		case worse:
			slower = append(slower, fmt.Sprintf("%s (%s)", m.Title, times(m.RatioMedian)))
		case same:
			undecided = append(undecided, m.Title)
		}
	}
	var parts []string
	if len(slower) > 0 {
		parts = append(parts, "with shunt this is worse: "+strings.Join(slower, ", "))
	} else {
		parts = append(parts, "with shunt nothing is worse")
	}
	if len(undecided) > 0 {
		parts = append(parts, "no difference that holds: "+strings.Join(undecided, ", "))
	}
	return strings.Join(parts, "; ")
}
