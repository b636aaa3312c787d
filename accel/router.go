package accel

import (
	"fmt"
	"net/http"
)

// Router is a component that adds to the control API.
type Router interface {
	Routes() []Route
}

// Route is one request of the control API that a component answers.
type Route struct {
	// Pattern is as in net/http, such as "GET /v1/groups".
	Pattern string
	// Changes: only root and the daemon's own user may ask.
	Changes bool
	// Answer returns what is written as JSON. An error is written as ErrorV1,
	// with the status of a *StatusError in it, and 500 without one. It may take
	// as long as it takes; the context of the request ends when the client goes.
	Answer func(*http.Request) (any, error)
	// Stream takes the place of Answer where there is no end: what it sends is
	// written at once, a line of JSON each, until it returns or send fails.
	Stream func(r *http.Request, send func(any) error) error
}

// StatusError is an error that a client is to be told with this HTTP status.
type StatusError struct {
	Status int
	Text   string
}

func (e *StatusError) Error() string { return e.Text }

// Statusf makes a *StatusError.
func Statusf(status int, format string, args ...any) error {
	return &StatusError{status, fmt.Sprintf(format, args...)}
}
