package accel

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A daemon claims each of its bridges with a socket in the abstract namespace.
// Such names belong to the network namespace, as bridges do, and the kernel
// takes them back however the daemon ends.
const claimPrefix = "@shunt/bridge/"

// claims are the bridges that this daemon alone may work on.
type claims []net.Listener

// claimBridges fails when another daemon in this network namespace works on
// one of the bridges.
func claimBridges(bridges []string, logger *slog.Logger) (claims, error) {
	var held claims
	for _, name := range bridges {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: claimPrefix + name})
		if err == nil {
			held = append(held, listener)
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

func (c claims) release() {
	for _, listener := range c {
		listener.Close()
	}
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
	return bridges, lines.Err()
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
