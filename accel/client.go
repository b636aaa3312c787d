package accel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Client talks to a daemon over its control socket. The trace context in the
// contexts that it is given goes along with what it asks.
type Client struct {
	socket string
	http   *http.Client
}

// answerTimeout bounds every question but detach, which takes as long as it
// takes.
const answerTimeout = 15 * time.Second

// NewClient returns a client for the socket at that path. It connects when it
// is asked something.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	transport := otelhttp.NewTransport(&http.Transport{DialContext: dial, DisableKeepAlives: true},
		otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithTracerProvider(tracenoop.NewTracerProvider()),
		otelhttp.WithMeterProvider(metricnoop.NewMeterProvider()))
	return &Client{socket, &http.Client{Transport: transport}}
}

// Status asks for the bridge of that name, or for all with "".
func (c *Client) Status(ctx context.Context, bridge string) (s StatusV1, err error) {
	return s, c.get(ctx, "/v1/status", bridge, &s)
}

// Ports asks for the ports of the bridge of that name, or of all with "".
func (c *Client) Ports(ctx context.Context, bridge string) (p []PortV1, err error) {
	return p, c.get(ctx, "/v1/ports", bridge, &p)
}

// FDB asks for the stations of the bridge of that name, or of all with "".
func (c *Client) FDB(ctx context.Context, bridge string) (e []EntryV1, err error) {
	return e, c.get(ctx, "/v1/fdb", bridge, &e)
}

// Reasons asks what became of the frames of the bridge of that name, or of all
// with "".
func (c *Client) Reasons(ctx context.Context, bridge string) (r []ReasonV1, err error) {
	return r, c.get(ctx, "/v1/reasons", bridge, &r)
}

// Snapshot asks for the status, the ports and the reasons of the bridge of that
// name, or of all with "", at one moment.
func (c *Client) Snapshot(ctx context.Context, bridge string) (s SnapshotV1, err error) {
	return s, c.get(ctx, "/v1/snapshot", bridge, &s)
}

// Explain asks what would become of a frame: in is the port where it arrives,
// src and dst are its addresses, or frame is all of it, in hexadecimal, from the
// destination address on and without its tag. vlan is the VID of its tag, and
// vlan_protocol the tag's protocol if it is not the bridge's.
func (c *Client) Explain(ctx context.Context, params url.Values) (e ExplainV1, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return e, c.Do(ctx, http.MethodGet, "/v1/explain?"+params.Encode(), nil, &e)
}

// Switch turns the fast path of the bridge of that name, or of all with "", on
// or off. When it returns, the next frame obeys.
func (c *Client) Switch(ctx context.Context, bridge string, on bool) (b []BridgeV1, err error) {
	path := "/v1/off"
	if on {
		path = "/v1/on"
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return b, c.Do(ctx, http.MethodPost, path, SwitchV1{bridge}, &b)
}

// Detach ends the daemon. When it returns, everything is removed.
func (c *Client) Detach(ctx context.Context) (d DetachV1, err error) {
	return d, c.Do(ctx, http.MethodPost, "/v1/detach", struct{}{}, &d)
}

func (c *Client) get(ctx context.Context, path, bridge string, result any) error {
	if bridge != "" {
		path += "?bridge=" + url.QueryEscape(bridge)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return c.Do(ctx, http.MethodGet, path, nil, result)
}

// Do sends one request, such as POST /v1/swap, with body as JSON unless it is nil,
// and reads the answer into result, unless that is nil. It waits until ctx ends. What
// the daemon refuses is a *StatusError.
func (c *Client) Do(ctx context.Context, method, path string, body, result any) error {
	response, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return c.explain(err)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer, result); err != nil {
		return c.foreign(err)
	}
	return nil
}

// Stream calls each with every line of the stream at path, as it comes, until the
// stream is at its end, ctx ends, or each fails.
func (c *Client) Stream(ctx context.Context, path string, each func(json.RawMessage) error) error {
	return c.DoStream(ctx, http.MethodGet, path, nil, each)
}

// DoStream sends one request as Do does, whose answer is a stream.
func (c *Client) DoStream(ctx context.Context, method, path string, body any, each func(json.RawMessage) error) error {
	response, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(response.Body)
	for {
		var line json.RawMessage
		var syntax *json.SyntaxError
		err := decoder.Decode(&line)
		switch {
		case err == io.EOF:
			return endOf(response)
		case errors.As(err, &syntax):
			return c.foreign(err)
		case err != nil:
			return c.explain(err)
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

// endOf says why a stream ended that was not at its end.
func endOf(stream *http.Response) error {
	if why := stream.Trailer.Get(errorTrailer); why != "" {
		return errors.New(why)
	}
	return nil
}

// ask sends one request. The answer's body is the caller's to close, unless there
// is an error.
func (c *Client) ask(ctx context.Context, method, path string, body any) (*http.Response, error) {
	request, err := newRequest(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, c.explain(err)
	}
	return nil, refusal(response, answer)
}

func newRequest(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var text io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = bytes.NewReader(encoded)
	}
	return http.NewRequestWithContext(ctx, method, "http://shunt"+path, text)
}

// refusal is a *StatusError with the daemon's own sentence, or what can be said
// without one.
func refusal(response *http.Response, answer []byte) error {
	var e ErrorV1
	if json.Unmarshal(answer, &e) == nil && e.Error != "" {
		return &StatusError{response.StatusCode, e.Error}
	}
	return Statusf(response.StatusCode, "the daemon answers %q: see its log", strings.TrimSpace(response.Status))
}

// foreign is an answer that is not JSON.
func (c *Client) foreign(err error) error {
	return fmt.Errorf("what answers at %s does not speak as a shunt daemon does: %w", c.socket, err)
}

// errNoDaemon means that nobody listens at the socket.
var errNoDaemon = errors.New("no daemon answers")

// closedEarly is what net/http says, and gives no name to, when the connection is
// closed before the question was sent (net/http/transport.go:
// errServerClosedIdle).
const closedEarly = "http: server closed idle connection"

// explain turns the errors of the connection into sentences that say what to
// do.
func (c *Client) explain(err error) error {
	var cause syscall.Errno
	errors.As(err, &cause)
	switch {
	case cause == syscall.ENOENT, cause == syscall.ECONNREFUSED, cause == syscall.ENOTSOCK:
		return fmt.Errorf("%w at %s (%v); start one with \"shunt run --bridge br0\"", errNoDaemon, c.socket, cause)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("the daemon's socket %s is not open to you (%v): use sudo", c.socket, cause)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the daemon at %s does not answer: see its log", c.socket)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), cause == syscall.ECONNRESET, cause == syscall.EPIPE, strings.HasSuffix(err.Error(), closedEarly):
		return fmt.Errorf("the daemon at %s ended before it answered: see its log", c.socket)
	}
	return err
}
