//go:build vm

package integration

import (
	"testing"

	"github.com/shunt-dev/shunt/integration/lab"
)

// The same as on a real machine, at a rate that an emulated one can send.
func TestUpgradeInTheVM(t *testing.T) {
	testUpgrade(t, lab.Pace{PerSecond: 500, Gentle: true})
}
