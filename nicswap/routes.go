package nicswap

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

var _ accel.Router = (*Engine)(nil)

// Routes is nicswap's part of the control API.
func (e *Engine) Routes() []accel.Route {
	return append(e.upgrades.routes(), []accel.Route{
		{Pattern: "GET /v1/groups", Answer: e.getGroups},
		{Pattern: "GET /v1/swaps", Answer: e.getSwaps},
		{Pattern: "GET /v1/events", Stream: e.getEvents},
		{Pattern: "POST /v1/swap", Changes: true, Answer: e.postSwap},
		{Pattern: "POST /v1/adopt", Changes: true, Answer: e.postAdopt},
		{Pattern: "POST /v1/release", Changes: true, Answer: e.postRelease},
	}...)
}

// getGroups answers with all groups, or the one of ?group=.
func (e *Engine) getGroups(r *http.Request) (any, error) {
	name := r.URL.Query().Get("group")
	if name == "" {
		return e.Groups(), nil
	}
	g, err := e.find(name)
	if err != nil {
		return nil, err
	}
	return []GroupV1{e.describe(g)}, nil
}

// getSwaps answers with the last swaps, or those of ?group=.
func (e *Engine) getSwaps(r *http.Request) (any, error) {
	name := r.URL.Query().Get("group")
	if name == "" {
		return e.Swaps(), nil
	}
	if _, err := e.find(name); err != nil {
		return nil, err
	}
	swaps := []SwapV1{}
	for _, v := range e.Swaps() {
		if v.Group == name {
			swaps = append(swaps, v)
		}
	}
	return swaps, nil
}

// getEvents says that it follows, and sends the events from then on, of all groups or that of ?group=, until
// the client goes.
func (e *Engine) getEvents(r *http.Request, send func(any) error) error {
	name := r.URL.Query().Get("group")
	if name != "" {
		if _, err := e.find(name); err != nil {
			return err
		}
	}
	events, leave := e.Follow()
	defer leave()
	if err := send(EventV1{Time: time.Now(), Group: name, Event: eventFollow}); err != nil {
		return err
	}
	for {
		select {
		case event, ok := <-events:
			if !ok {
				return nil
			}
			if name != "" && event.Group != name && event.Event != eventLost {
				continue
			}
			if err := send(event); err != nil {
				return err
			}
		case <-r.Context().Done():
			return nil
		}
	}
}

// postSwap moves the groups in their order, up to the first that fails. What could
// not even be begun is a failed swap too where others were done before it.
func (e *Engine) postSwap(r *http.Request) (any, error) {
	var body SwapRequestV1
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	if len(body.Groups) == 0 || body.To == "" {
		return nil, accel.Statusf(400, "groups and to are needed")
	}
	for i, name := range body.Groups {
		if slices.Contains(body.Groups[:i], name) {
			return nil, accel.Statusf(400, "%s is named twice", name)
		}
		if _, err := e.find(name); err != nil {
			return nil, err
		}
	}
	swaps := []SwapV1{}
	for _, name := range body.Groups {
		v, err := e.Swap(r.Context(), Request{Group: name, To: body.To, DryRun: body.DryRun, Cause: causeRequest})
		if err != nil && len(swaps) == 0 {
			return nil, err
		} else if err != nil {
			v = SwapV1{
				Group: name, To: body.To, Cause: causeRequest, Began: time.Now(), Phases: []PhaseV1{}, Dropped: map[string]uint64{},
				Result: resultFailed, Phase: phaseResolve, Error: err.Error(),
			}
		}
		swaps = append(swaps, v)
		if v.Result != resultDone && v.Result != resultPlanned {
			break
		}
	}
	return swaps, nil
}

func (e *Engine) postAdopt(r *http.Request) (any, error) {
	var body AdoptRequestV1
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	return e.Adopt(r.Context(), body)
}

func (e *Engine) postRelease(r *http.Request) (any, error) {
	var body ReleaseRequestV1
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	return e.Release(r.Context(), body)
}

// readBody reads one object strictly: a mistyped key must not move anything.
func readBody(r *http.Request, body any) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(body); err != nil {
		return accel.Statusf(400, "the body cannot be read: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return accel.Statusf(400, "the body must be one object, and no more")
	}
	return nil
}
