package nicswap

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/shunt-dev/shunt/accel"
)

// routes are the requests that an upgrade is made of.
func (u *upgrader) routes() []accel.Route {
	return []accel.Route{
		{Pattern: "POST /v1/upgrades", Changes: true, Stream: u.postUpgrade},
		{Pattern: "POST /v1/upgrades/{id}/done", Changes: true, Answer: u.postDone},
		{Pattern: "POST /v1/upgrades/{id}/stop", Changes: true, Answer: u.postStop},
	}
}

func (u *upgrader) postUpgrade(r *http.Request, send func(any) error) error {
	var body UpgradeRequestV1
	if err := decode(r.Body, &body, `{"group": "NAME"} or {"driver": "NAME"}`); err != nil {
		return err
	}
	return u.run(r.Context(), body, send)
}

func (u *upgrader) postDone(r *http.Request) (any, error) {
	var body UpgradeDoneV1
	if err := decode(r.Body, &body, `{"member": "NAME", "error": "TEXT"}`); err != nil {
		return nil, err
	}
	return body, u.report(r.PathValue("id"), body)
}

func (u *upgrader) postStop(r *http.Request) (any, error) {
	return struct{}{}, u.askStop(r.PathValue("id"))
}

// decode reads a body strictly: a mistyped key must not change more than was meant.
func decode(body io.Reader, into any, form string) error {
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return accel.Statusf(http.StatusBadRequest, "the body must be %s: %v", form, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return accel.Statusf(http.StatusBadRequest, "the body must be one object %s, and no more", form)
	}
	return nil
}
