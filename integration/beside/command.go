package beside

import (
	"context"
	"fmt"
	"os"
)

// CheckRoot refuses a command that builds a lab, of that name, to all but root.
func CheckRoot(command string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("%s makes network namespaces and loads BPF programs: run it as root, sudo shunt %s", command, command)
}

// Interrupted is the error of a command that removes what it made, once that is done: if
// it was interrupted it says so, instead of what the interruption broke.
func Interrupted(ctx context.Context, command string, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s was interrupted (%w); everything that it made is removed", command, context.Cause(ctx))
	}
	return err
}
