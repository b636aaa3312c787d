/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Live reads: where the kernel lets no program trace its functions, the state of
 * both ports, of the bridge and of the namespace's hooks is read with every frame,
 * and compared with what it was when the daemon looked, before it asked the kernel
 * over netlink. What it means is not judged here; that it is not the same any more is
 * enough. A read costs some eight instructions, so there are few: a port that leaves
 * its bridge takes its entries of the forwarding table along, which the bridge's
 * tracepoint revokes, and so nothing asks with every frame whether it is still one.
 */
#include "control.h"
#include "live.h"
#include "maps.h"

/* The daemon writes them as it does the ports' records. The section is as large as it
 * makes it: MAX_SLOTS of them where the kernel's state is read live.
 */
struct port_image images[1] SEC(".data.images");

static __always_inline const struct port_image *image_of(__u32 at)
{
	const struct port_image *first = images;

	asm volatile("" : "+r"(first));
	return first + (at & (MAX_SLOTS - 1));
}

static __always_inline struct net_bridge_port *port_in(const struct port_image *seen)
{
	return CAST(struct net_bridge_port, seen->port);
}

static __always_inline struct net_device *device_in(const struct port_image *seen)
{
	return CAST(struct net_device, seen->device);
}

/* The port that the device is, or NULL (net/bridge/br_private.h:
 * br_port_get_check_rcu).
 */
static __always_inline struct net_bridge_port *port_of(struct net_device *dev)
{
	if (!(BPF_CORE_READ_BITFIELD(dev, priv_flags) & IFF_BRIDGE_PORT_))
		return NULL;
	return CAST(struct net_bridge_port, dev->rx_handler_data);
}

/* The port's state, and what is in the same word: the backup nexthop, and what stays as
 * it is (net/bridge/br_private.h: struct net_bridge_port). Before there was such a
 * nexthop, Linux 6.5, the word has other things in it.
 */
static __always_inline __u64 state_at(__u64 port)
{
	__u64 at = bpf_core_field_offset(struct net_bridge_port, state);

	if (!bpf_core_field_exists(struct net_bridge_port, backup_nhid))
		return CAST(struct net_bridge_port, port)->state;
	if (at >> 3 == bpf_core_field_offset(struct net_bridge_port, backup_nhid) >> 3)
		return CAST(struct timespec64, port + (at & ~7ULL))->tv_sec;
	return CAST(struct net_bridge_port, port)->state |
	       (__u64)CAST(struct net_bridge_port, port)->backup_nhid << 8;
}

static __always_inline __u32 vlan_devices_of(struct net_device *dev)
{
	struct vlan_info *info;

	if (!bpf_core_field_exists(dev->vlan_info))
		return 0;
	info = CAST(struct vlan_info, dev->vlan_info);
	return info->grp.nr_vlan_devs;
}

/* The device's tcx (net/core/dev.c, kernel/bpf/mprog.c); 0 if it has none. It stays
 * where it is for as long as a program of ours is attached there.
 */
static __always_inline __u64 tcx_of(struct net_device *dev)
{
	struct bpf_mprog_entry *entry;

	if (!bpf_core_field_exists(dev->tcx_ingress) || !dev->tcx_ingress)
		return 0;
	entry = CAST(struct bpf_mprog_entry, dev->tcx_ingress);
	return WORD(entry->parent) - bpf_core_field_offset(struct tcx_entry, bundle);
}

/* The first of clsact's filters. */
static __always_inline __u64 filters_of(struct tcx_entry *tcx)
{
	return tcx->miniq ? WORD(CAST(struct mini_Qdisc, tcx->miniq)->filter_list) : 0;
}

enum { NF_PRE_ROUTING = 0, NF_FORWARD = 2, NF_POST_ROUTING = 4 };

/* Takes one more value into a number. The order counts, and no two changes cancel but
 * by a chance of one in 2^64.
 */
#define FOLD(sum, value) ((sum) = (((sum) ^ (__u64)(value)) * 0x9E3779B97F4A7C15ULL), \
			  (sum) ^= (sum) >> 29)

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

/* All hooks that see the bridge's frames, as a number; 0 if there are none. Where one is
 * of the bridge's own family it may be br_netfilter's, which shows them to those of IP.
 */
static __noinline __u64 fold_hooks(__u64 hooks)
{
	struct netns_nf *nf = CAST(struct netns_nf, hooks);
	__u64 sum = 1;

	FOLD_HOOKS(sum, nf->hooks_bridge[NF_PRE_ROUTING]);
	FOLD_HOOKS(sum, nf->hooks_bridge[NF_FORWARD]);
	FOLD_HOOKS(sum, nf->hooks_bridge[NF_POST_ROUTING]);
	FOLD_HOOKS(sum, nf->hooks_ipv4[NF_PRE_ROUTING]);
	FOLD_HOOKS(sum, nf->hooks_ipv4[NF_FORWARD]);
	FOLD_HOOKS(sum, nf->hooks_ipv4[NF_POST_ROUTING]);
	FOLD_HOOKS(sum, nf->hooks_ipv6[NF_PRE_ROUTING]);
	FOLD_HOOKS(sum, nf->hooks_ipv6[NF_FORWARD]);
	FOLD_HOOKS(sum, nf->hooks_ipv6[NF_POST_ROUTING]);
	return sum;
}

