package bench

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shunt-dev/shunt/accel"
)

var update = flag.Bool("update", false, "write the golden files")

// The ratio is that of a round, and not that of the medians: what made one round slow
// made both of it slow.
func TestRatiosAreThoseOfTheRounds(t *testing.T) {
	m := metric{"frames_64", "64-byte frames", framesPerSecond}
	s := m.summarize(0, []pair{
		{off: []float64{100}, on: []float64{200}, sending: 400, fast: 10, slow: 1},
		{off: []float64{10}, on: []float64{20}, sending: 40, fast: 20},
		{off: []float64{50}, on: []float64{100}, sending: 200, fast: 30},
	})
	want := Measurement{
		Name: "frames_64", Title: "64-byte frames", Unit: "frames/s", Better: "more",
		OffLower: 30, OffMedian: 50, OffUpper: 75, OnLower: 60, OnMedian: 100, OnUpper: 150,
		RatioLower: 2, RatioMedian: 2, RatioUpper: 2, Verdict: same, // of three rounds
		Fast: 60, Slow: 1,
		SendingShare: 0.25, ForwardingRatio: 3, // (1/100 - 1/400) / (1/200 - 1/400)
	}
	if s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
}

// A second figure of a probe is summarized from its own column.
func TestEachMetricHasItsColumn(t *testing.T) {
	rounds := slices.Repeat([]pair{{off: []float64{10, 20}, on: []float64{5, 40}}}, 6)
	p50, p99 := metric{unit: microseconds}.summarize(0, rounds), metric{unit: microseconds}.summarize(1, rounds)
	if p50.OffMedian != 10 || p50.RatioMedian != 0.5 || p50.Verdict != better || p50.Better != "less" {
		t.Errorf("got %+v", p50)
	}
	if p99.OffMedian != 20 || p99.RatioMedian != 2 || p99.Verdict != worse {
		t.Errorf("got %+v", p99)
	}
}

// Where sending by itself seems to take longer than all of it, nothing is said of what is
// left: not infinity, which JSON has no word for.
func TestForwardingThatCannotBeToldIsLeftOut(t *testing.T) {
	m := metric{unit: framesPerSecond}
	for _, sending := range []float64{0, 100, 150, 200} {
		s := m.summarize(0, []pair{{off: []float64{100}, on: []float64{200}, sending: sending}})
		if s.SendingShare != 0 || s.ForwardingRatio != 0 {
			t.Errorf("sending at %v: got %+v", sending, s)
		}
		if text, err := json.Marshal(s); err != nil || strings.Contains(string(text), "forwarding") {
			t.Errorf("%s, %v", text, err)
		}
	}
}

// aReport has a figure of every kind, and shunt is worse at one.
func aReport() Report {
	figure := func(m metric, off, on, ratio float64, verdict string) Measurement {
		s := Measurement{
			Name: m.name, Title: m.title, Unit: m.unit.name, Better: "more",
			OffLower: off * 0.9, OffMedian: off, OffUpper: off * 1.1, OnLower: on * 0.9, OnMedian: on, OnUpper: on * 1.1,
			RatioLower: ratio - 0.02, RatioMedian: ratio, RatioUpper: ratio + 0.03, Verdict: verdict, Fast: 1_234_567, Slow: 12,
		}
		if m.unit.less {
			s.Better = "less"
		}
		if m.unit == framesPerSecond {
			s.SendingShare, s.ForwardingRatio = 0.49, 1.55
		}
		return s
	}
	r := Report{
		Version: "1.2.3", Kernel: "6.12.43+deb13-amd64", Machine: "x86_64", CPU: "Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz", CPUs: 224,
		Load: 0.25, Attach: "tcx", Revocation: accel.Revocation{Entries: true, State: accel.StateTraced, VLANs: true},
		Rounds: 20, Duration: 100, Fast: 1_234_567, Slow: 12,
	}
	verdicts := []string{better, better, same, worse, worse, better, same}
	for _, p := range probes {
		for _, m := range p.metrics {
			n := len(r.Measurements)
			off, on := 1_234_567.0-100_000*float64(n), 1_334_567.0
			if m.unit == bitsPerSecond {
				off, on = 101.5e9, 99.25e9
			}
			if m.unit == microseconds {
				off, on = 123.4, 101.2
			}
			r.Measurements = append(r.Measurements, figure(m, off, on, 1.22-0.1*float64(n), verdicts[n]))
		}
	}
	return r
}

// What people see fits their screen, and says where shunt is worse.
func TestReportOnAScreen(t *testing.T) {
	weaker := aReport()
	weaker.Revocation = accel.Revocation{State: accel.StateNetlink, VLANs: true}
	weaker.Weaker, weaker.BrNetfilter = weaker.Revocation.Weaker(), true
	weaker.Repeated = 2
	fine := aReport()
	fine.Measurements = fine.Measurements[5:6]
	for name, r := range map[string]Report{"report": aReport(), "weaker": weaker, "fine": fine} {
		for _, columns := range []int{80, 200} {
			var screen bytes.Buffer
			if err := r.print(accel.NewScreen(&screen).To(&screen, columns)); err != nil {
				t.Fatal(err)
			}
			golden(t, fmt.Sprintf("%s-%d.txt", name, columns), screen.String())
			for line := range strings.Lines(screen.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
					t.Errorf("%s has %d columns: %s", name, n, line)
				}
			}
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// The report of rounds that were measured can be written as JSON, whatever they are.
func TestReportOfMeasurements(t *testing.T) {
	b := &bench{probes: probes, rounds: 2, status: accel.BridgeV1{Revocation: &accel.Revocation{}}, series: make([][]pair, len(probes))}
	for i, p := range b.probes {
		for range b.rounds {
			figures := make([]float64, len(p.metrics))
			for n := range figures {
				figures[n] = 0.5
			}
			b.series[i] = append(b.series[i], pair{off: figures, on: figures, sending: 1, fast: 100, slow: 1})
		}
	}
	r := describeMachine()
	r.take(b)
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	// Of the two metrics of round trips, the frames are the same ones.
	if want := uint64(len(probes) * b.rounds * 100); r.Fast != want || r.Slow != want/100 {
		t.Errorf("%d fast and %d slow frames, want %d and %d", r.Fast, r.Slow, want, want/100)
	}
	if r.Kernel == "" || r.Machine == "" || r.CPUs == 0 || len(r.Measurements) != 7 {
		t.Errorf("got %+v", r)
	}
}
