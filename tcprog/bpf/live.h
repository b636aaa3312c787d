/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Live reads: where the kernel lets no program trace its functions, the state
 * of both ports, of the bridge and of the namespace's hooks is read with every
 * frame (Linux 6.2 or later, CAP_PERFMON). It is folded into numbers that change
 * when anything of it changes: the daemon reads such a number before it asks the
 * kernel over netlink, and keeps it in the record. What it means is not judged
 * here; that it is not the same any more is enough.
 */
#include <bpf/bpf_core_read.h>

#include "kernel.h"

extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define CAST(type, address) \
	((type *)bpf_rdonly_cast((const void *)(address), bpf_core_type_id_kernel(type)))

/* A pointer as a number: the verifier lets nobody reckon with what it takes for
 * a pointer.
 */
#define WORD(field) ((__u64)CAST(struct timespec64, &(field))->tv_sec)

/* Takes one more value into a fold. The order counts, and no two changes cancel
 * but by a chance of one in 2^64.
 */
#define FOLD(sum, value) ((sum) = (((sum) ^ (__u64)(value)) * 0x9E3779B97F4A7C15ULL), \
			  (sum) ^= (sum) >> 29)

/* The port that the device is, or NULL (net/bridge/br_private.h:
 * br_port_get_check_rcu).
 */
static __always_inline struct net_bridge_port *port_of(struct net_device *dev)
{
	if (!(BPF_CORE_READ_BITFIELD(dev, priv_flags) & IFF_BRIDGE_PORT_))
		return NULL;
	return CAST(struct net_bridge_port, dev->rx_handler_data);
}

static __always_inline __u32 vlan_devices_of(struct net_device *dev)
{
	struct vlan_info *info;

	if (!bpf_core_field_exists(dev->vlan_info))
		return 0;
	info = CAST(struct vlan_info, dev->vlan_info);
	return info->grp.nr_vlan_devs;
}

/* Whoever attaches to the device's tc ingress changes this. */
static __always_inline __u64 fold_tc(struct net_device *dev)
{
	struct bpf_mprog_bundle *bundle;
	struct bpf_mprog_entry *entry;
	struct mini_Qdisc *filters;
	struct tcx_entry *tcx;
	__u64 sum = 0;

	if (!bpf_core_field_exists(dev->tcx_ingress))
		return 0;
	entry = CAST(struct bpf_mprog_entry, dev->tcx_ingress);
	bundle = entry->parent;
	tcx = CAST(struct tcx_entry,
		   WORD(entry->parent) - bpf_core_field_offset(struct tcx_entry, bundle));
	filters = tcx->miniq;
	FOLD(sum, bundle->revision.counter);
	FOLD(sum, WORD(filters->filter_list));
	return sum;
}

static __always_inline __u64 fold_port(struct net_bridge_port *p)
{
	struct net_device *dev = p->dev;
	__u64 sum = fold_tc(dev);

	FOLD(sum, WORD(p->br));
	FOLD(sum, p->state);
	FOLD(sum, p->flags);
	FOLD(sum, WORD(p->backup_port));
	if (bpf_core_field_exists(p->backup_nhid))
		FOLD(sum, p->backup_nhid);
	FOLD(sum, dev->flags);
	FOLD(sum, dev->mtu);
	FOLD(sum, dev->ifindex);
	FOLD(sum, BPF_CORE_READ_BITFIELD(dev, priv_flags) & IFF_BRIDGE_PORT_);
	FOLD(sum, vlan_devices_of(dev));
	if (bpf_core_field_exists(dev->nf_hooks_ingress))
		FOLD(sum, WORD(dev->nf_hooks_ingress));
	if (bpf_core_field_exists(dev->nf_hooks_egress))
		FOLD(sum, WORD(dev->nf_hooks_egress));
	return sum;
}

/* A hook that comes or goes makes a new array, which may stand where an older
 * one stood: so the number counts too (net/netfilter/core.c).
 */
#define FOLD_HOOKS(sum, hooks)                                             \
	do {                                                               \
		struct nf_hook_entries *entries_ = (hooks);                \
		if (!entries_)                                             \
			FOLD(sum, 0);                                      \
		else                                                       \
			FOLD(sum, WORD(hooks) +                            \
					  entries_->num_hook_entries);     \
	} while (0)

enum { NF_PRE_ROUTING = 0, NF_FORWARD = 2, NF_POST_ROUTING = 4 };

/* br_netfilter shows bridged frames to the hooks of IP, so they count too. */
static __always_inline __u64 fold_bridge(struct net_bridge *br)
{
	struct net_device *dev = br->dev;
	struct net *net = dev->nd_net.net;
	__u64 sum = 0;

	FOLD(sum, br->options & OPTIONS_THAT_COUNT);
	FOLD(sum, br->ageing_time);
	if (bpf_core_field_exists(br->vlan_proto))
		FOLD(sum, br->vlan_proto);
	FOLD(sum, dev->flags);
	FOLD_HOOKS(sum, net->nf.hooks_ipv4[NF_PRE_ROUTING]);
	FOLD_HOOKS(sum, net->nf.hooks_ipv4[NF_FORWARD]);
	FOLD_HOOKS(sum, net->nf.hooks_ipv4[NF_POST_ROUTING]);
	FOLD_HOOKS(sum, net->nf.hooks_ipv6[NF_PRE_ROUTING]);
	FOLD_HOOKS(sum, net->nf.hooks_ipv6[NF_FORWARD]);
	FOLD_HOOKS(sum, net->nf.hooks_ipv6[NF_POST_ROUTING]);
	if (bpf_core_field_exists(net->nf.hooks_bridge)) {
		FOLD_HOOKS(sum, net->nf.hooks_bridge[NF_PRE_ROUTING]);
		FOLD_HOOKS(sum, net->nf.hooks_bridge[NF_FORWARD]);
		FOLD_HOOKS(sum, net->nf.hooks_bridge[NF_POST_ROUTING]);
	}
	return sum;
}

/* All that a flow's decision hangs on. */
static __always_inline __u64 whole(__u64 bridge, __u64 in, __u64 out)
{
	FOLD(bridge, in);
	FOLD(bridge, out);
	return bridge;
}

/* The walk along a bridge's ports, a ring with the bridge's own link in it. */
struct search {
	unsigned long head;  /* the bridge's */
	unsigned long start; /* the port's from which the walk began */
	unsigned long at;
	unsigned long found;
	int ifindex;
};

static long search_step(__u32 n, struct search *s)
{
	unsigned long address = s->at - bpf_core_field_offset(struct net_bridge_port, list);
	struct net_bridge_port *p = CAST(struct net_bridge_port, address);

	if (s->at == s->start)
		return 1;
	if (s->at != s->head && p->dev->ifindex == s->ifindex) {
		s->found = address;
		return 1;
	}
	s->at = WORD(CAST(struct list_head, s->at)->next);
	return 0;
}

#define MAX_PORTS 1024 /* net/bridge/br_private.h: BR_MAX_PORTS */

/* The other port of in's bridge with this ifindex; 0 if there is none. */
static __always_inline unsigned long find_port(struct net_bridge_port *in, int ifindex)
{
	struct search s = {
		.head = WORD(in->br) + bpf_core_field_offset(struct net_bridge, port_list),
		.at = WORD(in->list.next),
		.ifindex = ifindex,
	};

	s.start = WORD(CAST(struct list_head, s.at)->prev);
	bpf_loop(MAX_PORTS + 1, search_step, &s, 0);
	return s.found;
}
