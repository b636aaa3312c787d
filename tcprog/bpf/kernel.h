/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Of the kernel's types only what is read here; the loader finds the offsets. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
	struct list_head *prev;
};

/* Stands for any eight bytes: see WORD in live.h. */
struct timespec64 {
	__s64 tv_sec;
};

struct ns_common {
	unsigned int inum;
};

struct nf_hook_entries {
	__u16 num_hook_entries;
};

struct nf_hook_ops {
	struct net_device *dev;
	__u8 pf;
	unsigned int hooknum;
};

struct netns_nf {
	struct nf_hook_entries *hooks_ipv4[5];
	struct nf_hook_entries *hooks_ipv6[5];
	struct nf_hook_entries *hooks_bridge[5];
};

struct net {
	struct ns_common ns;
	struct netns_nf nf;
	struct list_head ptype_all;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct vlan_group {
	unsigned int nr_vlan_devs;
};

struct vlan_info {
	struct vlan_group grp;
};

typedef struct {
	__s64 counter;
} atomic64_t;

struct bpf_mprog_bundle {
	atomic64_t revision;
};

struct bpf_prog;

struct bpf_mprog_fp {
	struct bpf_prog *prog;
};

struct bpf_mprog_entry {
	struct bpf_mprog_fp fp_items[64];
	struct bpf_mprog_bundle *parent;
};

struct tcf_proto;

struct mini_Qdisc {
	struct tcf_proto *filter_list;
};

struct tcx_entry {
	struct mini_Qdisc *miniq;
	struct bpf_mprog_bundle bundle;
};

struct Qdisc_ops {
	char id[16];
};

struct Qdisc {
	const struct Qdisc_ops *ops;
};

struct rtnl_link_ops {
	const char *kind;
};

struct rps_map;
struct rps_dev_flow_table;

struct netdev_rx_queue {
	struct rps_map *rps_map;
	struct rps_dev_flow_table *rps_flow_table;
};

struct sk_buff_head {
	__u32 qlen;
};

/* What a CPU received and has not looked at yet. */
struct softnet_data {
	struct sk_buff_head process_queue;
	unsigned int input_queue_head;
	unsigned int cpu;
	unsigned int input_queue_tail;
	struct sk_buff_head input_pkt_queue;
};

enum netdev_state_t {
	__LINK_STATE_START = 0,
	__LINK_STATE_NOCARRIER = 2,
};

struct net_device {
	unsigned long state;
	unsigned long priv_flags;
	unsigned int mtu;
	unsigned int flags;
	int ifindex;
	void *rx_handler;
	void *rx_handler_data;
	possible_net_t nd_net;
	struct nf_hook_entries *nf_hooks_ingress;
	struct nf_hook_entries *nf_hooks_egress;
	struct bpf_mprog_entry *tcx_ingress;
	struct bpf_mprog_entry *tcx_egress;
	struct vlan_info *vlan_info;
	struct Qdisc *qdisc;
	struct list_head ptype_all;
	__u64 features;
	__u64 hw_features;
	unsigned int gso_max_size;
	__u16 gso_max_segs;
	const struct rtnl_link_ops *rtnl_link_ops;
	struct netdev_rx_queue *_rx;
	unsigned int real_num_rx_queues;
	const unsigned char *dev_addr;
};

struct netdev_notifier_info {
	struct net_device *dev;
};

struct packet_type {
	__be16 type;
};

struct sk_buff {
	struct net_device *dev;
};

struct net_bridge {
	struct net_device *dev;
	unsigned long options;
	struct list_head port_list;
	unsigned long ageing_time;
	__u16 vlan_proto;
	__u16 group_fwd_mask;
	__u16 group_fwd_mask_required;
};

enum net_bridge_opts {
	BROPT_VLAN_ENABLED = 0,
	BROPT_VLAN_STATS_ENABLED = 1,
	BROPT_NEIGH_SUPPRESS_ENABLED = 10,
	BROPT_NO_LL_LEARN = 13,
	BROPT_VLAN_STATS_PER_PORT = 12,
	BROPT_MST_ENABLED = 16,
};

struct net_bridge_port {
	struct net_bridge *br;
	struct net_device *dev;
	struct list_head list;
	unsigned long flags;
	struct net_bridge_port *backup_port;
	__u32 backup_nhid;
	__u16 group_fwd_mask;
	__u8 state;
};

struct net_bridge_fdb_key {
	struct {
		unsigned char addr[6];
	} addr;
	__u16 vlan_id;
};

struct net_bridge_fdb_entry {
	struct net_bridge_fdb_key key;
};

struct nsproxy {
	struct net *net_ns;
};

struct rq;

struct cfs_rq {
	struct rq *rq;
};

struct sched_entity {
	struct cfs_rq *cfs_rq;
};

struct task_struct {
	struct nsproxy *nsproxy;
	struct sched_entity se;
};

struct ndmsg;

#pragma clang attribute pop

#define OPTION(name) (1UL << bpf_core_enum_value(enum net_bridge_opts, BROPT_##name))

/* The bridge's options that count for known unicast. The kernel changes others by
 * itself: with every query that it sends (net/bridge/br_multicast.c:
 * br_ip6_multicast_alloc_query), and when its MTU follows that of a port.
 */
#define OPTIONS_THAT_COUNT                                       \
	(OPTION(VLAN_ENABLED) | OPTION(VLAN_STATS_ENABLED) |     \
	 OPTION(VLAN_STATS_PER_PORT) | OPTION(MST_ENABLED) |     \
	 OPTION(NEIGH_SUPPRESS_ENABLED))

#define IFF_BRIDGE_PORT_ (1 << 9) /* include/linux/netdevice.h */
