package tcprog

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

func TestHowTheKernelRunsPrograms(t *testing.T) {
	for _, c := range []struct {
		jited, hardened bool
		level           string
	}{{true, false, accel.LevelOK}, {true, true, accel.LevelNote}, {false, false, accel.LevelNote}} {
		if f := jitFinding(c.jited, c.hardened); f.Level != c.level {
			t.Errorf("%+v: %+v", c, f)
		}
	}
}

func TestWhatATrialSays(t *testing.T) {
	no := fmt.Errorf("load program: %w (MEMLOCK may be too low)", unix.EPERM)
	for _, c := range []struct {
		trial
		state, level string
		atOnce       bool
	}{
		{trial{nil, nil, nil}, accel.StateTraced, accel.LevelOK, true},
		{trial{nil, no, nil}, accel.StateLive, accel.LevelNote, false},
		{trial{nil, no, no}, accel.StateNetlink, accel.LevelNote, false},
		{trial{no, nil, nil}, accel.StateTraced, accel.LevelNote, false},
		{trial{no, no, errors.New("no BTF")}, accel.StateNetlink, accel.LevelNote, false},
	} {
		f, r := c.finding(), c.revocation()
		if r.State != c.state || r.AtOnce() != c.atOnce || f.Level != c.level || !strings.HasPrefix(f.Text, c.state+": ") || strings.Contains(f.Text, "MEMLOCK") {
			t.Errorf("%+v: %+v, %+v", c.trial, r, f)
		}
	}
}

func TestWhoFailsOverIsSaid(t *testing.T) {
	if f := checkFailover(); f.Level != accel.LevelOK {
		t.Errorf("on this kernel: %+v", f)
	}
	f := failoverFinding(fmt.Errorf("load program: %w (MEMLOCK may be too low)", unix.EPERM))
	if f.Level != accel.LevelNote || f.Advice == "" || strings.Contains(f.Text, "MEMLOCK") {
		t.Errorf("where the kernel refuses: %+v", f)
	}
}
