// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The program at a bridge port's tc ingress. It decides for one frame whether
 * its fate in the bridge is already certain. If so it sends the frame to the
 * egress device; if not it counts the reason and passes the frame up unchanged.
 *
 * The way of a frame: class -> flow cache -> (on a miss: source station,
 * gate, port, keepalive, destination station, egress port, fill the cache) ->
 * IP header -> MTU -> count -> redirect.
 *
 * The check of the source runs on every port and for every frame that is not
 * cached, whether the fast path is open or not: a station that moved must be
 * forgotten at its first frame from the new port, or frames to it would go to
 * the port that it left.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

char __license[] SEC("license") = "Dual BSD/GPL";

/* The slot of the port that this program is loaded for. */
const volatile __u32 slot = 0;

#define PASS_UP (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the next one decides */
#define MAC_BITS 48
#define MAC_MASK ((1ULL << MAC_BITS) - 1)
#define MULTICAST_BIT 1ULL /* of the first byte, in little-endian order */

#define ETH_P_CFM_ 0x8902
#define ETH_P_MRP_ 0x88E3

struct frame {
	__u64 source;	   /* as in struct flow */
	__u64 destination; /* as in struct flow */
	__u64 now_ns;
	__u32 len;	   /* with the Ethernet header, without the tag */
	__u16 protocol;	   /* host order; the one behind the tag */
	bool tagged;
};

/* A bridge without VLAN filtering keys every frame with VID 0 and keeps the
 * tag (net/bridge/br_vlan.c: br_allowed_ingress).
 */
static __always_inline bool parse(struct __sk_buff *skb, struct frame *f)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if (data + sizeof(*eth) > end)
		return false;
	f->destination = *(__u32 *)data | (__u64)*(__u16 *)(data + 4) << 32;
	f->source = *(__u32 *)(data + 6) | (__u64)*(__u16 *)(data + 10) << 32;
	f->destination |= (__u64)slot << MAC_BITS;
	f->protocol = bpf_ntohs(skb->protocol);
	f->tagged = skb->vlan_present;
	f->len = skb->len;
	f->now_ns = bpf_ktime_get_coarse_ns();
	return true;
}

/* The frames that always belong to the bridge. */
static __always_inline enum reason class_of(const struct frame *f)
{
	if (f->destination & MULTICAST_BIT)
		return MULTICAST;
	if (f->source & MULTICAST_BIT)
		return SOURCE_MULTICAST;
	if (!(f->source & MAC_MASK))
		return SOURCE_ZERO;
	/* A VLAN device on the port takes its frames before the bridge does
	 * (net/8021q/vlan_core.c: vlan_do_receive), and netlink does not tell of
	 * one that was moved to another namespace.
	 */
	if (f->tagged)
		return TAGGED;
	switch (f->protocol) {
	case ETH_P_ARP:
	case ETH_P_RARP:
		return ARP;
	case ETH_P_CFM_:
		return CFM;
	case ETH_P_MRP_:
		return MRP;
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		return DOUBLE_TAGGED;
	}
	/* net/ethernet/eth.c: eth_type_trans */
	if (f->protocol < ETH_P_802_3_MIN)
		return LLC;
	return FAST;
}

static __always_inline __u32 shard(__u64 address)
{
	__u32 n = address >> 32 ^ address >> 40;

	barrier_var(n); /* or the mask ends up where Linux 6.1's verifier misses it */
	return n & (EPOCH_SHARDS - 1);
}

static __always_inline struct flow *flow_of(const struct frame *f)
{
	__u64 h = (f->source ^ f->destination * 0x9E3779B97F4A7C15ULL) *
		  0xD6E8FEB86659FD93ULL;
	__u32 index = h >> (64 - FLOWS_BITS);

	return bpf_map_lookup_elem(&flows, &index);
}

