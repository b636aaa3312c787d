/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The wires of stable ports. A stable port is a device that stays in its bridge;
 * its members are the devices outside the bridge that carry its traffic, one of
 * them active at a time. What the port sends is redirected to the active member,
 * what arrives on that one goes on as if it had arrived on the port.
 *
 * One set of maps serves all wires of a network namespace. They hold without the
 * daemon. A change of a layout or of a meaning here is a new schema: raise
 * WireSchema in wires.go.
 */
#define MAX_WIRES 256 /* wire 0 is none */
#define LANES 256
#define PAIRS 16384

/* The members are ifindexes in one word, so that a flip is one store: the active
 * one in the low half, the draining one in the high half; 0 is none.
 */
struct wire {
	__u64 members;
	__u64 generation; /* of the flips; what a pair was marked with before is void */
	__u32 port;	  /* ifindex of the stable port; 0: the wire is free */
	__u32 marking;	  /* a flip is prepared or a drain lasts: pairs are marked */
};

/* A member that can carry the wire's traffic, and where the kernel has its device: so
 * a program sees with the next frame that it has lost its carrier. Who writes one
 * makes the ifindex 0 first, and then the ifindex last.
 */
struct guard {
	__u64 device;	     /* address of its struct net_device */
	__u64 net;	     /* and of the struct net that it is in */
	__u64 below;	     /* of the one that it has its carrier from; 0: its own */
	__u32 below_ifindex;
	__u32 ifindex;	     /* 0: nothing is known of a member */
};

/* The active member and its standby, in any order. */
struct guarded {
	struct guard members[2];
	__u64 failed_over_ns; /* when a program flipped to the standby, CLOCK_MONOTONIC */
	__u64 failovers;      /* that were tried */
};

/* What is redirected into a port's ingress goes through a backlog, asynchronously,
 * and may be overtaken by what is sent straight to another port. A lane holds the
 * frames of some pairs of addresses: while one of them is on its way, all of them
 * go that way.
 */
struct lane {
	__u64 entered;	  /* at the member */
	__u64 left;	  /* at the stable port */
	__u64 entered_ns; /* when the last one did */
	__u64 since_ns;	  /* since when least counts */
	__u64 least;	  /* that was ever missing behind a frame that left */
};

/* Source and destination of a frame, with the wire's number above the source. */
struct pair {
	__u64 source;
	__u64 destination;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WIRES);
	__type(key, __u32);
	__type(value, struct wire);
} wires SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WIRES);
	__type(key, __u32);
	__type(value, struct guarded);
} guards SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_WIRES * LANES);
	__type(key, __u32);
	__type(value, struct lane);
} lanes SEC(".maps");

/* Pairs that the port sent since the flip was prepared, with their generation. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PAIRS);
	__type(key, struct pair);
	__type(value, __u64);
} sent SEC(".maps");

/* A frame that was delivered in a drain, known again by its length and beginning. */
struct print {
	__u64 hash;
	__u32 wire;
	__u32 len;
};

struct delivery {
	__u32 generation;
	__u32 ifindex; /* of the member that delivered it */
	__u64 at_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PAIRS);
	__type(key, struct print);
	__type(value, struct delivery);
} delivered SEC(".maps");

/* What the wires' own programs counted, by wire and reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_WIRES * NUM_REASONS);
	__type(key, __u32);
	__type(value, struct count);
} wire_counts SEC(".maps");

static __always_inline struct wire *wire_of(__u32 number)
{
	return bpf_map_lookup_elem(&wires, &number);
}

static __always_inline __u64 members_of(const struct wire *w)
{
	return *(const volatile __u64 *)&w->members;
}

static __always_inline __u32 active_of(__u64 members)
{
	return members;
}

static __always_inline __u32 draining_of(__u64 members)
{
	return members >> 32;
}

static __always_inline __u64 members_word(__u32 active, __u32 draining)
{
	return active | (__u64)draining << 32;
}

/* The kernel lets a program read a device that it was not given (Linux 6.2). */
const volatile bool reads_devices = false;

enum carrier {
	CARRIER_UNKNOWN, /* the device is not there, or not that one */
	CARRIER_LOST,	 /* or the device was set down */
	CARRIER_THERE,
};

