package telemetry

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/prometheus/otlptranslator"

	"github.com/shunt-dev/shunt/accel"
)

//go:generate go run ./document ../docs/telemetry.md

//go:embed document.md
var documentTemplate string

// Document writes docs/telemetry.md.
func Document() ([]byte, error) {
	page, err := template.New("telemetry.md").Funcs(template.FuncMap{
		"prometheus": prometheusName, "labels": prometheusLabels, "seconds": describeSeconds,
	}).Parse(documentTemplate)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = page.Execute(&text, map[string]any{"Instruments": instruments(), "Reasons": accel.Reasons()})
	return text.Bytes(), err
}

// prometheusName is what the instrument is called where Prometheus scrapes it.
func prometheusName(i instrument) (string, error) {
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	types := map[kind]otlptranslator.MetricType{
		counter: otlptranslator.MetricTypeMonotonicCounter, upDown: otlptranslator.MetricTypeNonMonotonicCounter,
		gauge: otlptranslator.MetricTypeGauge, histogram: otlptranslator.MetricTypeHistogram,
	}
	return namer.Build(otlptranslator.Metric{Name: i.Name, Unit: i.Unit, Type: types[i.Kind]})
}

// prometheusLabels are the instrument's attributes there.
func prometheusLabels(i instrument) (string, error) {
	var labels []string
	namer := otlptranslator.LabelNamer{}
	for _, l := range i.Labels {
		name, err := namer.Build(string(l.Key))
		if err != nil {
			return "", err
		}
		labels = append(labels, name)
	}
	if len(labels) == 0 {
		return "", nil
	}
	return "{" + strings.Join(labels, ", ") + "}", nil
}

// describeSeconds lists the bounds of a histogram with a unit that suits each.
func describeSeconds(bounds []float64) string {
	var list []string
	for _, s := range bounds {
		switch {
		case s < 1e-6:
			list = append(list, fmt.Sprintf("%.4g ns", s*1e9))
		case s < 1e-3:
			list = append(list, fmt.Sprintf("%.4g µs", s*1e6))
		case s < 1:
			list = append(list, fmt.Sprintf("%.4g ms", s*1e3))
		default:
			list = append(list, fmt.Sprintf("%.4g s", s))
		}
	}
	return strings.Join(list, ", ")
}
