package tcprog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// Check tells what of the data plane works on this kernel. It loads a program
// for a moment and attaches nothing.
func (d *Dataplane) Check(context.Context) []accel.Finding {
	return []accel.Finding{checkBTF(), checkProgram(), checkJIT(), d.tried().finding(), checkFailover(), checkHook(), checkPins()}
}

// Ability says how changes in the kernel would reach the programs of a bridge that
// filters VLANs; those of another are free of what it says of VLANs. It loads
// programs for a moment, once.
func (d *Dataplane) Ability() accel.Revocation { return d.tried().revocation() }

// ForeignOn says what tc programs and filters of others on a port mean for it, as
// Coexist does while the bridge is open, and which they are. What is on the members
// of a stable port is not looked at.
func (d *Dataplane) ForeignOn(bridge, port int) (accel.Reason, []string, error) {
	at := place{ifindex: port}
	filters, err := filtersAt(at)
	if err != nil {
		return accel.PortForeignTC, nil, fmt.Errorf("look for other tc programs on port %d: %w", port, err)
	}
	var names []string
	for _, f := range filters {
		if !ours(f) {
			names = append(names, fmt.Sprintf("filter %s, preference %d", f.Kind, f.Info>>16))
		}
	}
	if len(names) > 0 {
		return accel.PortForeignTC, names, nil
	}
	behind, err := d.behindOurs(bridge, port)
	if err != nil || !behind {
		return accel.Fast, nil, err
	}
	return accel.PortForeignTC, []string{"a tcx program behind shunt's"}, nil
}

// behindOurs says whether the last tcx program on a port is not the one of a daemon
// that works on the bridge.
func (d *Dataplane) behindOurs(bridge, port int) (bool, error) {
	ns, err := accel.CurrentNamespace()
	if err != nil {
		return false, err
	}
	at := place{ifindex: port, dir: portDir(filepath.Join(bridgeDir(pinRoot(ns), bridge), Schema), port)}
	l, err := link.LoadPinnedLink(filepath.Join(at.dir, linkPin), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return false, nil // no daemon's
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	attached, err := at.attached()
	n := len(attached)
	return n > 0 && slices.Contains(attached, info.Program) && attached[n-1] != info.Program, err
}

func checkBTF() accel.Finding {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return accel.Finding{Check: "btf", Level: accel.LevelNote,
			Text:   "the kernel has no BTF; what shunt does in this version works without it",
			Advice: "use a kernel with CONFIG_DEBUG_INFO_BTF"}
	}
	return accel.Finding{Check: "btf", Level: accel.LevelOK, Text: "the kernel describes its types (BTF)"}
}

func checkProgram() accel.Finding {
	if err := tryProgram(); err != nil {
		return accel.Finding{Check: "bpf", Level: accel.LevelFail,
			Text:   fmt.Sprintf("the kernel does not take the program: %v", err),
			Advice: "run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, on Linux 6.1 or later"}
	}
	return accel.Finding{Check: "bpf", Level: accel.LevelOK, Text: "the kernel takes the program"}
}

// tryProgram asks for the youngest helper first, for a better error than the
// verifier's, and then loads the real program once. The others are builds of the same
// verdict, and each costs the verifier as much again.
func tryProgram() error {
	err := features.HaveProgramHelper(ebpf.SchedCLS, asm.FnKtimeGetCoarseNs)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return errors.New("it lacks bpf_ktime_get_coarse_ns (Linux 5.11)")
	}
	spec, err := loadSpec(16, false)
	if err != nil {
		return err
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != "shunt_ingress" })
	return tryCollection(spec)
}

// checkJIT looks at how the kernel runs a program: translated, or interpreted.
func checkJIT() accel.Finding {
	jited, err := isTranslated()
	if err != nil {
		return accel.Finding{Check: "jit", Level: accel.LevelNote, Text: fmt.Sprintf("cannot be found out: %v", causeOf(err))}
	}
	// Shown in the first network namespace only.
	harden, err := os.ReadFile("/proc/sys/net/core/bpf_jit_harden")
	return jitFinding(jited, err == nil && strings.TrimSpace(string(harden)) == "2")
}

func jitFinding(jited, hardened bool) accel.Finding {
	switch {
	case !jited:
		return accel.Finding{Check: "jit", Level: accel.LevelNote,
			Text:   "the kernel interprets BPF programs, which costs more than the bridge does",
			Advice: "sysctl net.core.bpf_jit_enable=1"}
	case hardened:
		return accel.Finding{Check: "jit", Level: accel.LevelNote,
			Text:   "programs are translated, with hidden constants (bpf_jit_harden is 2), which costs some speed",
			Advice: "sysctl net.core.bpf_jit_harden=1 hides those of unprivileged programs only"}
	}
	return accel.Finding{Check: "jit", Level: accel.LevelOK, Text: "programs are translated to machine code"}
}

func isTranslated() (bool, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return false, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return false, err
	}
	size, err := info.JitedSize()
	return size > 0, err
}

// trial is what came of trying the ways in which changes are noticed.
type trial struct {
	entries, traced, live error
}

// tried tries them once.
func (d *Dataplane) tried() trial {
	d.trying.Do(func() { d.trial = trial{tryRevokers(), tryTrace(), tryLive()} })
	return d.trial
}

