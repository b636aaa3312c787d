package bench

import (
	"os"
	"testing"

	"github.com/shunt-dev/shunt/accel"

	_ "github.com/shunt-dev/shunt/fdbsync"
	_ "github.com/shunt-dev/shunt/tcprog"
)

// TestMain is the daemon too: the benchmark runs its own program beside a bridge.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		accel.Main()
	}
	os.Exit(m.Run())
}
