// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The program at a bridge port's tc ingress. It decides for one frame whether
 * its fate in the bridge is already certain. If so it sends the frame to the
 * egress device; if not it counts the reason and passes the frame up unchanged.
 *
 * The way of a frame: flow cache -> (on a miss: gate and class, VLAN, source
 * station, bridge and ports, destination station, egress, keepalive, fill the
 * cache) -> IP header -> MTU -> wire -> tag -> count -> redirect. Frames of a stable
 * port are met at the ingress of its members, and those that are not fast enter the
 * port from there.
 *
 * A station that moved must be forgotten at its first frame from the new port, or
 * frames to it would go to the port that it left: whatever the frame is, and whether
 * the fast path is open or not. The bridge's tracepoint sees to it (revoke.c); where
 * nobody can listen there, the check of the source runs here for every frame that is
 * not cached.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "changes.h"
#include "control.h"
#include "flows.h"
#include "images.h"
#include "maps.h"
#include "peer.h"
#include "wire.h"

char __license[] SEC("license") = "Dual BSD/GPL";

/* The slot of the port that this program is loaded for. */
const volatile __u64 slot = 0;

/* The wire of the stable port of whose member this is the ingress; 0: the program
 * is at the ingress of the port itself.
 */
const volatile __u32 wire_number = 0;

/* Programs at the bridge's tracepoints revoke what moves: see revoke.c. */
const volatile bool entries_traced = false;

/* How the kernel's own changes are noticed; the loader says what it can do. */
enum { NETLINK = 0, TRACED = 1, LIVE = 2 };
const volatile __u32 revocation = NETLINK;

/* What no record is true for: see void in control.go. */
#define VOID ~0ULL

/* The length of a tick, nanoseconds. */
const volatile __u32 tick_ns = 1000000;

/* A flow gives its place to another after so many that it refused. */
#define MOST_REFUSED 16

#define PASS_UP (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the next one decides */
#define MAC_BITS 48
#define MAC_MASK ((1ULL << MAC_BITS) - 1)

#define ETH_P_CFM_ 0x8902
#define VLAN_HLEN_ 4
#define ETH_P_MRP_ 0x88E3
#define IPPROTO_ICMPV6 58
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136

/* A tag in struct glance: its VID, that there is one, and its protocol. */
#define VID_MASK 0x0fff
#define TAG_PRESENT 0x1000
#define TAG_8021AD 0x2000

/* What a flow is known by, as it lies in the frame: the destination and the first two
 * bytes of the source; then the tag, and above it the other four and the protocol
 * behind the tag, in network order.
 */
struct glance {
	__u64 head;
	__u64 rest;
};

struct frame {
	__u64 source;	    /* the first byte lowest */
	__u64 destination;
	__u64 now_jiffies;  /* read before now_ns */
	__u64 now_ns;
	__u32 slot;	    /* of the port where it came in */
	__u32 len;	    /* with the Ethernet header, without the tag */
	__u16 protocol;	    /* host order; the one behind the tag */
	__u16 tag;	    /* see tag_of; 0: none */
	__u16 tag_protocol; /* host order; 0: none */
	__u16 vid;	    /* of the frame in the bridge: see resolve_vlan */
};

/* What shunt_explain is asked, and what it answers. */
struct question {
	__u32 slot;
	__u16 vid;
	__u16 tag_protocol; /* host order; 0: no tag */
};

struct answer {
	__u32 reason;
	__u32 out; /* slot; 0: not known */
	__u16 vid;
	__u16 push;
	__u16 action;
	__u8 has_source;
	__u8 has_destination;
	struct station source;
	struct station destination;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct question);
} questions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer);
} answers SEC(".maps");

static __always_inline __u16 tag_of(__u16 vid, __u16 protocol)
{
	return TAG_PRESENT | (protocol == ETH_P_8021AD ? TAG_8021AD : 0) | (vid & VID_MASK);
}

static __always_inline __u16 tag_in(struct __sk_buff *skb)
{
	return tag_of(skb->vlan_tci, bpf_ntohs(skb->vlan_proto));
}

/* Of nearly every frame sixteen bytes are there, and are read in two words. */
static __always_inline bool look_at(struct __sk_buff *skb, struct glance *g)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (data + 2 * sizeof(__u64) > end)
		return false;
	g->head = *(__u64 *)data;
	g->rest = *(__u64 *)(data + 8) << 16;
	if (skb->vlan_present)
		g->rest |= tag_in(skb);
	return true;
}

static __always_inline bool look_closely(struct __sk_buff *skb, struct glance *g)
{
	__u64 words[2] = {};

	if (look_at(skb, g))
		return true;
	if (bpf_skb_load_bytes(skb, 0, words, ETH_HLEN))
		return false;
	g->head = words[0];
	g->rest = words[1] << 16;
	if (skb->vlan_present)
		g->rest |= tag_in(skb);
	return true;
}

