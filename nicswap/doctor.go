package nicswap

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

var _ accel.Checker = (*Engine)(nil)

// Check says whether swaps could be announced and journalled. It needs neither
// Provision nor Start.
func (e *Engine) Check(context.Context) []accel.Finding {
	return []accel.Finding{checkAnnouncements(), checkStateDir(accel.DefaultStateDir)}
}

// checkAnnouncements opens a socket for whole frames, and sends nothing.
func checkAnnouncements() accel.Finding {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return accel.Finding{
			Check: "announcements", Level: accel.LevelNote,
			Text:   fmt.Sprintf("a swap cannot announce stations or probe: open a packet socket: %v", err),
			Advice: "give shunt CAP_NET_RAW, and AF_PACKET in RestrictAddressFamilies of its unit",
		}
	}
	unix.Close(fd)
	return accel.Finding{Check: "announcements", Level: accel.LevelOK, Text: "a swap can announce stations and probe"}
}

// checkStateDir asks whether the journals of swaps can be written, in a directory
// that need not be there yet. Nothing is written.
func checkStateDir(path string) accel.Finding {
	there := path
	err := writable(there)
	for err == unix.ENOENT && there != "/" {
		there = filepath.Dir(there)
		err = writable(there)
	}
	if err != nil {
		return accel.Finding{
			Check: "state dir", Level: accel.LevelNote,
			Text:   fmt.Sprintf("swaps cannot be journalled in %s: write to %s: %v", path, there, err),
			Advice: "run it as root, or name a directory that can be written with --state-dir",
		}
	}
	if isFull(there) {
		return accel.Finding{
			Check: "state dir", Level: accel.LevelNote,
			Text:   fmt.Sprintf("swaps cannot be journalled in %s: the disk is full", path),
			Advice: "make room, or name another directory with --state-dir",
		}
	}
	return accel.Finding{Check: "state dir", Level: accel.LevelOK, Text: "swaps can be journalled in " + path}
}

// isFull says whether no block or no inode is left, also for root. A filesystem without
// a bound has none of them at all.
func isFull(directory string) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(directory, &fs); err != nil {
		return false // who writes there will be told
	}
	return fs.Blocks > 0 && fs.Bfree == 0 || fs.Files > 0 && fs.Ffree == 0
}

// writable asks for the effective user, whose files the daemon writes.
func writable(directory string) error {
	return unix.Faccessat(unix.AT_FDCWD, directory, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}