static __always_inline bool valid(const struct flow *flow, const struct frame *f,
				  const struct control *c)
{
	return flow->source == f->source &&
	       flow->destination == f->destination &&
	       flow->epoch_all == c->epoch_all &&
	       flow->epoch_source == c->epoch[shard(f->source)] &&
	       flow->epoch_destination == c->epoch[shard(f->destination)] &&
	       f->now_ns < flow->keepalive_ns && f->now_ns < c->lease_ns;
}

static __always_inline struct station *station_of(__u64 address)
{
	struct station_key key;

	__builtin_memcpy(&key, &address, sizeof(key));
	key.vid = 0;
	return bpf_map_lookup_elem(&stations, &key);
}

/* Forgets a station that was seen behind another port. Only a removal ends the
 * flows: else a guest that spoofs an address could keep all others slow.
 */
static __always_inline void revoke(struct control *c, struct station *s, __u64 address)
{
	struct station_key key;
	long err;

	__builtin_memcpy(&key, &address, sizeof(key));
	key.vid = 0;
	err = bpf_map_delete_elem(&stations, &key);
	if (err == -2 /* ENOENT: another CPU was first */)
		return;
	if (err) {
		/* EBUSY: the entry cannot be removed now; nobody may use it. */
		s->flags &= ~STATION_ACTIVE;
		__sync_fetch_and_add(&c->epoch_all, 1);
	}
	__sync_fetch_and_add(&c->revoked, 1);
	__sync_fetch_and_add(&c->epoch[shard(address)], 1);
}

/* The source must be known, verified, and behind this port
 * (net/bridge/br_fdb.c: br_fdb_update).
 */
static __always_inline enum reason check_source(struct control *c, struct station *s,
						__u64 address)
{
	if (!s)
		return SOURCE_UNKNOWN;
	if (s->flags & STATION_LOCAL)
		return SOURCE_LOCAL;
	if (s->slot != slot) {
		revoke(c, s, address);
		return SOURCE_MOVED;
	}
	if (s->flags & STATION_NO_SOURCE)
		return SOURCE_LOCKED;
	if (!(s->flags & STATION_ACTIVE))
		return UNVERIFIED;
	return FAST;
}

static __always_inline enum reason check_destination(const struct station *s)
{
	if (!s)
		return DESTINATION_UNKNOWN;
	if (s->flags & STATION_LOCAL)
		return DESTINATION_LOCAL;
	if (!(s->flags & STATION_ACTIVE))
		return UNVERIFIED;
	if (s->slot == slot)
		return SAME_PORT;
	return FAST;
}

/* net/bridge/br_forward.c: should_deliver */
static __always_inline enum reason check_egress(const struct port *in, const struct port *out)
{
	if (!out || !out->ifindex)
		return PORT_UNKNOWN;
	if (out->out)
		return PORT_EGRESS;
	if (in->flags & out->flags & PORT_ISOLATED)
		return ISOLATED;
	return FAST;
}

/* Decides for a frame that no valid flow covers, and keeps the decision. The
 * epochs are read before anything that they stand for.
 */
static __always_inline enum reason decide(const struct frame *f, enum reason class,
					  struct control *c, struct flow *flow)
{
	__u64 epoch_all = *(volatile __u64 *)&c->epoch_all;
	__u64 epoch_source = *(volatile __u64 *)&c->epoch[shard(f->source)];
	__u64 epoch_destination = *(volatile __u64 *)&c->epoch[shard(f->destination)];
	struct station *source, *destination;
	enum reason source_reason, reason;
	struct port *in, *out;
	__u32 in_slot = slot, out_slot;

	if (class == SOURCE_MULTICAST || class == SOURCE_ZERO)
		return class;
	source = station_of(f->source);
	source_reason = check_source(c, source, f->source);
	if (source_reason == SOURCE_MOVED)
		return SOURCE_MOVED;
	if (class != FAST)
		return class;
	if (f->now_ns >= c->lease_ns)
		return c->reason ? c->reason : LEASE;
	in = bpf_map_lookup_elem(&ports, &in_slot);
	if (!in || !in->ifindex)
		return PORT_UNKNOWN;
	if (in->in)
		return in->in;
	if (!source || source_reason != FAST)
		return source_reason;