/* In network order, as it lies there. */
static __always_inline __u16 protocol_of(const struct glance *g) { return g->rest >> MAC_BITS; }

static __always_inline void parse(const struct glance *g, __u32 at, __u32 len, struct frame *f)
{
	f->destination = g->head & MAC_MASK;
	f->source = g->head >> MAC_BITS | (g->rest & MAC_MASK & ~0xffffULL);
	f->protocol = bpf_ntohs(protocol_of(g));
	f->tag = g->rest;
	if (f->tag)
		f->tag_protocol = f->tag & TAG_8021AD ? ETH_P_8021AD : ETH_P_8021Q;
	f->slot = at;
	f->len = len;
	f->now_jiffies = bpf_jiffies64();
	f->now_ns = bpf_ktime_get_coarse_ns();
}

/* The frames that always belong to the bridge. */
static __always_inline enum reason class_of(const struct glance *g)
{
	__u16 protocol = protocol_of(g);

	if (g->head & (MULTICAST_BIT | (__u64)MULTICAST_BIT << MAC_BITS))
		return g->head & MULTICAST_BIT ? MULTICAST : SOURCE_MULTICAST;
	if (!(g->head >> MAC_BITS) && !(g->rest & MAC_MASK & ~0xffffULL))
		return SOURCE_ZERO;
	/* net/ethernet/eth.c: eth_type_trans; a length is less than ETH_P_802_3_MIN, whose
	 * second byte is zero.
	 */
	if ((protocol & 0xff) < ETH_P_802_3_MIN >> 8)
		return LLC;
	switch (protocol) {
	case bpf_htons(ETH_P_ARP):
	case bpf_htons(ETH_P_RARP):
		return ARP;
	case bpf_htons(ETH_P_CFM_):
		return CFM;
	case bpf_htons(ETH_P_MRP_):
		return MRP;
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return DOUBLE_TAGGED;
	}
	return FAST;
}

static __always_inline __u8 shard(__u64 address) { return address >> 32 ^ address >> 40; }

/* Everything that may end the flows of these stations is in the sum, and only ever
 * grows, below the slot where they come in: so the sum is the same only if all of it is.
 * Of another daemon's number of changes that is not true: see leap in control.go.
 */
static __always_inline __u64 age_of(const __u8 shards[2], __u64 in)
{
	const volatile __u64 *epoch = FIRST_OF(bridge.epoch);

	return (in << MAC_BITS) + epoch[shards[0]] + epoch[shards[1]] +
	       *(volatile __u64 *)&changes;
}

/* The same for what hangs on no station: any shard is raised with all of them. */
static __always_inline __u64 age_of_all(void)
{
	return *(volatile __u64 *)&bridge.epoch[0] + *(volatile __u64 *)&changes;
}

/* The kernel is as it was when the daemon looked, for the flow's frames. */
static __always_inline bool is_as_seen(const struct flow *flow)
{
	const struct port_image *in = image_of(slot), *out = image_of(flow->out);

	if (!entries_traced && (!is_port(in) || !is_port(out)))
		return false;
	return is_bridge(&bridge.image) && is_ingress(in, (__u16)flow->rest) && is_egress(out);
}

static __always_inline bool is_for(const struct flow *flow, const struct glance *g)
{
	return flow->head == g->head && flow->rest == g->rest;
}

/* What was decided is still true. An image is exchanged behind new epochs, so the age is
 * asked for behind the images.
 */
static __always_inline bool holds(const struct flow *flow, __u64 jiffies, bool live)
{
	return jiffies < flow->until && (!live || is_as_seen(flow)) &&
	       flow->age == age_of(flow->shards, slot);
}

static __always_inline void station_key_of(struct station_key *key, __u64 address, __u16 vid)
{
	__builtin_memcpy(key, &address, sizeof(key->mac));
	key->vid = vid;
}

static __always_inline struct station *station_of(__u64 address, __u16 vid)
{
	struct station_key key;

	station_key_of(&key, address, vid);
	return bpf_map_lookup_elem(&stations, &key);
}

/* Forgets a station that was seen behind another port. Only a removal ends the
 * flows: else a guest that spoofs an address could keep all others slow.
 */
static __always_inline void revoke(struct control *c, struct station *s, const struct frame *f)
{
	struct station_key key;
	long err;

	station_key_of(&key, f->source, f->vid);
	err = bpf_map_delete_elem(&stations, &key);
	if (err == -2 /* ENOENT: another CPU was first */)
		return;
	if (err) {
		/* EBUSY: the entry cannot be removed now; nobody may use it. */
		s->flags &= ~STATION_ACTIVE;
		end_all_flows();
	}
	__sync_fetch_and_add(&c->revoked, 1);
	__sync_fetch_and_add(&c->epoch[shard(f->source)], 1);
}

