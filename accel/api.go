package accel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"
)

// How long a client may take. One that hangs holds a connection this long, and
// nothing else.
const (
	readTimeout = 5 * time.Second
	// writeTimeout begins with the answer: a handler takes as long as it takes.
	writeTimeout = 10 * time.Second
	idleTimeout  = 30 * time.Second
	// switchTimeout bounds a change that a component makes.
	switchTimeout = 10 * time.Second
	// farewellTimeout is how long the last answers may take at the end.
	farewellTimeout = time.Second
	// maxBody has room for the names of some thousand groups. What is longer is
	// refused, and read up to maxDiscard, so that the client reads the refusal.
	maxBody    = 64 << 10
	maxDiscard = 1 << 20
	// maxHeader has room for a jumbo frame in hexadecimal (explain).
	maxHeader = 24 << 10
)

// api serves the control socket.
type api struct {
	logger  *slog.Logger
	status  StatusV1 // what holds before the components can be asked
	view    view
	server  *http.Server
	serving sync.WaitGroup
	// streams and large are what may be open, and held for slow readers, at a time.
	streams, large places

	// users are the handlers that use the components, which they may while
	// ready is true.
	mu    sync.Mutex
	ready bool
	users sync.WaitGroup
	// stopping ends when the components are about to stop. Handlers that may
	// take long end with it.
	stopping context.Context
	stop     context.CancelFunc

	// detach asks the daemon to end; ended is closed when everything is
	// removed, with the outcome in endErr.
	detach func()
	ended  chan struct{}
	endErr error
}

// newAPI makes the server, whose requests are traced with tracers and, those that
// are, measured with meters. detach is called for a peer that may.
func newAPI(status StatusV1, v view, tracers trace.TracerProvider, meters metric.MeterProvider, detach func(), logger *slog.Logger) *api {
	a := &api{
		logger: logger, status: status, view: v, detach: detach, ended: make(chan struct{}),
		streams: newPlaces(mostStreams), large: newPlaces(mostLarge),
	}
	a.stopping, a.stop = context.WithCancel(context.Background())
	a.server = &http.Server{
		Handler:           a.withBody(traced(a.routes(), tracers, meters)),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ConnContext:       withPeer,
	}
	return a
}

// endpoint is one request of the control API.
type endpoint struct {
	pattern string
	// changes: only root and the daemon's own user may ask.
	changes bool
	serve   http.HandlerFunc
}

// endpoints are all that the daemon answers, those of its components among them.
func (a *api) endpoints() []endpoint {
	all := []endpoint{
		{"GET /v1/status", false, a.reading(a.getStatus)},
		{"GET /v1/ports", false, a.reading(answer(a, view.ports))},
		{"GET /v1/fdb", false, a.reading(answer(a, view.fdb))},
		{"GET /v1/reasons", false, a.reading(answer(a, view.reasons))},
		{"GET /v1/snapshot", false, a.reading(a.getSnapshot)},
		{"GET /v1/explain", false, a.reading(a.getExplain)},
		{"POST /v1/on", true, a.postSwitch(true)},
		{"POST /v1/off", true, a.postSwitch(false)},
		{"POST /v1/detach", true, a.postDetach},
	}
	for _, router := range a.view.routers {
		for _, route := range router.Routes() {
			all = append(all, endpoint{route.Pattern, route.Changes, a.handler(route)})
		}
	}
	return all
}

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	for _, e := range a.endpoints() {
		mux.HandleFunc(e.pattern, a.guarded(e))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, notFoundf("the daemon does not know %s %s", r.Method, r.URL.Path))
	})
	return mux
}

// guarded lets through who may ask. What is not GET changes something, even where
// that was forgotten to say.
func (a *api) guarded(e endpoint) http.HandlerFunc {
	if e.changes || !strings.HasPrefix(e.pattern, "GET ") {
		return a.changing(e.serve)
	}
	return e.serve
}

// traced gives handlers the trace context of the client, with a span of the
// request in it. Who only looks is not traced without asking for it: status is
// asked for every second. Who may not change anything is not traced at all: they
// could write into any trace, and push out of its queue what is to be sent.
func traced(next http.Handler, tracers trace.TracerProvider, meters metric.MeterProvider) http.Handler {
	return otelhttp.NewHandler(next, "shunt",
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithTracerProvider(tracers),
		otelhttp.WithMeterProvider(meters),
		otelhttp.WithFilter(func(r *http.Request) bool {
			return isTrusted(peerIn(r.Context())) && (r.Method != http.MethodGet || r.Header.Get("Traceparent") != "")
		}))
}

