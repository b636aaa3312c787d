package bench

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/shunt-dev/shunt/accel"
)

// The picture's measures, in pixels.
const (
	plotWidth  = 860
	plotMargin = 24
	barsBegin  = 190 // what is left of it names the bars
	barsEnd    = 610 // where the axis ends; the figures may stand to the right of it
	barHeight  = 13
	rowHeight  = 46
	letter     = 12 // the size of a text
)

// lookOfPlot has the colours, for who likes it light and who likes it dark.
const lookOfPlot = `
svg { color-scheme: light dark }
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1f2328 }
.back { fill: #ffffff } .head { font-size: 18px; font-weight: 600 } .muted { fill: #59636e }
.value { paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
.ratio { font-weight: 600 } .worse { fill: #9a6700 } .better { fill: #1a7f37 }
.off { fill: #8c959f } .on { fill: #0969da } .grid { stroke: #d1d9e0 } .range { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .value { stroke: #0d1117 } .back { fill: #0d1117 } .muted { fill: #9198a1 }
.worse { fill: #d29922 } .better { fill: #3fb950 }
.off { fill: #656c76 } .on { fill: #4493f8 } .grid { stroke: #3d444d } .range { stroke: #f0f6fc }
}
`

// canvas is a picture that grows downwards.
type canvas struct {
	strings.Builder
	y float64
}

