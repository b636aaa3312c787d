/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* A change of a layout or of a meaning here is a new schema: see maps.h. */

#define EPOCH_SHARDS 256

enum control_flags {
	CONTROL_CHECK_IP = 1, /* br_netfilter is there: check IP headers */
	CONTROL_CHECK_ND = 2, /* a port suppresses neighbour discovery */
};

/* The bridge and the hooks of its namespace at one moment, where they are read live: see
 * images.h. What the kernel does not have is zero.
 */
struct bridge_image {
	__u64 bridge; /* address of its struct net_bridge; 0: nobody looked */
	__u64 device; /* of its struct net_device */
	__u64 hooks;  /* of the namespace's struct netns_nf */
	__u64 mask;   /* of the options that count */
	__u64 options;
	__u64 ageing_time;
	__u64 entries; /* of the hooks, as a number: see hooks_at */
	__u32 flags;
	__u32 vlan_protocol;
};

/* What holds for the whole bridge. One page, mapped by the daemon, which adds
 * to the epochs atomically as the programs do. The daemon changes flags,
 * vlan_protocol and seen as it does a port's record: seen is void meanwhile.
 *
 * An epoch is the age of decisions: a flow that was cached under another epoch
 * is decided anew. A station's entry is covered by the shard of its address, so that
 * the churn of one station does not throw out the others' flows; the state of ports and
 * bridge by all of them.
 */
struct control {
	__u64 epoch[EPOCH_SHARDS];
	__u64 lease_ns;	    /* the fast path ends here (CLOCK_MONOTONIC); 0: shut */
	__u64 keepalive_ns;
	__u64 seen;	    /* the bridge's version that this is true for */
	__u32 ifindex;	    /* of the bridge */
	__u32 reason;	    /* why it is shut */
	__u32 flags;
	__u32 vlan_protocol; /* of the bridge's tags, host order; 0: no VLAN filtering */
	__u64 revoked;	    /* entries that the programs removed */
	struct bridge_image image; /* that this is true for; written as seen is */
};

/* A map of one value is a section of its own: the programs have its address, and look
 * nothing up.
 */
struct control bridge SEC(".data.bridge");

static __always_inline void end_all_flows(void)
{
#pragma clang loop unroll(disable)
	for (int shard = 0; shard < EPOCH_SHARDS; shard++)
		__sync_fetch_and_add(&bridge.epoch[shard], 1);
}
