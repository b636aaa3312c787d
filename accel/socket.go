package accel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// controlSocket is the daemon's socket. A lock beside it is held as long as
// the daemon lives, so that of two daemons only one takes the path, and a file
// that a dead one left is told from one in use.
type controlSocket struct {
	net.Listener
	path    string
	lock    *os.File
	madeDir bool
}

// listenControl makes the socket, and its directory if that is missing.
func listenControl(path string) (*controlSocket, error) {
	s := &controlSocket{path: path}
	if err := s.listen(); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func (s *controlSocket) listen() (err error) {
	if s.madeDir, err = makeDir(filepath.Dir(s.path)); err != nil {
		return fmt.Errorf("make the directory of the control socket: %w", err)
	}
	if s.lock, err = takeLock(s.path + ".lock"); errors.Is(err, unix.EWOULDBLOCK) {
		return s.inUse()
	} else if err != nil {
		return fmt.Errorf("lock the control socket %s: %w", s.path, err)
	}
	if err := s.clearStale(); err != nil {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path})
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.path, err)
	}
	// The file must go before the lock and after the last answer: see remove.
	listener.SetUnlinkOnClose(false)
	s.Listener = listener
	return os.Chmod(s.path, 0o660)
}

func (s *controlSocket) inUse() error {
	return fmt.Errorf("a daemon already serves %s: stop it with \"shunt detach --socket %s\", or choose another --socket", s.path, s.path)
}

// clearStale removes the socket of a daemon that is gone. Anything else at the
// path is not ours to remove.
func (s *controlSocket) clearStale() error {
	info, err := os.Lstat(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look at the control socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket: remove it, or choose another --socket", s.path)
	}
	conn, err := net.DialTimeout("unix", s.path, time.Second)
	if err == nil {
		conn.Close()
		return s.inUse()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s is in use: %w", s.path, err)
	}
	return os.Remove(s.path)
}

// remove takes the socket's file away, the directory if it is ours and empty,
// and gives up the lock last. Connections that were accepted live on. It is
// safe twice.
func (s *controlSocket) remove() error {
	var errs []error
	if s.Listener != nil {
		errs = append(errs, s.Listener.Close(), removeIfThere(s.path))
		s.Listener = nil
	}
	if s.lock != nil {
		errs = append(errs, removeIfThere(s.lock.Name()), s.lock.Close())
		s.lock = nil
	}
	if s.madeDir {
		// A directory that others use by now stays.
		if err := os.Remove(filepath.Dir(s.path)); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		s.madeDir = false
	}
	return errors.Join(errs...)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// makeDir makes one directory and says whether it was missing.
func makeDir(path string) (made bool, err error) {
	err = os.Mkdir(path, 0o755)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// takeLock locks a file that only this user can open, and that its holder
// removes: so a lock on a file that was removed meanwhile is tried again.
func takeLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		if isAt(f, path) {
			return f, nil
		}
		f.Close()
	}
}

func isAt(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(ours, there)
}
