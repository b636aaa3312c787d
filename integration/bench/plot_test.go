package bench

import (
	"encoding/xml"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// element is one of the picture's.
type element struct {
	name       string
	attributes map[string]string
	text       string
}

func (e element) number(t *testing.T, name string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(e.attributes[name], 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		t.Errorf("%s of %+v: %v", name, e, err)
	}
	return n
}

// parse reads the picture as a browser would.
func parse(t *testing.T, picture []byte) (elements []element) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(string(picture)))
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return elements
		}
		if err != nil {
			t.Fatalf("%v in %s", err, picture)
		}
		switch part := token.(type) {
		case xml.StartElement:
			e := element{name: part.Name.Local, attributes: make(map[string]string)}
			for _, a := range part.Attr {
				e.attributes[a.Name.Local] = a.Value
			}
			elements = append(elements, e)
		case xml.CharData:
			if len(elements) > 0 {
				elements[len(elements)-1].text += strings.TrimSpace(string(part))
			}
		}
	}
}

func named(elements []element, name string) (found []element) {
	for _, e := range elements {
		if e.name == name {
			found = append(found, e)
		}
	}
	return found
}

// box is where a text stands, with letters as wide as those of wide fonts are.
type box struct{ left, right, top, bottom float64 }

func boxOf(t *testing.T, e element) box {
	t.Helper()
	size := 12.0
	if e.attributes["class"] == "head" {
		size = 18
	}
	width := float64(utf8.RuneCountInString(e.text)) * size * 0.62
	b := box{left: e.number(t, "x"), bottom: e.number(t, "y") + size*0.2}
	b.top = b.bottom - size
	switch e.attributes["text-anchor"] {
	case "middle":
		b.left -= width / 2
	case "end":
		b.left -= width
	}
	b.right = b.left + width
	return b
}

func (b box) overlaps(other box) bool {
	return b.left < other.right && other.left < b.right && b.top < other.bottom && other.top < b.bottom
}

// checkPicture wants no text cut, none over another, and everything inside.
func checkPicture(t *testing.T, picture []byte) []element {
	t.Helper()
	elements := parse(t, picture)
	width, height := elements[0].number(t, "width"), elements[0].number(t, "height")
	texts := named(elements, "text")
	for i, e := range texts {
		b := boxOf(t, e)
		if b.left < 0 || b.right > width || b.top < 0 || b.bottom > height {
			t.Errorf("%q is cut: it stands at %+v of %v x %v", e.text, b, width, height)
		}
		for _, other := range texts[:i] {
			if b.overlaps(boxOf(t, other)) {
				t.Errorf("%q stands over %q", e.text, other.text)
			}
		}
	}
	for _, e := range named(elements, "rect") {
		if e.attributes["class"] != "back" && (e.number(t, "x") < 0 || e.number(t, "x")+e.number(t, "width") > width || e.number(t, "width") < 0) {
			t.Errorf("a bar is outside: %+v", e)
		}
	}
	if strings.Contains(string(picture), "NaN") || strings.Contains(string(picture), "Inf") {
		t.Errorf("a number is none: %s", picture)
	}
	return elements
}

// Every figure has its two bars, as long as they should be, with its ratio beside them,
// and every axis its unit.
func TestPictureShowsTheReport(t *testing.T) {
	r := aReport()
	elements := checkPicture(t, plot(r))
	var all []string
	for _, e := range named(elements, "text") {
		all = append(all, e.text)
	}
	texts := "\n" + strings.Join(all, "\n") + "\n"
	for _, m := range r.Measurements {
		for _, want := range []string{m.Title, m.format(m.OffMedian), m.format(m.OnMedian), times(m.RatioMedian) + " " + m.Verdict} {
			if !strings.Contains(texts, "\n"+want+"\n") {
				t.Errorf("there is no %q in %s", want, texts)
			}
		}
	}
	for _, want := range []string{"bridge", "bridge with shunt", "quartiles", "thousand frames per second, more is better", "Gbit per second, more is better", "microseconds, less is better"} {
		if !strings.Contains(texts, "\n"+want+"\n") {
			t.Errorf("there is no %q in %s", want, texts)
		}
	}
	var off, on []float64
	for _, e := range named(elements, "rect") {
		switch e.attributes["class"] {
		case "off":
			off = append(off, e.number(t, "width"))
		case "on":
			on = append(on, e.number(t, "width"))
		}
	}
	if off, on = off[1:], on[1:]; len(off) != len(r.Measurements) || len(on) != len(off) { // without the legend's
		t.Fatalf("%d and %d bars for %d figures", len(off), len(on), len(r.Measurements))
	}
	for i, m := range r.Measurements {
		if drawn, measured := on[i]/off[i], m.OnMedian/m.OffMedian; math.Abs(drawn/measured-1) > 0.01 {
			t.Errorf("%s: the bars are as 1 to %.3f, and the figures as 1 to %.3f", m.Title, drawn, measured)
		}
	}
}

// Figures of any size fit, as do names that the kernel, and the shell, let through.
func TestPicturesThatAreUnusual(t *testing.T) {
	for _, size := range []float64{0, 1e-6, 0.5, 1, 99.9, 100, 101, 12345, 1e7, 123456789} {
		r := aReport()
		for i := range r.Measurements {
			m := &r.Measurements[i]
			for _, value := range []*float64{&m.OffLower, &m.OffMedian, &m.OffUpper, &m.OnLower, &m.OnMedian, &m.OnUpper} {
				*value *= size / 1e6
			}
		}
		checkPicture(t, plot(r))
	}
	r := aReport()
	r.CPU = strings.Repeat("Most Excellent CPU <&\"> ", 12)
	r.Kernel = "6.1\x1b[31m"
	r.Measurements = r.Measurements[:1]
	checkPicture(t, plot(r))
}

// What is light is dark for those who like it so: no colour is left out there.
func TestPictureIsLightAndDark(t *testing.T) {
	light, dark, ok := strings.Cut(lookOfPlot, "prefers-color-scheme: dark")
	if !ok {
		t.Fatal("there is no dark look")
	}
	coloured := regexp.MustCompile(`([.\w]+) \{[^{}]*(?:fill|stroke): (#\w+)`)
	colours := make(map[string]string)
	for _, found := range coloured.FindAllStringSubmatch(light, -1) {
		colours[found[1]] = found[2]
	}
	for _, found := range coloured.FindAllStringSubmatch(dark, -1) {
		if colours[found[1]] == found[2] {
			t.Errorf("%s is %s in either", found[1], found[2])
		}
		delete(colours, found[1])
	}
	if len(colours) > 0 {
		t.Errorf("the dark look has no %v", colours)
	}
}

func TestAxesHaveStepsThatPeopleCountIn(t *testing.T) {
	for highest, want := range map[float64]axis{
		0: {0.2, 1}, 1: {0.2, 1}, 3: {1, 3}, 9.9: {2, 10}, 450: {100, 500}, 612_000: {200_000, 800_000}, 7e9: {2e9, 8e9},
	} {
		a := newAxis(highest)
		if math.Abs(a.step/want.step-1) > 1e-9 || math.Abs(a.end/want.end-1) > 1e-9 {
			t.Errorf("to %v: got %v, want %v", highest, a, want)
		}
	}
	for highest := 0.001; highest < 1e12; highest *= 1.03 {
		if a := newAxis(highest); a.end < highest || a.steps() < 2 || a.steps() > 7 {
			t.Errorf("to %v: %d steps of %v", highest, a.steps(), a.step)
		}
	}
}
