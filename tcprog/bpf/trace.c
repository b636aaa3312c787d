// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs at the exit of the kernel's functions that change a port, a VLAN, the
 * bridge or a netfilter hook. They raise the version of what changed, in the
 * instant in which it did and whatever the daemon is doing; a record that was
 * written for another version is void from then on.
 *
 * One set serves all bridges of a network namespace. What a kernel does not have
 * or inlined is found out by attaching.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "changes.h"
#include "kernel.h"

char __license[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 netns_inode = 0;

/* Frames may go straight to the far ends of ports: see peer.h. */
const volatile bool peers = false;

#define IFF_PROMISC_ 0x100  /* include/uapi/linux/if.h */
#define NFPROTO_INET 1	    /* include/uapi/linux/netfilter.h */
#define NFPROTO_NETDEV 5
#define NF_INET_INGRESS 5

static __always_inline bool is_here(struct net *net)
{
	return BPF_CORE_READ(net, ns.inum) == netns_inode;
}

/* The number of all changes comes last: whoever reads it first, and then the
 * versions, decides by what he read or finds the number raised.
 */
static __always_inline void raise_changes(void)
{
	__sync_fetch_and_add(&changes, 1);
}

static __always_inline struct watch *watched_device(const struct net_device *dev)
{
	__u32 ifindex;

	if (!is_here(BPF_CORE_READ(dev, nd_net.net)))
		return NULL;
	ifindex = BPF_CORE_READ(dev, ifindex);
	return bpf_map_lookup_elem(&watched, &ifindex);
}

static __always_inline int changed(const struct net_device *dev)
{
	struct watch *w = watched_device(dev);

	if (w) {
		__sync_fetch_and_add(&w->version, 1);
		raise_changes();
	}
	return 0;
}

static __always_inline int port_changed(const struct net_bridge_port *p)
{
	return changed(BPF_CORE_READ(p, dev));
}

/* What counts of a bridge, as a number. Many of the functions below are called
 * when nothing of it changes, such as when a port leaves.
 */
static __always_inline __u64 options_of(const struct net_bridge *br)
{
	__u64 options = BPF_CORE_READ(br, options) & OPTIONS_THAT_COUNT;

	options |= (__u64)(BPF_CORE_READ(br, ageing_time) == 0) << 62;
	options |= (__u64)!!(BPF_CORE_READ(br, dev, flags) & IFF_PROMISC_) << 63;
	if (bpf_core_field_exists(br->vlan_proto))
		options |= (__u64)BPF_CORE_READ(br, vlan_proto) << 40;
	return options;
}

static __always_inline int bridge_changed(const struct net_bridge *br)
{
	struct watch *w = watched_device(BPF_CORE_READ(br, dev));
	__u64 options = options_of(br);

	if (!w || w->options == options)
		return 0;
	w->options = options;
	__sync_fetch_and_add(&w->version, 1);
	raise_changes();
	return 0;
}

static long raise(void *map, const __u32 *ifindex, struct watch *w, void *unused)
{
	__sync_fetch_and_add(&w->version, 1);
	return 0;
}

/* A program or filter came to or left some device. The kernel does not say here
 * which, but whoever asked for it is in the device's namespace.
 */
static __always_inline int tc_changed(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!is_here(BPF_CORE_READ(task, nsproxy, net_ns)))
		return 0;
	bpf_for_each_map_elem(&watched, raise, NULL, 0);
	raise_changes();
	return 0;
}

static long raise_if_bridge(void *map, const __u32 *ifindex, struct watch *w, void *unused)
{
	if (w->is_bridge)
		__sync_fetch_and_add(&w->version, 1);
	return 0;
}

SEC("fexit/br_set_state")
int BPF_PROG(shunt_br_set_state, struct net_bridge_port *p)
{
	return port_changed(p);
}

SEC("fexit/br_port_flags_change")
int BPF_PROG(shunt_br_port_flags_change, struct net_bridge_port *p)
{
	return port_changed(p);
}

SEC("fexit/nbp_backup_change")
int BPF_PROG(shunt_nbp_backup_change, struct net_bridge_port *p)
{
	return port_changed(p);
}

/* Additions, PVID and untagged flags, the states of VLANs. */
SEC("fexit/br_vlan_notify")
int BPF_PROG(shunt_br_vlan_notify, const struct net_bridge *br, const struct net_bridge_port *p)
{
	return p ? port_changed(p) : 0;
}

/* It tells of VLANs only whose options were all taken, and leaves the state changed
 * of the others.
 */
SEC("fexit/br_vlan_process_options")
int BPF_PROG(shunt_br_vlan_process_options, const struct net_bridge *br,
	     const struct net_bridge_port *p)
{
	return p ? port_changed(p) : 0;
}

