// Command selftests runs the Linux kernel's own tests of the bridge on Debian's
// kernels, in QEMU without KVM, without shunt and with it, and compares the
// result of every subtest: with shunt nothing may differ.
//
//	go run ./integration/selftests [-kernel 6.1|6.12] [-with-shunt|-compare] [-run REGEXP] [-timeout 30m]
//
// Every script runs in a machine of its own. It needs qemu-system-x86,
// mmdebstrap, libarchive-tools, kmod and xz-utils, and apt for the kernel, its
// source and the machine's root, which it keeps in the user's cache directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/integration/machine"
)

func main() {
	kernel := flag.String("kernel", "6.12", "the `series` of Debian's kernel: 6.1 or 6.12")
	withShunt := flag.Bool("with-shunt", false, "run shunt in every network namespace")
	compare := flag.Bool("compare", false, "run every script without and with shunt, and compare")
	pattern := flag.String("run", "", "run only the scripts whose name matches this `regexp`")
	timeout := flag.Duration("timeout", 30*time.Minute, "end a machine after this `time`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	modes := []bool{*withShunt}
	if *compare {
		modes = []bool{false, true}
	}
	if err := run(ctx, *kernel, *pattern, modes, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "selftests:", err)
		os.Exit(1)
	}
}

// run runs the scripts, each in every mode: with shunt or without.
func run(ctx context.Context, series, pattern string, modes []bool, timeout time.Duration) error {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	if err := machine.CheckTools(machine.RootTools); err != nil {
		return err
	}
	k, initrd, err := prepare(series)
	if err != nil {
		return err
	}
	defer os.Remove(initrd)
	var rows []row
	for _, script := range scripts {
		if !wanted.MatchString(script.path) || !exists(series, script) {
			continue
		}
		fmt.Printf("=== %s, Linux %s\n", script.path, k.Release)
		r := runModes(ctx, modes, script, func(ctx context.Context, shunt bool) outcome {
			return runScript(ctx, k, initrd, script.path, shunt, timeout)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.print(os.Stdout)
		rows = append(rows, r)
	}
	return judge(os.Stdout, rows)
}

// prepare fetches everything and makes what the machine boots from.
func prepare(series string) (k machine.Kernel, initrd string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return k, "", err
	}
	cache = filepath.Join(cache, "shunt")
	k, err = machine.FetchKernel(series, filepath.Join(cache, "vm"))
	if err != nil {
		return k, "", err
	}
	cache = filepath.Join(cache, "selftests")
	source, err := fetchScripts(series, cache)
	if err != nil {
		return k, "", err
	}
	root, err := machine.FetchRoot(root, cache)
	if err != nil {
		return k, "", err
	}
	initrd, err = buildInitrd(root, source, k)
	return k, initrd, err
}

// runModes runs a script in all modes at the same time: the machines' clocks do
// not depend on each other's load.
func runModes(ctx context.Context, modes []bool, script script, run func(ctx context.Context, shunt bool) outcome) row {
	r := row{script: script, outcomes: make(map[bool]outcome)}
	var running sync.WaitGroup
	var mu sync.Mutex
	for _, shunt := range modes {
		running.Go(func() {
			o := run(ctx, shunt)
			mu.Lock()
			defer mu.Unlock()
			r.outcomes[shunt] = o
		})
	}
	running.Wait()
	return r
}

// runScript boots a machine for one script and returns how its subtests ended.
func runScript(ctx context.Context, k machine.Kernel, initrd, script string, shunt bool, timeout time.Duration) outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("it took too long"))
	defer cancel()
	env := []string{"SCRIPT=" + script, "SHUNT=0"}
	if shunt {
		env[1] = "SHUNT=1"
	}
	var o outcome
	err := machine.Machine{Kernel: k, Initrd: initrd, Env: env}.Boot(ctx, func(line string) {
		fmt.Printf("%s: %s\n", modeName(shunt), line)
		o.read(line)
	})
	o.finish(err)
	return o
}

func modeName(shunt bool) string {
	if shunt {
		return "with shunt"
	}
	return "without shunt"
}