// revocation is what is left of it for a bridge that filters VLANs.
func (t trial) revocation() accel.Revocation {
	r := accel.Revocation{Entries: t.entries == nil, State: accel.StateNetlink, VLANs: t.traced == nil}
	switch {
	case t.traced == nil:
		r.State = accel.StateTraced
	case t.live == nil:
		r.State = accel.StateLive
	}
	return r
}

func (t trial) finding() accel.Finding {
	r := t.revocation()
	weaker := r.Weaker()
	if weaker == "" {
		return accel.Finding{Check: "revocation", Level: accel.LevelOK,
			Text: r.State + ": what the kernel deletes, moves or changes takes effect with the next frame"}
	}
	text := r.State + ": " + weaker
	if r.Entries && r.State != accel.StateNetlink {
		text = r.State + ": what the kernel deletes, moves or changes takes effect with the next frame, but on a bridge that filters VLANs " + weaker
	}
	for _, way := range []struct {
		name string
		err  error
	}{{"tracepoints", t.entries}, {"tracing", t.traced}, {"live reads", t.live}} {
		if way.err != nil {
			text += fmt.Sprintf("; %s: %v", way.name, causeOf(way.err))
		}
	}
	return accel.Finding{Check: "revocation", Level: accel.LevelNote, Text: text,
		Advice: "use a kernel with BTF that lets programs trace its functions, and give shunt CAP_PERFMON"}
}

// causeOf is what the kernel said, where it said something: what stands around it is
// for a developer, and guesses at limits that no kernel has any more.
func causeOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) && errno == unix.EPERM {
		return errno
	}
	return err
}

func tryRevokers() error {
	spec, err := loadRevoke()
	if err != nil {
		return err
	}
	return tryCollection(spec)
}

func tryCollection(spec *ebpf.CollectionSpec) error {
	all, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	all.Close()
	return nil
}

// tryTrace attaches the tracing programs to nothing that they would find: their
// namespace has number 0. A kernel may take the programs and refuse to attach.
func tryTrace() error {
	spec, err := loadTrace()
	if err != nil {
		return err
	}
	programs, err := loadTracePrograms(accel.Namespace{}, spec, btf.NewCache(), false, nil)
	if err != nil {
		return err
	}
	defer programs.Close()
	c := &changes{links: make(map[string]link.Link)}
	return errors.Join(c.attach(programs), c.closeLinks())
}

func tryLive() error {
	c := new(changes)
	err := c.readLive(btf.NewCache())
	if err == nil {
		err = errors.Join(c.look.Close(), c.looks.Close())
	}
	return err
}

// checkFailover says who moves the traffic of a group off a member without a carrier.
func checkFailover() accel.Finding {
	spec, err := loadWire()
	if err == nil {
		var programs guardPrograms
		if programs, err = loadGuardPrograms(spec); err == nil {
			err = programs.close()
		}
	}
	return failoverFinding(err)
}

func failoverFinding(err error) accel.Finding {
	if err == nil {
		return accel.Finding{Check: "failover", Level: accel.LevelOK,
			Text: "a group leaves a member that lost its carrier with the next frame"}
	}
	return accel.Finding{Check: "failover", Level: accel.LevelNote,
		Text:   fmt.Sprintf("a group leaves a member that lost its carrier when the daemon sees it, some 2 ms later, and later while the host is busy: %v", causeOf(err)),
		Advice: "use Linux 6.2 or later with BTF, and give shunt CAP_PERFMON"}
}

func checkHook() accel.Finding {
	if haveTCX() {
		return accel.Finding{Check: "hook", Level: accel.LevelOK, Text: "programs attach by tcx"}
	}
	return accel.Finding{Check: "hook", Level: accel.LevelNote,
		Text:   "the kernel does not let shunt attach by tcx; programs attach by clsact",
		Advice: "nothing needs to be done; tcx comes with Linux 6.6, and is for root to ask for"}
}

func checkPins() accel.Finding {
	have, err := isBPFFS(bpffs)
	switch {
	case err != nil:
		return accel.Finding{Check: "bpffs", Level: accel.LevelFail,
			Text: fmt.Sprintf("%s cannot be read: %v", bpffs, err), Advice: "mount sysfs at /sys"}
	case !have && isHidden():
		return accel.Finding{Check: "bpffs", Level: accel.LevelNote,
			Text:   bpffs + " is hidden here, as in a shell of ip netns exec: what is pinned would go with the shell",
			Advice: "nsenter --net=/run/netns/NAME shunt ..., in the place of ip netns exec NAME"}
	case !have:
		return accel.Finding{Check: "bpffs", Level: accel.LevelNote,
			Text:   "no bpffs is mounted at " + bpffs + "; shunt run mounts one",
			Advice: "in a shell of ip netns exec pins vanish with the shell: use nsenter --net instead"}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, bpffs, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return accel.Finding{Check: "bpffs", Level: accel.LevelFail,
			Text:   fmt.Sprintf("nothing can be pinned at %s: %v", bpffs, err),
			Advice: "run it as root; or mount it for writing: mount -o remount,rw " + bpffs}
	}
	return accel.Finding{Check: "bpffs", Level: accel.LevelOK, Text: "pins can be kept at " + bpffs}
}

// isHidden says whether there is a bpffs that this process, in a mount namespace of
// its own, does not see: that of the first process, or of the one that started it.
func isHidden() bool {
	for _, pid := range []int{1, os.Getppid()} {
		if have, err := isBPFFS(fmt.Sprintf("/proc/%d/root%s", pid, bpffs)); err == nil && have {
			return true
		}
	}
	return false
}