static __always_inline __u64 hooks_at(__u64 hooks)
{
	struct netns_nf *nf = CAST(struct netns_nf, hooks);

	if (!bpf_core_field_exists(nf->hooks_bridge))
		return 0;
	if (!nf->hooks_bridge[NF_PRE_ROUTING] && !nf->hooks_bridge[NF_FORWARD] &&
	    !nf->hooks_bridge[NF_POST_ROUTING])
		return 0;
	return fold_hooks(hooks);
}

static __always_inline __u32 vlan_protocol_of(struct net_bridge *br)
{
	return bpf_core_field_exists(br->vlan_proto) ? br->vlan_proto : 0;
}

static __always_inline void look_at_bridge(struct net_bridge_port *p, struct bridge_image *image)
{
	struct net_bridge *br = p->br;
	struct net_device *dev = br->dev;

	image->bridge = WORD(p->br);
	image->device = WORD(br->dev);
	image->hooks = WORD(dev->nd_net.net) + bpf_core_field_offset(struct net, nf);
	image->mask = OPTIONS_THAT_COUNT;
	image->options = br->options & image->mask;
	image->ageing_time = br->ageing_time;
	image->entries = hooks_at(image->hooks);
	image->flags = dev->flags;
	image->vlan_protocol = vlan_protocol_of(br);
}

static __always_inline void look_at_port(struct net_bridge_port *p, struct port_image *image)
{
	struct net_device *dev = p->dev;

	image->port = WORD(dev->rx_handler_data);
	image->device = WORD(p->dev);
	image->tcx = tcx_of(dev);
	image->flags = p->flags;
	image->state = state_at(image->port);
	image->backup = WORD(p->backup_port);
	image->mtu = dev->mtu;
	image->vlan_devices = vlan_devices_of(dev);
	image->ingress_hooks = 0;
	image->egress_hooks = 0;
	image->revision = 0;
	image->filters = 0;
	if (bpf_core_field_exists(dev->nf_hooks_ingress))
		image->ingress_hooks = WORD(dev->nf_hooks_ingress);
	if (bpf_core_field_exists(dev->nf_hooks_egress))
		image->egress_hooks = WORD(dev->nf_hooks_egress);
	if (!bpf_core_field_exists(dev->tcx_ingress) || !image->tcx)
		return;
	image->revision = CAST(struct tcx_entry, image->tcx)->bundle.revision.counter;
	image->filters = filters_of(CAST(struct tcx_entry, image->tcx));
}

static __always_inline bool is_bridge(const struct bridge_image *seen)
{
	struct net_bridge *br = CAST(struct net_bridge, seen->bridge);

	return (br->options & seen->mask) == seen->options && br->ageing_time == seen->ageing_time &&
	       CAST(struct net_device, seen->device)->flags == seen->flags &&
	       hooks_at(seen->hooks) == seen->entries &&
	       (!bridge.vlan_protocol || vlan_protocol_of(br) == seen->vlan_protocol);
}

static __always_inline bool is_ingress(const struct port_image *seen, bool tagged)
{
	struct net_bridge_port *p = port_in(seen);
	struct net_device *dev = device_in(seen);
	struct tcx_entry *tcx;

	if (p->flags != seen->flags || state_at(seen->port) != seen->state)
		return false;
	if (bpf_core_field_exists(dev->nf_hooks_ingress) &&
	    (__u64)dev->nf_hooks_ingress != seen->ingress_hooks)
		return false;
	if (tagged && vlan_devices_of(dev) != seen->vlan_devices)
		return false;
	/* The verifier follows every way that the kernel's types leave open, and of what lies
	 * in a map it knows nothing.
	 */
	if (!bpf_core_field_exists(dev->tcx_ingress) || !seen->tcx)
		return true;
	tcx = CAST(struct tcx_entry, seen->tcx);
	return (__u64)tcx->bundle.revision.counter == seen->revision && filters_of(tcx) == seen->filters;
}

static __always_inline bool is_egress(const struct port_image *seen)
{
	struct net_bridge_port *p = port_in(seen);
	struct net_device *dev = device_in(seen);

	return p->flags == seen->flags && state_at(seen->port) == seen->state &&
	       (__u64)p->backup_port == seen->backup && dev->mtu == seen->mtu &&
	       (!bpf_core_field_exists(dev->nf_hooks_egress) ||
		(__u64)dev->nf_hooks_egress == seen->egress_hooks);
}

/* What a port is known by is still one, and of this bridge. */
static __always_inline bool is_port(const struct port_image *seen)
{
	return seen->port && (__u64)device_in(seen)->rx_handler_data == seen->port &&
	       (__u64)port_in(seen)->br == bridge.image.bridge;
}
