package accel

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var stranger = &unix.Ucred{Uid: 1000}

// as is a request of the peer; nil is one of whom the kernel does not say who it is.
func as(peer *unix.Ucred, method, path string) *http.Request {
	return httptest.NewRequest(method, path, strings.NewReader("{}")).WithContext(context.WithValue(context.Background(), peerKey{}, peer))
}

// TestEveryEndpointIsGuarded walks through all that the daemon answers, so that a new
// one is not forgotten, and one of a plugin that did not say that it changes something.
func TestEveryEndpointIsGuarded(t *testing.T) {
	f := sample()
	f.calls = new([]string)
	f.routes = []Route{
		{Pattern: "GET /v1/groups", Answer: func(*http.Request) (any, error) { return "", nil }},
		{Pattern: "GET /v1/events", Stream: func(*http.Request, func(any) error) error { return nil }},
		{Pattern: "POST /v1/swap", Changes: true, Answer: func(*http.Request) (any, error) { t.Error("swapped"); return "", nil }},
		{Pattern: "POST /v1/upgrades", Changes: true, Stream: func(*http.Request, func(any) error) error { t.Error("upgraded"); return nil }},
		{Pattern: "POST /v1/forgotten", Answer: func(*http.Request) (any, error) { t.Error("forgotten"); return "", nil }},
		{Pattern: "DELETE /v1/forgotten", Stream: func(*http.Request, func(any) error) error { t.Error("forgotten"); return nil }},
		{Pattern: "/v1/any-method", Answer: func(*http.Request) (any, error) { t.Error("any"); return "", nil }},
	}
	a := newAPI(StatusV1{}, view{bridges: f, routers: []Router{f}}, newLifecycle(nil, nil).tracers, newLifecycle(nil, nil).meters, func() { t.Error("detached") }, slog.New(slog.DiscardHandler))
	a.setReady()
	endpoints := a.endpoints()
	if len(endpoints) < 8+len(f.routes) {
		t.Errorf("only %d endpoints", len(endpoints))
	}
	handler := a.routes()
	for _, e := range endpoints {
		method, path, found := strings.Cut(e.pattern, " ")
		if !found {
			method, path = "PUT", e.pattern
		}
		for _, peer := range []*unix.Ucred{stranger, nil} {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, as(peer, method, path))
			if isRefused := w.Code == http.StatusForbidden; isRefused == (method == "GET") {
				t.Errorf("%s: %v gets %d %s", e.pattern, peer, w.Code, w.Body)
			}
		}
	}
	if strings.Contains(strings.Join(*f.calls, " "), "switch") {
		t.Error("something was changed:", *f.calls)
	}
}

func TestTurns(t *testing.T) {
	for files, want := range map[uint64][2]int{
		0: {1, 1}, 64: {8, 8}, 256: {32, 32}, 1024: {128, 64}, 1 << 20: {256, 64}, unix.RLIM_INFINITY: {256, 64},
	} {
		if trusted, others := turns(files); trusted != want[0] || others != want[1] {
			t.Errorf("of %d files: %d and %d", files, trusted, others)
		}
	}
}

// turnstileOf listens with so many turns for each kind of peer.
func turnstileOf(t *testing.T, turns int, trusts bool) (*turnstile, string) {
	t.Helper()
	socket := socketPath(t)
	if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := newTurnstile(listener, slog.New(slog.DiscardHandler))
	s.trusts = func(*unix.Ucred) bool { return trusts }
	s.trusted, s.others = make(chan struct{}, turns), make(chan struct{}, turns)
	t.Cleanup(func() { s.Close() })
	return s, socket
}

func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second)) // far longer than any answer takes
	return conn
}

// soon receives what is on its way.
func soon[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-patience(t).Done():
		t.Fatal("it does not come")
		panic("not reached")
	}
}