	destination = station_of(f->destination);
	reason = check_destination(destination);
	if (!destination || reason != FAST)
		return reason;
	out_slot = destination->slot;
	out = bpf_map_lookup_elem(&ports, &out_slot);
	reason = check_egress(in, out);
	if (!out || reason != FAST)
		return reason;

	/* The bridge learns from what it sees: show it a frame of this source
	 * now and then, so that its entry does not age.
	 */
	if (f->now_ns - source->seen_ns >= c->keepalive_ns) {
		source->seen_ns = f->now_ns;
		return KEEPALIVE;
	}

	flow->source = f->source;
	flow->destination = f->destination;
	flow->epoch_all = epoch_all;
	flow->epoch_source = epoch_source;
	flow->epoch_destination = epoch_destination;
	flow->keepalive_ns = source->seen_ns + c->keepalive_ns;
	flow->ifindex = out->ifindex;
	flow->max_len = out->max_len;
	return FAST;
}

/* net/bridge/br_netfilter_hooks.c: br_validate_ipv4 drops what it finds wrong,
 * handles options and trims padding; what it would leave alone may go fast.
 */
static __always_inline bool plain_ipv4(struct __sk_buff *skb, __u32 len)
{
	__u32 words[5];
	__u64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, words, sizeof(words)))
		return false;
	if ((words[0] & 0xff) != 0x45)
		return false;
	if (bpf_ntohs(words[0] >> 16) + ETH_HLEN != len)
		return false;
	sum = (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* net/bridge/br_netfilter_ipv6.c: br_validate_ipv6 */
static __always_inline bool plain_ipv6(struct __sk_buff *skb, __u32 len)
{
	struct ipv6hdr h;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &h, sizeof(h)))
		return false;
	return h.version == 6 && h.nexthdr != 0 /* hop-by-hop options */ &&
	       bpf_ntohs(h.payload_len) + sizeof(h) + ETH_HLEN == len;
}

static __always_inline enum reason check_ip(struct __sk_buff *skb, const struct frame *f)
{
	switch (f->protocol) {
	case ETH_P_IP:
		return plain_ipv4(skb, f->len) ? FAST : IP_HEADER;
	case ETH_P_IPV6:
		return plain_ipv6(skb, f->len) ? FAST : IP_HEADER;
	case ETH_P_PPP_SES:
		return PPPOE;
	}
	return FAST;
}

static __always_inline enum reason verdict(struct __sk_buff *skb, __u32 *ifindex)
{
	struct control *c;
	struct flow *flow;
	enum reason reason;
	struct frame f;
	__u32 zero = 0;

	if (!parse(skb, &f))
		return MALFORMED;
	c = bpf_map_lookup_elem(&bridge, &zero);
	flow = flow_of(&f);
	if (!c || !flow)
		return PORT_UNKNOWN;

	reason = class_of(&f);
	if (reason != FAST || !valid(flow, &f, c))
		reason = decide(&f, reason, c, flow);
	if (reason != FAST)
		return reason;

	if (c->flags & CONTROL_CHECK_IP) {
		reason = check_ip(skb, &f);
		if (reason != FAST)
			return reason;
	}
	/* include/linux/netdevice.h: __is_skb_forwardable; a redirect checks nothing */
	if (f.len > flow->max_len && !skb->gso_size)
		return MTU;
	*ifindex = flow->ifindex;
	return FAST;
}

SEC("tc")
int shunt_ingress(struct __sk_buff *skb)
{
	__u32 ifindex = 0;
	__u32 reason = verdict(skb, &ifindex);
	struct count *n = bpf_map_lookup_elem(&counters, &reason);

	if (n) {
		n->packets++;
		n->bytes += skb->len;
	}
	if (reason != FAST)
		return PASS_UP;
	return bpf_redirect(ifindex, 0);
}
