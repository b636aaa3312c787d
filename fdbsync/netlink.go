package fdbsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// eventBuffer bounds the event socket's queue, in bytes of the kernel's memory, which it
// takes only while events wait: about 120,000 of FDB entries. Where it is too small the
// kernel says ENOBUFS and all is read anew, which takes minutes for a large table.
const eventBuffer = 128 << 20

// dialEvents opens a socket for the events of links, FDB entries, tc and VLANs.
// A kernel that does not tell of VLANs is told of by note.
func dialEvents(buffer int, note func(error)) (*netlink.Conn, error) {
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
	// Its number is above those that fit into the address that is bound.
	if err := c.JoinGroup(unix.RTNLGRP_BRVLAN); err != nil {
		note(err)
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

// listener takes in events. Once the kernel had to drop some it goes on
// dropping in silence until the queue was empty once
// (net/netlink/af_netlink.c: netlink_overrun, NETLINK_S_CONGESTED), so that
// nothing read from the old socket after ENOBUFS is complete: the listener opens
// a new one, and says so only then. Whoever reads everything anew after that
// misses nothing.
type listener struct {
	dial func() (*netlink.Conn, error)

	receiver *receiver

	mu     sync.Mutex
	conn   *netlink.Conn
	closed bool
}

// Events are received that many in a call. Of an entry's the kernel sends no more than
// that, in bytes; of a link's the beginning is enough, which says which link it is.
const eventsAtOnce, eventSize = 64, 1 << 10

// errOverrun says that events were lost, and that a new socket is open.
var errOverrun = errors.New("the kernel had to drop events")

func newListener(dial func() (*netlink.Conn, error)) (*listener, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	return &listener{dial: dial, conn: c, receiver: newReceiver(eventsAtOnce, eventSize)}, nil
}

// receive waits for messages, which are good until the next call; an error after close.
func (l *listener) receive() ([]netlink.Message, error) {
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	messages, err := l.receiver.receive(c)
	if !errors.Is(err, unix.ENOBUFS) {
		return messages, err
	}
	if err := l.renew(); err != nil {
		return nil, err
	}
	return nil, errOverrun
}

func (l *listener) renew() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return context.Canceled
	}
	c, err := l.dial()
	if err != nil {
		return err
	}
	l.conn.Close()
	l.conn = c
	return nil
}

// close ends a receive that waits.
func (l *listener) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.conn.Close()
}

// kernel is what is asked of the kernel, apart from the firewall.
type kernel interface {
	// links returns every interface of the namespace.
	links() (map[int]link, error)
	// link returns one interface; false if it does not exist (any more).
	link(ifindex int) (link, bool, error)
	// fdb begins to read the bridge's table.
	fdb(bridge int) (dump, error)
	// stations asks for single entries; nil stands for one that is not there.
	stations(bridge int, keys []accel.StationKey) ([]*accel.Station, error)
	// vlans returns the VLANs of a port; not known if there is no such port (any
	// more), or if the kernel has no VLANs.
	vlans(port int) (portVLANs, error)
	close() error
}

// route is the kernel behind a socket that no event can come between.
type route struct {
	conn      *netlink.Conn
	answers   *receiver
	questions []byte      // about entries, while they are written
	sequence  uint32      // of the last of them
	unknown   func(error) // hears of a message that was skipped
}

func dialRoute(unknown func(error)) (*route, error) {
	r := &route{unknown: unknown, answers: newReceiver(answersAtOnce, answerSize)}
	return r, r.dial()
}

// Answers about an entry are received that many in a call, and are no longer than that,
// in bytes.
const answersAtOnce, answerSize = 64, 512

// answerBuffer has room for the answers to a whole batch of questions, in bytes.
const answerBuffer = 4 << 20

func (r *route) dial() error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := setReadBuffer(c, answerBuffer); err != nil {
		c.Close()
		return fmt.Errorf("make room for answers: %w", err)
	}
	r.conn = c
	return nil
}

func (r *route) close() error { return r.conn.Close() }

// redial drops answers that are still on their way: they must not be taken for
// those to a later question.
func (r *route) redial() error {
	return errors.Join(r.conn.Close(), r.dial())
}

// questionTimeout keeps a kernel that does not answer from holding the daemon
// for ever: it would lose its lease first.
const questionTimeout = 10 * time.Second

// ask asks once more where the answer did not come in time, or another one did: this
// process may have been stopped in between, and the kernel has answered long ago.
func (r *route) ask(kind netlink.HeaderType, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
	messages, err := r.askOnce(kind, flags, data)
	if !isOutOfStep(err) {
		return messages, err
	}
	if err := r.redial(); err != nil {
		return nil, err
	}
	return r.askOnce(kind, flags, data)
}

// isOutOfStep says whether an answer may be on its way that nobody waits for.
func isOutOfStep(err error) bool {
	var failed *netlink.OpError
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &failed) && failed.Op == "validate"
}

func (r *route) askOnce(kind netlink.HeaderType, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
	if err := r.conn.SetDeadline(time.Now().Add(questionTimeout)); err != nil {
		return nil, err
	}
	return r.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
		Data:   data,
	})
}

func (r *route) links() (map[int]link, error) {
	request, err := encodeLinkRequest(0)
	if err != nil {
		return nil, err
	}
	messages, err := settledList(func() ([]netlink.Message, error) {
		return r.ask(unix.RTM_GETLINK, netlink.Dump, request)
	})
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	links := make(map[int]link, len(messages))
	for _, m := range messages {
		l, err := decodeLink(m.Data)
		if err != nil {
			r.unknown(err)
			continue
		}
		links[l.ifindex] = l
	}
	return links, nil
}

