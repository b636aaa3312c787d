package accel

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// saveMemory lets the heap grow to half more than what is in use, and not to twice as much,
// unless the operator says otherwise: a table of a million entries is most of it, and
// what is collected beside it is little work.
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// giveBackMemory returns to the kernel what only the start needed: the heap that was
// filled with the kernel's types and BPF objects, and the parts of the program that ran.
// What is used again of those is mapped again from the page cache, without a copy.
func giveBackMemory() error {
	debug.FreeOSMemory()
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer smaps.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	for _, m := range cleanMappings(bufio.NewScanner(smaps), program) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.begin, m.end-m.begin, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("give back the program's memory: %w", errno)
		}
	}
	return nil
}

// mapping is a part of the address space.
type mapping struct{ begin, end uintptr }

// cleanMappings are those of a file that can be read from it again: nobody can write
// them, and nobody ever did.
func cleanMappings(smaps *bufio.Scanner, file string) (clean []mapping) {
	var m mapping
	isReadOnly := false
	for smaps.Scan() {
		line := smaps.Text()
		var head mapping
		var permissions string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &head.begin, &head.end, &permissions); n == 3 {
			m, isReadOnly = head, strings.HasSuffix(line, " "+file) && !strings.Contains(permissions, "w")
			continue
		}
		if fields := strings.Fields(line); isReadOnly && len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" {
			clean = append(clean, m)
		}
	}
	return clean
}