// TestStrangersAreTurnedAway when all places for them are taken, and with a sentence.
func TestStrangersAreTurnedAway(t *testing.T) {
	s, socket := turnstileOf(t, 2, false)
	accepted := make(chan net.Conn)
	go func() {
		for {
			conn, err := s.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	dial(t, socket)
	first := soon(t, accepted)
	dial(t, socket)
	soon(t, accepted)
	third := dial(t, socket)
	answer, err := io.ReadAll(third)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.HasSuffix(string(answer), `{"error":"too many clients ask at the same time: ask again in a moment"}`) {
		t.Errorf("got %s, %v", answer, err)
	}
	if err := errors.Join(first.Close(), first.Close()); err == nil {
		t.Error("closed twice without an error")
	}
	dial(t, socket)
	soon(t, accepted)
	s.Close()
	if conn := soon(t, accepted); conn != nil {
		t.Error("it accepts after its end")
	}
}

// TestTheTrustedWaitForTheirTurn and are not refused; the end does not wait for them.
func TestTheTrustedWaitForTheirTurn(t *testing.T) {
	s, socket := turnstileOf(t, 1, true)
	asked := make(chan struct{}, 3)
	s.trusts = func(*unix.Ucred) bool { asked <- struct{}{}; return true }
	dial(t, socket)
	first, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	dial(t, socket)
	type result struct {
		conn net.Conn
		err  error
	}
	next := make(chan result)
	accept := func() {
		conn, err := s.Accept()
		next <- result{conn, err}
	}
	go accept()
	select {
	case r := <-next:
		t.Fatalf("there was a second place: %v", r.err)
	case <-time.After(20 * time.Millisecond):
	}
	first.Close()
	if r := soon(t, next); r.err != nil || r.conn == nil {
		t.Errorf("got %+v", r)
	}
	dial(t, socket)
	go accept()
	for range 3 {
		soon(t, asked) // the last one waits now
	}
	s.Close()
	if r := soon(t, next); !errors.Is(r.err, net.ErrClosed) {
		t.Errorf("got %+v", r)
	}
}

// TestFewAnswersAreMadeAtATime however many ask.
func TestFewAnswersAreMadeAtATime(t *testing.T) {
	a := newAPI(StatusV1{}, view{}, newLifecycle(nil, nil).tracers, newLifecycle(nil, nil).meters, nil, slog.New(slog.DiscardHandler))
	var now, most atomic.Int32
	entered, open := make(chan struct{}, 40), make(chan struct{})
	handler := a.reading(func(*http.Request) (any, error) {
		most.Store(max(most.Load(), now.Add(1)))
		entered <- struct{}{}
		<-open
		now.Add(-1)
		return "x", nil
	})
	var all sync.WaitGroup
	answered := new(atomic.Int32)
	for range 40 {
		all.Go(func() {
			w := httptest.NewRecorder()
			handler(w, as(&unix.Ucred{Uid: 0}, "GET", "/"))
			if w.Code == http.StatusOK {
				answered.Add(1)
			}
		})
	}
	for range mostReading {
		<-entered
	}
	// One of whom nobody knows what he may do does not wait behind them.
	gone, cancel := context.WithCancel(context.Background())
	all.Go(func() { handler(httptest.NewRecorder(), as(stranger, "GET", "/")) })
	<-entered
	cancel()
	w := httptest.NewRecorder()
	handler(w, as(&unix.Ucred{Uid: 0}, "GET", "/").WithContext(context.WithValue(gone, peerKey{}, &unix.Ucred{Uid: 0})))
	if w.Code == http.StatusOK {
		t.Error("who went away was answered")
	}
	close(open)
	all.Wait()
	if answered.Load() != 40 || most.Load() > mostReading+1 {
		t.Errorf("%d were answered, %d at a time", answered.Load(), most.Load())
	}
}

// slowly is a client that takes what it is sent only when it is told to.
type slowly struct {
	*httptest.ResponseRecorder
	begun chan struct{}
	take  chan struct{}
}

func (s slowly) Write(p []byte) (int, error) {
	s.begun <- struct{}{}
	<-s.take
	return len(p), nil
}

// TestFewLargeAnswersAreHeld for clients that do not take them; small ones go on.
func TestFewLargeAnswersAreHeld(t *testing.T) {
	a := newAPI(StatusV1{}, view{}, newLifecycle(nil, nil).tracers, newLifecycle(nil, nil).meters, nil, slog.New(slog.DiscardHandler))
	var made atomic.Int32
	large := a.reading(func(*http.Request) (any, error) {
		made.Add(1)
		return strings.Repeat("x", smallAnswer+1), nil
	})
	small := a.reading(func(*http.Request) (any, error) { return "x", nil })
	begun, take := make(chan struct{}, 100), make(chan struct{})
	var all sync.WaitGroup
	for range 4 * mostLarge {
		all.Go(func() { large(slowly{httptest.NewRecorder(), begun, take}, as(stranger, "GET", "/")) })
	}
	for range mostLarge {
		<-begun
	}
	for _, peer := range []*unix.Ucred{stranger, {Uid: 0}} {
		w := httptest.NewRecorder()
		small(w, as(peer, "GET", "/"))
		if w.Code != http.StatusOK {
			t.Errorf("got %d", w.Code)
		}
	}
	w := httptest.NewRecorder()
	large(w, as(&unix.Ucred{Uid: 0}, "GET", "/"))
	if w.Code != http.StatusOK {
		t.Errorf("strangers keep root from its answer: %d", w.Code)
	}
	if n := made.Load(); n > mostLarge+mostReading+1 {
		t.Errorf("%d large answers are in memory", n)
	}
	select {
	case <-begun:
		t.Error("more large answers are held than there may be")
	default:
	}
	close(take)
	all.Wait()
}

// TestStreamsAreBounded for each kind of peer.
func TestStreamsAreBounded(t *testing.T) {
	begun := make(chan struct{}, 100)
	_, d, client := routed(t, Route{Pattern: "GET /v1/stream", Stream: func(r *http.Request, send func(any) error) error {
		err := send("begun")
		begun <- struct{}{}
		<-r.Context().Done()
		return err
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range mostStreams {
		all.Go(func() { client.Stream(ctx, "/v1/stream", func(json.RawMessage) error { return nil }) })
		<-begun
	}
	if err := client.Stream(patience(t), "/v1/stream", nil); err == nil || err.Error() != errCrowded.Text {
		t.Errorf("one more: %v", err)
	}
	if leave, err := d.api.streams.try(as(stranger, "GET", "/").Context()); err != nil {
		t.Errorf("strangers have no place because of root: %v", err)
	} else {
		leave()
	}
	if _, err := client.Status(t.Context(), ""); err != nil {
		t.Error("streams keep others from their answers:", err)
	}
	cancel()
	all.Wait()
	err := error(errCrowded)
	for enough := patience(t); err.Error() == errCrowded.Text; { // until the server sees that they went
		err = client.Stream(enough, "/v1/stream", func(json.RawMessage) error { return io.EOF })
	}
	if err != io.EOF {
		t.Errorf("after they went: %v", err)
	}
}
