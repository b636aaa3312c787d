package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// prometheusConfig scrapes the daemon of the lab, often: a test has no time. The rules
// are those of packaging/.
const prometheusConfig = `
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [%q]
scrape_configs:
  - {job_name: shunt, static_configs: [{targets: ["%s"]}]}
`

const (
	rulesFile     = "packaging/prometheus/shunt.rules.yml"
	rulesTestFile = "packaging/prometheus/shunt.rules.test.yml"
	dashboardFile = "packaging/grafana/shunt.json"
	documentFile  = "docs/telemetry.md"
)

// firing are the alerts that the lab's events must make fire: those that wait for no
// more than seconds.
var firing = []string{"ShuntNetlinkOverruns", "ShuntSwapFailed", "ShuntGroupDown"}

// tryPrometheus has a shunt scraped to which everything happens that can, and checks the
// rules, what docs/telemetry.md says of the metrics, and every query of the dashboard.
func tryPrometheus(ctx context.Context, p place) error {
	programs, err := prometheus(ctx, p.cache)
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", rulesTestFile}} {
		out, err := exec.CommandContext(ctx, filepath.Join(programs, "promtool"), args...).CombinedOutput()
		fmt.Printf("promtool %s\n%s", args, out)
		if err != nil {
			return fmt.Errorf("promtool %s: %w", args, err)
		}
	}
	events, err := newEventful(ctx, p)
	if err != nil {
		return err
	}
	defer events.close()
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		return err
	}
	config := filepath.Join(p.dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, prometheusConfig, rules, metricsAddress), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(programs, "prometheus"), "--config.file", config,
		"--storage.tsdb.path", filepath.Join(p.dir, "prometheus"), "--web.listen-address", "127.0.0.1:9090")
	s, err := serve(events.lab.Host.Bridge, "http://127.0.0.1:9090", cmd)
	if err != nil {
		return err
	}
	defer s.stop()
	scraped := &scraper{s}
	if err := scraped.awaitData(ctx, `up{job="shunt"} == 1`); err != nil {
		return fmt.Errorf("scrape shunt: %w", err)
	}
	if err := events.happen(ctx, scraped); err != nil {
		return err
	}
	return scraped.check(ctx)
}

// scraper asks Prometheus.
type scraper struct{ *server }

// sample is an element of the answer to a query.
type sample struct {
	Labels map[string]string `json:"metric"`
	Value  [2]any            `json:"value"` // the time, and a number in a string
}

func (s sample) number() float64 {
	text, _ := s.Value[1].(string)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

// ask returns what a query finds now.
func (s *scraper) ask(ctx context.Context, query string) ([]sample, error) {
	var answer struct {
		Data struct {
			Kind   string          `json:"resultType"`
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}
	if err := s.get(ctx, "/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
		return nil, err
	}
	if answer.Data.Kind != "vector" {
		return nil, fmt.Errorf("%s is a %s", query, answer.Data.Kind)
	}
	var found []sample
	return found, json.Unmarshal(answer.Data.Result, &found)
}

// awaitData waits until a query finds series with these labels, each with a number.
func (s *scraper) awaitData(ctx context.Context, query string, labels ...string) error {
	return s.await(ctx, func(ctx context.Context) error {
		found, err := s.ask(ctx, query)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%s finds nothing", query)
		}
		if err != nil {
			return err
		}
		for _, sample := range found {
			if n := sample.number(); math.IsNaN(n) || math.IsInf(n, 0) {
				return fmt.Errorf("%s finds %v for %v", query, n, sample.Labels)
			}
			for _, label := range labels {
				if sample.Labels[label] == "" {
					return fmt.Errorf("%s finds %v, without %s", query, sample.Labels, label)
				}
			}
		}
		return nil
	})
}

// check is for when everything has happened.
func (s *scraper) check(ctx context.Context) error {
	metrics, err := documented(documentFile)
	if err != nil {
		return err
	}
	for _, m := range metrics {
		if err := s.awaitData(ctx, m.name, m.labels...); err != nil {
			return fmt.Errorf("%s says otherwise: %w", documentFile, err)
		}
	}
	fmt.Printf("%d metrics of %s are there, with their labels\n", len(metrics), documentFile)
	if err := s.checkRules(ctx); err != nil {
		return err
	}
	queries, err := dashboardQueries(dashboardFile)
	if err != nil {
		return err
	}
	for _, q := range queries {
		if err := s.awaitData(ctx, q.expression, q.labels...); err != nil {
			return fmt.Errorf("panel %q of the dashboard: %w", q.panel, err)
		}
	}
	fmt.Printf("%d queries of the dashboard find series with the labels of their legends\n", len(queries))
	return nil
}

// checkRules wants every rule to be evaluated, and to ask for what there is, and the
// alerts to fire that can within seconds.
func (s *scraper) checkRules(ctx context.Context) error {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Query, Health, LastError string }
			}
		}
	}
	if err := s.get(ctx, "/api/v1/rules", &answer); err != nil {
		return err
	}
	rules := 0
	for _, group := range answer.Data.Groups {
		for _, rule := range group.Rules {
			if rule.Health != "ok" {
				return fmt.Errorf("rule %s is %s: %s", rule.Name, rule.Health, rule.LastError)
			}
			for _, selector := range selectors(rule.Query) {
				if err := s.awaitData(ctx, selector); err != nil {
					return fmt.Errorf("rule %s: %w", rule.Name, err)
				}
			}
			rules++
		}
	}
	found, err := s.ask(ctx, `count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[5m]))`)
	if err != nil {
		return err
	}
	var fired []string
	for _, alert := range found {
		fired = append(fired, alert.Labels["alertname"])
	}
	slices.Sort(fired)
	for _, name := range firing {
		if !slices.Contains(fired, name) {
			return fmt.Errorf("alert %s did not fire, but %v did", name, fired)
		}
	}
	fmt.Printf("%d rules are evaluated, and ask for what there is; fired: %v\n", rules, fired)
	return nil
}