/* The VLAN that the bridge takes the frame for (net/bridge/br_vlan.c:
 * __allowed_ingress). The odd cases are left to the bridge.
 */
static __always_inline enum reason resolve_vlan(struct frame *f, const struct control *c,
						const struct port *in)
{
	f->vid = 0;
	if (!c->vlan_protocol)
		return FAST;
	if (!f->tag) {
		f->vid = in ? in->pvid : 0;
		return f->vid ? FAST : VLAN_INGRESS;
	}
	if (f->tag_protocol != c->vlan_protocol)
		return FOREIGN_TAG;
	f->vid = f->tag & VID_MASK;
	return f->vid ? FAST : PRIORITY_TAGGED;
}

/* A port's membership in the frame's VLAN; NULL if it may not pass there. */
static __always_inline const __u32 *membership(__u32 at, __u16 vid)
{
	struct vlan_key key = { .slot = at, .vid = vid };
	__u32 *flags = bpf_map_lookup_elem(&vlans, &key);

	return flags && (*flags & VLAN_FORWARDING) ? flags : NULL;
}

/* The source must be known, verified, and behind this port
 * (net/bridge/br_fdb.c: br_fdb_update). Whether the frame moves the station is for
 * the bridge to say, and its tracepoint revokes then. Where nobody listens there,
 * the entry goes now, unless it is certain that the bridge keeps it.
 */
static __always_inline enum reason check_source(struct control *c, struct station *s,
						const struct frame *f, const struct port *in,
						bool dry)
{
	if (!s)
		return SOURCE_UNKNOWN;
	if (s->flags & STATION_LOCAL)
		return SOURCE_LOCAL;
	if (s->slot != f->slot) {
		if (s->flags & STATION_STICKY || (in && !(in->flags & PORT_LEARNS)))
			return SOURCE_ELSEWHERE;
		if (!dry && !entries_traced)
			revoke(c, s, f);
		return SOURCE_MOVED;
	}
	if (s->flags & STATION_NO_SOURCE)
		return SOURCE_LOCKED;
	if (!(s->flags & STATION_ACTIVE))
		return UNVERIFIED;
	return FAST;
}

static __always_inline enum reason check_destination(const struct station *s,
						     const struct frame *f)
{
	if (!s)
		return DESTINATION_UNKNOWN;
	if (s->flags & STATION_LOCAL)
		return DESTINATION_LOCAL;
	if (!(s->flags & STATION_ACTIVE))
		return UNVERIFIED;
	if (s->slot == f->slot)
		return SAME_PORT;
	return FAST;
}

static __always_inline bool has_version(__u32 ifindex, __u64 seen)
{
	struct watch *w = bpf_map_lookup_elem(&watched, &ifindex);

	return w && *(volatile __u64 *)&w->version == seen;
}

/* When a decision began, and whether it is kept. */
struct moment {
	__u64 all; /* see age_of_all; read first */
	bool dry;
};

/* The port and the bridge were found as seen, and nothing has changed since: whatever
 * does raises the number of changes, and the daemon the epochs. To look their versions
 * up anew for every flow is most of what a miss costs.
 */
static __always_inline bool is_known(const struct port *p, const struct moment *now)
{
	return p && *(volatile __u64 *)&p->checked == now->all;
}

static __always_inline bool remember(struct port *p, const struct moment *now, bool is_as_seen)
{
	if (is_as_seen && !now->dry)
		*(volatile __u64 *)&p->checked = now->all;
	return is_as_seen;
}

/* Nothing of the bridge, nor a netfilter hook, changed since the daemon looked. */
static __always_inline bool is_bridge_as_seen(const struct control *c, const struct port *in,
					      const struct moment *now)
{
	__u64 seen = *(volatile __u64 *)&c->seen;

	if (revocation == TRACED)
		return is_known(in, now) || has_version(c->ifindex, seen);
	if (revocation == LIVE)
		return seen != VOID && is_bridge(&c->image);
	return true;
}

static __always_inline bool is_ingress_as_seen(struct port *in, const struct frame *f,
					       const struct moment *now)
{
	const struct port_image *image = image_of(f->slot);

	if (revocation == TRACED)
		return is_known(in, now) || remember(in, now, has_version(in->ifindex, in->seen));
	if (revocation == LIVE)
		return in->seen != VOID && is_port(image) && is_ingress(image, f->tag);
	return true;
}

static __always_inline bool is_egress_as_seen(struct port *out, __u32 out_slot,
					      const struct moment *now)
{
	const struct port_image *image = image_of(out_slot);

	if (revocation == TRACED)
		return is_known(out, now) || remember(out, now, has_version(out->ifindex, out->seen));
	if (revocation == LIVE)
		return out->seen != VOID && is_port(image) && is_egress(image);
	return true;
}

/* What becomes of the tag, as in struct flow. */
struct tagging {
	__u16 action;
	__u16 push;
};

