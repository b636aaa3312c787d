package nicswap

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-dev/shunt/accel"
)

// ask answers a request as the host does, without its socket.
func (d *life) ask(t *testing.T, method, target, body string) (any, error) {
	t.Helper()
	request := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, route := range d.Routes() {
		if route.Pattern == method+" "+request.URL.Path {
			return route.Answer(request)
		}
	}
	t.Fatalf("there is no %s %s", method, target)
	return nil, nil
}

func status(err error) int {
	var known *accel.StatusError
	if errors.As(err, &known) {
		return known.Status
	}
	return 0
}

func TestRoutesThatChangeAreMarked(t *testing.T) {
	for _, route := range newEngine().Routes() {
		if route.Changes != strings.HasPrefix(route.Pattern, "POST ") {
			t.Errorf("%s changes: %v", route.Pattern, route.Changes)
		}
	}
}

func TestStrictBodies(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		for _, c := range []struct{ path, body string }{
			{"swap", `{"groups": ["uplink"], "to": "nic2", "dryrun": true}`},
			{"swap", `{"groups": ["uplink"], "to": "nic2"} {}`},
			{"swap", `{"groups": [], "to": "nic2"}`},
			{"swap", `{"groups": ["uplink"]}`},
			{"swap", `{"groups": ["uplink", "uplink"], "to": "nic2"}`},
			{"swap", ``},
			{"adopt", `{"port": "nic1", "name": "x"}`},
			{"release", `{"groups": "uplink"}`},
		} {
			if _, err := d.ask(t, "POST", "/v1/"+c.path, c.body); status(err) != 400 {
				t.Errorf("%s with %s gives %v", c.path, c.body, err)
			}
		}
		l.wantActive(d, "nic1")
	})
}

func TestSwapOfSeveralGroups(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.k.veth("nic3")
		l.k.veth("nic4")
		other := uplink()
		other.Name, other.Port, other.Members = "other", "other", []string{"nic3", "nic4"}
		l.config.Groups = append(l.config.Groups, other)
		d := l.start()
		results := func(answer any, err error) (list []string) {
			if err != nil {
				return []string{err.Error()}
			}
			for _, v := range answer.([]SwapV1) {
				list = append(list, v.Group+" "+v.Result)
			}
			return list
		}
		answer, err := d.ask(t, "POST", "/v1/swap", `{"groups": ["uplink", "other"], "to": "virtual", "dry_run": true}`)
		if got := results(answer, err); !slices.Equal(got, []string{"uplink planned", "other failed"}) {
			t.Errorf("the plan is %v", got) // other is on a virtual member already
		}
		l.wantActive(d, "nic1")
		answer, err = d.ask(t, "POST", "/v1/swap", `{"groups": ["uplink", "other"], "to": "nic2"}`)
		if got := results(answer, err); !slices.Equal(got, []string{"uplink done", "other failed"}) {
			t.Errorf("it gives %v", got)
		}
		if last := answer.([]SwapV1)[1]; !strings.Contains(last.Error, "has no member nic2") {
			t.Errorf("the second is %+v", last)
		}
		if _, err := d.ask(t, "POST", "/v1/swap", `{"groups": ["other", "none"], "to": "nic4"}`); status(err) != 404 {
			t.Errorf("with a group that is not there: %v", err)
		}
		if d.group(t, "other").Active != "nic3" {
			t.Error("a group was moved although another is not there")
		}
		if _, err := d.ask(t, "POST", "/v1/swap", `{"groups": ["uplink"], "to": "nic2"}`); status(err) != 409 {
			t.Errorf("a swap to where it is: %v", err)
		}
	})
}

func TestReadingRoutes(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		d.swap(t, "nic2")
		for _, path := range []string{"/v1/groups", "/v1/groups?group=uplink", "/v1/swaps", "/v1/swaps?group=uplink"} {
			answer, err := d.ask(t, "GET", path, "")
			text, _ := json.Marshal(answer)
			if err != nil || !strings.HasPrefix(string(text), `[{"`) || strings.Contains(string(text), "null") {
				t.Errorf("%s gives %s, %v", path, text, err)
			}
		}
		for _, path := range []string{"/v1/groups?group=none", "/v1/swaps?group=none"} {
			if _, err := d.ask(t, "GET", path, ""); status(err) != 404 {
				t.Errorf("%s gives %v", path, err)
			}
		}
	})
}

func TestEventsOfOneGroup(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		ctx, leave := context.WithTimeout(context.Background(), time.Minute)
		defer leave()
		request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/events?group=uplink", nil)
		var events []EventV1
		ended := make(chan error)
		go func() {
			ended <- d.getEvents(request, func(event any) error {
				events = append(events, event.(EventV1))
				return nil
			})
		}()
		synctest.Wait()
		if len(events) != 1 || events[0].Event != eventFollow {
			t.Errorf("before anything happens the events are %+v", events)
		}
		d.events.tell(EventV1{Group: "other", Event: eventGroup})
		d.swap(t, "nic2")
		synctest.Wait()
		leave()
		if err := <-ended; err != nil {
			t.Errorf("the stream ends with %v", err)
		}
		if len(events) == 0 || slices.ContainsFunc(events, func(e EventV1) bool { return e.Group != "uplink" || e.Time.IsZero() }) {
			t.Errorf("the events are %+v", events)
		}
		if err := d.getEvents(httptest.NewRequest(http.MethodGet, "/v1/events?group=none", nil), nil); status(err) != 404 {
			t.Errorf("events of no group: %v", err)
		}
	})
}

func TestEventsEndWithTheDaemon(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		d := l.start()
		ended := make(chan error)
		go func() {
			ended <- d.getEvents(httptest.NewRequest(http.MethodGet, "/v1/events", nil), func(any) error { return nil })
		}()
		synctest.Wait()
		l.end(d)
		if err := <-ended; err != nil {
			t.Errorf("the stream ends with %v", err)
		}
	})
}
