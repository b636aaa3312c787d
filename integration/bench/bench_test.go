package bench

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// Mistakes are found before anything is done, and are those of the command line.
func TestMistakesOnTheCommandLine(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"--only frame", "--only frame: there is frames, tcp, rr"},
		{"--only frames,udp", "--only udp: there is"},
		{"--only=", "--only names nothing: there is"},
		{"--rounds 0", "--rounds 0: it may be 1 to"},
		{"--rounds 1000000", "--rounds 1000000: it may be 1 to"},
		{"--duration 0s", "--duration 0s: it may be 1ms to 5s"},
		{"--duration 1m", "--duration 1m0s: it may be 1ms to 5s"},
	} {
		cmd := command()
		cmd.SetArgs(strings.Fields(c.args))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err := cmd.Execute()
		var usage *accel.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", c.args, err)
		}
	}
}

// A picture that could not be written ends the command before it has built anything.
func TestThePictureIsOpenedFirst(t *testing.T) {
	cmd := command()
	cmd.SetArgs([]string{"--plot", filepath.Join(t.TempDir(), "missing", "bench.svg"), "--duration", "5s", "--rounds", "10000"})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetContext(t.Context())
	if err := cmd.Execute(); err == nil || !strings.HasPrefix(err.Error(), "--plot: ") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyKeepsItsOwnOrder(t *testing.T) {
	chosen, err := probesOf([]string{"rr", "frames"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range chosen {
		names = append(names, p.metrics[0].name)
	}
	if want := []string{"frames_64", "frames_512", "frames_1514", "frames_gso", "rr_p50"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}

// The whole run shall be about a minute: the measurements are half of that at most.
func TestDefaultsTakeHalfAMinute(t *testing.T) {
	flags := command().Flags()
	rounds, _ := flags.GetInt("rounds")
	duration, _ := flags.GetDuration("duration")
	each := 2 * len(probes)
	for _, p := range probes {
		if p.group == "frames" {
			each++ // sending by itself
		}
	}
	if total := time.Duration(rounds*each) * duration; total > 40*time.Second {
		t.Errorf("%d rounds take %v", rounds, total)
	}
}

// Where nobody looks, nothing is said; where somebody does, nothing is left of it.
func TestProgress(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := newProgress(file)
	p.say("round 1")
	p.end()
	if text, err := os.ReadFile(file.Name()); err != nil || len(text) > 0 {
		t.Errorf("a file has %q, %v", text, err)
	}
	p = &progress{to: file}
	p.say("round %d of 2", 1)
	p.say("done")
	p.end()
	text, err := os.ReadFile(file.Name())
	if want := "\rround 1 of 2\rdone        \r    \r"; err != nil || string(text) != want {
		t.Errorf("got %q, want %q", text, want)
	}
}
