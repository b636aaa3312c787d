package accel

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A daemon claims each of its bridges with a socket in the abstract namespace.
// Such names belong to the network namespace, as bridges do, and the kernel
// takes them back however the daemon ends.
const claimPrefix = "@shunt/bridge/"

// everyBridge is the claim of a daemon that takes all bridges. No interface has
// an empty name.
const everyBridge = ""

// claims are the bridges that this daemon alone may work on.
type claims struct {
	listeners []net.Listener
	answering sync.WaitGroup
}

// claimBridges fails when another daemon in this network namespace works on
// one of the bridges that the configuration chooses. It claims first and looks
// then whose claims overlap with its own: of two daemons that start together,
// both may be refused, but never do both go on.
func claimBridges(config Config, logger *slog.Logger) (*claims, error) {
	wanted := config.Bridges
	if config.AllBridges {
		wanted = []string{everyBridge}
	}
	held := new(claims)
	err := held.claim(wanted, logger)
	if err == nil {
		err = refuseOverlap(config.AllBridges)
	}
	if err != nil {
		held.release()
		return nil, err
	}
	return held, nil
}

// claim takes the names, up to the first that a daemon has.
func (c *claims) claim(names []string, logger *slog.Logger) error {
	for _, name := range names {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: claimPrefix + name})
		if err == nil {
			c.hold(listener)
			continue
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("claim %s: %w", nameClaim(name), err)
		}
		holder, err := claimHolder(name)
		if err := refuseHolder(name, holder, err); err != nil {
			return err
		}
		// Anyone may bind the name. One who could not run a daemon must not
		// keep the real one from starting.
		logger.Warn("an unprivileged process holds the name that marks a bridge as taken; going on without", "claim", nameClaim(name))
	}
	return nil
}

// refuseOverlap fails when another daemon's claim is for the same bridges under
// another name: that of every bridge beside named ones.
func refuseOverlap(all bool) error {
	claimed, err := claimedBridges()
	if err != nil {
		return err
	}
	for _, name := range claimed {
		if (name == everyBridge) == all {
			continue // of our own kind: the kernel lets only one have each
		}
		holder, err := claimHolder(name)
		if errors.Is(err, unix.ECONNREFUSED) {
			// Given back meanwhile, or not held yet by one who will look, too,
			// and find ours.
			continue
		}
		if refused := refuseHolder(name, holder, err); refused != nil {
			return refused
		}
	}
	return nil
}

// refuseHolder says who holds a claim, or returns nil if it is nobody who could
// be a daemon. err is why it could not be found out.
func refuseHolder(name string, holder *unix.Ucred, err error) error {
	if err != nil {
		return fmt.Errorf("another daemon works on %s in this network namespace: stop it first", nameClaim(name))
	}
	if holder.Uid != 0 && int(holder.Uid) != os.Geteuid() {
		return nil
	}
	return fmt.Errorf("another daemon (process %d) works on %s in this network namespace: stop it first", holder.Pid, nameClaim(name))
}

// nameClaim writes what a claim is for.
func nameClaim(name string) string {
	if name == everyBridge {
		return "all bridges"
	}
	return "bridge " + name
}

// nameClaims writes what several claims are for.
func nameClaims(names []string) string {
	if slices.Contains(names, everyBridge) {
		return nameClaim(everyBridge)
	}
	return enumerate(names)
}

// claimHolder asks the kernel whose claim it is.
func claimHolder(bridge string) (*unix.Ucred, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: claimPrefix + bridge})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return peerOf(conn)
}

// acceptPause is how long a claim waits after a connection that it could not take.
const acceptPause = 10 * time.Millisecond

// hold keeps a claim. Those who connect only want to know who holds it; they
// are taken off the queue, or it would fill up.
func (c *claims) hold(listener net.Listener) {
	c.listeners = append(c.listeners, listener)
	c.answering.Go(func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // no file is free: it would fail at once again
				time.Sleep(acceptPause)
				continue
			}
			conn.Close()
		}
	})
}

// release gives the bridges back.
func (c *claims) release() {
	if c == nil {
		return
	}
	for _, listener := range c.listeners {
		listener.Close()
	}
	c.answering.Wait()
}

// claimedBridges lists the claims of daemons in this network namespace: names
// of bridges, and [everyBridge].
func claimedBridges() ([]string, error) {
	f, err := os.Open("/proc/thread-self/net/unix")
	if err != nil {
		return nil, fmt.Errorf("look for other daemons: %w", err)
	}
	defer f.Close()
	var bridges []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if name, ok := strings.CutPrefix(fields[len(fields)-1], claimPrefix); ok {
			bridges = append(bridges, name)
		}
	}
	// A connection to a claim has a line of its own, with the same name.
	slices.Sort(bridges)
	return slices.Compact(bridges), lines.Err()
}

// peerOf returns who is at the other end of a unix socket.
func peerOf(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if ctrlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); ctrlErr != nil {
		return nil, ctrlErr
	}
	return cred, err
}
