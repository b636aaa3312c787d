package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/shunt-dev/shunt/accel"

	// The same parts as in the program; a test holds the two lists together.
	_ "github.com/shunt-dev/shunt/accel/top"
	_ "github.com/shunt-dev/shunt/fdbsync"
	_ "github.com/shunt-dev/shunt/integration/bench"
	_ "github.com/shunt-dev/shunt/integration/demo"
	_ "github.com/shunt-dev/shunt/nicswap"
	_ "github.com/shunt-dev/shunt/tcprog"
	_ "github.com/shunt-dev/shunt/telemetry"
)

// writeManual makes a page for every command, compressed as Debian wants them.
func writeManual(dir, version, date string) error {
	seconds, err := strconv.ParseInt(date, 10, 64)
	if err != nil {
		return fmt.Errorf("the commit's date: %w", err)
	}
	day := time.Unix(seconds, 0).UTC()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := accel.Command()
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "8", Source: "shunt " + version, Manual: "shunt", Date: &day}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("make the manual pages: %w", err)
	}
	return compressAll(dir)
}

// compressAll compresses every file of a directory.
func compressAll(dir string) error {
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		if err := writeCompressed(page+".gz", text); err != nil {
			return err
		}
		if err := os.Remove(page); err != nil {
			return err
		}
	}
	return nil
}

// writeCompressed writes a file without the time, so that the same text makes the
// same file.
func writeCompressed(path string, text []byte) error {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// writeCompletions writes what the shells read, under the names that they look for.
func writeCompletions(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, write := range map[string]func(*cobra.Command, io.Writer) error{
		"shunt":      func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) },
		"_shunt":     (*cobra.Command).GenZshCompletion,
		"shunt.fish": func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) },
	} {
		var b bytes.Buffer
		if err := write(accel.Command(), &b); err != nil {
			return fmt.Errorf("make the completion %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
