// Command backends tries shunt with real backends of telemetry:
//
//	go run ./integration/backends jaeger
//
// swaps the demo's uplink, and reads the traces of the swaps back from Jaeger, which it
// builds from the Go module proxy the first time: that takes about ten minutes.
//
//	go run ./integration/backends prometheus
//
// has a shunt scraped to which everything happens, and asks every query of the dashboard
// in packaging/ and evaluates every rule there. Prometheus is Debian's.
//
// It needs root. Everything runs in network namespaces of its own; what is built is kept
// in the user's cache directory.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "backends:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	try := map[string]func(context.Context, place) error{"jaeger": tryJaeger, "prometheus": tryPrometheus}
	if len(args) != 1 || try[args[0]] == nil {
		return errors.New("name one: jaeger or prometheus")
	}
	dir, err := os.MkdirTemp("", "shunt-backends-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p := place{dir: dir, shunt: filepath.Join(dir, "shunt")}
	if p.cache, err = cache(); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", p.shunt, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build shunt: %w", err)
	}
	return try[args[0]](ctx, p)
}

// place is where a backend finds its files.
type place struct {
	dir   string // is removed at the end
	cache string // stays
	shunt string // the program
}

func cache() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(user, "shunt")
	return dir, os.MkdirAll(dir, 0o755)
}