/* The gate, the bridge and the port where the frame came in. */
static __always_inline enum reason check_ingress(const struct frame *f, const struct control *c,
						 struct port *in, const struct moment *now)
{
	__u16 reason;

	if (f->now_ns >= c->lease_ns)
		return c->reason ? c->reason : LEASE;
	if (!is_bridge_as_seen(c, in, now))
		return BRIDGE_CHANGED;
	if (!in)
		return PORT_UNKNOWN;
	reason = *(volatile __u16 *)&in->in;
	if (reason)
		return reason;
	if (!in->ifindex)
		return PORT_UNKNOWN;
	if (!is_ingress_as_seen(in, f, now))
		return PORT_CHANGED;
	/* A VLAN device on the port takes its frames before the bridge does
	 * (net/8021q/vlan_core.c: vlan_do_receive). Where no program sees them,
	 * one that was moved to another namespace stays unknown.
	 */
	if (f->tag && (in->flags & PORT_VLAN_DEVICES || revocation == NETLINK))
		return TAGGED;
	if (c->vlan_protocol && f->vid && !membership(f->slot, f->vid))
		return VLAN_INGRESS;
	return FAST;
}

/* net/bridge/br_forward.c: should_deliver; br_vlan.c: br_handle_vlan */
static __always_inline enum reason check_egress(const struct frame *f, const struct control *c,
						const struct port *in, struct port *out,
						__u32 out_slot, const struct moment *now,
						struct tagging *tagging)
{
	const __u32 *vlan;

	if (!out)
		return PORT_UNKNOWN;
	if (*(volatile __u16 *)&out->out)
		return PORT_EGRESS;
	if (!out->ifindex)
		return PORT_UNKNOWN;
	if (!is_egress_as_seen(out, out_slot, now))
		return PORT_CHANGED;
	if (in->flags & out->flags & PORT_ISOLATED)
		return ISOLATED;
	if (!c->vlan_protocol)
		return FAST;
	vlan = membership(out_slot, f->vid);
	if (!vlan)
		return VLAN_EGRESS;
	if (f->tag && *vlan & VLAN_UNTAGGED)
		tagging->action = TAG_POP;
	if (!f->tag && !(*vlan & VLAN_UNTAGGED)) {
		tagging->action = TAG_PUSH;
		tagging->push = f->vid;
	}
	return FAST;
}

/* The end of a flow, in jiffies: one costs two instructions, the time some fifty. The
 * kernel steps jiffies a moment before the time, so the last one does not count.
 */
static __always_inline __u64 until(const struct frame *f, const struct control *c,
				   const struct station *source)
{
	__u64 lease_ns = *(volatile __u64 *)&c->lease_ns;
	__u64 end = source->seen_ns + c->keepalive_ns;

	if (end > lease_ns)
		end = lease_ns;
	return end > f->now_ns ? f->now_jiffies + (end - f->now_ns) / tick_ns - 1 : 0;
}

static __always_inline __u8 extras_of(const struct control *c, const struct port *out,
				      const struct tagging *tagging)
{
	return (c->flags & CONTROL_CHECK_IP ? EXTRA_IP : 0) |
	       (c->flags & CONTROL_CHECK_ND ? EXTRA_ND : 0) |
	       (tagging->action != TAG_KEEP ? EXTRA_TAG : 0) |
	       (out->wire ? EXTRA_WIRE : 0);
}

/* Why no frame goes fast at all; FAST if some may. */
static __always_inline enum reason gate(void)
{
	if (*(volatile __u64 *)&bridge.lease_ns)
		return FAST;
	return bridge.reason ? bridge.reason : LEASE;
}

static __always_inline __u32 longest(const struct net_device *dev)
{
	return dev->mtu + ETH_HLEN + VLAN_HLEN_;
}

/* The far end of the flow's device takes its frames as the device would give them: none
 * for another address, which a frame that goes straight may not have, and none that is
 * too long.
 */
static __always_inline bool fits(const struct flow *flow, __u64 device, __u64 destination)
{
	struct net_device *far;

	if (unfit_of(device) != FIT)
		return false;
	far = device_at(word_at(device + kernel_layout.far));
	return (WORD(*far->dev_addr) & MAC_MASK) == destination && longest(far) >= flow->max_len;
}

/* How the frames of a flow may leave. Those of one that only became too old went straight
 * up to now; before any other there may be frames that did not.
 */
static __always_inline enum way way_of(struct flow *flow, const struct port *out, const struct frame *f,
				       bool went_straight)
{
	struct softnet_data *sd;
	__u32 far_len;

	if (!peers || wire_number || out->wire || !out->device)
		return BY_EGRESS;
	far_len = longest(device_at(word_at(out->device + kernel_layout.far)));
	if (far_len < flow->max_len)
		flow->max_len = far_len;
	if (!fits(flow, out->device, f->destination))
		return BY_EGRESS;
	if (went_straight)
		return BY_PEER;
	sd = backlog();
	if (!sd)
		return BY_EGRESS;
	flow->turn = sd->input_queue_tail;
	return BY_TURN;
}

