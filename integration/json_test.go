package integration

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/swaplab"
	"github.com/shunt-dev/shunt/nicswap"
)

// A running daemon prints with -j what docs/json.md says, which another test holds to
// these types: no other keys, all of those that are not said to be missing at times,
// and no list that is null.
func TestWhatScriptsReadIsAsDocumented(t *testing.T) {
	x := newSwapLab(t, rigOptions{})
	x.addMember(1, swaplab.Veth)
	x.addMember(2, swaplab.Veth)
	x.must(x.l.Host.Bridge.Run("ip link set m1 master br0"))
	x.must(x.l.Host.AwaitForwarding())
	x.start()
	for _, step := range []struct {
		args string
		into any
	}{
		{"adopt m1 --group uplink --member m2 --dry-run", new(nicswap.ChangeV1)},
		{"adopt m1 --group uplink --member m2", new(nicswap.ChangeV1)},
		{"swap uplink --to m2 --dry-run", new([]nicswap.SwapV1)},
		{"swap uplink --to m2", new([]nicswap.SwapV1)},
		{"groups", new([]nicswap.GroupV1)},
		{"swaps", new([]nicswap.SwapV1)},
		{"status", new(accel.StatusV1)},
		{"ports", new([]accel.PortV1)},
		{"fdb", new([]accel.EntryV1)},
		{"reasons", new([]accel.ReasonV1)},
		{"explain --in uplink --src 52:54:00:00:00:01 --dst 52:54:00:00:00:02", new(accel.ExplainV1)},
		{"doctor", new([]accel.Finding)},
		{"off", new([]accel.BridgeV1)},
		{"on", new([]accel.BridgeV1)},
		{"release uplink", new(nicswap.ChangeV1)},
		{"detach", new(accel.DetachV1)},
	} {
		if strings.HasPrefix(step.args, "swap ") || strings.HasPrefix(step.args, "release") {
			x.awaitReady()
		}
		out := x.d.shunt(append(strings.Fields(step.args), "-j")...)
		if strings.Count(out, "\n") != 1 {
			t.Errorf("%s prints more than a line: %s", step.args, out)
		}
		decoder := json.NewDecoder(strings.NewReader(out))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(step.into); err != nil {
			t.Errorf("%s: %v in %s", step.args, err, out)
		}
		var loose any
		x.must(json.Unmarshal([]byte(out), &loose))
		for _, trouble := range missing(reflect.TypeOf(step.into).Elem(), loose, "") {
			t.Errorf("%s: %s in %s", step.args, trouble, out)
		}
	}
}

// missing compares what was printed with its type: keys that must be there, and lists
// that are null.
func missing(t reflect.Type, v any, where string) (troubles []string) {
	switch value := v.(type) {
	case nil:
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			troubles = append(troubles, where+" is null")
		}
	case []any:
		for i, element := range value {
			troubles = append(troubles, missing(t.Elem(), element, fmt.Sprintf("%s[%d]", where, i))...)
		}
	case map[string]any:
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return nil
		}
		for _, field := range reflect.VisibleFields(t) {
			key, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.Anonymous || options == "omitempty" || options == "omitzero" {
				continue
			}
			if element, ok := value[key]; ok {
				troubles = append(troubles, missing(field.Type, element, where+"."+key)...)
			} else {
				troubles = append(troubles, where+"."+key+" is not there")
			}
		}
	}
	return troubles
}