static __always_inline bool is_running(unsigned long state)
{
	return state >> bpf_core_enum_value(enum netdev_state_t, __LINK_STATE_START) & 1 &&
	       !(state >> bpf_core_enum_value(enum netdev_state_t, __LINK_STATE_NOCARRIER) & 1);
}

/* Another CPU may write the record: what is compared is what is used. */
static __always_inline void read_guard(const struct guard *at, struct guard *g)
{
	g->ifindex = *(const volatile __u32 *)&at->ifindex;
	g->device = *(const volatile __u64 *)&at->device;
	g->net = *(const volatile __u64 *)&at->net;
	g->below = *(const volatile __u64 *)&at->below;
	g->below_ifindex = *(const volatile __u32 *)&at->below_ifindex;
	barrier();
	if (g->ifindex != *(const volatile __u32 *)&at->ifindex)
		g->ifindex = 0;
}

/* The address may be that of a device that is gone by now, or in another namespace,
 * where numbers repeat: then what is read there is something else.
 */
static __always_inline enum carrier carrier_at(__u64 address, __u64 net, __u32 ifindex)
{
	struct net_device *dev = CAST(struct net_device, address);

	if (dev->ifindex != (int)ifindex || WORD(dev->nd_net.net) != net)
		return CARRIER_UNKNOWN;
	return is_running(dev->state) ? CARRIER_THERE : CARRIER_LOST;
}

static __always_inline enum carrier carrier_of(const struct guard *g)
{
	enum carrier own = carrier_at(g->device, g->net, g->ifindex);

	if (own != CARRIER_THERE || !g->below)
		return own;
	return carrier_at(g->below, g->net, g->below_ifindex);
}

/* Whether the member can take over. Nobody else may have its frames: a bridge, a bond
 * and the like each has a handler on its devices.
 */
static __always_inline bool is_free(const struct guard *g)
{
	struct net_device *dev = CAST(struct net_device, g->device);

	return carrier_of(g) == CARRIER_THERE && !WORD(dev->rx_handler);
}

/* The member that is to take over from the active one, which is lost; 0 if that is not
 * so. A device that is not where it was is lost too.
 */
static __always_inline __u32 refuge_of(const struct guarded *guarded, __u32 active)
{
	struct guard at, other;

	read_guard(&guarded->members[0], &at);
	read_guard(&guarded->members[1], &other);
	if (at.ifindex != active) {
		read_guard(&guarded->members[1], &at);
		read_guard(&guarded->members[0], &other);
	}
	if (at.ifindex != active || !other.ifindex || other.ifindex == active ||
	    carrier_of(&at) == CARRIER_THERE || !is_free(&other))
		return 0;
	return other.ifindex;
}

/* Moves the wire's traffic off a member that is lost, as a daemon would who has not
 * prepared the flip: marks of an earlier one mean nothing. Whoever is first flips.
 */
static __always_inline __u32 fail_over(struct wire *w, struct guarded *g, __u64 members,
				       __u32 standby)
{
	__u64 next = members_word(standby, active_of(members));
	__u64 was;

	if (!*(const volatile __u32 *)&w->marking)
		__sync_fetch_and_add(&w->generation, 1);
	g->failed_over_ns = bpf_ktime_get_ns();
	__sync_fetch_and_add(&g->failovers, 1);
	was = __sync_val_compare_and_swap(&w->members, members, next);
	return was == members ? standby : active_of(was);
}

/* The member that a frame leaves by. Where the active one has lost its carrier, and its
 * standby has one, that is active from this frame on: no daemon is waited for. Who
 * only asks (dry) moves nothing.
 */
static __always_inline __u32 active_now(struct wire *w, __u32 number, bool dry)
{
	__u64 members = members_of(w);
	__u32 active = active_of(members), standby;
	struct guarded *g;

	if (!reads_devices || !active)
		return active;
	g = bpf_map_lookup_elem(&guards, &number);
	if (!g)
		return active;
	standby = refuge_of(g, active);
	if (!standby)
		return active;
	return dry ? standby : fail_over(w, g, members, standby);
}