/* Whether a frame that is to go fast goes straight, which it does once those before it
 * are through.
 */
static __always_inline bool goes_straight(struct flow *flow, __u64 destination)
{
	__u32 out_slot = flow->out;
	struct softnet_data *sd;
	struct port *out;

	if (!peers || flow->way == BY_EGRESS)
		return false;
	out = bpf_map_lookup_elem(&ports, &out_slot);
	if ((flow->way == BY_TURN || !peers_traced) &&
	    (!out || !fits(flow, out->device, destination))) {
		flow->way = BY_EGRESS;
		return false;
	}
	if (flow->way == BY_PEER)
		return true;
	sd = backlog();
	if (!sd)
		return false;
	if (!is_drained(sd, flow->turn)) {
		flow->turn = sd->input_queue_tail + 1;
		return false;
	}
	flow->way = BY_PEER;
	if (flow->extras == EXTRA_PEER && peers_traced) {
		flow->extras = 0;
		flow->quick_len = flow->max_len;
	}
	return true;
}

/* A frame of the flow takes the bridge: the next must not pass it. */
static __always_inline void step_back(struct flow *flow, const struct glance *g)
{
	if (peers && flow->head == g->head && flow->rest == g->rest)
		flow->age = 0;
}

/* Why a frame goes up whatever its stations are: FAST if it may not. Where the bridge's
 * tracepoints revoke what such a frame moves nothing else need be asked, and most of
 * what goes up is of these.
 */
static __always_inline enum reason bar(const struct glance *g)
{
	enum reason shut;

	if (!entries_traced)
		return FAST;
	shut = gate();
	return shut != FAST ? shut : class_of(g);
}

/* Decides for a frame that no valid flow covers, and keeps the decision. The
 * epochs are read before anything that they stand for. flow holds another's
 * decision until this one is whole. With an answer nothing else is changed.
 */
static __always_inline enum reason decide(struct __sk_buff *skb, const struct glance *g, struct frame *f,
					  struct flow *flow, struct answer *answer)
{
	__u8 shards[2] = { shard(f->source), shard(f->destination) };
	enum reason class = entries_traced && !answer ? FAST /* see bar */ : class_of(g);
	struct control *c = &bridge;
	__u64 age = age_of(shards, f->slot);
	struct moment now = { .all = age_of_all(), .dry = answer != NULL };
	struct station *source = NULL, *destination;
	enum reason vlan, source_reason, reason;
	struct tagging tagging = { .action = TAG_KEEP };
	struct port *in, *out;
	__u32 in_slot = f->slot, out_slot;
	bool went_straight;

	if (class == SOURCE_MULTICAST || class == SOURCE_ZERO)
		return class;
	in = bpf_map_lookup_elem(&ports, &in_slot);
	vlan = resolve_vlan(f, c, in);
	source_reason = vlan;
	if (vlan == FAST) {
		source = station_of(f->source, f->vid);
		source_reason = check_source(c, source, f, in, answer != NULL);
	}
	if (answer) {
		answer->vid = f->vid;
		answer->has_source = source != NULL;
		if (source)
			answer->source = *source;
	}
	if (source_reason == SOURCE_MOVED)
		return SOURCE_MOVED;
	if (class != FAST)
		return class;
	reason = check_ingress(f, c, in, &now);
	if (!in || reason != FAST)
		return reason;
	if (source_reason != FAST)
		return source_reason;
	if (!source)
		return SOURCE_UNKNOWN;

	destination = station_of(f->destination, f->vid);
	if (answer && destination) {
		answer->has_destination = true;
		answer->destination = *destination;
	}
	reason = check_destination(destination, f);
	if (!destination || reason != FAST)
		return reason;
	out_slot = destination->slot;
	if (answer)
		answer->out = out_slot;
	out = bpf_map_lookup_elem(&ports, &out_slot);
	reason = check_egress(f, c, in, out, out_slot, &now, &tagging);
	if (!out || reason != FAST)
		return reason;

	went_straight = flow->way == BY_PEER && flow->age == age && flow->head == g->head &&
			flow->rest == g->rest;
	flow->age = 0;
	flow->max_len = out->max_len;
	flow->way = answer ? BY_EGRESS : way_of(flow, out, f, went_straight);

	/* The bridge learns from what it sees: show it a frame of this source
	 * now and then, so that its entry does not age.
	 */
	if (f->now_ns - source->seen_ns >= c->keepalive_ns) {
		if (!answer)
			source->seen_ns = f->now_ns;
		if (flow->way == BY_EGRESS || !may_show(port_at(skb)) || !show(skb))
			return KEEPALIVE;
	}

