package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// prometheus returns the directory of Prometheus's programs: Debian's, unpacked and not
// installed, which would start a service.
func prometheus(ctx context.Context, cache string) (string, error) {
	root := filepath.Join(cache, "prometheus")
	programs := filepath.Join(root, "usr", "bin")
	if _, err := os.Stat(programs); err == nil {
		return programs, nil
	}
	fmt.Println("downloading Debian's package of Prometheus, which is kept in", root)
	dir, err := os.MkdirTemp(cache, "prometheus-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	fetch := exec.CommandContext(ctx, "apt-get", "download", "prometheus")
	fetch.Dir = dir
	if out, err := fetch.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download prometheus: %w\n%s", err, out)
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("apt-get downloaded %v, want one package (%v)", packages, err)
	}
	unfinished := filepath.Join(dir, "unpacked")
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", packages[0], unfinished).CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack %s: %w\n%s", packages[0], err, out)
	}
	return programs, os.Rename(unfinished, root)
}
