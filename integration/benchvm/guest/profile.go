package main

import (
	"bufio"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// profile sends a batch while the host writes down every instruction, between two
// calls of spin, by which the host finds its begin and its end. Before, it tells the
// host whose the instructions are.
func (b *bench) profile(key string) error {
	symbols, err := symbols()
	if err != nil {
		return err
	}
	fmt.Println("bench: symbols", symbols)
	console := bufio.NewReader(os.Stdin)
	if err := ask(console, "trace "+key); err != nil {
		return err
	}
	spin(1)
	_, err = b.there.send(batch)
	spin(1)
	if err != nil {
		return err
	}
	return ask(console, "traced")
}

// ask says something to the host and waits for its answer, a line.
func ask(console *bufio.Reader, what string) error {
	fmt.Println("bench:", what)
	_, err := console.ReadString('\n')
	return err
}

// symbols are the kernel's functions and the source lines of the program at p1, each
// with its address, compressed and in letters.
func symbols() (string, error) {
	var text strings.Builder
	letters := base64.NewEncoder(base64.StdEncoding, &text)
	compressed := gzip.NewWriter(letters)
	if err := writeFunctions(compressed); err != nil {
		return "", err
	}
	if err := writeLines(compressed); err != nil {
		return "", err
	}
	if err := compressed.Close(); err != nil {
		return "", err
	}
	return text.String(), letters.Close()
}

func writeFunctions(w io.Writer) error {
	all, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(all)) {
		words := strings.Fields(line)
		if strings.ToLower(words[1]) == "t" {
			fmt.Fprintln(w, words[0], words[2])
		}
	}
	return nil
}

// writeLines writes the source lines of the programs at p1.
func writeLines(w io.Writer) error {
	port, err := net.InterfaceByName("p1")
	if err != nil {
		return err
	}
	found, err := link.QueryPrograms(link.QueryOptions{Target: port.Index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return err
	}
	for _, p := range found.Programs {
		program, err := ebpf.NewProgramFromID(p.ID)
		if err != nil {
			return err
		}
		err = writeLinesOf(w, program)
		program.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func writeLinesOf(w io.Writer, program *ebpf.Program) error {
	info, err := program.Info()
	if err != nil {
		return err
	}
	size, _ := info.JitedSize()
	addresses, ok := info.JitedLineInfos()
	if !ok {
		return nil
	}
	lines, err := info.LineInfos()
	if err != nil {
		return err
	}
	fmt.Printf("bench: note %s is %d bytes of instructions\n", info.Name, size)
	for i, line := range lines {
		if i < len(addresses) {
			fmt.Fprintf(w, "%x %s:%d: %s\n", addresses[i], info.Name, line.Line.LineNumber(), strings.TrimSpace(line.Line.Line()))
		}
	}
	return nil
}
