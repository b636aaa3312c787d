package main

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shunt-dev/shunt/integration/machine"
)

// tracer writes down every instruction of a batch, when the guest asks for it.
type tracer struct {
	row     string
	monitor string // QEMU's socket
	log     string // file of the addresses
	guest   string // the guest's program
	console *os.File
	answer  *os.File // what the guest reads from its console
	symbols []symbol
}

// symbol is the begin of a function, or of a source line of a program.
type symbol struct {
	address uint64
	name    string
}

// newTracer lets a machine that is made in dir be traced.
func newTracer(dir string, m *machine.Machine) (t *tracer, err error) {
	t = &tracer{
		monitor: filepath.Join(dir, "monitor"), log: filepath.Join(dir, "trace"), guest: filepath.Join(dir, "root", "guest"),
	}
	if t.console, t.answer, err = os.Pipe(); err != nil {
		return nil, err
	}
	m.Input, m.Monitor = t.console, t.monitor
	m.Env = append(m.Env, "PROFILE=1", "nokaslr")
	return t, nil
}

func (t *tracer) close() {
	t.console.Close()
	t.answer.Close()
}

// hear takes in what the guest says.
func (t *tracer) hear(what, rest string) error {
	switch what {
	case "symbols":
		return t.read(rest)
	case "trace":
		t.row = rest
		return t.command("logfile " + t.log + "\nsinglestep on\nlog exec,nochain\n")
	}
	if err := t.command("log none\nsinglestep off\n"); err != nil {
		return err
	}
	return t.print(os.Stdout)
}

// command gives commands to QEMU and, when they are done, lets the guest go on.
func (t *tracer) command(commands string) error {
	conn, err := net.Dial("unix", t.monitor)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	prompts := bufio.NewReader(conn)
	_, err = prompts.ReadString(')') // "(qemu) "
	for command := range strings.Lines(commands) {
		if err == nil {
			_, err = io.WriteString(conn, command)
		}
		if err == nil {
			_, err = prompts.ReadString(')')
		}
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(t.answer, "\n")
	return err
}

func (t *tracer) read(text string) error {
	compressed, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text)))
	if err != nil {
		return err
	}
	t.symbols = nil
	for lines := bufio.NewScanner(compressed); lines.Scan(); {
		address, name, _ := strings.Cut(lines.Text(), " ")
		at, err := strconv.ParseUint(address, 16, 64)
		if err != nil {
			return err
		}
		t.symbols = append(t.symbols, symbol{at, name})
	}
	slices.SortStableFunc(t.symbols, func(a, b symbol) int { return cmp.Compare(a.address, b.address) })
	return nil
}

// whose is the symbol that an address belongs to.
func (t *tracer) whose(address uint64) string {
	i, exact := slices.BinarySearchFunc(t.symbols, address, func(s symbol, a uint64) int { return cmp.Compare(s.address, a) })
	if exact {
		for i+1 < len(t.symbols) && t.symbols[i+1].address == address {
			i++ // a source line where a function begins
		}
		return t.symbols[i].name
	}
	if i == 0 {
		return "user"
	}
	return t.symbols[i-1].name
}

// count returns how often instructions of each symbol ran, between the two calls of
// the guest's spin.
func (t *tracer) count() (map[string]int, error) {
	mark, err := addressOf(t.guest, "main.spin.abi0")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(t.log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	counts, marks := make(map[string]int), 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// Trace 0: 0x7f… [cs_base/pc/flags/cflags] …
		fields := strings.Split(lines.Text(), "/")
		if !strings.HasPrefix(lines.Text(), "Trace ") || len(fields) < 3 {
			continue
		}
		pc, err := strconv.ParseUint(fields[1], 16, 64)
		if err != nil {
			return nil, err
		}
		if pc == mark {
			marks++
		}
		if marks == 1 {
			counts[t.whose(pc)]++
		}
	}
	if marks != 2 {
		return nil, fmt.Errorf("the trace has %d marks, want 2", marks)
	}
	return counts, nil
}

func addressOf(program, name string) (uint64, error) {
	f, err := elf.Open(program)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == name })
	if i < 0 {
		return 0, fmt.Errorf("%s has no %s", program, name)
	}
	return symbols[i].Value, nil
}

// framesOfBatch is batch in the guest.
const framesOfBatch = 64

// print writes whose instructions there were, for each frame.
func (t *tracer) print(w io.Writer) error {
	counts, err := t.count()
	if err != nil {
		return err
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	fmt.Fprintf(w, "\n%s: %.1f instructions for a frame\n", t.row, float64(total)/framesOfBatch)
	for _, name := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return counts[b] - counts[a] }) {
		if each := float64(counts[name]) / framesOfBatch; each >= 0.5 {
			fmt.Fprintf(w, "%8.1f %s\n", each, name)
		}
	}
	return os.Remove(t.log)
}