	flow->head = g->head;
	flow->rest = g->rest;
	flow->until = until(f, c, source);
	flow->ifindex = out->ifindex;
	flow->shards[0] = shards[0];
	flow->shards[1] = shards[1];
	flow->extras = extras_of(c, out, &tagging);
	if (flow->way == BY_TURN || (flow->way == BY_PEER && !peers_traced))
		flow->extras |= EXTRA_PEER;
	flow->quick_len = flow->extras ? 0 : flow->max_len;
	flow->action = tagging.action;
	flow->push = tagging.push;
	flow->wire = out->wire;
	flow->out = out_slot;
	flow->refused = 0;
	*(volatile __u64 *)&flow->age = age;
	/* A record that changed meanwhile was read half; the place of a station that
	 * went may be another's by now.
	 */
	return age_of(shards, f->slot) == age ? FAST : BRIDGE_CHANGED;
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

/* net/bridge/br_arp_nd_proxy.c: br_is_nd_neigh_msg; the bridge may answer. */
static __always_inline bool is_neighbour_discovery(struct __sk_buff *skb, const struct frame *f)
{
	struct ipv6hdr h;
	__u8 type;

	if (f->protocol != ETH_P_IPV6)
		return false;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &h, sizeof(h)))
		return true;
	if (h.nexthdr != IPPROTO_ICMPV6)
		return false;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(h), &type, sizeof(type)))
		return true;
	return type == ND_SOLICITATION || type == ND_ADVERTISEMENT;
}

/* What every frame must pass, whatever the flow cache says. */
static __always_inline enum reason check_frame(struct __sk_buff *skb, const struct frame *f,
					       const struct flow *flow)
{
	enum reason reason;
	__u32 room = 0;

	if (flow->extras & EXTRA_ND && is_neighbour_discovery(skb, f))
		return NEIGH_SUPPRESS;
	if (flow->extras & EXTRA_IP) {
		reason = check_ip(skb, f);
		if (reason != FAST)
			return reason;
	}
	/* br_netfilter cuts IP into fragments where the bridge would let the room of
	 * a tag pass (net/bridge/br_netfilter_hooks.c: br_nf_dev_queue_xmit).
	 */
	if (flow->extras & EXTRA_IP && (f->protocol == ETH_P_IP || f->protocol == ETH_P_IPV6))
		room = VLAN_HLEN_;
	/* include/linux/netdevice.h: __is_skb_forwardable; a redirect checks nothing */
	if (f->len + room > flow->max_len && !skb->gso_size)
		return MTU;
	return FAST;
}

/* Does with the tag what the bridge does: br_allowed_ingress puts one on that
 * br_handle_vlan leaves, or takes off.
 */
static __always_inline long set_tag(struct __sk_buff *skb, const struct flow *flow)
{
	if (flow->action == TAG_POP)
		return bpf_skb_vlan_pop(skb);
	if (flow->action == TAG_PUSH)
		return bpf_skb_vlan_push(skb, bpf_htons(bridge.vlan_protocol), flow->push);
	return 0;
}

/* Where the frame leaves. Of a wire it is the member that is active now, which no
 * flow remembers: so the exchange of a member is one store. Who only asks flips none.
 */
static __always_inline enum reason resolve(const struct flow *flow, struct wire **w,
					   __u32 *ifindex, bool dry)
{
	*ifindex = flow->ifindex;
	if (!flow->wire)
		return FAST;
	*w = wire_of(flow->wire);
	if (!*w)
		return NO_MEMBER;
	*ifindex = active_now(*w, flow->wire, dry);
	return *ifindex ? FAST : NO_MEMBER;
}

/* Where a flow's decision is kept: in its place, or nowhere while another flow holds
 * that which still counts. Where there are more flows than places, each would else put
 * out the next, and none would ever be found. A flow gives way in the end, or one that
 * hardly sends could keep out one that does.
 */
static __always_inline struct flow *room_for(const struct glance *g, struct flow *held,
					     struct flow *spare, __u64 now_jiffies)
{
	if (is_for(held, g))
		return held;
	if (held->age != age_of(held->shards, held->age >> MAC_BITS) || now_jiffies >= held->until)
		return held;
	return ++held->refused >= MOST_REFUSED ? held : spare;
}

/* What the frame will be, and how it goes if it goes fast. */
struct verdict {
	enum reason reason;
	__u32 ifindex;	    /* egress device */
	struct wire *wire;  /* that it leaves by; NULL: none */
};

static __always_inline struct flow *judge(struct __sk_buff *skb, const struct glance *g,
					  struct flow *flow, struct flow *spare, struct frame *f,
					  struct verdict *v)
{
	v->reason = FAST;
	if (!is_for(flow, g) || !holds(flow, f->now_jiffies, revocation == LIVE)) {
		flow = room_for(g, flow, spare, f->now_jiffies);
		v->reason = decide(skb, g, f, flow, NULL);
	}
	if (v->reason == FAST)
		v->reason = check_frame(skb, f, flow);
	if (v->reason == FAST)
		v->reason = resolve(flow, &v->wire, &v->ifindex, false);
	return flow;
}