SEC("fexit/nbp_vlan_add")
int BPF_PROG(shunt_nbp_vlan_add, struct net_bridge_port *p)
{
	return port_changed(p);
}

SEC("fexit/nbp_vlan_delete")
int BPF_PROG(shunt_nbp_vlan_delete, struct net_bridge_port *p)
{
	return port_changed(p);
}

SEC("fexit/nbp_vlan_flush")
int BPF_PROG(shunt_nbp_vlan_flush, struct net_bridge_port *p)
{
	return port_changed(p);
}

/* vlan_filtering, mst_enabled, vlan_stats, neighbour suppression ... */
SEC("fexit/br_opt_toggle")
int BPF_PROG(shunt_br_opt_toggle, struct net_bridge *br)
{
	return bridge_changed(br);
}

SEC("fexit/__br_vlan_set_proto")
int BPF_PROG(shunt_br_vlan_set_proto, struct net_bridge *br)
{
	return bridge_changed(br);
}

SEC("fexit/br_set_ageing_time")
int BPF_PROG(shunt_br_set_ageing_time, struct net_bridge *br)
{
	return bridge_changed(br);
}

/* The bridge device became promiscuous, or is so no more; ports too. */
SEC("fexit/br_manage_promisc")
int BPF_PROG(shunt_br_manage_promisc, struct net_bridge *br)
{
	return bridge_changed(br);
}

/* MTU, carrier, addresses, a name of a port: whatever the bridge is told of. Its own
 * device changes with its ports, in ways that mean nothing for them. It is told of the
 * devices of all namespaces, and so of the ports' far ends.
 */
SEC("fexit/br_device_event")
int BPF_PROG(shunt_br_device_event, void *unused, unsigned long event,
	     struct netdev_notifier_info *info)
{
	struct net_device *dev = BPF_CORE_READ(info, dev);
	struct watch *w = watched_device(dev);

	if (w)
		return w->is_bridge ? 0 : changed(dev);
	if (peers)
		raise_changes();
	return 0;
}

/* Somebody captures what devices send, or all that one does. */
SEC("fexit/dev_add_pack")
int BPF_PROG(shunt_dev_add_pack, struct packet_type *tap)
{
	if (BPF_CORE_READ(tap, type) == bpf_htons(ETH_P_ALL))
		raise_changes();
	return 0;
}

/* The queueing discipline of a device was exchanged. */
SEC("fexit/dev_activate")
int BPF_PROG(shunt_dev_activate)
{
	raise_changes();
	return 0;
}

/* A VLAN device on the port; the bridge's own filters come this way too. */
SEC("fexit/vlan_vid_add")
int BPF_PROG(shunt_vlan_vid_add, struct net_device *dev)
{
	return changed(dev);
}

/* A hook of one device concerns that; any other may see the frames of every
 * bridge.
 */
SEC("fexit/nf_register_net_hook")
int BPF_PROG(shunt_nf_register_net_hook, struct net *net, const struct nf_hook_ops *ops)
{
	__u8 family = BPF_CORE_READ(ops, pf);

	if (!is_here(net))
		return 0;
	if (family == NFPROTO_NETDEV ||
	    (family == NFPROTO_INET && BPF_CORE_READ(ops, hooknum) == NF_INET_INGRESS))
		return changed(BPF_CORE_READ(ops, dev));
	bpf_for_each_map_elem(&watched, raise_if_bridge, NULL, 0);
	raise_changes();
	return 0;
}

SEC("fexit/mini_qdisc_pair_swap")
int BPF_PROG(shunt_mini_qdisc_pair_swap)
{
	return tc_changed();
}

SEC("fexit/tcx_prog_attach")
int BPF_PROG(shunt_tcx_prog_attach)
{
	return tc_changed();
}

SEC("fexit/tcx_link_attach")
int BPF_PROG(shunt_tcx_link_attach)
{
	return tc_changed();
}

/* Somebody asks netlink for the port: the time to look at what netlink does not
 * tell, VLAN devices on it that were moved to another namespace.
 */
SEC("fexit/br_port_fill_slave_info")
int BPF_PROG(shunt_br_port_fill_slave_info, struct sk_buff *skb, const struct net_device *br,
	     const struct net_device *dev)
{
	struct net_bridge_port *p = BPF_CORE_READ(dev, rx_handler_data);
	struct watch *w = watched_device(dev), *of_bridge = watched_device(br);
	__u32 devices = 0;

	/* From here on the daemon knows of the bridge what it is now. */
	if (of_bridge && of_bridge->is_bridge)
		of_bridge->options = options_of(BPF_CORE_READ(p, br));
	if (!w)
		return 0;
	if (bpf_core_field_exists(dev->vlan_info))
		devices = BPF_CORE_READ(dev, vlan_info, grp.nr_vlan_devs);
	w->vlan_devices = devices;
	return 0;
}
