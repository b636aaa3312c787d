package accel

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// Completion of words by the shell, which calls the program for it. What cannot be
// found out at once is not completed, and that is no error: the shell would show it
// in the middle of a line.

// completionTimeout bounds a question to the daemon for a word.
const completionTimeout = time.Second

// Complete makes a completion of what list returns.
func Complete(list func(ctx context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		return list(ctx), cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteFlag completes the values of a flag, which must be there.
func CompleteFlag(cmd *cobra.Command, flag string, list func(ctx context.Context) []string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, Complete(list)); err != nil {
		panic("accel: " + err.Error()) // a mistake in the program
	}
}

// CompleteFile completes the values of a flag with files.
func CompleteFile(cmd *cobra.Command, flag string, extensions ...string) {
	if err := cmd.MarkFlagFilename(flag, extensions...); err != nil {
		panic("accel: " + err.Error()) // a mistake in the program
	}
}

// Words are always the same.
func Words(words ...string) func(context.Context) []string {
	return func(context.Context) []string { return words }
}

// Interfaces are those that have a directory of that name in sysfs: "bridge" for
// bridges, "brport" for their ports, "" for all.
func Interfaces(directory string) func(context.Context) []string {
	return func(context.Context) (names []string) {
		found, _ := filepath.Glob(filepath.Join("/sys/class/net/*", directory))
		for _, path := range found {
			if directory != "" {
				path = filepath.Dir(path)
			}
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				names = append(names, filepath.Base(path))
			}
		}
		return names
	}
}

// bridges are those that the daemon knows.
func (f *ClientFlags) bridges(ctx context.Context) (names []string) {
	status, err := f.Client().Status(ctx, "")
	if err != nil {
		return nil
	}
	for _, b := range status.Bridges {
		names = append(names, b.Name)
	}
	return names
}

// ports are those that the daemon knows.
func (f *ClientFlags) ports(ctx context.Context) (names []string) {
	ports, err := f.Client().Ports(ctx, "")
	if err != nil {
		return nil
	}
	for _, p := range ports {
		names = append(names, p.Port)
	}
	return names
}