// errChanging says that a list did not hold still for long enough to be read.
var errChanging = errors.New("it changes too fast to be read")

// settledList reads a list again where the kernel says that it changed meanwhile
// (NLM_F_DUMP_INTR). It never says so of an FDB.
func settledList(read func() ([]netlink.Message, error)) ([]netlink.Message, error) {
	const tries = 10
	for range tries {
		messages, err := read()
		if err != nil {
			return nil, err
		}
		interrupted := slices.ContainsFunc(messages, func(m netlink.Message) bool {
			return m.Header.Flags&netlink.DumpInterrupted != 0
		})
		if !interrupted {
			return messages, nil
		}
	}
	return nil, errChanging
}

func (r *route) link(ifindex int) (link, bool, error) {
	request, err := encodeLinkRequest(ifindex)
	if err != nil {
		return link{}, false, err
	}
	messages, err := r.ask(unix.RTM_GETLINK, 0, request)
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

func (r *route) vlans(port int) (portVLANs, error) {
	messages, err := settledList(func() ([]netlink.Message, error) {
		return r.ask(unix.RTM_GETVLAN, netlink.Dump, encodeVLANRequest(port))
	})
	switch {
	case errors.Is(err, errChanging), errors.Is(err, unix.ENODEV),
		errors.Is(err, unix.EINVAL),     // no port of a bridge any more
		errors.Is(err, unix.EOPNOTSUPP): // CONFIG_BRIDGE_VLAN_FILTERING is off
		return portVLANs{}, nil
	case err != nil:
		return portVLANs{}, fmt.Errorf("ask for the VLANs of interface %d: %w", port, err)
	}
	data := make([][]byte, len(messages))
	for i, m := range messages {
		data[i] = m.Data
	}
	return decodeVLANs(port, data), nil
}

// stations asks once more where the answers did not come in time, as ask does.
func (r *route) stations(bridge int, keys []accel.StationKey) ([]*accel.Station, error) {
	answers, err := r.stationsOnce(bridge, keys)
	if isOutOfStep(err) {
		return r.stationsOnce(bridge, keys)
	}
	return answers, err
}

// stationsOnce sends all questions at once: each has one answer, an entry or an
// error, and they come in the order of the questions (net/netlink/af_netlink.c:
// netlink_rcv_skb). After an error the socket is another one.
func (r *route) stationsOnce(bridge int, keys []accel.StationKey) ([]*accel.Station, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	sequence, err := r.sendQuestions(bridge, keys)
	if err != nil {
		return nil, errors.Join(err, r.redial())
	}
	answers := make([]*accel.Station, 0, len(keys))
	entries := make([]accel.Station, len(keys))
	for len(answers) < len(keys) {
		messages, err := r.answers.receive(r.conn)
		if err == nil && len(messages) > len(keys)-len(answers) {
			err = errors.New("there are more answers than questions")
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("ask for %d entries: %w", len(keys), err), r.redial())
		}
		for _, m := range messages {
			n := len(answers)
			var answer *accel.Station
			exists, err := answerOf(m, bridge, keys[n], sequence+uint32(n), &entries[n])
			if err != nil {
				return nil, errors.Join(fmt.Errorf("ask for the entry of %s: %w", keys[n], err), r.redial())
			}
			if exists {
				answer = &entries[n]
			}
			answers = append(answers, answer)
		}
	}
	return answers, nil
}

// sendQuestions returns the number of the first question; the others follow it.
func (r *route) sendQuestions(bridge int, keys []accel.StationKey) (first uint32, err error) {
	if err := r.conn.SetDeadline(time.Now().Add(questionTimeout)); err != nil {
		return 0, err
	}
	raw, err := r.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	first = r.sequence + 1
	r.sequence += uint32(len(keys))
	r.questions = r.questions[:0]
	for i, k := range keys {
		r.questions = appendNeighRequest(r.questions, bridge, k, first+uint32(i))
	}
	var refused error
	err = raw.Write(func(fd uintptr) bool {
		for {
			refused = unix.Sendto(int(fd), r.questions, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if refused != unix.EINTR {
				return refused != unix.EAGAIN
			}
		}
	})
	if err = errors.Join(err, refused); err != nil {
		return 0, fmt.Errorf("ask for %d entries: %w", len(keys), err)
	}
	return first, nil
}

// answerOf reads the answer to one question into s; false if there is no such entry.
// Whatever is not exactly that is an error: nothing is made active on a doubtful answer.
func answerOf(m netlink.Message, bridge int, key accel.StationKey, sequence uint32, s *accel.Station) (exists bool, err error) {
	switch {
	case m.Header.Sequence != sequence:
		return false, errors.New("the answer is to another question")
	case m.Header.Type == netlink.Error:
		if err := errorOf(m); !errors.Is(err, unix.ENOENT) {
			return false, fmt.Errorf("the kernel answers with an error: %w", err)
		}
		return false, nil
	case m.Header.Type != unix.RTM_NEWNEIGH || isCut(m):
		return false, errors.New("the answer is not a whole entry")
	}
	n, err := decodeNeigh(m.Data)
	if err != nil {
		return false, err
	}
	if n.station.StationKey != key || n.bridge != bridge {
		return false, errors.New("the kernel answered with another")
	}
	*s = n.station
	return true, nil
}
