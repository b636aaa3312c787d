package links

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// Event says that something about a device changed.
type Event struct {
	Ifindex int
	Name    string // as it was then
	// Gone: the device was deleted, or left the namespace.
	Gone bool
	// Up, Carrier and Running are those of Link, as they were then. Events queue up: what
	// counts for long is what [Links.ByIndex] says.
	Up, Carrier, Running bool
	// All: events were lost. Everything may have changed, and nothing else is said.
	All bool
}

// Watcher hears of changes of the devices.
type Watcher struct {
	conn *netlink.Conn
}

// watchBuffer is the size of the socket's queue in bytes.
const watchBuffer = 4 << 20

// Watch calls changed for every change of a device until ctx ends, and returns nil
// then. Who must not miss what happens before Watch is on its way uses
// [Links.Subscribe].
func (l *Links) Watch(ctx context.Context, changed func(Event)) error {
	w, err := l.Subscribe()
	if err != nil {
		return err
	}
	return w.Run(ctx, changed)
}

// Subscribe begins to listen: whatever changes after it returned is told by Run.
// So subscribe, read the devices, and then run. It listens in the network
// namespace of the calling thread.
func (l *Links) Subscribe() (*Watcher, error) { return subscribe(watchBuffer) }

func subscribe(buffer int) (*Watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 1 << (unix.RTNLGRP_LINK - 1)})
	if err != nil {
		return nil, fmt.Errorf("listen to the network devices: %w", err)
	}
	if err := setReadBuffer(conn, buffer); err != nil {
		conn.Close()
		return nil, fmt.Errorf("make room for the events of network devices: %w", err)
	}
	return &Watcher{conn}, nil
}

// setReadBuffer sets the size whatever net.core.rmem_max says; that needs
// CAP_NET_ADMIN.
func setReadBuffer(conn *netlink.Conn, bytes int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	})
	return errors.Join(err, failed)
}

// Close is for a Watcher that is not run.
func (w *Watcher) Close() error { return w.conn.Close() }

// Run calls changed for every event, in the kernel's order, until ctx ends; then
// it closes the Watcher and returns nil.
func (w *Watcher) Run(ctx context.Context, changed func(Event)) error {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		w.conn.SetReadDeadline(time.Unix(1, 0)) // ends a read that waits
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
		w.conn.Close()
	}()
	for {
		messages, err := w.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			if err := w.startAnew(ctx); err != nil {
				return err
			}
			changed(Event{All: true})
		case err != nil:
			return fmt.Errorf("listen to the network devices: %w", err)
		}
		for _, m := range messages {
			changed(decodeEvent(m))
		}
	}
}

// startAnew empties the queue. Once the kernel had to drop an event it goes on
// dropping until the queue was empty once (net/netlink/af_netlink.c:
// netlink_overrun, netlink_rcv_wake), so that nothing in it is complete. Whoever
// reads everything anew after that misses nothing.
func (w *Watcher) startAnew(ctx context.Context) error {
	return discard(w.conn, func() bool { return ctx.Err() != nil })
}

// decodeEvent reads a message of the group LINK. One that cannot be read may have
// been about anything.
func decodeEvent(m netlink.Message) Event {
	link, err := parseLinkMessage(m.Data)
	if err != nil {
		return Event{All: true}
	}
	return Event{
		Ifindex: link.ifindex,
		Name:    nlenc.String(find(link.attributes, unix.IFLA_IFNAME)),
		// RTM_DELLINK of family AF_BRIDGE says that it left its bridge.
		Gone:    m.Header.Type == unix.RTM_DELLINK && link.family == unix.AF_UNSPEC,
		Up:      link.flags&unix.IFF_UP != 0,
		Carrier: link.flags&unix.IFF_LOWER_UP != 0,
		Running: link.flags&unix.IFF_RUNNING != 0,
	}
}
