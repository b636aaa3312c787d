/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The way straight to the far end of a veth, past its end in the bridge: see
 * docs/peer.md. It is taken only where nobody misses what it skips there, and only
 * where no frame can be overtaken: one that takes the bridge, or is redirected to the
 * bridge's end, waits in this CPU's backlog until the far end gets it
 * (drivers/net/veth.c: veth_xmit; net/core/dev.c: enqueue_to_backlog), and one that
 * goes straight waits nowhere.
 */
#include "live.h"

/* The operator asked for it, and the kernel lets programs read devices. */
const volatile bool peers = false;

/* What makes a port unfit is announced: else it is looked at with every frame. */
const volatile bool peers_traced = false;

/* Of the kernel's structures what no type here stands for: see layout.go. */
struct layout {
	__u32 far;	  /* in a veth's device: its far end */
	__u32 queues;	  /* in a veth's device: struct veth_rq of its queues */
	__u32 queue_size;
	__u32 napi;	  /* in struct veth_rq */
	__u64 softnet;	  /* from a CPU's struct rq to its struct softnet_data */
	__u64 taps;	  /* address of the list of captures; 0: each namespace has its own */
	__u64 offloads;	  /* the features that shape what a device sends */
};

const volatile struct layout kernel_layout = {};

/* Why a port's far end is not reached straight; the names are in peer.go. */
enum unfit {
	FIT = 0,
	NO_VETH = 1,
	SAME_NAMESPACE = 2,
	HAS_QDISC = 3,
	HAS_EGRESS = 4,
	HAS_CAPTURE = 5,
	LACKS_OFFLOAD = 6,
	IS_STEERED = 7,
	HAS_NAPI = 8,
	MANY_QUEUES = 9,
};

#define MOST_QUEUES 8
#define VETH_ 0x0068746576ULL		/* "veth" and its zero byte */
#define NOQUEUE_ 0x0065756575716f6eULL	/* "noqueue" and its zero byte */
#define FIVE_BYTES ((1ULL << 40) - 1)
#define GSO_SIZE_ 65536			/* include/linux/netdevice.h: GSO_LEGACY_MAX_SIZE */
#define GSO_SEGS_ 65535

static __always_inline __u64 word_at(__u64 address)
{
	return CAST(struct timespec64, address)->tv_sec;
}

static __always_inline struct net_device *device_at(__u64 address)
{
	return CAST(struct net_device, address);
}

static __always_inline bool is_empty(struct list_head *list)
{
	return WORD(list->next) == (__u64)list;
}

/* Whoever looks at what the device sends (net/core/dev.c: dev_nit_active). */
static __always_inline bool is_captured(__u64 at)
{
	__u64 own = at + bpf_core_field_offset(struct net_device, ptype_all);
	__u64 all = kernel_layout.taps;

	if (!all)
		all = WORD(device_at(at)->nd_net.net) + bpf_core_field_offset(struct net, ptype_all);
	return word_at(own) != own || word_at(all) != all;
}

/* net/core/dev.c: sch_handle_egress */
static __always_inline bool has_egress(struct net_device *dev)
{
	struct bpf_mprog_entry *entry;
	struct mini_Qdisc *filters;
	struct tcx_entry *tcx;

	if (!WORD(dev->tcx_egress))
		return false;
	entry = CAST(struct bpf_mprog_entry, dev->tcx_egress);
	if (WORD(entry->fp_items[0].prog))
		return true;
	tcx = CAST(struct tcx_entry,
		   WORD(entry->parent) - bpf_core_field_offset(struct tcx_entry, bundle));
	filters = tcx->miniq;
	return WORD(tcx->miniq) && WORD(filters->filter_list);
}

/* What the device would cut or reckon for its far end, that takes it whole. */
static __always_inline bool lacks_offload(struct net_device *dev)
{
	return dev->hw_features & ~dev->features & kernel_layout.offloads ||
	       dev->gso_max_size < GSO_SIZE_ || dev->gso_max_segs < GSO_SEGS_;
}

/* Frames that do not go straight must wait in the backlog of the CPU that sends them,
 * for there they can be seen.
 */
