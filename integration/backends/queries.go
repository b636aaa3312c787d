package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// metric is one as docs/telemetry.md has it, under its name in Prometheus.
type metric struct {
	name   string
	labels []string
}

var (
	documentedLine = regexp.MustCompile("(?m)^(\\w[\\w -]*), unit .*Prometheus: `(\\w+)(?:\\{([^}]*)\\})?`")
	nameText       = regexp.MustCompile(`\bshunt[_:][a-z_:0-9]+`)
	labelsText     = regexp.MustCompile(`\bby \(([^)]*)\)|\b(\w+)(?:=~|!=|!~|=)"`)
	variableText   = regexp.MustCompile(`\$\w+`)
	legendText     = regexp.MustCompile(`\{\{(\w+)\}\}`)
)

// documented reads what metrics there are from the page about them.
func documented(path string) (metrics []metric, err error) {
	page, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for _, found := range documentedLine.FindAllStringSubmatch(string(page), -1) {
		m := metric{name: found[2]}
		if found[1] == "histogram" {
			m.name += "_bucket"
		}
		if found[3] != "" {
			m.labels = strings.Split(found[3], ", ")
		}
		metrics = append(metrics, m)
	}
	if len(metrics) == 0 {
		return nil, fmt.Errorf("%s documents no metric that can be understood", path)
	}
	return metrics, nil
}

// selectors are the metrics that an expression asks for. What their labels must be is
// left out: much of that is there only when something is wrong.
func selectors(expression string) (names []string) {
	labels := labelsOf(expression)
	for _, name := range nameText.FindAllString(expression, -1) {
		if !slices.Contains(labels, name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// labelsOf are the labels that an expression asks for.
func labelsOf(expression string) (labels []string) {
	for _, found := range labelsText.FindAllStringSubmatch(expression, -1) {
		if found[2] != "" {
			labels = append(labels, found[2])
		} else {
			labels = append(labels, strings.Split(found[1], ", ")...)
		}
	}
	return labels
}

// query is one of the dashboard's, with everything chosen that can be.
type query struct {
	panel, expression string
	labels            []string // that its legend shows
}

// dashboardQueries reads the queries of a dashboard of Grafana.
func dashboardQueries(path string) (queries []query, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Type    string `json:"type"`
			Targets []struct {
				Expression string `json:"expr"`
				Legend     string `json:"legendFormat"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" && len(panel.Targets) == 0 {
			return nil, fmt.Errorf("panel %q asks for nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			q := query{panel: panel.Title, expression: variableText.ReplaceAllStringFunc(target.Expression, choose)}
			for _, label := range legendText.FindAllStringSubmatch(target.Legend, -1) {
				q.labels = append(q.labels, label[1])
			}
			queries = append(queries, q)
		}
	}
	return queries, nil
}

// choose is what Grafana would put for a variable.
func choose(variable string) string {
	if variable == "$__rate_interval" {
		return "20s"
	}
	return ".*"
}
