package screens

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/bench"
	"github.com/shunt-dev/shunt/integration/demo"
	"github.com/shunt-dev/shunt/nicswap"
)

// TestEveryKeyIsDocumented holds docs/json.md to the types: it has all of their keys,
// with their types, and no others.
func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := readDocument(t, string(text))
	for name, keys := range typesOf(
		accel.StatusV1{}, accel.PortV1{}, accel.EntryV1{}, accel.ReasonV1{}, accel.ExplainV1{}, accel.SnapshotV1{}, accel.DetachV1{}, accel.ErrorV1{}, accel.Finding{},
		nicswap.GroupV1{}, nicswap.SwapV1{}, nicswap.ChangeV1{}, nicswap.UpgradeV1{}, nicswap.EventV1{}, demo.Result{}, bench.Report{},
	) {
		for key, kind := range keys {
			if got, ok := documented[name][key]; !ok {
				t.Errorf("%s: %s is missing (%s)", name, key, kind)
			} else if got != kind {
				t.Errorf("%s: %s is %q there and %q here", name, key, got, kind)
			}
			delete(documented[name], key)
		}
		for key := range documented[name] {
			t.Errorf("%s: there is no %s", name, key)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("there is no %s", name)
	}
}

// readDocument returns the types of the keys by the names of the sections.
func readDocument(t *testing.T, text string) map[string]map[string]string {
	t.Helper()
	documented := make(map[string]map[string]string)
	var section string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "### "); ok {
			section, documented[name] = name, make(map[string]string)
		}
		if section == "" || !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 4 || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("%s: a key needs a type, a unit and a meaning: %s", section, line)
			continue
		}
		documented[section][strings.Trim(cells[0], " `")] = strings.TrimSpace(cells[1])
	}
	return documented
}

// typesOf returns the keys of the values' types, and of all types in them.
func typesOf(values ...any) map[string]map[string]string {
	types := make(map[string]map[string]string)
	for _, v := range values {
		addType(types, reflect.TypeOf(v))
	}
	return types
}

func addType(types map[string]map[string]string, t reflect.Type) {
	if _, ok := types[t.Name()]; ok {
		return
	}
	types[t.Name()] = make(map[string]string)
	for _, field := range reflect.VisibleFields(t) {
		if field.Anonymous {
			continue
		}
		key, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		kind := describe(types, field.Type)
		if options == "omitempty" || options == "omitzero" {
			kind += ", may be missing"
		}
		types[t.Name()][key] = kind
	}
}

// describe is how the document writes a type.
func describe(types map[string]map[string]string, t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[accel.Reason](), t == reflect.TypeFor[accel.MAC]():
		return "string"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list of " + describe(types, t.Elem())
	case reflect.Map:
		return "map of " + describe(types, t.Elem())
	case reflect.Pointer:
		return describe(types, t.Elem()) + " or null"
	case reflect.Struct:
		addType(types, t)
		return t.Name()
	}
	return "integer"
}

// TestWhatScriptsReadIsOneLine decodes what the program prints strictly.
func TestWhatScriptsReadIsOneLine(t *testing.T) {
	dir := t.TempDir()
	startDaemon(t, dir, fewPorts())
	for args, into := range map[string]any{
		"status": new(accel.StatusV1), "ports": new([]accel.PortV1), "fdb": new([]accel.EntryV1), "reasons": new([]accel.ReasonV1),
		"explain --in uplink --src 52:54:00:12:34:01 --dst 52:54:00:12:34:02": new(accel.ExplainV1),
		"groups": new([]nicswap.GroupV1), "swaps": new([]nicswap.SwapV1),
	} {
		out, code := call(t, dir, append(strings.Fields(args), "-j")...)
		if code != 0 || strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\n") {
			t.Errorf("%s: %d %s", args, code, out)
		}
		decoder := json.NewDecoder(strings.NewReader(out))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(into); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}
