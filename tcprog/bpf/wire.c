// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs that make a wire of a stable port and its members. With them alone
 * every frame goes to the bridge and comes from it; the fast path on top is in
 * shunt.c: shunt_member.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "live.h"
#include "maps.h"
#include "wire.h"

char __license[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 wire_number = 0;

#define PASS_UP (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the next one decides */

/* At the stable port's egress: to the active member. */
SEC("tc")
int shunt_wire_out(struct __sk_buff *skb)
{
	struct wire *w = wire_of(wire_number);
	struct pair p = {};
	__u32 to;

	if (!w || !read_pair(skb, wire_number, &p))
		return TC_ACT_SHOT;
	to = active_now(w, wire_number, false);
	if (!to) {
		count_on_wire(wire_number, NO_MEMBER, skb->len);
		return TC_ACT_SHOT;
	}
	note_sent(w, &p);
	return bpf_redirect(to, 0);
}

/* At a member's ingress, while the port's bridge is not accelerated: into the
 * stable port.
 */
SEC("tc")
int shunt_wire_in(struct __sk_buff *skb)
{
	struct wire *w = wire_of(wire_number);
	enum reason reason;
	struct pair p = {};

	if (!w || !read_pair(skb, wire_number, &p))
		return TC_ACT_SHOT;
	reason = arrive(skb, w, wire_number, &p, false);
	if (reason != FAST)
		count_on_wire(wire_number, reason, skb->len);
	if (is_dropped(reason))
		return TC_ACT_SHOT;
	return bpf_redirect(w->port, BPF_F_INGRESS);
}

/* At the stable port's ingress: the frame's way through the backlog is over. What
 * was due to it as a frame of the port was done at the member.
 */
SEC("tc")
int shunt_wire_leave(struct __sk_buff *skb)
{
	struct pair p = {};
	struct lane *l;

	if (!read_pair(skb, wire_number, &p))
		return PASS_UP;
	l = lane_of(wire_number, &p);
	if (l)
		leave(l);
	return PASS_UP;
}

/* Whether the device of a test run is up and has its carrier: 1 or 0. Netlink and
 * ethtool ask under a lock that others may hold for long.
 */
SEC("tc")
int shunt_carrier(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);

	return is_running(kernel->dev->state);
}

/* Where the kernel has the device of a test run, and the namespace that it is in: the
 * addresses are the frame's first sixteen bytes, in the order of this CPU.
 */
SEC("tc")
int shunt_device(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	__u64 at[2] = { WORD(kernel->dev), WORD(kernel->dev->nd_net.net) };

	return bpf_skb_store_bytes(skb, 0, at, sizeof(at), 0);
}
