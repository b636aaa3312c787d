// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Many changes of the stations' map in one call. BPF_MAP_UPDATE_BATCH cannot say that an
 * entry must exist, or must not (kernel/bpf/syscall.c: generic_map_update_batch), and
 * would bring back what was revoked in between. Here every change is the one that the
 * daemon would make by itself: each is whole before the next, and none depends on another.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "control.h"
#include "maps.h"

char __license[] SEC("license") = "Dual BSD/GPL";

#define MAX_CHANGES 1024

enum change_kind { ADMIT = 0, ACTIVATE = 1, REVOKE = 2 };

struct change {
	struct station_key key;
	struct station record;
	__u32 kind;
	__s32 result; /* 0, or the error of the map */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_CHANGES);
	__type(key, __u32);
	__type(value, struct change);
} batch SEC(".maps");

/* A flow that was decided by the entry as it was is decided anew. */
static __always_inline void end_flows(const struct station_key *key)
{
	__u8 shard = key->mac[4] ^ key->mac[5];

	__sync_fetch_and_add(&bridge.epoch[shard], 1);
}

static long change_one(__u32 n, void *unused)
{
	struct change *c = bpf_map_lookup_elem(&batch, &n);

	if (!c)
		return 1;
	switch (c->kind) {
	case ADMIT:
		c->result = bpf_map_update_elem(&stations, &c->key, &c->record, BPF_NOEXIST);
		return 0;
	case ACTIVATE:
		c->result = bpf_map_update_elem(&stations, &c->key, &c->record, BPF_EXIST);
		break;
	default:
		c->result = bpf_map_delete_elem(&stations, &c->key);
	}
	if (!c->result)
		end_flows(&c->key);
	return 0;
}

struct request {
	__u32 changes; /* how many, from the first on */
};

SEC("syscall")
int shunt_batch(struct request *r)
{
	bpf_loop(r->changes, change_one, NULL, 0);
	return 0;
}
