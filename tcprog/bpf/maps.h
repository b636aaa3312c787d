/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "reasons.h"

/* The maps of one bridge. All but counters are shared by the programs of the
 * bridge's ports. A change of a layout or of a meaning here is a new schema:
 * raise Schema in maps.go.
 */

#define MAX_SLOTS 2048	  /* a bridge has at most 1023 ports (BR_MAX_PORTS) */

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
 * PORT_CHANGED, raises all epochs, stores the rest, raises all epochs, and stores in
 * and out. Whoever finds an epoch at the end as it was at the beginning has read
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
	__u64 device;  /* struct net_device, where the far end may be reached straight; else 0 */
	__u64 checked; /* the programs found the versions of the port and the bridge true at
			* this age of all: see is_known
			*/
};

/* A port at one moment, where it is read live: see images.h. What the kernel does not
 * have is zero.
 */
struct port_image {
	__u64 port;   /* address of its struct net_bridge_port; 0: nobody looked */
	__u64 device; /* of its struct net_device */
	__u64 tcx;    /* of its struct tcx_entry */
	__u64 flags;
	__u64 state;  /* see state_at */
	__u64 backup;
	__u64 revision; /* of the programs at its tcx */
	__u64 filters;
	__u64 ingress_hooks;
	__u64 egress_hooks;
	__u32 mtu;
	__u32 vlan_devices;
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

struct count {
	__u64 packets;
	__u64 bytes;
};

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
