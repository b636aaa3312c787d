/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What the programs of trace.c tell those of the ports. Every daemon makes its own. */

/* A device whose changes are counted by the programs of trace.c: a port, or the
 * bridge itself.
 */
struct watch {
	__u64 version;
	__u32 is_bridge;
	__u32 vlan_devices; /* when the kernel was last asked for the port */
	__u64 options;	    /* of a bridge, as a number: see options_of in trace.c */
};

/* The devices of one network namespace, by ifindex, for all its bridges. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct watch);
} watched SEC(".maps");

/* Raised behind every version: what was decided under another number is decided
 * anew.
 */
__u64 changes SEC(".data.changes");
