// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs at the bridge's tracepoints: they forget a station in the instant in
 * which the kernel deletes, moves or replaces its entry, whatever the daemon is
 * doing. Additions are the daemon's; here entries only go.
 *
 * They run under the bridge's hash lock with softirqs off. Tracepoints are
 * common to all bridges of the host, so each program looks whether the event
 * is of its bridge; ifindexes repeat across network namespaces.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "control.h"
#include "kernel.h"
#include "maps.h"

char __license[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 bridge_ifindex = 0;
const volatile __u32 netns_inode = 0;

static __always_inline bool in_namespace(struct net_device *dev)
{
	return BPF_CORE_READ(dev, nd_net.net, ns.inum) == netns_inode;
}

static __always_inline bool of_bridge(struct net_bridge *br)
{
	struct net_device *dev = BPF_CORE_READ(br, dev);

	return BPF_CORE_READ(dev, ifindex) == (int)bridge_ifindex && in_namespace(dev);
}

/* Removes the entry and ends the flows that it decided. Where it cannot be
 * removed now (EBUSY, on recursion), all flows end and nobody may use it.
 */
static __always_inline void forget(const unsigned char *mac, __u16 vid, bool counted)
{
	struct station_key key = { .vid = vid };
	struct control *c = &bridge;
	struct station *s;
	__u32 shard;
	long err;

	if (bpf_probe_read_kernel(key.mac, sizeof(key.mac), mac))
		return;
	err = bpf_map_delete_elem(&stations, &key);
	if (err == -2 /* ENOENT */)
		return;
	if (err) {
		s = bpf_map_lookup_elem(&stations, &key);
		if (s)
			s->flags &= ~STATION_ACTIVE;
		end_all_flows();
	}
	if (counted)
		__sync_fetch_and_add(&c->revoked, 1);
	shard = key.mac[4] ^ key.mac[5];
	barrier_var(shard); /* or the mask ends up where Linux 6.1's verifier misses it */
	__sync_fetch_and_add(&c->epoch[shard & (EPOCH_SHARDS - 1)], 1);
}

/* Every delete: ageing, flush, port down, by hand (net/bridge/br_fdb.c). */
SEC("tp_btf/fdb_delete")
int BPF_PROG(shunt_fdb_delete, struct net_bridge *br, struct net_bridge_fdb_entry *f)
{
	if (of_bridge(br))
		forget(f->key.addr.addr, f->key.vlan_id, false);
	return 0;
}

/* Learned or moved; not a refresh (net/bridge/br_fdb.c: br_fdb_update). */
SEC("tp_btf/br_fdb_update")
int BPF_PROG(shunt_fdb_update, struct net_bridge *br, struct net_bridge_port *source,
	     const unsigned char *addr, __u16 vid, unsigned long flags)
{
	if (of_bridge(br))
		forget(addr, vid, false);
	return 0;
}

/* The stations of one address, whatever their VLAN. */
struct namesakes {
	__u8 mac[6];
	bool found; /* a count would keep the verifier counting too */
};

static long bar(void *map, const struct station_key *key, struct station *s, struct namesakes *n)
{
	if (__builtin_memcmp(key->mac, n->mac, sizeof(n->mac)) == 0) {
		s->flags &= ~STATION_ACTIVE;
		n->found = true;
	}
	return 0;
}

/* Without a VLAN the entries of all VLANs of the port are meant
 * (net/bridge/br_fdb.c: br_fdb_add). The daemon finds them inactive and brings
 * back those that the kernel still has.
 */
static __always_inline void bar_all(const unsigned char *mac)
{
	struct namesakes n = {};
	struct control *c = &bridge;

	if (!c->vlan_protocol || bpf_probe_read_kernel(n.mac, sizeof(n.mac), mac))
		return;
	bpf_for_each_map_elem(&stations, bar, &n, 0);
	if (!n.found)
		return;
	__sync_fetch_and_add(&c->revoked, 1);
	end_all_flows();
}

/* Added or replaced by hand, before the result is known: the entry goes, and is
 * counted, so that the daemon looks whether the kernel still has it.
 */
SEC("tp_btf/br_fdb_add")
int BPF_PROG(shunt_fdb_add, struct ndmsg *ndm, struct net_device *dev,
	     const unsigned char *addr, __u16 vid, __u16 nlh_flags)
{
	if (!in_namespace(dev))
		return 0;
	forget(addr, vid, true);
	if (!vid)
		bar_all(addr);
	return 0;
}

SEC("tp_btf/br_fdb_external_learn_add")
int BPF_PROG(shunt_fdb_external, struct net_bridge *br, struct net_bridge_port *p,
	     const unsigned char *addr, __u16 vid)
{
	if (of_bridge(br))
		forget(addr, vid, true);
	return 0;
}