static __always_inline void count_on_wire(__u32 number, __u32 reason, __u32 len)
{
	__u32 key = number * NUM_REASONS + reason;
	struct count *n = bpf_map_lookup_elem(&wire_counts, &key);

	if (n) {
		n->packets++;
		n->bytes += len;
	}
}

/* Addresses have their first byte lowest, as in struct flow. */
static __always_inline bool read_pair(struct __sk_buff *skb, __u32 number, struct pair *p)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (data + ETH_HLEN > end)
		return false;
	p->destination = *(__u32 *)data | (__u64)*(__u16 *)(data + 4) << 32;
	p->source = *(__u32 *)(data + 6) | (__u64)*(__u16 *)(data + 10) << 32 |
		    (__u64)number << 48;
	return true;
}

static __always_inline struct lane *lane_of(__u32 number, const struct pair *p)
{
	__u64 h = ((p->source & 0xffffffffffffULL) ^ p->destination * 0x9E3779B97F4A7C15ULL) *
		  0xD6E8FEB86659FD93ULL;
	__u32 key = number * LANES + (h >> 56);

	return bpf_map_lookup_elem(&lanes, &key);
}

/* How long is long for a lane, nanoseconds: no frame stays in the backlog for as long,
 * but the backlog drops what is too much (net/core/dev.c: enqueue_to_backlog).
 */
#define LANE_LONG_NS 1000000000ULL
#define NONE_LEFT (~0ULL)

/* Another CPU's time may be later than ours. */
static __always_inline bool is_long_ago(__u64 then_ns, __u64 now_ns)
{
	return (__s64)(now_ns - then_ns) >= (__s64)LANE_LONG_NS;
}

static __always_inline __u64 missing(const struct lane *l)
{
	__u64 entered = *(const volatile __u64 *)&l->entered;
	__u64 left = *(const volatile __u64 *)&l->left;

	return left < entered ? entered - left : 0;
}

static __always_inline void enter(struct lane *l, __u64 now_ns)
{
	if (!missing(l)) {
		l->since_ns = now_ns;
		l->least = NONE_LEFT;
	}
	l->entered_ns = now_ns;
	__sync_fetch_and_add(&l->entered, 1);
}

static __always_inline void leave(struct lane *l)
{
	__u64 n;

	if (!missing(l))
		return; /* it did not enter by the lane */
	__sync_fetch_and_add(&l->left, 1);
	n = missing(l);
	if (n < *(volatile __u64 *)&l->least)
		l->least = n;
}

/* Whether a frame of the lane is still on its way to the bridge. What the backlog
 * dropped never leaves, and more comes behind it as long as the lane counts as taken:
 * of a lane that was not empty for long, the least that was missing is lost.
 */
static __always_inline bool is_taken(struct lane *l, __u64 now_ns)
{
	__u64 lost;

	if (!missing(l))
		return false;
	if (is_long_ago(l->entered_ns, now_ns)) {
		l->left = *(volatile __u64 *)&l->entered;
		return false;
	}
	if (!is_long_ago(l->since_ns, now_ns))
		return true;
	l->since_ns = now_ns;
	lost = __sync_lock_test_and_set(&l->least, NONE_LEFT);
	if (lost == NONE_LEFT)
		return true;
	__sync_fetch_and_add(&l->left, lost);
	return missing(l);
}

/* Marks the pair. Most are marked already: a look costs less than a store. */
static __always_inline void mark(void *map, const struct pair *p, __u64 generation)
{
	__u64 *at = bpf_map_lookup_elem(map, p);

	if (at && *at == generation)
		return;
	bpf_map_update_elem(map, p, &generation, BPF_ANY);
}

static __always_inline bool is_marked(void *map, const struct pair *p, __u64 generation)
{
	__u64 *at = bpf_map_lookup_elem(map, p);

	return at && *at == generation;
}

/* A frame leaves by the wire. What the outside does not know it floods, also to
 * the group's other members: it is remembered for them.
 */
static __always_inline void note_sent(const struct wire *w, const struct pair *p)
{
	if (*(const volatile __u32 *)&w->marking)
		mark(&sent, p, w->generation);
}

