// Command shunt is a bypass lane for existing Linux bridges.
//
// This file is the list of its parts: a build with other parts has other
// imports here, and nothing else.
package main

import (
	"github.com/shunt-dev/shunt/accel"

	_ "github.com/shunt-dev/shunt/accel/top"
	_ "github.com/shunt-dev/shunt/fdbsync"
	_ "github.com/shunt-dev/shunt/integration/bench"
	_ "github.com/shunt-dev/shunt/integration/demo"
	_ "github.com/shunt-dev/shunt/nicswap"
	_ "github.com/shunt-dev/shunt/tcprog"
	_ "github.com/shunt-dev/shunt/telemetry"
)

func main() { accel.Main() }