// withBody reads the whole body, which must come soon, before anyone answers. A
// client whose body nobody reads may find the connection closed in the place of a
// refusal, and the server does not see before the body's end that a client went.
func (a *api) withBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
		if len(body) > maxBody {
			io.CopyN(io.Discard, r.Body, maxDiscard)
			err = errors.Join(err, fmt.Errorf("it is longer than %d bytes", maxBody))
		}
		if err != nil {
			a.refuse(w, Statusf(http.StatusBadRequest, "the body cannot be read: %v", err))
			return
		}
		r = r.WithContext(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// serve answers on the listener until finish.
func (a *api) serve(listener net.Listener) {
	a.serving.Go(func() {
		// It ends when the listener is closed, which remove and finish do.
		if err := a.server.Serve(newTurnstile(listener, a.logger)); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			a.logger.Error("the control socket failed", "error", err)
		}
	})
}

// setReady lets handlers use the components.
func (a *api) setReady() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = true
}

// quiesce keeps handlers from the components, asks those that use them to end,
// and waits until none does.
func (a *api) quiesce() {
	a.mu.Lock()
	a.ready = false
	a.mu.Unlock()
	a.stop()
	a.users.Wait()
}

// enter makes a handler one of the users, until it leaves.
func (a *api) enter() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ready {
		return errNotReady
	}
	a.users.Add(1)
	return nil
}

func (a *api) leave() { a.users.Done() }

// finish tells those who asked for detach how it went, gives the last answers a
// moment, and ends every connection.
func (a *api) finish(err error) {
	a.endErr = err
	close(a.ended)
	ctx, cancel := context.WithTimeout(context.Background(), farewellTimeout)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		a.server.Close()
	}
	a.serving.Wait()
}

func notFoundf(format string, args ...any) error {
	return Statusf(http.StatusNotFound, format, args...)
}

var errNotReady = &StatusError{http.StatusServiceUnavailable, "the daemon is starting or stopping: ask again in a moment"}

// using runs f, which is quick, while the components are known to work.
func using[T any](a *api, f func() (T, error)) (result T, err error) {
	if err := a.enter(); err != nil {
		return result, err
	}
	defer a.leave()
	return f()
}

// reading makes the handler of an answer that changes nothing. Few are made at a
// time, or a crowd of clients would take the memory, and the components' locks from
// those that forward. A client that does not read holds neither.
func (a *api) reading(read func(*http.Request) (any, error)) http.HandlerFunc {
	few := newPlaces(mostReading)
	return func(w http.ResponseWriter, r *http.Request) {
		text, leave, err := a.made(r, few, read)
		if err != nil {
			a.refuse(w, err)
			return
		}
		defer leave()
		a.send(w, http.StatusOK, text)
	}
}

// made makes an answer, and takes a place for it where it is large, which the caller
// must leave.
func (a *api) made(r *http.Request, few places, read func(*http.Request) (any, error)) (text []byte, leave func(), err error) {
	done, err := few.take(r.Context())
	if err != nil {
		return nil, nil, err
	}
	defer done()
	result, err := read(r)
	if err != nil {
		return nil, nil, err
	}
	if text, err = encode(result); err != nil {
		return nil, nil, err
	}
	if len(text) <= smallAnswer {
		return text, func() {}, nil
	}
	leave, err = a.large.take(r.Context())
	return text, leave, err
}

// answer reads one thing for ?bridge=.
func answer[T any](a *api, read func(view, string) (T, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		return using(a, func() (T, error) { return read(a.view, r.URL.Query().Get("bridge")) })
	}
}

func (a *api) getStatus(r *http.Request) (any, error) {
	name := r.URL.Query().Get("bridge")
	status := a.status
	bridges, err := using(a, func() ([]BridgeV1, error) { return a.view.status(name) })
	if errors.Is(err, errNotReady) {
		return status, nil
	}
	status.Ready, status.Bridges = true, bridges
	return status, err
}

// getSnapshot answers like status, ports and reasons at once.
func (a *api) getSnapshot(r *http.Request) (any, error) {
	snapshot, err := using(a, func() (SnapshotV1, error) { return a.view.snapshot(r.URL.Query().Get("bridge")) })
	bridges := snapshot.Status.Bridges
	snapshot.Status = a.status
	snapshot.Status.Ready, snapshot.Status.Bridges = true, bridges
	return snapshot, err
}

func (a *api) getExplain(r *http.Request) (any, error) {
	return using(a, func() (ExplainV1, error) { return a.view.explain(r.URL.Query()) })
}

