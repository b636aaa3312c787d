// Command exampleplugin is shunt with one plugin more: the list of its parts is that
// of shunt's own main.go, and one import line.
package main

import (
	"github.com/shunt-dev/shunt/accel"

	_ "github.com/shunt-dev/shunt/accel/top"
	_ "github.com/shunt-dev/shunt/fdbsync"
	_ "github.com/shunt-dev/shunt/integration/exampleplugin/outages"
	_ "github.com/shunt-dev/shunt/nicswap"
	_ "github.com/shunt-dev/shunt/tcprog"
	_ "github.com/shunt-dev/shunt/telemetry"
)

func main() { accel.Main() }
