package accel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What clients may take of the daemon at a time, whose files and memory are there
// for the bridges first. Peers that may change things are counted apart from all
// others, so that these cannot shut them out.
const (
	mostTrusted = 256 // connections of peers that may change things
	mostOthers  = 64  // connections of all others
	// filesShare of the files that the daemon may open are for each of both at most.
	filesShare = 8
	// mostReading is how many answers of one kind are made at a time, and
	// mostStreams how many streams may be open to each of both.
	mostReading = 2
	mostStreams = 32
	// An answer longer than smallAnswer is held for a client that may be slow to
	// take it; mostLarge are, for each of both.
	smallAnswer = 64 << 10
	mostLarge   = 4
)

// turnstile is a listener that lets a bounded number of clients in at a time. One
// that may change things waits for its turn, as clients of the daemon's own user
// are soon done; any other is refused at once, so that nobody waits behind it.
type turnstile struct {
	net.Listener
	logger *slog.Logger
	trusts func(*unix.Ucred) bool
	// A value for each client that is in.
	trusted, others chan struct{}
	closed          chan struct{}
	close           func()
}

func newTurnstile(l net.Listener, logger *slog.Logger) *turnstile {
	trusted, others := turns(openFilesLimit())
	t := &turnstile{
		Listener: l, logger: logger, trusts: isTrusted,
		trusted: make(chan struct{}, trusted), others: make(chan struct{}, others), closed: make(chan struct{}),
	}
	t.close = sync.OnceFunc(func() { close(t.closed) })
	return t
}

// turns is how many clients of either kind are let in where so many files may be
// open.
func turns(files uint64) (trusted, others int) {
	share := max(1, files/filesShare)
	return int(min(mostTrusted, share)), int(min(mostOthers, share))
}

// openFilesLimit is the limit of now, which the Go runtime raised at the start as
// far as it goes.
func openFilesLimit() uint64 {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fewFiles
	}
	return files.Cur
}

// Accept returns the next client that is let in.
func (t *turnstile) Accept() (net.Conn, error) {
	for {
		conn, err := t.Listener.Accept()
		if err != nil {
			return nil, err
		}
		v := &visitor{Conn: conn, peer: peerAt(conn)}
		if t.trusts(v.peer) {
			select {
			case t.trusted <- struct{}{}:
			case <-t.closed:
				conn.Close()
				return nil, net.ErrClosed
			}
			v.leave = sync.OnceFunc(func() { <-t.trusted })
			return v, nil
		}
		select {
		case t.others <- struct{}{}:
			v.leave = sync.OnceFunc(func() { <-t.others })
			return v, nil
		default:
			t.turnAway(conn)
		}
	}
}

// Close ends an Accept that waits, too.
func (t *turnstile) Close() error {
	t.close()
	return t.Listener.Close()
}

// turnAway refuses a client without hearing it. What is written fits into the
// socket's buffer, so that it does not wait.
func (t *turnstile) turnAway(conn net.Conn) {
	body, err := json.Marshal(ErrorV1{errCrowded.Text})
	if err == nil {
		_, err = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
			errCrowded.Status, http.StatusText(errCrowded.Status), len(body), body)
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		t.logger.Debug("a client that was turned away did not take its answer", "error", err)
	}
}

var errCrowded = &StatusError{http.StatusServiceUnavailable, "too many clients ask at the same time: ask again in a moment"}

// visitor is a connection that gives its turn back when it is closed.
type visitor struct {
	net.Conn
	peer  *unix.Ucred // nil where the kernel does not say
	leave func()
}

// Close closes the connection.
func (v *visitor) Close() error {
	defer v.leave()
	return v.Conn.Close()
}

// isTrusted says whether the peer may change things.
func isTrusted(peer *unix.Ucred) bool { return mayChange(peer, os.Geteuid()) == nil }

func peerAt(conn net.Conn) *unix.Ucred {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	peer, err := peerOf(unixConn)
	if err != nil {
		return nil
	}
	return peer
}

// places are few, and counted apart for peers that may change things and others.
type places struct{ trusted, others chan struct{} }

func newPlaces(most int) places {
	return places{make(chan struct{}, most), make(chan struct{}, most)}
}

func (p places) of(ctx context.Context) chan struct{} {
	if isTrusted(peerIn(ctx)) {
		return p.trusted
	}
	return p.others
}

// try takes a place if there is one.
func (p places) try(ctx context.Context) (leave func(), err error) {
	own := p.of(ctx)
	select {
	case own <- struct{}{}:
		return func() { <-own }, nil
	default:
		return nil, errCrowded
	}
}

// take waits for a place, which those who have one leave soon.
func (p places) take(ctx context.Context) (leave func(), err error) {
	own := p.of(ctx)
	late := time.NewTimer(turnTimeout)
	defer late.Stop()
	select {
	case own <- struct{}{}:
		return func() { <-own }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-late.C:
		return nil, errCrowded
	}
}

// turnTimeout is how long a question waits for those before it.
const turnTimeout = 10 * time.Second
