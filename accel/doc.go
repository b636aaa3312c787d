// Package accel is the host of shunt: the plugin contract and its lifecycle,
// the configuration, the control API, the command line, and the domain types
// that the plugins share. It imports no plugin.
//
// # The life of a plugin
//
//  1. Register: the plugin's package calls [Register] from init. A main.go
//     that wants the plugin blank-imports its package; nothing else is needed.
//  2. New: the host calls [Plugin.New]. A constructor has no side effects: it
//     opens nothing, starts nothing and reads nothing outside itself.
//  3. Provision: the host calls [Component.Provision] in the order that
//     [Plugin.After] asks for. A component checks and reads its configuration
//     and finds the components that it needs with [Use]. It changes nothing.
//     If one fails, those that were provisioned are stopped.
//  4. Start: the host calls [Component.Start] in the same order. When Start
//     returns, the component works. A Start that fails has undone what it did.
//     Its context has the trace of the start, to which nothing later belongs.
//  5. Running: the components work until the host's context ends or one of
//     them reports with [Host.Fail] that it cannot go on.
//  6. Stop: the host calls [Component.Stop] in the reverse order, on every
//     component, and joins the errors. Stop waits for every goroutine that the
//     component started. Stop is safe without Start, after a failed Start, and
//     twice.
//
// The host hands out the logger, the tracer, the meter and the network namespace
// in [Host]; there are no globals beside the registry of plugins.
//
// # What a plugin may add
//
// A component adds requests to the control API by being a [Router]. A plugin's
// commands ask them with [Client.Do] and [Client.Stream], take [ClientFlags] and
// write with [Print], so that they look and behave like the host's own.
package accel
