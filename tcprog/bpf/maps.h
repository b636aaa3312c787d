/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "reasons.h"

/* The maps of one bridge. All but counters are shared by the programs of the
 * bridge's ports. A change of a layout or of a meaning here is a new schema:
 * raise Schema in maps.go.
 */

#define MAX_SLOTS 2048	  /* a bridge has at most 1023 ports (BR_MAX_PORTS) */
#define FLOWS_BITS 12
#define EPOCH_SHARDS 256

/* A MAC in a VLAN; vid is 0 on a bridge without VLAN filtering. */
struct station_key {
	__u8 mac[6];
	__u16 vid;
};

enum station_flags {
	STATION_ACTIVE = 1,    /* verified by the daemon */
	STATION_LOCAL = 2,     /* an address of the host */
	STATION_NO_SOURCE = 4, /* locked entry (MAB) */
	STATION_STICKY = 8,    /* it does not move to another port */
};

struct station {
	__u32 slot; /* of the port that the station is behind; 0: the bridge */
	__u32 flags;
	__u64 seen_ns; /* when a frame of it last went up (CLOCK_MONOTONIC) */
};

enum port_flags {
	PORT_ISOLATED = 1,
	PORT_LEARNS = 2,
	PORT_VLAN_DEVICES = 4, /* VLAN devices on it take tagged frames */
};

/* The record of a port slot. Stations name slots, not devices, so that to
 * exchange a device is one store. Slot 0 is never used.
 *
 * The daemon never changes a record while it says FAST: it makes in and out say
 * PORT_CHANGED, raises epoch_all, stores the rest, raises epoch_all, and stores in
 * and out. Whoever finds epoch_all at the end as it was at the beginning has read
 * one record, or one that is barred.
 */
struct port {
	__u64 seen;    /* the device's version that the record is true for */
	__u32 ifindex; /* egress device; 0: the slot is free */
	__u32 max_len; /* longest frame without its tag, bytes: MTU + 14 + 4 */
	__u32 flags;
	__u16 pvid;    /* VLAN of untagged frames; 0: they are dropped */
	__u16 in;      /* reason why not ingress, FAST if it may be */
	__u16 out;     /* reason why not egress */
	__u16 wire;    /* of a stable port: what it sends goes there; 0: none */
	__u16 pad[2];
	__u64 live;    /* struct net_bridge_port of a stable port, where it is read live */
};

/* A port's membership in a VLAN. */
struct vlan_key {
	__u16 slot;
	__u16 vid;
};

enum vlan_flags {
	VLAN_UNTAGGED = 1,   /* the tag is taken off at egress */
	VLAN_FORWARDING = 2, /* the VLAN's own state on the port */
};

enum control_flags {
	CONTROL_CHECK_IP = 1, /* br_netfilter is there: check IP headers */
	CONTROL_CHECK_ND = 2, /* a port suppresses neighbour discovery */
};

/* What holds for the whole bridge. One page, mapped by the daemon, which adds
 * to the epochs atomically as the programs do. The daemon changes flags,
 * vlan_protocol and seen as it does a port's record: seen is void meanwhile.
 *
 * An epoch is the age of decisions: a flow that was cached under another epoch
 * is decided anew. all stands for the state of ports and bridge; a station's
 * entry is covered by the shard of its address, so that the churn of one
 * station does not throw out the others' flows.
 */
struct control {
	__u64 lease_ns;	    /* the fast path ends here (CLOCK_MONOTONIC); 0: shut */
	__u64 keepalive_ns;
	__u64 seen;	    /* the bridge's version that this is true for */
	__u32 ifindex;	    /* of the bridge */
	__u32 reason;	    /* why it is shut */
	__u32 flags;
	__u32 vlan_protocol; /* of the bridge's tags, host order; 0: no VLAN filtering */
	__u64 revoked;	    /* entries that the programs removed */
	__u64 epoch_all;
	__u64 epoch[EPOCH_SHARDS];
};

/* What is done with the tag of a frame that goes fast. */
enum tag_action {
	TAG_KEEP = 0,
	TAG_POP = 1,
	TAG_PUSH = 2,
};

/* A decision, kept: frames of this source to this destination that come in on
 * this slot with this tag go to ifindex, for as long as the epochs and the state
 * of the kernel stay as they are.
 */
struct flow {
	__u64 source;	   /* MAC in the low 48 bits, tag above (struct frame) */
	__u64 destination; /* MAC in the low 48 bits, ingress slot above */
	__u64 epoch_all;
	__u64 epoch_source;
	__u64 epoch_destination;
	__u64 state;	    /* of the kernel: see state_of */
	__u64 out_port;	    /* struct net_bridge_port, where it is read live */
	__u64 keepalive_ns; /* when the source is due for the bridge again */
	__u32 ifindex;
	__u32 max_len;
	__u16 push;	    /* VID */
	__u16 action;	    /* enum tag_action */
	__u16 wire;	    /* that the frames leave by; 0: none */
	__u16 pad;
};

struct count {
	__u64 packets;
	__u64 bytes;
};

/* A device whose changes are counted by the programs of trace.c: a port, or the
 * bridge itself.
 */
struct watch {
	__u64 version;
	__u32 is_bridge;
	__u32 vlan_devices; /* when the kernel was last asked for the port */
	__u64 options;	    /* of a bridge, as a number: see options_of in trace.c */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} bridge SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

/* Read on a cache miss only, written by the daemon only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct vlan_key);
	__type(value, __u32);
} vlans SEC(".maps");

/* Preallocated, so that an entry can be removed in any context. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct station_key);
	__type(value, struct station);
} stations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << FLOWS_BITS);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

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
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} changes SEC(".maps");

/* One map for each port, indexed by reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_REASONS);
	__type(key, __u32);
	__type(value, struct count);
} counters SEC(".maps");
