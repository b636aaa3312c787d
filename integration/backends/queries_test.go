package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// expression is one of the dashboard or of the rules.
type expression struct{ of, text string }

func expressions(t *testing.T) (all []expression) {
	t.Helper()
	queries, err := dashboardQueries("../../" + dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queries {
		all = append(all, expression{"panel " + q.panel, q.expression})
	}
	text, err := os.ReadFile("../../" + rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules.Groups[0].Rules {
		all = append(all, expression{"rule " + r.Record + r.Alert, r.Expr})
	}
	return all
}

// The dashboard and the rules ask for what docs/telemetry.md says there is, which is
// written from the instruments themselves; and all that is there is shown.
func TestTheDashboardAndTheRulesKnowTheMetrics(t *testing.T) {
	metrics, err := documented("../../" + documentFile)
	if err != nil {
		t.Fatal(err)
	}
	labels := []string{"job", "instance", "le", "alertname", "alertstate"}
	var names, used []string
	for _, m := range metrics {
		names, labels = append(names, m.name), append(labels, m.labels...)
	}
	for _, e := range expressions(t) {
		for _, name := range selectors(e.text) {
			// A histogram has several names, and the rules make some of their own.
			name = strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
			if !slices.Contains(names, name) && !slices.Contains(names, name+"_bucket") && !strings.HasPrefix(name, "shunt:") {
				t.Errorf("%s asks for %s", e.of, name)
			}
			used = append(used, name, name+"_bucket")
		}
		for _, label := range labelsOf(e.text) {
			if !slices.Contains(labels, label) {
				t.Errorf("%s asks for label %s", e.of, label)
			}
		}
	}
	for _, name := range names {
		if !slices.Contains(used, name) && name != "shunt_bridge_ports" { // that one fills a list to choose from
			t.Errorf("nobody asks for %s", name)
		}
	}
}

func TestWhatAnExpressionAsksFor(t *testing.T) {
	const text = `sum by (le, shunt_path) (rate(shunt_frames_total{job="shunt", shunt_bridge=~".*"}[5m])) / (shunt:fast_share:ratio_rate5m > 0)`
	if got, want := selectors(text), []string{"shunt_frames_total", "shunt:fast_share:ratio_rate5m"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := labelsOf(text), []string{"le", "shunt_path", "job", "shunt_bridge"}; !slices.Equal(got, want) {
		t.Errorf("got labels %v, want %v", got, want)
	}
}