// plot draws the report: a panel for each unit, and in it two bars for each figure.
func plot(r Report) []byte {
	c := &canvas{y: plotMargin}
	c.y += 18
	c.text(plotMargin, c.y, "start", "head", "The bridge without and with shunt")
	c.y += 8
	for _, line := range r.about() {
		c.sentence(line)
	}
	c.legend()
	for _, panel := range panels(r.Measurements) {
		c.panel(panel)
	}
	c.y += 8
	for _, note := range r.notes() {
		c.y += 4
		c.sentence(note)
	}
	height := math.Ceil(c.y + plotMargin)
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" role="img" width="%d" height="%g" viewBox="0 0 %[1]d %[2]g">
<title>The bridge without and with shunt</title>
<desc>%s</desc>
<style>%s</style>
<rect class="back" width="%[1]d" height="%[2]g"/>
%[5]s</svg>
`, plotWidth, height, escaped(r.verdict()), lookOfPlot, c.String())
}

// panels puts together what is counted in the same unit.
func panels(measurements []Measurement) (panels [][]Measurement) {
	for _, m := range measurements {
		if last := len(panels) - 1; last >= 0 && panels[last][0].Unit == m.Unit {
			panels[last] = append(panels[last], m)
		} else {
			panels = append(panels, []Measurement{m})
		}
	}
	return panels
}

func escaped(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) // a Builder never fails
	return b.String()
}

// text writes a line that begins, or ends, at x.
func (c *canvas) text(x, y float64, anchor, class, text string) {
	fmt.Fprintf(c, "<text class=%q x=\"%.1f\" y=\"%.1f\" text-anchor=%q>%s</text>\n", class, x, y, anchor, escaped(text))
}

// sentence writes a text over as many lines as it needs.
func (c *canvas) sentence(text string) {
	const columns = (plotWidth - 2*plotMargin) * 100 / (62 * letter) // of letters as wide as 0.62 of their size
	line := ""
	write := func() {
		c.y += 18
		c.text(plotMargin, c.y, "start", "muted", line)
		line = ""
	}
	for word := range strings.FieldsSeq(accel.Printable(text)) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			write()
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	write()
}

// legend says what the bars are.
func (c *canvas) legend() {
	c.y += 30
	x := float64(barsBegin)
	for _, entry := range []struct{ class, text string }{{"off", "bridge"}, {"on", "bridge with shunt"}} {
		fmt.Fprintf(c, "<rect class=%q x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"12\"/>\n", entry.class, x, c.y-11)
		c.text(x+18, c.y, "start", "", entry.text)
		x += 40 + 8*float64(len(entry.text))
	}
	c.whisker(x, x+24, c.y-5)
	c.text(x+32, c.y, "start", "", "quartiles")
	c.text(plotWidth-plotMargin, c.y, "end", "", "ratio, quartiles")
}

// whisker draws a line with two ends.
func (c *canvas) whisker(from, to, y float64) {
	fmt.Fprintf(c, "<path class=\"range\" fill=\"none\" d=\"M%.1f %.1fv6m0 -3H%.1fm0 -3v6\"/>\n", from, y-3, to)
}

// panel draws figures of one unit above their axis.
func (c *canvas) panel(measurements []Measurement) {
	highest := 0.0
	for _, m := range measurements {
		highest = max(highest, m.OffUpper, m.OnUpper)
	}
	a := newAxis(highest)
	c.y += 16
	c.grid(a, float64(len(measurements)*rowHeight))
	for _, m := range measurements {
		c.row(m, a)
	}
	c.scale(a, measurements[0])
}

// axis leads from 0 to its end.
type axis struct{ step, end float64 }

// newAxis has three to six steps of a size that people count in.
func newAxis(highest float64) axis {
	highest = cmp.Or(highest, 1)
	magnitude := math.Pow(10, math.Floor(math.Log10(highest/3)))
	step := magnitude
	for _, factor := range []float64{2, 5, 10} {
		if highest/step > 6 {
			step = factor * magnitude
		}
	}
	return axis{step, step * math.Ceil(highest/step)}
}

// at is where a value is drawn.
func (a axis) at(value float64) float64 { return barsBegin + value/a.end*(barsEnd-barsBegin) }

func (a axis) steps() int { return int(math.Round(a.end / a.step)) }

func (c *canvas) grid(a axis, height float64) {
	for n := range a.steps() + 1 {
		fmt.Fprintf(c, "<path class=\"grid\" d=\"M%.1f %.1fv%.1f\"/>\n", a.at(float64(n)*a.step), c.y, height)
	}
}

// row draws the two bars of a figure, what they stand for, and how they compare.
func (c *canvas) row(m Measurement, a axis) {
	middle := c.y + rowHeight/2
	c.text(barsBegin-10, middle+4, "end", "", m.Title)
	c.bar("off", a, middle-barHeight-1, m.OffLower, m.OffMedian, m.OffUpper, m)
	c.bar("on", a, middle+1, m.OnLower, m.OnMedian, m.OnUpper, m)
	c.text(plotWidth-plotMargin, middle-3, "end", "ratio "+m.Verdict, times(m.RatioMedian)+" "+m.Verdict)
	c.text(plotWidth-plotMargin, middle+13, "end", "muted", fmt.Sprintf("%.2f to %s", m.RatioLower, times(m.RatioUpper)))
	c.y += rowHeight
}

func (c *canvas) bar(class string, a axis, y, lower, median, upper float64, m Measurement) {
	fmt.Fprintf(c, "<rect class=%q x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>\n", class, barsBegin, y, a.at(median)-barsBegin, barHeight)
	c.whisker(a.at(lower), a.at(upper), y+barHeight/2.0)
	c.text(a.at(upper)+8, y+barHeight-2, "start", "value", m.format(median))
}

// scale writes what stands below the axis.
func (c *canvas) scale(a axis, m Measurement) {
	c.y += 16
	for n := range a.steps() + 1 {
		value := float64(n) * a.step
		c.text(a.at(value), c.y, "middle", "muted", m.tick(value))
	}
	c.y += 18
	c.text(barsBegin, c.y, "start", "muted", m.axisTitle())
}

func (m Measurement) tick(value float64) string { return fmt.Sprintf("%.6g", value/m.scale()) }

// scale is how many of its unit one is on the axis.
func (m Measurement) scale() float64 {
	switch m.Unit {
	case framesPerSecond.name:
		return 1e3
	case bitsPerSecond.name:
		return 1e9
	default:
		return 1
	}
}

func (m Measurement) axisTitle() string {
	title := map[string]string{
		framesPerSecond.name: "thousand frames per second",
		bitsPerSecond.name:   "Gbit per second",
		microseconds.name:    "microseconds",
	}[m.Unit]
	return title + ", " + m.Better + " is better"
}