/* Makes a frame that is to go fast ready to. */
static __always_inline enum reason depart(struct __sk_buff *skb, const struct frame *f,
					  const struct flow *flow, const struct verdict *v)
{
	struct pair p;

	if (v->reason != FAST)
		return v->reason;
	if (v->wire) {
		p.source = f->source | (__u64)flow->wire << MAC_BITS;
		p.destination = f->destination;
		note_sent(v->wire, &p);
	}
	return set_tag(skb, flow) ? MALFORMED : FAST;
}

#define PACKET_HOST_ 0 /* include/uapi/linux/if_packet.h */

/* Makes of the frame what the far end would get from the device in the bridge
 * (net/core/dev.c: ____dev_forward_skb), and sends it there.
 */
static __always_inline int go_straight(struct __sk_buff *skb, __u32 ifindex)
{
	if (skb->pkt_type != PACKET_HOST_)
		bpf_skb_change_type(skb, PACKET_HOST_);
	skb->mark = 0;
	skb->priority = 0;
	return bpf_redirect_peer(ifindex, 0);
}

/* What needs more than to be sent is a matter for functions of their own, so that the
 * other frames pay for none of their registers: here no flow is valid, or it has extras.
 * They are not static, so that the kernel verifies them once and not from every call:
 * a bridge may have a thousand ports, and each loads them.
 */
__noinline int take_time(struct __sk_buff *skb, __u64 head, __u64 rest)
{
	struct glance g = { .head = head, .rest = rest };
	__u32 cpu = this_cpu();
	struct flow *flow = flow_at(cpu, head, rest);
	struct flow spare = {};
	struct verdict v = {};
	struct frame f = {};

	parse(&g, slot, skb->len, &f);
	flow = judge(skb, &g, flow, &spare, &f, &v);
	v.reason = depart(skb, &f, flow, &v);
	count(cpu, v.reason, f.len);
	if (v.reason != FAST) {
		step_back(flow, &g);
		return PASS_UP;
	}
	if (goes_straight(flow, f.destination))
		return go_straight(skb, v.ifindex);
	return bpf_redirect(v.ifindex, 0);
}

/* Most of what goes up does so here. */
static __always_inline int look_on(struct __sk_buff *skb, const struct glance *g, __u32 cpu)
{
	enum reason reason = bar(g);

	if (reason == FAST)
		return take_time(skb, g->head, g->rest);
	count(cpu, reason, skb->len);
	return PASS_UP;
}

/* A frame whose first bytes do not lie side by side, or whose flow holds no more. */
__noinline int look_again(struct __sk_buff *skb)
{
	struct glance g;

	if (look_closely(skb, &g))
		return look_on(skb, &g, this_cpu());
	count(this_cpu(), MALFORMED, skb->len);
	return PASS_UP;
}

/* What calls a helper comes first, and what a frame is known by is soon done with: there
 * are few registers, and to save one costs every frame as much as to use it.
 */
static __always_inline int come_in(struct __sk_buff *skb, bool live)
{
	__u32 cpu = this_cpu();
	__u64 jiffies = bpf_jiffies64();
	struct flow *flow;
	struct glance g;

	if (!look_at(skb, &g))
		return look_again(skb);
	flow = flow_at(cpu, g.head, g.rest);
	if (!is_for(flow, &g))
		return look_on(skb, &g, cpu);
	if (!holds(flow, jiffies, live) || skb->len > flow->quick_len)
		return look_again(skb);
	count(cpu, FAST, skb->len);
	if (peers && flow->way == BY_PEER)
		return go_straight(skb, flow->ifindex);
	return bpf_redirect(flow->ifindex, 0);
}

SEC("tc")
int shunt_ingress(struct __sk_buff *skb) { return come_in(skb, false); }

/* The same where the kernel's state is read live. */
SEC("tc")
int shunt_ingress_live(struct __sk_buff *skb) { return come_in(skb, true); }

/* Our own frames come back where the outside floods them: their source is a
 * station behind another port, or of this host.
 */
static __always_inline bool is_own(const struct frame *frame)
{
	struct frame f = *frame;
	__u32 in_slot = slot;
	const struct station *s;

	if (resolve_vlan(&f, &bridge, bpf_map_lookup_elem(&ports, &in_slot)) != FAST)
		return false;
	s = station_of(f.source, f.vid);
	return s && (s->flags & STATION_LOCAL || s->slot != slot);
}

/* Behind a flip that nobody prepared no pair was marked: then even a station that has
 * just moved away is not heard before the drain is over.
 */
