package fdbsync

import (
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A process that was stopped between a question and its answer gave the question up, and
// the answer comes to the next one.
func TestALateAnswerIsNotTakenForAnother(t *testing.T) {
	r, err := dialRoute(func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { r.close() }()
	request, err := encodeLinkRequest(1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, exists, err := r.link(1)
	if err != nil || !exists || l.ifindex != 1 {
		t.Errorf("asked for the loopback device the kernel says %+v: %v", l, err)
	}
}