static __always_inline enum unfit waits_elsewhere(__u64 far_at)
{
	struct net_device *far = device_at(far_at);
	__u64 queues = word_at(far_at + kernel_layout.queues);
	__u32 n = far->real_num_rx_queues, i;
	struct netdev_rx_queue *q;

	if (n > MOST_QUEUES)
		return MANY_QUEUES;
	for (i = 0; i < MOST_QUEUES && i < n; i++) {
		q = CAST(struct netdev_rx_queue,
			 WORD(far->_rx) + i * bpf_core_type_size(struct netdev_rx_queue));
		if (WORD(q->rps_map) || WORD(q->rps_flow_table))
			return IS_STEERED;
		if (word_at(queues + i * kernel_layout.queue_size + kernel_layout.napi))
			return HAS_NAPI;
	}
	return FIT;
}

/* Whether something is lost, or somebody overtaken, where frames skip the end in the
 * bridge.
 */
static __always_inline enum unfit unfit_of(__u64 at)
{
	struct net_device *dev = device_at(at), *far;
	__u64 far_at;

	if ((WORD(*dev->rtnl_link_ops->kind) & FIVE_BYTES) != VETH_)
		return NO_VETH;
	far_at = word_at(at + kernel_layout.far);
	if (!far_at)
		return NO_VETH;
	far = device_at(far_at);
	if (WORD(far->nd_net.net) == WORD(dev->nd_net.net))
		return SAME_NAMESPACE;
	if (WORD(dev->qdisc->ops->id) != NOQUEUE_)
		return HAS_QDISC;
	if (has_egress(dev))
		return HAS_EGRESS;
	if (is_captured(at))
		return HAS_CAPTURE;
	if (lacks_offload(dev))
		return LACKS_OFFLOAD;
	return waits_elsewhere(far_at);
}

/* The backlog of this CPU. What the kernel keeps for each CPU lies in one piece, so
 * from the run queue, which every task knows, it is as far on every CPU.
 */
static __always_inline struct softnet_data *backlog(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct softnet_data *sd;

	sd = CAST(struct softnet_data, WORD(task->se.cfs_rq->rq) + kernel_layout.softnet);
	return sd->cpu == bpf_get_smp_processor_id() ? sd : NULL;
}

/* Everything that entered the backlog up to this turn was delivered: the kernel counts
 * a frame as out when it is through with it. Where nothing waits that is true of all
 * but the frame that is looked at, whose turn it is.
 */
static __always_inline bool is_drained(struct softnet_data *sd, __u32 turn)
{
	return (__s32)(sd->input_queue_head - turn) >= 0 ||
	       (!sd->input_pkt_queue.qlen && !sd->process_queue.qlen);
}

/* The bridge is shown a frame that it learns the source of, and forwards to nobody
 * (net/bridge/br_input.c: br_handle_frame): the address is that of the neighbours'
 * discovery on a link, the EtherType one for experiments.
 */
#define SHOWN_ADDRESS_ 0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e
#define SHOWN_PROTOCOL_ 0x88, 0xb5
#define SHOWN_FORWARDED_ (1 << 0x0e) /* in a group_fwd_mask */

/* The port where the frame came in. */
static __always_inline struct net_bridge_port *port_at(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);

	return CAST(struct net_bridge_port, WORD(kernel->dev->rx_handler_data));
}

/* Not where the bridge forwards such frames, or learns nothing of them. */
static __always_inline bool may_show(const struct net_bridge_port *in)
{
	const struct net_bridge *br;

	br = in->br;
	return !((in->group_fwd_mask | br->group_fwd_mask | br->group_fwd_mask_required) &
		 SHOWN_FORWARDED_) &&
	       !(br->options & OPTION(NO_LL_LEARN));
}

/* Shows the bridge a copy of the frame, under another destination and EtherType, so
 * that the frame itself need not take the bridge.
 */
static __always_inline bool show(struct __sk_buff *skb)
{
	__u8 header[ETH_HLEN], shown[ETH_HLEN] = {
		SHOWN_ADDRESS_, 0, 0, 0, 0, 0, 0, SHOWN_PROTOCOL_,
	};
	bool done;

	if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
		return false;
	__builtin_memcpy(shown + ETH_ALEN, header + ETH_ALEN, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, shown, sizeof(shown), 0))
		return false;
	done = !bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	return !bpf_skb_store_bytes(skb, 0, header, sizeof(header), 0) && done;
}
