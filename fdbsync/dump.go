package fdbsync

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
)

// dump is a bridge's table while it is read. Rows may be missing or twice if the table
// changes meanwhile; the kernel does not say when.
type dump interface {
	// next calls f for the rows of the next piece, and says whether there is more.
	next(f func(accel.Station)) (more bool, err error)
	close() error
}

// dumpPiece is the longest datagram of a dump that the kernel makes, in bytes, for those
// who have shown that they have room for it (net/netlink/af_netlink.c: netlink_recvmsg).
// It goes through the whole table once for each of them, so that few are far cheaper.
const dumpPiece = 32 << 10

// routeDump is a dump on a socket of its own, on which nothing else waits for an answer.
type routeDump struct {
	*route
	bridge   int
	receiver *receiver
}

func (r *route) fdb(bridge int) (dump, error) {
	d := &routeDump{route: &route{unknown: r.unknown}, bridge: bridge, receiver: newReceiver(1, dumpPiece)}
	if err := d.dial(); err != nil {
		return nil, err
	}
	if err := d.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the forwarding table: %w", err), d.close())
	}
	return d, nil
}

func (d *routeDump) begin() error {
	_, err := d.conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request | netlink.Dump},
		Data:   ndMsg(),
	})
	return err
}

func (d *routeDump) next(f func(accel.Station)) (more bool, err error) {
	if err := d.conn.SetDeadline(time.Now().Add(questionTimeout)); err != nil {
		return false, err
	}
	messages, err := d.receiver.receive(d.conn)
	if err != nil {
		return false, fmt.Errorf("read the forwarding table: %w", err)
	}
	for _, m := range messages {
		if isCut(m) {
			return false, errors.New("read the forwarding table: a message is not whole")
		}
		if m.Header.Type == netlink.Done || m.Header.Type == netlink.Error {
			return false, errorOf(m)
		}
		n, err := decodeNeigh(m.Data)
		switch {
		case errors.Is(err, errNotOurs):
		case err != nil:
			d.unknown(err)
		case n.bridge == d.bridge:
			f(n.station)
		}
	}
	return true, nil
}

// readAll calls f for every row of a bridge's table.
func readAll(k kernel, bridge int, f func(accel.Station)) error {
	d, err := k.fdb(bridge)
	if err != nil {
		return err
	}
	for more := true; more && err == nil; {
		more, err = d.next(f)
	}
	return errors.Join(err, d.close())
}
