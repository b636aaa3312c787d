package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	jaegerModule  = "github.com/jaegertracing/jaeger"
	jaegerVersion = "1.76.0"
)

// jaeger returns the path of the program, and builds it if that was not done before.
func jaeger(ctx context.Context, cache string) (string, error) {
	program := filepath.Join(cache, "jaeger-"+jaegerVersion)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fmt.Println("building Jaeger; this takes about ten minutes, and is kept in", program)
	source, err := download(ctx, jaegerModule+"@v"+jaegerVersion)
	if err != nil {
		return "", err
	}
	// In the module cache nothing may be written, and with -mod=mod Go may have to: the
	// sums of what Jaeger's own go.sum leaves out.
	dir, err := os.MkdirTemp(cache, "jaeger-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		return "", fmt.Errorf("copy Jaeger out of the module cache: %w", err)
	}
	unfinished := program + ".new"
	cmd := exec.CommandContext(ctx, "nice", "go", "build", "-mod=mod", "-o", unfinished, "./cmd/jaeger")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build Jaeger: %w", err)
	}
	return program, os.Rename(unfinished, program)
}

// download returns the directory of a module in the module cache.
func download(ctx context.Context, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = os.TempDir() // outside of this module
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var found struct{ Dir, Error string }
	if json.Unmarshal(out, &found); err != nil || found.Dir == "" {
		return "", fmt.Errorf("download %s: %v %s%s", module, err, found.Error, stderr.String())
	}
	return found.Dir, nil
}