static __always_inline bool may_be_own(const struct wire *w, enum reason reason)
{
	if (reason == FAST)
		return draining_of(members_of(w)) && !*(const volatile __u32 *)&w->marking;
	return reason == DRAINED || reason == DOUBLED;
}

/* At the ingress of a stable port's member: the verdict for a frame of the port, and
 * for the frames of the slow path the wire into it.
 */
SEC("tc")
int shunt_member(struct __sk_buff *skb)
{
	struct verdict v = {};
	struct frame f = {};
	struct pair p = {};
	struct glance g;
	enum reason reason;
	struct wire *w = wire_of(wire_number);
	struct flow *flow, spare = {};
	struct lane *l;
	__u32 len = skb->len, cpu = this_cpu();

	if (!w || !read_pair(skb, wire_number, &p) || !look_closely(skb, &g))
		return TC_ACT_SHOT;
	l = lane_of(wire_number, &p);
	flow = flow_at(cpu, g.head, g.rest);
	if (!l)
		return TC_ACT_SHOT;
	parse(&g, slot, len, &f);
	reason = arrive(skb, w, wire_number, &p, true);
	if (may_be_own(w, reason) && is_own(&f))
		reason = OWN_RETURNED;
	if (reason != FAST)
		count_on_wire(wire_number, reason, len);
	if (is_dropped(reason))
		return TC_ACT_SHOT;

	v.reason = bar(&g);
	if (v.reason == FAST)
		flow = judge(skb, &g, flow, &spare, &f, &v);
	if (v.reason == FAST && is_taken(l, f.now_ns))
		v.reason = OUT_OF_TURN;
	reason = depart(skb, &f, flow, &v);
	count(cpu, reason, len);
	if (reason == FAST)
		return bpf_redirect(v.ifindex, 0);
	enter(l, bpf_ktime_get_coarse_ns());
	return bpf_redirect(w->port, BPF_F_INGRESS);
}

/* The same verdict for a frame that somebody only asks about: run by
 * BPF_PROG_TEST_RUN on the port where it would come in. It changes no map but
 * its answer. The tag is in the question: a test run takes none in its context.
 */
SEC("tc")
int shunt_explain(struct __sk_buff *skb)
{
	struct question *q;
	struct answer *a;
	struct flow flow = {};
	struct frame f = {};
	struct glance g;
	struct wire *w = NULL;
	enum reason barred;
	__u32 zero = 0, ifindex;

	q = bpf_map_lookup_elem(&questions, &zero);
	a = bpf_map_lookup_elem(&answers, &zero);
	if (!q || !a)
		return PASS_UP;
	if (!look_closely(skb, &g)) {
		a->reason = MALFORMED;
		return PASS_UP;
	}
	if (q->tag_protocol)
		g.rest |= tag_of(q->vid, q->tag_protocol);
	parse(&g, q->slot, skb->len, &f);
	a->reason = decide(skb, &g, &f, &flow, a);
	barred = bar(&g);
	if (barred != FAST)
		a->reason = barred;
	if (a->reason == FAST)
		a->reason = check_frame(skb, &f, &flow);
	if (a->reason == FAST)
		a->reason = resolve(&flow, &w, &ifindex, true);
	a->action = flow.action;
	a->push = flow.push;
	return PASS_UP;
}

/* The port that a test run names, and its bridge: the daemon looks at them before it
 * asks the kernel.
 */
struct look {
	struct bridge_image bridge;
	struct port_image port;
	__u32 bridge_ifindex; /* 0: the device is no port */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct look);
} looks SEC(".maps");

SEC("tc")
int shunt_look(struct __sk_buff *skb)
{
	struct sk_buff *kernel;
	struct net_bridge_port *p;
	struct look *look;
	__u32 zero = 0;

	look = bpf_map_lookup_elem(&looks, &zero);
	if (!look || revocation != LIVE)
		return PASS_UP;
	look->bridge_ifindex = 0;
	kernel = bpf_cast_to_kern_ctx(skb);
	p = port_of(kernel->dev);
	if (!p)
		return PASS_UP;
	look_at_bridge(p, &look->bridge);
	look_at_port(p, &look->port);
	look->bridge_ifindex = p->br->dev->ifindex;
	return PASS_UP;
}

/* What the daemon asks of the device that a test run names. */
struct end {
	__u64 device; /* struct net_device */
	__u64 unfit;  /* enum unfit: why its far end is not reached straight */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct end);
} ends SEC(".maps");

SEC("tc")
int shunt_end(struct __sk_buff *skb)
{
	struct sk_buff *kernel;
	__u32 zero = 0;
	struct end *end = bpf_map_lookup_elem(&ends, &zero);

	if (!end || !peers)
		return PASS_UP;
	kernel = bpf_cast_to_kern_ctx(skb);
	end->device = WORD(kernel->dev);
	end->unfit = unfit_of(end->device);
	return PASS_UP;
}
