package accel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"
)

// routed is a daemon with the routes, ready.
func routed(t *testing.T, routes ...Route) (*fake, *runningDaemon, *Client) {
	t.Helper()
	f := sample()
	f.routes = routes
	d := startDaemon(t, socketPath(t), f)
	return f, d, d.ready(t)
}

func TestRoutesAnswerOnlyWhenReady(t *testing.T) {
	f := sample()
	f.startGate = make(chan struct{})
	f.routes = []Route{
		{Pattern: "GET /v1/answer", Answer: func(*http.Request) (any, error) { return "yes", nil }},
		{Pattern: "GET /v1/stream", Stream: func(_ *http.Request, send func(any) error) error { return send("yes") }},
	}
	d := startDaemon(t, socketPath(t), f)
	client := NewClient(d.config.Socket)
	var got string
	if err := client.Do(t.Context(), "GET", "/v1/answer", nil, &got); err == nil || err.Error() != errNotReady.Text {
		t.Errorf("got %q, %v", got, err)
	}
	if err := client.Stream(t.Context(), "/v1/stream", nil); err == nil || err.Error() != errNotReady.Text {
		t.Errorf("got %v", err)
	}
	close(f.startGate)
	d.ready(t)
	if err := client.Do(t.Context(), "GET", "/v1/answer", nil, &got); err != nil || got != "yes" {
		t.Errorf("got %q, %v", got, err)
	}
	if lines, err := collect(t, client, "/v1/stream"); err != nil || lines != `"yes"` {
		t.Errorf("got %s, %v", lines, err)
	}
}

// collect reads a stream to its end.
func collect(t *testing.T, client *Client, path string) (string, error) {
	t.Helper()
	var lines []string
	err := client.Stream(t.Context(), path, func(line json.RawMessage) error {
		lines = append(lines, string(line))
		return nil
	})
	return strings.Join(lines, "|"), err
}

func TestRoutesThatChangeAreForRoot(t *testing.T) {
	a := newAPI(StatusV1{}, view{}, newLifecycle(nil, nil).tracers, newLifecycle(nil, nil).meters, nil, slog.New(slog.DiscardHandler))
	a.setReady()
	answer := func(*http.Request) (any, error) { return "yes", nil }
	for _, c := range []struct {
		changes bool
		peer    *unix.Ucred
		status  int
	}{
		{false, &unix.Ucred{Uid: 1000}, 200},
		{false, nil, 200},
		{true, &unix.Ucred{Uid: 1000}, 403},
		{true, nil, 403},
		{true, &unix.Ucred{Uid: 0}, 200},
		{true, &unix.Ucred{Uid: uint32(os.Geteuid())}, 200},
	} {
		w := httptest.NewRecorder()
		ctx := context.WithValue(t.Context(), peerKey{}, c.peer)
		route := Route{Pattern: "GET /", Changes: c.changes, Answer: answer}
		a.guarded(endpoint{route.Pattern, route.Changes, a.handler(route)})(w, httptest.NewRequestWithContext(ctx, "POST", "/", nil))
		if w.Code != c.status {
			t.Errorf("%+v: got %d %s", c, w.Code, w.Body)
		}
	}
}

