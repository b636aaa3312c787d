/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The cache of decisions and the counters. Both are a CPU's own. In maps of that kind
 * the address of a value costs more to find than all that is done with it; here it is
 * reckoned from the section's, and the number of the CPU serves both. A section is as
 * large as the daemon makes it. A change of a layout here is a new schema: see maps.h.
 */
#include "maps.h"

#define FLOWS_BITS 12
#define FLOWS_SPREAD -0x61C88647 /* the golden ratio; what fits into an instruction */
#define REASONS_BITS 7
_Static_assert(NUM_REASONS <= 1 << REASONS_BITS, "every reason is counted");

/* As many CPUs as there may be, to the next power of two, less one. */
const volatile __u32 last_cpu = 0;

/* What is done with the tag of a frame that goes fast. */
enum tag_action {
	TAG_KEEP = 0,
	TAG_POP = 1,
	TAG_PUSH = 2,
};

/* What a flow's frames need beside being sent. */
enum flow_extras {
	EXTRA_IP = 1,   /* their IP headers are checked */
	EXTRA_ND = 2,   /* neighbour discovery is not theirs */
	EXTRA_TAG = 4,  /* something is done with their tag */
	EXTRA_WIRE = 8, /* they leave by a wire */
	EXTRA_PEER = 16, /* whether they may go straight is looked at */
};

/* How a flow's frames leave. */
enum way {
	BY_EGRESS = 0, /* by the device in the bridge */
	BY_TURN = 1,   /* so until those before them are through, and then straight */
	BY_PEER = 2,   /* straight to the device's far end */
};

/* A decision, kept: frames with these addresses, this protocol and this tag that come
 * in on this slot go to ifindex, for as long as the epochs and the state of the kernel
 * stay as they are. Every instruction that a frame spends here counts: what is
 * compared lies as it does in the frame, and the epochs are a sum.
 */
struct flow {
	__u64 head;	  /* see struct glance */
	__u64 rest;
	__u64 age;	  /* see age_of; 0: no decision */
	__u64 until;	  /* jiffies: the source is due for the bridge again, or the lease ends */
	__u32 ifindex;	  /* where the frames leave */
	__u32 quick_len;  /* up to here a frame is just sent; 0 where there are extras */
	__u32 max_len;
	__u8 shards[2];	  /* of the source and the destination */
	__u8 extras;	  /* enum flow_extras */
	__u8 action;	  /* enum tag_action */
	__u16 push;	  /* VID */
	__u16 wire;	  /* that the frames leave by; 0: none */
	__u16 out;	  /* slot */
	__u16 way;	  /* enum way */
	__u32 turn;	  /* in the CPU's backlog, of the last frame that did not go straight */
	__u16 refused;	  /* decisions that found the place taken: see room_for */
} __attribute__((aligned(64)));

struct flow flows[1] SEC(".data.flows");	/* 1 << FLOWS_BITS of them for each CPU */
struct count counters[1] SEC(".data.counters"); /* a port's: 1 << REASONS_BITS for each */

/* Nothing that the compiler knows of the sections' sizes is true. */
#define FIRST_OF(section)                                                \
	({                                                               \
		typeof(&(section)[0]) first_ = (section);                \
		asm volatile("" : "+r"(first_));                         \
		first_;                                                  \
	})

/* A CPU's part of a section. What comes behind must be added by itself: of a sum of bits
 * that Linux 6.1's verifier finds put together with "or" it knows nothing.
 */
#define PART_OF(section, cpu, bits)                                      \
	({                                                               \
		typeof(&(section)[0]) part_ = (section);                 \
		part_ += (__u64)(cpu) << (bits);                         \
		asm volatile("" : "+r"(part_));                          \
		part_;                                                   \
	})

/* The programs are not moved to another CPU while they run. */
static __always_inline __u32 this_cpu(void)
{
	__u32 cpu = bpf_get_smp_processor_id() & last_cpu;

	barrier_var(cpu); /* or the mask waits in a register of its own */
	return cpu;
}

static __always_inline struct flow *flow_at(__u32 cpu, __u64 head, __u64 rest)
{
	__u64 h = (rest * FLOWS_SPREAD ^ head) * FLOWS_SPREAD;

	return PART_OF(flows, cpu, FLOWS_BITS) + (h >> (64 - FLOWS_BITS));
}

static __always_inline void count(__u32 cpu, __u32 reason, __u32 len)
{
	struct count *n = PART_OF(counters, cpu, REASONS_BITS) + (reason & ((1 << REASONS_BITS) - 1));

	n->packets++;
	n->bytes += len;
}
