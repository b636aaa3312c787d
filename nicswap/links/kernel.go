package links

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Links asks the kernel about the devices of one network namespace, that of the
// thread that called Open, and changes them. Its methods may be called from any
// goroutine.
type Links struct {
	mu     sync.Mutex // one question at a time, or answers would be mixed up
	conn   *netlink.Conn
	sysctl *os.File // the directory of IPv6's settings; nil where there is none
}

// Open works in the network namespace of the calling thread, which for a daemon
// is the one that it was started in.
func Open() (*Links, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	// With it the kernel says in words what it does not like.
	if err := conn.SetOption(netlink.ExtendedAcknowledge, true); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask for explanations: %w", err)
	}
	return &Links{conn: conn, sysctl: openSysctl()}, nil
}

// Close lets go of the sockets. No method may be called any more.
func (l *Links) Close() error {
	var err error
	if l.sysctl != nil {
		err = l.sysctl.Close()
	}
	return errors.Join(err, l.conn.Close())
}

// ask sends one question and returns its answers.
func (l *Links) ask(kind netlink.HeaderType, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answers, err := l.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
		Data:   data,
	})
	if err != nil {
		// The rest of an answer must not be taken for that to the next question.
		return nil, errors.Join(inWords(err), discard(l.conn, func() bool { return false }))
	}
	return answers, nil
}

// tell sends a request for a change, which has no answer but that it was done.
func (l *Links) tell(kind netlink.HeaderType, flags netlink.HeaderFlags, data []byte) error {
	_, err := l.ask(kind, netlink.Acknowledge|flags, data)
	return err
}

// inWords returns the error number that the kernel answered with, and its
// explanation if it gave one.
func inWords(err error) error {
	var op *netlink.OpError
	switch {
	case !errors.As(err, &op):
		return err
	case op.Message != "":
		return fmt.Errorf("%w (%s)", op.Err, op.Message)
	}
	return op.Err
}

// errChanging says that a list did not hold still for long enough to be read.
var errChanging = errors.New("it changes too fast to be read")

// list reads a list again where the kernel says that it changed meanwhile
// (NLM_F_DUMP_INTR).
func (l *Links) list(kind netlink.HeaderType, data []byte) ([]netlink.Message, error) {
	const tries = 10
	for range tries {
		messages, err := l.ask(kind, netlink.Dump, data)
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

// failed says what could not be done; [ErrGone] where the device is not there.
func failed(err error, what string, ifindex int) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV):
		err = ErrGone
	}
	return fmt.Errorf("%s %d: %w", what, ifindex, err)
}

// discard drops what waits in the socket's queue, until the queue is empty or
// enough says so.
func discard(conn *netlink.Conn, enough func() bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for !enough() {
			_, _, failed = unix.Recvfrom(int(fd), nil, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			switch failed {
			case nil, unix.EINTR, unix.ENOBUFS: // there may be more
			case unix.EAGAIN:
				failed = nil
				return
			default:
				return
			}
		}
		failed = nil
	})
	return errors.Join(err, failed)
}