/* So much of a frame tells it from others: the headers of IP and TCP or UDP, with
 * their identifiers, numbers and checksums.
 */
#define PRINT_LEN 96

/* An outside that does not know a station floods, and what it sends at the flip may
 * come by both members, within this time; nanoseconds.
 */
#define COPY_NS 200000000ULL

/* A frame that is shorter is read in words, and its last word once more whole: a
 * length that is not constant is too much for Linux 6.1's verifier.
 */
static __always_inline bool read_short(struct __sk_buff *skb, __u64 *words)
{
	__u32 len = skb->len;
	__u32 i;

	if (len < ETH_HLEN)
		return false;
	for (i = 0; i < PRINT_LEN / 8 - 1 && i * 8 + 8 <= len; i++)
		if (bpf_skb_load_bytes(skb, i * 8, words + i, 8))
			return false;
	return !bpf_skb_load_bytes(skb, len - 8, words + PRINT_LEN / 8 - 1, 8);
}

static __always_inline bool read_print(struct __sk_buff *skb, __u32 number, struct print *p)
{
	__u64 words[PRINT_LEN / 8] = {};
	__u32 i;

	p->wire = number;
	p->len = skb->len;
	if (skb->len < PRINT_LEN ? !read_short(skb, words)
				 : bpf_skb_load_bytes(skb, 0, words, PRINT_LEN))
		return false;
	p->hash = skb->vlan_present ? skb->vlan_tci : 0xffff0000;
	for (i = 0; i < PRINT_LEN / 8; i++)
		p->hash = ((p->hash ^ words[i]) * 0x9E3779B97F4A7C15ULL) ^ p->hash >> 29;
	return true;
}

/* Whether the frame is one that the other member delivered a moment ago. A copy comes
 * once: the next frame like it is one of its own. What comes late, and not twice,
 * is delivered, if out of order: that is better than lost.
 */
static __always_inline bool is_copy(struct __sk_buff *skb, const struct wire *w, __u32 number)
{
	struct delivery now = {
		.generation = w->generation, .ifindex = skb->ifindex,
		.at_ns = bpf_ktime_get_coarse_ns(),
	};
	struct print print = {};
	struct delivery *d;

	if (!read_print(skb, number, &print) ||
	    !bpf_map_update_elem(&delivered, &print, &now, BPF_NOEXIST))
		return false;
	d = bpf_map_lookup_elem(&delivered, &print);
	if (!d || d->generation != now.generation || d->ifindex == now.ifindex ||
	    (__s64)(now.at_ns - d->at_ns) >= (__s64)COPY_NS) {
		bpf_map_update_elem(&delivered, &print, &now, BPF_ANY);
		return false;
	}
	bpf_map_delete_elem(&delivered, &print);
	return true;
}

#define MULTICAST_BIT 1ULL /* of the first byte, in little-endian order */

/* What becomes of a frame that arrived on a member: FAST, DRAINED where it is
 * delivered though the member was left, or the reason for which it is dropped.
 */
static __always_inline enum reason arrive(struct __sk_buff *skb, struct wire *w,
					  __u32 number, const struct pair *p, bool knows_own)
{
	__u64 members = members_of(w);
	__u32 ifindex = skb->ifindex;
	bool is_active = ifindex == active_of(members);

	/* The outside may be the first to know that the active one is lost; or what it
	 * sends is our own, flooded, which only the bridge's table tells apart.
	 */
	if (knows_own && !is_active && active_now(w, number, false) == ifindex) {
		members = members_of(w);
		is_active = true;
	}

	if (is_active && !draining_of(members))
		return FAST;
	if (!is_active && ifindex != draining_of(members))
		return STANDBY;
	/* To the active one it was flooded before it became active. */
	if (is_marked(&sent, p, w->generation))
		return OWN_RETURNED;
	if (p->destination & MULTICAST_BIT)
		return is_active ? FAST : DOUBLED;
	if (is_copy(skb, w, number))
		return DOUBLED;
	return is_active ? FAST : DRAINED;
}

static __always_inline bool is_dropped(enum reason reason)
{
	return reason != FAST && reason != DRAINED;
}
