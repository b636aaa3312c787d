// Command benchvm counts the instructions that a frame costs on its way from one port
// to another, with shunt and with others, on Debian's kernels in QEMU.
//
//	go run ./integration/benchvm [-kernel 6.1|6.12] [-rows all|KEY,KEY] [-write|-check|-profile]
//
// It prints the table of docs/performance.md, which says how it is measured; with
// -write it writes that page and docs/performance.json beside it, and with -check it
// fails if the fast path has grown. With -profile QEMU writes down every instruction of
// one batch, and the table is followed by whose they are. It needs what integration/vm needs.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/integration/benchvm/rows"
	"github.com/shunt-dev/shunt/integration/machine"
)

// checked are the rows of -check, and those that they are told apart from.
const checked = "drop,floor,shunt,drop-tagged,floor-tagged,shunt-tagged"

func main() {
	var o options
	flag.StringVar(&o.series, "kernel", "6.12", "the `series` of Debian's kernel: 6.1 or 6.12")
	flag.StringVar(&o.rows, "rows", "", "measure only these `rows`, by their keys with commas, or all with the slow ones")
	flag.BoolVar(&o.write, "write", false, "write "+pageFile+" and "+figuresFile)
	flag.BoolVar(&o.page, "page", false, "measure nothing and write "+pageFile+" from "+figuresFile)
	flag.BoolVar(&o.check, "check", false, "fail if the fast path costs more than 1 % over "+figuresFile)
	flag.BoolVar(&o.profile, "profile", false, "tell whose the instructions of each row are, by function and source line")
	flag.BoolVar(&o.verbose, "v", false, "print what the machine prints")
	timeout := flag.Duration("timeout", 40*time.Minute, "end the machine after this `time`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, errors.New("it took too long"))
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "benchvm:", err)
		os.Exit(1)
	}
}

type options struct {
	series, rows                         string
	write, page, check, verbose, profile bool
}

func run(ctx context.Context, o options) error {
	if o.page {
		committed, err := readFigures(figuresFile)
		if err != nil {
			return err
		}
		return writePage(committed)
	}
	keys, err := o.keys()
	if err != nil {
		return err
	}
	measured, err := measure(ctx, o, keys)
	if err != nil {
		return err
	}
	fmt.Printf("Linux %s: instructions for a frame of 60 bytes, from port to port\n", measured.Release)
	measured.print(os.Stdout)
	if !o.write && !o.check {
		return nil
	}
	committed, err := readFigures(figuresFile)
	if errors.Is(err, os.ErrNotExist) {
		committed, err = &figures{}, nil
	}
	if err != nil {
		return err
	}
	if o.check {
		return compare(committed.of(o.series), measured)
	}
	committed.take(measured)
	return writePage(committed)
}

// keys are those of the rows to measure, in the order of the table.
func (o options) keys() (keys []string, err error) {
	wanted := strings.Split(o.rows, ",")
	if o.rows == "" && o.check {
		wanted = strings.Split(checked, ",")
	}
	for _, key := range wanted {
		if key != "" && key != "all" && rows.Of(key) == nil {
			return nil, fmt.Errorf("there is no row %q", key)
		}
	}
	for _, r := range rows.All {
		if slices.Contains(wanted, r.Key) || slices.Contains(wanted, "all") || wanted[0] == "" && !r.Slow {
			keys = append(keys, r.Key)
		}
	}
	return keys, nil
}

// measure boots a machine that measures the rows.
func measure(ctx context.Context, o options, keys []string) (*kernelFigures, error) {
	if err := machine.CheckTools(needed); err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	k, err := machine.FetchKernel(o.series, filepath.Join(cache, "shunt", "vm"))
	if err != nil {
		return nil, err
	}
	programs, err := hashOf("tcprog/*.o")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "shunt-benchvm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd, err := buildInitrd(dir, k)
	if err != nil {
		return nil, err
	}
	h := &hearer{verbose: o.verbose, figures: &kernelFigures{
		Series: o.series, Release: k.Release, Programs: programs, Counts: make(map[string]float64), Missing: make(map[string]string),
	}}
	m := machine.Machine{Kernel: k, Initrd: initrd, Counting: true, Env: []string{"ROWS=" + strings.Join(keys, ",")}}
	if o.profile {
		if h.tracer, err = newTracer(dir, &m); err != nil {
			return nil, err
		}
		defer h.tracer.close()
	}
	err = m.Boot(ctx, h.hear)
	return h.figures, errors.Join(err, h.failure())
}

// hashOf is a number for what is in the files that match.
func hashOf(pattern string) (string, error) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// hearer takes in what the guest says.
type hearer struct {
	verbose bool
	tracer  *tracer // nil: nobody asked for a profile
	figures *kernelFigures
	failed  []error
	last    []string // lines, to tell what went wrong
	ended   bool
}

func (h *hearer) hear(line string) {
	if h.verbose {
		fmt.Println(line[:min(len(line), 500)])
	}
	h.last = append(h.last, line[:min(len(line), 500)])
	h.last = h.last[max(0, len(h.last)-20):]
	said, ok := strings.CutPrefix(line, "bench: ")
	if !ok {
		return
	}
	what, rest, _ := strings.Cut(said, " ")
	switch what {
	case "row":
		var r rows.Result
		if err := json.Unmarshal([]byte(rest), &r); err != nil {
			h.failed = append(h.failed, err)
		}
		h.figures.Counts[r.Row] = r.Count
	case "missing":
		key, why, _ := strings.Cut(rest, " ")
		h.figures.Missing[key] = why
	case "error":
		h.failed = append(h.failed, errors.New(rest))
	case "symbols", "trace", "traced":
		if err := h.tracer.hear(what, rest); err != nil {
			h.failed = append(h.failed, err)
		}
	case "end":
		h.ended = true
	}
}

func (h *hearer) failure() error {
	if !h.ended && len(h.failed) == 0 {
		h.failed = append(h.failed, fmt.Errorf("the machine ended early:\n%s", strings.Join(h.last, "\n")))
	}
	return errors.Join(h.failed...)
}
