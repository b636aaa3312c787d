package fdbsync

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// eventBuffer is the size of the event socket's queue in bytes: about 100,000
// FDB events. Where it is too small the kernel says ENOBUFS and all is read anew.
const eventBuffer = 32 << 20

// listenRoute opens a socket for the events of links, FDB entries and tc.
func listenRoute(buffer int) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NEIGH-1) | 1<<(unix.RTNLGRP_TC-1),
	})
	if err != nil {
		return nil, fmt.Errorf("listen to the bridge's events: %w", err)
	}
	if err := setReadBuffer(c, buffer); err != nil {
		c.Close()
		return nil, fmt.Errorf("make room for the bridge's events: %w", err)
	}
	return c, nil
}

// setReadBuffer sets the size whatever net.core.rmem_max says; that needs
// CAP_NET_ADMIN, which shunt needs anyway.
func setReadBuffer(c *netlink.Conn, bytes int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	})
	return errors.Join(err, failed)
}

// kernel asks the kernel questions, on a socket that no event can come between.
type kernel struct {
	conn *netlink.Conn
}

func dialKernel() (*kernel, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &kernel{conn: c}, nil
}

func (k *kernel) close() error { return k.conn.Close() }

// questionTimeout keeps a kernel that does not answer from holding the daemon
// for ever: it would lose its lease first.
const questionTimeout = 10 * time.Second

func (k *kernel) ask(kind netlink.HeaderType, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
	if err := k.conn.SetDeadline(time.Now().Add(questionTimeout)); err != nil {
		return nil, err
	}
	return k.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
		Data:   data,
	})
}

// links returns every interface of the namespace.
func (k *kernel) links() (map[int]link, error) {
	messages, err := k.dumpLinks()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	links := make(map[int]link, len(messages))
	for _, m := range messages {
		if l, err := decodeLink(m.Data); err == nil {
			links[l.ifindex] = l
		}
	}
	return links, nil
}

// dumpLinks tries again where the kernel says that the list changed under it.
func (k *kernel) dumpLinks() (messages []netlink.Message, err error) {
	const tries = 10
	for range tries {
		messages, err = k.ask(unix.RTM_GETLINK, netlink.Dump, encodeLinkRequest(0))
		interrupted := slices.ContainsFunc(messages, func(m netlink.Message) bool {
			return m.Header.Flags&netlink.DumpInterrupted != 0
		})
		if err != nil || !interrupted {
			break
		}
	}
	return messages, err
}

// link returns one interface; false if it does not exist (any more).
func (k *kernel) link(ifindex int) (link, bool, error) {
	messages, err := k.ask(unix.RTM_GETLINK, 0, encodeLinkRequest(ifindex))
	if errors.Is(err, unix.ENODEV) {
		return link{}, false, nil
	}
	if err != nil {
		return link{}, false, fmt.Errorf("ask for interface %d: %w", ifindex, err)
	}
	if len(messages) != 1 {
		return link{}, false, fmt.Errorf("ask for interface %d: %d answers", ifindex, len(messages))
	}
	l, err := decodeLink(messages[0].Data)
	return l, err == nil, err
}

// fdb calls f for every row of the bridge's table. Rows may be missing or twice
// if the table changes meanwhile; the kernel does not say when they are.
func (k *kernel) fdb(bridge int, f func(accel.Station)) error {
	messages, err := k.ask(unix.RTM_GETNEIGH, netlink.Dump, ndMsg())
	if err != nil {
		return fmt.Errorf("read the forwarding table: %w", err)
	}
	for _, m := range messages {
		if n, ok := decodeNeigh(m.Data); ok && n.bridge == bridge {
			f(n.station)
		}
	}
	return nil
}

// station asks for one entry of the bridge's table; nil if there is none.
func (k *kernel) station(bridge int, key accel.StationKey) (*accel.Station, error) {
	request, err := encodeNeighRequest(bridge, key)
	if err != nil {
		return nil, err
	}
	messages, err := k.ask(unix.RTM_GETNEIGH, 0, request)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("ask for the entry of %s: %w", key, err)
	case len(messages) != 1:
		return nil, fmt.Errorf("ask for the entry of %s: %d answers", key, len(messages))
	}
	n, ok := decodeNeigh(messages[0].Data)
	if !ok || n.station.StationKey != key || n.bridge != bridge {
		return nil, fmt.Errorf("ask for the entry of %s: the kernel answered with another", key)
	}
	return &n.station, nil
}
