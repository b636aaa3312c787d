package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"strings"
	"text/template"

	"github.com/shunt-dev/shunt/integration/benchvm/rows"
)

const (
	figuresFile = "docs/performance.json"
	pageFile    = "docs/performance.md"
)

//go:embed page.md
var pageTemplate string

// page writes docs/performance.md.
func page(f *figures) ([]byte, error) {
	t, err := template.New("page.md").Funcs(template.FuncMap{"table": tableOf, "indent": indent}).Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = t.Execute(&text, map[string]any{"Kernels": f.Kernels, "Rows": rows.All, "Guarded": guarded()})
	return text.Bytes(), err
}

// writePage writes the figures and the page.
func writePage(f *figures) error {
	if err := f.write(figuresFile); err != nil {
		return err
	}
	text, err := page(f)
	if err != nil {
		return err
	}
	return os.WriteFile(pageFile, text, 0o644)
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}

func tableOf(k *kernelFigures) string {
	var text strings.Builder
	k.print(&text)
	return strings.TrimRight(text.String(), "\n")
}

// print writes the table, of at most 80 columns.
func (k *kernelFigures) print(w io.Writer) {
	group := ""
	for _, r := range rows.All {
		net, ok := k.net(r)
		_, missing := k.Missing[r.Key]
		if !ok && !missing {
			continue
		}
		if r.Group != group {
			group = r.Group
			fmt.Fprintln(w)
			writeLine(w, "%-50s %8s %9s %9s", group, "instr.", "of floor", "of bridge")
		}
		switch {
		case missing:
			fmt.Fprintf(w, "%-50s not with this kernel\n", r.Name)
		case r.Program == rows.Drop:
			fmt.Fprintf(w, "%-50s %8.0f\n", r.Name, k.Counts[r.Key])
		case r.Over != "":
			fmt.Fprintf(w, "%-50s %+8.0f\n", r.Name, net)
		default:
			writeLine(w, "%-50s %8.0f %9s %9s", r.Name, net, k.share(r, net, r.Floor()), k.share(r, net, r.Bridge()))
		}
	}
}

// writeLine writes a line without blanks at its end.
func writeLine(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// share is how much that is of another row's count; nothing where there is none.
func (k *kernelFigures) share(r rows.Row, net float64, of *rows.Row) string {
	if of == nil || of.Key == r.Key {
		return ""
	}
	other, ok := k.net(*of)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.2f", net/other)
}

// guarded are the rows where shunt runs.
func guarded() (list []rows.Row) {
	for _, r := range rows.All {
		if r.Guarantees != "" {
			list = append(list, r)
		}
	}
	return list
}
