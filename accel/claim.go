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

	"golang.org/x/sys/unix"
)

// A daemon claims each of its bridges with a socket in the abstract namespace.
// Such names belong to the network namespace, as bridges do, and the kernel
// takes them back however the daemon ends.
const claimPrefix = "@shunt/bridge/"

// claims are the bridges that this daemon alone may work on.
type claims struct {
	listeners []net.Listener
	answering sync.WaitGroup
}

// claimBridges fails when another daemon in this network namespace works on
// one of the bridges.
func claimBridges(bridges []string, logger *slog.Logger) (*claims, error) {
	held := new(claims)
	for _, name := range bridges {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: claimPrefix + name})
		if err == nil {
			held.hold(listener)
			continue
		}
		if err := explainClaim(name, err); err != nil {
			held.release()
			return nil, err
		}
		// Anyone may bind the name. One who could not run a daemon must not
		// keep the real one from starting.
		logger.Warn("an unprivileged process holds the name that marks a bridge as taken; going on without", "bridge", name)
	}
	return held, nil
}

// explainClaim says who holds a claim, or returns nil if it is nobody who could
// be a daemon.
func explainClaim(bridge string, err error) error {
	if !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("claim bridge %s: %w", bridge, err)
	}
	holder, err := claimHolder(bridge)
	if err != nil {
		return fmt.Errorf("another daemon works on bridge %s in this network namespace: stop it first", bridge)
	}
	if holder.Uid != 0 && int(holder.Uid) != os.Geteuid() {
		return nil
	}
	return fmt.Errorf("another daemon (process %d) works on bridge %s in this network namespace: stop it first", holder.Pid, bridge)
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
			if err == nil {
				conn.Close()
			}
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

// claimedBridges lists the bridges of this network namespace that daemons work
// on.
func claimedBridges() ([]string, error) {
	f, err := os.Open("/proc/self/net/unix")
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
