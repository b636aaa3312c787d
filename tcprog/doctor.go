package tcprog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"github.com/shunt-dev/shunt/accel"
)

// Check tells what of the data plane works on this kernel. It loads a program
// for a moment and attaches nothing.
func (d *Dataplane) Check(context.Context) []accel.Finding {
	return []accel.Finding{checkBTF(), checkProgram(), checkRevocation(), checkHook(), checkPins()}
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
	spec, err := loadSpec(16)
	if err != nil {
		return err
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != "shunt_ingress" })
	return tryCollection(spec)
}

// checkRevocation tries how changes in the kernel would reach the programs.
func checkRevocation() accel.Finding {
	entries, traced, live := tryRevokers(), tryTrace(), tryLive()
	r := accel.Revocation{Entries: entries == nil, State: accel.StateNetlink, VLANs: traced == nil}
	switch {
	case traced == nil:
		r.State = accel.StateTraced
	case live == nil:
		r.State = accel.StateLive
	}
	weaker := r.Weaker()
	if weaker == "" {
		return accel.Finding{Check: "revocation", Level: accel.LevelOK,
			Text: "what the kernel deletes, moves or changes takes effect with the next frame"}
	}
	for _, err := range []error{entries, traced, live} {
		if err != nil {
			weaker += fmt.Sprintf("; %v", err)
		}
	}
	return accel.Finding{Check: "revocation", Level: accel.LevelNote, Text: weaker,
		Advice: "use a kernel with BTF that lets programs trace its functions, and give shunt CAP_PERFMON"}
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
	programs, err := loadTracePrograms(accel.Namespace{}, spec, nil)
	if err != nil {
		return err
	}
	defer programs.Close()
	c := &changes{links: make(map[string]link.Link)}
	return errors.Join(c.attach(programs), c.closeLinks())
}

func tryLive() error {
	c := new(changes)
	err := c.readLive()
	if err == nil {
		err = errors.Join(c.look.Close(), c.looks.Close())
	}
	return err
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
	case !have:
		return accel.Finding{Check: "bpffs", Level: accel.LevelNote,
			Text:   "no bpffs is mounted at " + bpffs + "; shunt run mounts one",
			Advice: "in a shell of ip netns exec pins vanish with the shell: use nsenter --net instead"}
	}
	return accel.Finding{Check: "bpffs", Level: accel.LevelOK, Text: "pins can be kept at " + bpffs}
}