// postSwitch makes the handler of on and off.
func (a *api) postSwitch(on bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, err := switchTarget(r)
		if err != nil {
			a.refuse(w, err)
			return
		}
		// A client that goes away does not leave the change half done.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), switchTimeout)
		defer cancel()
		bridges, err := using(a, func() ([]BridgeV1, error) { return a.switchBridges(ctx, name, on) })
		a.reply(w, bridges, err)
	}
}

// switchTarget reads the body strictly: a mistyped key must not switch every
// bridge.
func switchTarget(r *http.Request) (string, error) {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	var body SwitchV1
	if err := decoder.Decode(&body); err != nil {
		return "", Statusf(http.StatusBadRequest, "the body must be {\"bridge\": \"NAME\"}: %v", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return "", Statusf(http.StatusBadRequest, "the body must be one object {\"bridge\": \"NAME\"}, and no more")
	}
	return body.Bridge, nil
}

// switchBridges switches the bridge of that name, or all, and says how they
// are now.
func (a *api) switchBridges(ctx context.Context, name string, on bool) ([]BridgeV1, error) {
	states, err := a.view.states(name)
	if err != nil {
		return nil, err
	}
	for _, b := range states {
		if err := a.view.bridges.Switch(ctx, b.Name, on); err != nil {
			return nil, fmt.Errorf("switch bridge %s: %w", b.Name, err)
		}
	}
	return a.view.status(name)
}

// postDetach ends the daemon, and answers when everything is removed.
func (a *api) postDetach(w http.ResponseWriter, r *http.Request) {
	names, kept := a.bridgeNames(), a.kept()
	a.detach()
	// Removing takes as long as it takes; the client may go, it is done anyway.
	<-a.ended
	a.reply(w, DetachV1{Daemon: true, Bridges: names, Removed: []string{}, Kept: kept}, a.endErr)
}

// bridgeNames are the bridges that the daemon works on, which only its
// components know if it takes all; or those that it was told to.
func (a *api) bridgeNames() []string {
	names := []string{}
	bridges, err := using(a, func() ([]BridgeState, error) { return a.view.states("") })
	if err != nil {
		for _, b := range a.status.Bridges {
			names = append(names, b.Name)
		}
		return names
	}
	for _, b := range bridges {
		names = append(names, b.Name)
	}
	return names
}

// kept is what stays when the daemon ends, which only working components know.
func (a *api) kept() []string {
	kept, err := using(a, func() ([]string, error) { return a.view.kept(), nil })
	if err != nil {
		return []string{}
	}
	return kept
}

// reply writes a result, or the error in its place.
func (a *api) reply(w http.ResponseWriter, result any, err error) {
	if err != nil {
		a.refuse(w, err)
		return
	}
	a.write(w, http.StatusOK, result)
}

func (a *api) refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var known *StatusError
	if errors.As(err, &known) {
		status = known.Status
	}
	a.write(w, status, ErrorV1{err.Error()})
}

func (a *api) write(w http.ResponseWriter, status int, body any) {
	text, err := encode(body)
	if err != nil {
		a.refuse(w, err)
		return
	}
	a.send(w, status, text)
}

// encode writes a body as a line of JSON.
func encode(body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("the answer cannot be written: %w", err)
	}
	return append(text, '\n'), nil
}

func (a *api) send(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(status)
	_, writeErr := w.Write(text)
	if err := errors.Join(err, writeErr); err != nil {
		a.logger.Debug("a client did not take its answer", "error", err)
	}
}

type peerKey struct{}

// withPeer remembers who is at the other end of a connection.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	v, ok := conn.(*visitor)
	if !ok || v.peer == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, v.peer)
}

// peerIn is who asks; nil where the kernel does not say.
func peerIn(ctx context.Context) *unix.Ucred {
	peer, _ := ctx.Value(peerKey{}).(*unix.Ucred)
	return peer
}

// changing lets only root and the daemon's own user through. Reading is guarded
// by the mode of the socket.
func (a *api) changing(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := mayChange(peerIn(r.Context()), os.Geteuid()); err != nil {
			a.refuse(w, err)
			return
		}
		next(w, r)
	}
}

func mayChange(peer *unix.Ucred, self int) error {
	if peer == nil {
		return Statusf(http.StatusForbidden, "the kernel does not say who asks, so nothing is changed")
	}
	if peer.Uid != 0 && int(peer.Uid) != self {
		return Statusf(http.StatusForbidden, "user %d may look but not change anything: use sudo", peer.Uid)
	}
	return nil
}
