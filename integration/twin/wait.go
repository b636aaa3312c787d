package twin

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Some changes have effects that the kernel leaves to a worker of its own
// (net/core/link_watch.c, net/bridge/br_fdb.c: br_fdb_cleanup). When they come
// is not the twins' to compare, so they are waited for on both sides. Nobody
// tells of all of them; the waits are short and bounded.
const (
	waitTimeout = 20 * time.Second
	lookAgain   = 200 * time.Microsecond
)

// errOwn is a failure of the test's own, not a refusal of the kernel's.
var errOwn = errors.New("the test itself failed")

func waitUntil(what string, holds func() (bool, error)) error {
	for late := time.Now().Add(waitTimeout); ; time.Sleep(lookAgain) {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		if time.Now().After(late) {
			return fmt.Errorf("%w: waited %v in vain until %s", errOwn, waitTimeout, what)
		}
	}
}

// awaitUp waits until both ends of the port's wire have a carrier, if the port
// is up, and until the bridge took notice: then the port is not disabled any
// more. Nothing else than a port that just came up or joined can be waited for
// so, since a port may be disabled by hand.
func (s *Side) awaitUp(p port) error {
	return waitUntil(p.name+" works", func() (bool, error) {
		near, err := s.near.linkState(p.ifindex)
		if err != nil || !near.up {
			return err == nil, err
		}
		far, err := s.far.linkState(p.far)
		if err != nil || !near.carrier || !far.carrier {
			return false, err
		}
		if near.master == 0 || near.portState != disabled {
			return true, nil
		}
		br, err := s.near.linkState(bridgeIndex)
		return !br.up, err
	})
}

const disabled = 0 // BR_STATE_DISABLED

// awaitAged waits until no entry is left that ages: with an ageing_time of 0 all
// do at once.
func (s *Side) awaitAged() error {
	return waitUntil("every entry has aged", func() (bool, error) {
		rows, err := s.Entries()
		for _, e := range rows {
			if e.State&(unix.NUD_NOARP|unix.NUD_PERMANENT) == 0 && e.Flags&unix.NTF_EXT_LEARNED == 0 {
				return false, err
			}
		}
		return true, err
	})
}