func TestRoutesTellTheirErrors(t *testing.T) {
	fail := func(err error) (Route, Route) {
		return Route{Answer: func(*http.Request) (any, error) { return nil, err }},
			Route{Stream: func(*http.Request, func(any) error) error { return err }}
	}
	for _, c := range []struct {
		err    error
		status int
	}{
		{Statusf(409, "a swap of %s is running", "up"), 409},
		{fmt.Errorf("swap: %w", Statusf(404, "no group")), 404},
		{errors.New("a bug"), 500},
		{context.Canceled, 500},
	} {
		answer, stream := fail(c.err)
		answer.Pattern, stream.Pattern = "GET /v1/answer", "GET /v1/stream"
		_, _, client := routed(t, answer, stream)
		for _, path := range []string{"/v1/answer", "/v1/stream"} {
			response, err := client.http.Get("http://shunt" + path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(response.Body)
			response.Body.Close()
			if want := fmt.Sprintf(`{"error":%q}`+"\n", c.err); err != nil || response.StatusCode != c.status || string(text) != want {
				t.Errorf("%s: got %s %s, want %d %s", path, response.Status, text, c.status, want)
			}
			if err := client.Do(t.Context(), "GET", path, nil, nil); err == nil || err.Error() != c.err.Error() {
				t.Errorf("%s: got %v", path, err)
			}
		}
	}
}

func TestRoutesGetTheirBody(t *testing.T) {
	_, _, client := routed(t, Route{Pattern: "POST /v1/echo", Changes: true, Answer: func(r *http.Request) (any, error) {
		text, err := io.ReadAll(r.Body)
		return json.RawMessage(text), err
	}})
	body, got := []string{strings.Repeat("x", maxBody-10), "y"}, []string{}
	if err := client.Do(t.Context(), "POST", "/v1/echo", body, &got); err != nil || !reflect.DeepEqual(got, body) {
		t.Errorf("got %d strings, %v", len(got), err)
	}
	if err := client.Do(t.Context(), "POST", "/v1/echo", nil, nil); err == nil || !strings.HasPrefix(err.Error(), "the answer cannot be written: ") {
		t.Errorf("got %v", err)
	}
	want := "the body cannot be read: it is longer than 65536 bytes"
	if err := client.Do(t.Context(), "POST", "/v1/echo", strings.Repeat("x", maxBody), nil); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// TestRefusalReachesWhoStillSends more than the socket's buffers hold.
func TestRefusalReachesWhoStillSends(t *testing.T) {
	_, d, _ := routed(t)
	conn, err := net.Dial("unix", d.config.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const long = maxDiscard
	_, err = fmt.Fprintf(conn, "POST /v1/off HTTP/1.1\r\nHost: shunt\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", long, strings.Repeat("x", long))
	answer, readErr := io.ReadAll(conn)
	if err := errors.Join(err, readErr); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("got %.80s, %v", answer, err)
	}
}

// TestLongAnswersEndBeforeTheComponents holds both kinds of route while the daemon
// ends.
func TestLongAnswersEndBeforeTheComponents(t *testing.T) {
	entered := make(chan struct{}, 2)
	f := sample()
	f.stopped = make(chan struct{})
	stopped := f.stopped
	wait := func(r *http.Request) error {
		entered <- struct{}{}
		<-r.Context().Done()
		select {
		case <-stopped:
			t.Error("the components stopped under a handler")
		case <-time.After(20 * time.Millisecond):
		}
		return r.Context().Err()
	}
	f.routes = []Route{
		{Pattern: "POST /v1/answer", Answer: func(r *http.Request) (any, error) { return nil, wait(r) }},
		{Pattern: "GET /v1/stream", Stream: func(r *http.Request, send func(any) error) error {
			return errors.Join(send("begun"), wait(r))
		}},
	}
	d := startDaemon(t, socketPath(t), f)
	client := d.ready(t)
	ended := make(chan error, 2)
	go func() { ended <- client.Do(t.Context(), "POST", "/v1/answer", nil, nil) }()
	go func() {
		lines, err := collect(t, client, "/v1/stream")
		if lines != `"begun"` {
			t.Errorf("got %s", lines)
		}
		ended <- err
	}()
	<-entered
	<-entered
	if _, err := client.Status(t.Context(), ""); err != nil {
		t.Error("a long answer keeps others from theirs:", err)
	}
	d.end()
	for range 2 {
		if err := <-ended; err == nil || err.Error() != errNotReady.Text {
			t.Errorf("got %v", err)
		}
	}
	if err := d.wait(t); err != nil {
		t.Error(err)
	}
}

func TestAnswersOfHandlersThatFinishAtTheEnd(t *testing.T) {
	entered := make(chan struct{})
	_, d, client := routed(t, Route{Pattern: "GET /v1/answer", Answer: func(r *http.Request) (any, error) {
		close(entered)
		<-r.Context().Done()
		return "rolled back", nil
	}})
	var got string
	ended := make(chan error, 1)
	go func() { ended <- client.Do(t.Context(), "GET", "/v1/answer", nil, &got) }()
	<-entered
	d.end()
	if err := errors.Join(<-ended, d.wait(t)); err != nil || got != "rolled back" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestHandlersEndWithTheirClient(t *testing.T) {
	entered, left := make(chan struct{}), make(chan error)
	leave := func(r *http.Request) error {
		entered <- struct{}{}
		<-r.Context().Done()
		left <- r.Context().Err()
		return r.Context().Err()
	}
	_, _, client := routed(t,
		Route{Pattern: "POST /v1/answer", Changes: true, Answer: func(r *http.Request) (any, error) { return nil, leave(r) }},
		Route{Pattern: "GET /v1/stream", Stream: func(r *http.Request, send func(any) error) error {
			return errors.Join(send(1), leave(r))
		}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- client.Do(ctx, "POST", "/v1/answer", "a body that nobody reads", nil) }()
	<-entered
	cancel()
	<-left
	if err := <-ended; err == nil || err.Error() != "interrupted" {
		t.Errorf("got %v", err)
	}
	enough := errors.New("enough")
	go func() {
		ended <- client.Stream(t.Context(), "/v1/stream", func(json.RawMessage) error { <-entered; return enough })
	}()
	<-left
	if err := <-ended; err != enough {
		t.Errorf("got %v", err)
	}
}

func TestStreams(t *testing.T) {
	for name, c := range map[string]struct {
		stream func(*http.Request, func(any) error) error
		lines  string
		err    string
	}{
		"empty": {func(*http.Request, func(any) error) error { return nil }, "", ""},
		"lines": {func(_ *http.Request, send func(any) error) error { return errors.Join(send("a\n"), send(2)) }, `"a\n"|2`, ""},
		"failing": {func(_ *http.Request, send func(any) error) error {
			return errors.Join(send(1), errors.New("x"), errors.New("y"))
		}, "1", "x y"},
		"broken":  {func(_ *http.Request, send func(any) error) error { return send(func() {}) }, "", "json: unsupported type: func()"},
		"refused": {func(*http.Request, func(any) error) error { return Statusf(404, "no such group") }, "", "no such group"},
	} {
		_, _, client := routed(t, Route{Pattern: "GET /v1/stream", Stream: c.stream})
		lines, err := collect(t, client, "/v1/stream")
		if lines != c.lines || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: got %s, %v", name, lines, err)
		}
	}
}

// TestStreamLinesComeAtOnce sends a line when the one before was read.
func TestStreamLinesComeAtOnce(t *testing.T) {
	read := make(chan struct{})
	_, _, client := routed(t, Route{Pattern: "GET /v1/stream", Stream: func(r *http.Request, send func(any) error) error {
		for i := range 3 {
			if err := send(i); err != nil {
				return err
			}
			select {
			case <-read:
			case <-r.Context().Done():
				return r.Context().Err()
			}
		}
		return nil
	}})
	if err := client.Stream(patience(t), "/v1/stream", func(json.RawMessage) error { read <- struct{}{}; return nil }); err != nil {
		t.Error(err)
	}
}

func TestAStreamMayBeTheAnswerToABody(t *testing.T) {
	_, _, client := routed(t, Route{Pattern: "POST /v1/stream", Stream: func(r *http.Request, send func(any) error) error {
		var body SwitchV1
		return errors.Join(json.NewDecoder(r.Body).Decode(&body), send(body))
	}})
	var got string
	err := client.DoStream(t.Context(), http.MethodPost, "/v1/stream", SwitchV1{Bridge: "br0"}, func(line json.RawMessage) error {
		got = string(line)
		return nil
	})
	if err != nil || got != `{"bridge":"br0"}` {
		t.Errorf("got %s, %v", got, err)
	}
}

// servedAPI serves the routes without a daemon, ready, after change.
func servedAPI(t *testing.T, change func(*api), routes ...Route) (*api, string) {
	t.Helper()
	f := &fake{routes: routes}
	a := newAPI(StatusV1{}, view{bridges: f, routers: []Router{f}}, newLifecycle(nil, nil).tracers, newLifecycle(nil, nil).meters, nil, slog.New(slog.DiscardHandler))
	change(a)
	socket := socketPath(t)
	if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a.serve(listener)
	a.setReady()
	t.Cleanup(func() { a.quiesce(); a.finish(nil) })
	return a, socket
}

func TestLongAnswersOutliveTheDeadlineOfTheirRequest(t *testing.T) {
	_, socket := servedAPI(t, func(a *api) { a.server.ReadTimeout = 5 * time.Millisecond },
		Route{Pattern: "GET /v1/answer", Answer: func(r *http.Request) (any, error) {
			select {
			case <-r.Context().Done():
				return nil, errors.New("cut short")
			case <-time.After(100 * time.Millisecond):
				return "whole", nil
			}
		}})
	var got string
	if err := NewClient(socket).Do(t.Context(), "GET", "/v1/answer", nil, &got); err != nil || got != "whole" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestStreamWhoseClientDoesNotReadEnds has a handler hang in send, which does not
// hold the end up.
func TestStreamWhoseClientDoesNotReadEnds(t *testing.T) {
	result := make(chan error, 1)
	a, socket := servedAPI(t, func(*api) {}, Route{Pattern: "GET /v1/stream", Stream: func(_ *http.Request, send func(any) error) error {
		err := send(strings.Repeat("x", 16<<20))
		result <- err
		return err
	}})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /v1/stream HTTP/1.1\r\nHost: shunt\r\n\r\n")
	_, readErr := io.ReadFull(conn, make([]byte, 512)) // it is on its way, and far larger than the buffers
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	quiet := make(chan struct{})
	go func() { a.quiesce(); close(quiet) }()
	select {
	case <-quiet:
	case <-time.After(writeTimeout / 2):
		t.Fatal("the end waits for a client that does not read")
	}
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestForeignServers speak something else.
func TestForeignServers(t *testing.T) {
	_, _, client := routed(t, Route{Pattern: "GET /v1/x", Answer: func(*http.Request) (any, error) { return "x", nil }})
	var number int
	if err := client.Do(t.Context(), "GET", "/v1/x", nil, &number); err == nil || !strings.Contains(err.Error(), "does not speak as a shunt daemon does") {
		t.Errorf("got %v", err)
	}
	socket := socketPath(t)
	if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/text", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "1\nhello\n") })
	mux.HandleFunc("/v1/cut", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "1\n")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	for path, want := range map[string]string{
		"/v1/text": "what answers at " + socket + " does not speak as a shunt daemon does: invalid character 'h' looking for beginning of value",
		"/v1/cut":  "the daemon at " + socket + " ended before it answered: see its log",
	} {
		if lines, err := collect(t, NewClient(socket), path); lines != "1" || err == nil || err.Error() != want {
			t.Errorf("%s: got %s, %v", path, lines, err)
		}
	}
}

// tracing is a fake that serves as Telemetry.
type tracing struct {
	*fake
	tracers trace.TracerProvider
}

func (f tracing) LogHandler() slog.Handler             { return nil }
func (f tracing) TracerProvider() trace.TracerProvider { return f.tracers }
func (f tracing) MeterProvider() metric.MeterProvider  { return metricnoop.NewMeterProvider() }

// recording makes a provider, and what it was given.
func recording() (trace.TracerProvider, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), spans
}

// TestTraceOfTheCallerReachesHandlers starts a plugin's command with TRACEPARENT.
func TestTraceOfTheCallerReachesHandlers(t *testing.T) {
	const traceID, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	tracers, spans := recording()
	f := sample()
	var inHandler []trace.SpanContext
	f.routes = []Route{{Pattern: "POST /v1/swap", Changes: true, Answer: func(r *http.Request) (any, error) {
		inHandler = append(inHandler, trace.SpanContextFromContext(r.Context()))
		return []string{"done"}, nil
	}}}
	d := startDaemon(t, socketPath(t), f, func(s *service) {
		s.plugins = []Plugin{{Name: "fake", New: func() Component { return tracing{f, tracers} }}}
	})
	d.ready(t)
	a := newTestApp(Plugin{Name: "p", Commands: func() []*cobra.Command { return []*cobra.Command{swapCommand()} }})
	for _, env := range []string{"00-" + traceID + "-" + parent + "-01", ""} {
		t.Setenv("TRACEPARENT", env)
		t.Setenv("TRACESTATE", "vendor=1")
		code, out, stderr := a.call(t, "swap", "-j", "--socket", d.config.Socket)
		if code != 0 || out != `["done"]`+"\n" {
			t.Errorf("got %d %s %s", code, out, stderr)
		}
	}
	d.end()
	if err := d.wait(t); err != nil {
		t.Fatal(err)
	}
	ended := spans.Ended() // and none for the status that was asked for
	// Who is told that the daemon is ready may ask before the start's own span has ended.
	ended = slices.DeleteFunc(ended, func(s sdktrace.ReadOnlySpan) bool { return s.Name() == "start" })
	if len(inHandler) != 2 || len(ended) != 2 {
		t.Fatalf("got %d requests with %d spans", len(inHandler), len(ended))
	}
	for i, span := range ended {
		if span.Name() != "POST /v1/swap" || !span.SpanContext().Equal(inHandler[i]) {
			t.Errorf("got %s, in the handler %+v", span.Name(), inHandler[i])
		}
	}
	if got := ended[0]; got.SpanContext().TraceID().String() != traceID || got.Parent().SpanID().String() != parent || got.SpanContext().TraceState().String() != "vendor=1" {
		t.Errorf("got trace %+v, parent %+v", got.SpanContext(), got.Parent())
	}
	if got := ended[1]; got.Parent().IsValid() {
		t.Errorf("without a caller's trace: got parent %+v", got.Parent())
	}
}

// swapCommand is a plugin's, made of what plugins get.
func swapCommand() *cobra.Command {
	var f ClientFlags
	cmd := &cobra.Command{Use: "swap"}
	f.Add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var result []string
		if err := f.Client().Do(cmd.Context(), http.MethodPost, "/v1/swap", nil, &result); err != nil {
			return err
		}
		return Print(cmd, f, result, func(s Screen, _ []string) error { return s.Table(Table{Headings: []string{"RESULT"}}) })
	}
	return cmd
}

// startingTrace is a component that notes the trace that it was started in.
type startingTrace struct {
	*fake
	trace.SpanContext
}

func (c *startingTrace) Start(ctx context.Context) error {
	c.SpanContext = trace.SpanContextFromContext(ctx)
	return errors.New("enough")
}

func TestDaemonIsNotPartOfItsCallersTrace(t *testing.T) {
	c := &startingTrace{fake: &fake{}}
	t.Setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	code, _, stderr := newTestApp(Plugin{Name: "c", New: func() Component { return c }}).call(t, "run", "--bridge", bridgeName(), "--socket", socketPath(t))
	if code != 1 || stderr != "shunt: enough\n" || c.IsValid() {
		t.Errorf("got %d %s, %+v", code, stderr, c.SpanContext)
	}
}
