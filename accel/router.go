package accel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Router is a component that adds to the control API.
type Router interface {
	// Routes is called between Provision and Start. That two routes have one
	// pattern is a mistake in the program, which panics.
	Routes() []Route
}

// Route is one request of the control API that a component answers. It is called
// only while every component works: before and after, the daemon answers 503
// itself.
//
// Either function may take as long as it takes. The context of its request ends
// when the client goes or the components are about to stop, which wait for it: it
// must then return soon. The body is in memory. Answers that change nothing are made
// two at a time, and the others wait for their turn; streams that are too many are
// refused.
type Route struct {
	// Pattern is as in net/http, such as "GET /v1/groups".
	Pattern string
	// Changes: only root and the daemon's own user may ask. That holds for every
	// method but GET, whatever stands here.
	Changes bool
	// Answer returns what is written as JSON. An error is written as ErrorV1,
	// with the status of a *StatusError in it, and 500 without one.
	Answer func(*http.Request) (any, error)
	// Stream takes the place of Answer where there is no end: what it sends is
	// written at once, a line of JSON each, until it returns or send fails, as it
	// does for a client that has not read for 10 s. The first line makes the status
	// 200; an error after it reaches the client as the HTTP trailer Shunt-Error.
	// send is for one goroutine at a time.
	Stream func(r *http.Request, send func(any) error) error
}

// StatusError is an error that a client is to be told with this HTTP status, or was.
type StatusError struct {
	Status int
	Text   string
}

func (e *StatusError) Error() string { return e.Text }

// Statusf makes a *StatusError.
func Statusf(status int, format string, args ...any) error {
	return &StatusError{status, fmt.Sprintf(format, args...)}
}

// handler serves a route.
func (a *api) handler(route Route) http.HandlerFunc {
	switch {
	case route.Stream != nil:
		return a.streaming(route.Stream)
	case route.Changes:
		return a.answering(route.Answer)
	}
	return a.reading(func(r *http.Request) (result any, err error) { return a.worked(r, route.Answer) })
}

// answering makes the handler of one answer. It lets go of the components before
// it writes: a client that does not read holds nothing.
func (a *api) answering(answer func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		result, err := a.worked(r, answer)
		a.reply(w, result, err)
	}
}

// worked runs answer as work does.
func (a *api) worked(r *http.Request, answer func(*http.Request) (any, error)) (result any, err error) {
	err = a.work(r, func(r *http.Request) (err error) {
		result, err = answer(r)
		return err
	})
	return result, err
}

// streaming makes the handler of a stream.
func (a *api) streaming(stream func(*http.Request, func(any) error) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		leave, err := a.streams.try(r.Context())
		if err != nil {
			a.refuse(w, err)
			return
		}
		defer leave()
		l := &lines{w: w, control: http.NewResponseController(w)}
		err = a.work(r, func(r *http.Request) error {
			defer l.hurryAfter(r.Context())()
			return stream(r, func(line any) error { return l.send(r.Context(), line) })
		})
		if err != nil && !l.begun {
			a.refuse(w, err)
			return
		}
		l.end(err)
	}
}

// work runs do while the components are known to work, for as long as it takes.
func (a *api) work(r *http.Request, do func(*http.Request) error) error {
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(a.stopping, func() { cancel(errNotReady) })()
	err := do(r.WithContext(ctx))
	if errors.Is(err, context.Canceled) && context.Cause(ctx) == error(errNotReady) {
		return errNotReady
	}
	return err
}

// lines writes a stream.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// errorTrailer says why a stream ended that was not at its end.
const errorTrailer = "Shunt-Error"

// begin writes the header.
func (l *lines) begin() {
	l.begun = true
	l.w.Header().Set("Content-Type", "application/x-ndjson")
	l.w.WriteHeader(http.StatusOK)
}

// send writes a line, unless ctx has ended.
func (l *lines) send(ctx context.Context, line any) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	// In this order: what hurryAfter sets must not be overwritten.
	if err := l.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !l.begun {
		l.begin()
	}
	if _, err := l.w.Write(append(text, '\n')); err != nil {
		return err
	}
	return l.control.Flush()
}

// hurryAfter gives a client that does not read only a moment more once ctx has
// ended, until release is called.
func (l *lines) hurryAfter(ctx context.Context) (release func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		l.control.SetWriteDeadline(time.Now().Add(farewellTimeout)) // or it has gone
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// end finishes the stream, which is empty if nothing was sent.
func (l *lines) end(err error) {
	if !l.begun {
		l.begin()
	}
	if err != nil {
		l.w.Header().Set(http.TrailerPrefix+errorTrailer, err.Error())
	}
}
