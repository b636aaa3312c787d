// Package fdbsync mirrors the bridges' state into the data plane: netlink in,
// desired table out.
//
// The kernel owns the table. An entry that appears late costs a trip over the
// bridge; one that disappears late is a misdelivery. So whatever is taken from
// a queue or from a dump is a claim only, which the kernel must confirm:
//
//  1. subscribe, and only then dump;
//  2. a claim becomes a candidate in the map, which decides nothing;
//  3. after a grace period the kernel is asked for that one entry;
//  4. only if it answers with the same port is the candidate made active, which
//     fails if a program revoked the candidate meanwhile.
//
// Dumps miss and repeat rows under churn without saying so (the kernel does not
// set NLM_F_DUMP_INTR for them): a row that a dump lacks is asked for too, never
// removed for that alone.
//
// Programs in the kernel count what it changes. The count of a device, its
// version, is read before the kernel is asked for it, and told with the answer:
// what changed in between is noticed by the next frame, whatever the daemon does.
//
// decode.go reads the messages, netlink.go asks and listens, links.go asks with
// versions, netfilter.go finds the firewalls, eligible.go judges ports and
// bridges, table.go is the state machine of a table, without I/O; mirror.go holds
// one bridge and syncer.go all.
package fdbsync
