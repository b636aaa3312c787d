// Command document writes the page of all that shunt traces and measures, from
// the definitions themselves, to the file that is named.
package main

import (
	"fmt"
	"os"

	"github.com/shunt-dev/shunt/telemetry"
)

func main() {
	if err := write(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "document:", err)
		os.Exit(1)
	}
}

func write(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("one file must be named, got %q", args)
	}
	text, err := telemetry.Document()
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], text, 0o644)
}
