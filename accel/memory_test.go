package accel

import (
	"bufio"
	"slices"
	"strings"
	"testing"
)

// TestOnlyCleanMappingsAreGivenBack: what was written would be lost, as were relocations.
func TestOnlyCleanMappingsAreGivenBack(t *testing.T) {
	const smaps = `00400000-00f78000 r-xp 00000000 fe:00 10 /usr/bin/shunt
Rss:                2880 kB
Anonymous:             0 kB
AnonHugePages:         0 kB
00f78000-01d0a000 r--p 00b78000 fe:00 10 /usr/bin/shunt
Anonymous:             4 kB
01d0a000-01e4f000 rw-p 0190a000 fe:00 10 /usr/bin/shunt
Anonymous:             0 kB
02000000-03000000 r--p 0190a000 fe:00 10 /usr/bin/shunt
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f4472209000-7f447223f000 r-xp 00000000 fe:00 11 /usr/lib/libc.so.6
Anonymous:             0 kB
`
	got := cleanMappings(bufio.NewScanner(strings.NewReader(smaps)), "/usr/bin/shunt")
	want := []mapping{{0x400000, 0xf78000}, {0x2000000, 0x3000000}}
	if !slices.Equal(got, want) {
		t.Errorf("given back would be %x, want %x", got, want)
	}
}
