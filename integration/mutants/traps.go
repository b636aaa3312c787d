package main

// The guards of the traps. Those that this machine's kernel cannot show run on one
// of Debian's.
func init() {
	t := func(trap, file, old, new, run string) {
		mutants = append(mutants, mutant{
			name: "trap" + trap, file: file, old: old, new: new, pkg: "./integration", run: run,
		})
	}
	const live, shunt, trace, revoke = "tcprog/bpf/images.h", "tcprog/bpf/shunt.c", "tcprog/bpf/trace.c", "tcprog/bpf/revoke.c"
	t("01: a hook of the bridge family counts", live, "	FOLD_HOOKS(sum, nf->hooks_bridge[NF_FORWARD]);\n", "", "TestTrap01")
	t("02: a hook of IP counts where br_netfilter is", live, "	FOLD_HOOKS(sum, nf->hooks_ipv4[NF_FORWARD]);\n", "", "TestTrap02")
	t("04: the flags of the port where a frame comes in count", live, "	if (p->flags != seen->flags || state", "	if (!p || state", "TestTrap04")
	t("04: the flags of the port where it leaves count", live, "	return p->flags == seen->flags && state", "	return state", "TestTrap04")
	t("05: a source that was deleted does not count", revoke, "		forget(f->key.addr.addr, f->key.vlan_id, false);\n", "		return 0;\n", "TestTrap05")
	t("06: the state of the port where a frame comes in counts", live, "	if (p->flags != seen->flags || state_at(seen->port) != seen->state)", "	if (p->flags != seen->flags)", "TestTrap06")
	t("06: the state of the port where it leaves counts", live, "	return p->flags == seen->flags && state_at(seen->port) == seen->state &&\n", "	return p->flags == seen->flags &&\n", "TestTrap06")
	t("09: a chain at egress counts", live, "		(__u64)dev->nf_hooks_egress == seen->egress_hooks);\n", "		1);\n", "TestTrap09")
	t("10: a chain at ingress counts", live, "	    (__u64)dev->nf_hooks_ingress != seen->ingress_hooks)\n", "	    0)\n", "TestTrap10")
	t("11: a filter of another's closes the port", "tcprog/tcx.go", "	filters, err := filtersAt(t.place)\n	if err != nil {\n		return false, err\n	}\n", "	var filters []tc.Object\n", "TestTrap11")
	t("12: a source elsewhere takes the bridge", shunt, "	if (s->slot != f->slot) {\n", "	if (0) {\n", "TestTrap12")
	t("14: the bridge sees every source now and then", shunt, "		return KEEPALIVE;\n", "", "TestTrap14")
	t("15: a setlink that failed half-way counts", live, "	return p->flags == seen->flags && state", "	return state", "TestTrap15")
	t("16: a promiscuous bridge counts", live, "	       CAST(struct net_device, seen->device)->flags == seen->flags &&\n", "", "TestTrap16")
	t("17: a capture on the bridge counts", live, "	       CAST(struct net_device, seen->device)->flags == seen->flags &&\n", "", "TestTrap17")
	t("18: the MTU counts", live, " && dev->mtu == seen->mtu &&\n", " &&\n", "TestTrap18")
	t("18: a frame that is too long takes the bridge", shunt, "		return MTU;\n", "		return FAST;\n", "TestTrap18")
	t("20: a static entry moves", revoke, "		forget(addr, vid, false);\n", "		return 0;\n", "TestTrap20")
	t("21: a backup port counts", live, "(__u64)p->backup_port == seen->backup && ", "", "TestTrap21")
	t("22: an entry that is taken over does not count", revoke, "	err = bpf_map_delete_elem(&stations, &key);\n", "	if (counted)\n		return;\n	err = bpf_map_delete_elem(&stations, &key);\n", "TestTrap22")
	t("29: a namespace is not the other", revoke, "	return BPF_CORE_READ(dev, nd_net.net, ns.inum) == netns_inode;\n", "	(void)dev;\n	return true;\n", "TestTrap29")
	t("30: to explain is not to show the bridge", shunt, "		if (!answer)\n			source->seen_ns = f->now_ns;\n", "		source->seen_ns = f->now_ns;\n", "TestTrap30")
	t("class: a flow of the cache hangs on the kernel's state", shunt, "(!live || is_as_seen(flow))", "(!live || is_as_seen(flow) || true)", "TestRevocationClassWhileStopped")
	t("class: the bridge's state counts", live, "	return (br->options & seen->mask) == ", "	if (br)\n		return true;\n	return (br->options & seen->mask) == ", "TestRevocationClassOfTheBridge")

	vm := func(trap, file, old, new, run string) {
		mutants = append(mutants, mutant{
			name: "vm: trap" + trap, file: file, old: old, new: new, kernel: "6.12", run: run,
		})
	}
	const changed = "		__sync_fetch_and_add(&w->version, 1);\n		raise_changes();\n"
	vm("07: spanning trees of their own close the bridge", "fdbsync/eligible.go", "	if l.bridge.mst {\n		reasons = append(reasons, accel.MST)\n	}\n", "", "TestTrap07")
	vm("08: a VLAN that goes is noticed", trace, changed, "", "TestTrap08")
	vm("13: VLAN devices take their frames first", shunt, "in->flags & PORT_VLAN_DEVICES || ", "", "TestTrap13")
	vm("19: ARP is the bridge's", shunt, "	case bpf_htons(ETH_P_ARP):\n", "", "TestTrap19")
	vm("24: the VLAN of an entry that stays is noticed", trace, changed, "", "TestTrap24")
	vm("class: VLANs are noticed", trace, changed, "", "TestRevocationClassOfVLANs")
}
