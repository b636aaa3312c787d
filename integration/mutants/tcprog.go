package main

// The guards of the verdict and of versions, held by the data plane's own tests.
func init() {
	c := func(name, old, new, run string) {
		mutants = append(mutants, mutant{
			name: "verdict: " + name, file: "tcprog/bpf/shunt.c", old: old, new: new, pkg: "./tcprog", run: run,
		})
	}
	c("untagged frames have the PVID", "		f->vid = in ? in->pvid : 0;\n", "		f->vid = 1;\n", "TestVLANs")
	c("a tag of another protocol is the bridge's", "	if (f->tag_protocol != c->vlan_protocol)\n		return FOREIGN_TAG;\n", "", "TestVLANs")
	c("a priority tag is the bridge's", "	return f->vid ? FAST : PRIORITY_TAGGED;\n", "	return FAST;\n", "TestVLANs")
	c("a VLAN that does not forward is the bridge's", "flags && (*flags & VLAN_FORWARDING) ? flags : NULL", "flags", "TestVLANs")
	c("ingress membership", "	if (c->vlan_protocol && f->vid && !membership(f->slot, f->vid))\n		return VLAN_INGRESS;\n", "", "TestVLANs")
	c("egress membership", "	if (!vlan)\n		return VLAN_EGRESS;\n", "	if (!vlan)\n		return FAST;\n", "TestVLANs")
	c("the tag is taken off", "		tagging->action = TAG_POP;\n", "		tagging->action = TAG_KEEP;\n", "TestVLANs")
	c("the tag is put on", "		tagging->action = TAG_PUSH;\n", "		tagging->action = TAG_KEEP;\n", "TestVLANs")
	c("VLAN devices take their frames first", "in->flags & PORT_VLAN_DEVICES || ", "", "TestTagOnABridgeWithoutFiltering")
	c("tags are the bridge's where nobody watches", " || revocation == NETLINK", "", "TestTagIsLeftToTheBridgeWhereNobodyWatches")
	c("the bridge's version counts", "		return is_known(in, now) || has_version(c->ifindex, seen);\n", "		return true;\n", "TestVersionsVoidRecords")
	c("the ingress port's version counts", "		return is_known(in, now) || remember(in, now, has_version(in->ifindex, in->seen));\n", "		return true;\n", "TestVersionsVoidRecords")
	c("the egress port's version counts", "		return is_known(out, now) || remember(out, now, has_version(out->ifindex, out->seen));\n", "		return true;\n", "TestVersionsVoidRecords")
	c("a change ends cached flows", " +\n	       *(volatile __u64 *)&changes;", ";", "TestVersionsVoidRecords")
	c("a flow is of one port", "(in << MAC_BITS) + epoch", "epoch", "TestAFlowIsOfOnePort")
	c("a frame that is too long is not just sent", " || skb->len > flow->quick_len)", ")", "TestEveryFrameHasItsReason")
	c("extras are done", "flow->extras ? 0 : flow->max_len", "flow->max_len", "TestVLANs|TestEveryFrameHasItsReason")
	c("the protocol is part of a flow", "*(__u64 *)(data + 8) << 16;", "(*(__u64 *)(data + 8) & 0xffffffff) << 16 | 0x0008ULL << 48;", "TestEveryFrameHasItsReason")
	c("a flow ends when its source is due", "	return end > f->now_ns ? f->now_jiffies + (end - f->now_ns) / tick_ns - 1 : 0;\n", "	return ~0ULL;\n", "TestACachedFlowEnds")
	c("a sticky entry stays", "s->flags & STATION_STICKY || ", "", "TestEntryThatStaysIsKept")
	c("a port that does not learn moves nothing", " || (in && !(in->flags & PORT_LEARNS))", "", "TestEntryThatStaysIsKept")
	c("neighbour discovery is the bridge's where it is suppressed", "		return NEIGH_SUPPRESS;\n", "		return FAST;\n", "TestNeighbourDiscoveryIsLeftToTheBridge")
	c("explain revokes nothing", "		if (!dry && !entries_traced)\n			revoke", "		if (!entries_traced)\n			revoke", "TestExplainChangesNothing")
	c("explain does not stand for a keepalive", "		if (!answer)\n			source->seen_ns = f->now_ns;\n", "		source->seen_ns = f->now_ns;\n", "TestExplainChangesNothing")
	c("a device without a version is not used", "	return w && ", "	return !w || ", "TestUnwatchedPortIsNotUsed")
	c("explain looks at the frame too", "	if (a->reason == FAST)\n		a->reason = check_frame(skb, &f, &flow);\n", "", "TestExplainLooksAtTheFrame")
	c("what br_netfilter would cut is the bridge's", "		room = VLAN_HLEN_;\n", "		room = 0;\n", "TestEveryFrameHasItsReason")
	c("a flow keeps its place for a while", "	return ++held->refused >= MOST_REFUSED ? held : spare;\n", "	return held;\n", "TestAFlowKeepsItsPlaceForAWhile")
	c("a flow gives up its place", "	return ++held->refused >= MOST_REFUSED ? held : spare;\n", "	return spare;\n", "TestAFlowKeepsItsPlaceForAWhile")
	c("a flow that has ended keeps no place", "held->age != age_of(held->shards, held->age >> MAC_BITS) || ", "", "TestAFlowKeepsItsPlaceForAWhile")
	c("what is known is known of now", "p->checked == now->all", "p->checked", "TestVersionsVoidRecords")
	mutants = append(mutants,
		mutant{
			name: "verdict: flows of an earlier daemon never count", file: "tcprog/bridge.go",
			old: "	br.control.leap()\n", new: "", pkg: "./tcprog", run: "TestNextDaemonTakesOver",
		},
		mutant{
			name: "verdict: a VLAN device out of sight counts", file: "tcprog/port.go",
			old: "p.HasVLANDevices || now.vlanDevices", new: "p.HasVLANDevices",
			pkg: "./tcprog", run: "TestTagOnABridgeWithoutFiltering",
		},
		mutant{
			name: "verdict: a port of another bridge is left to it", file: "tcprog/port.go",
			old: "	} else if br.changes.holders[p.ifindex] == 0 {\n", new: "	} else {\n",
			pkg: "./tcprog", run: "TestPortOfAnotherBridgeIsLeftToIt",
		},
		mutant{
			name: "verdict: pins of bridges that are gone are removed", file: "tcprog/plugin.go",
			old: "removeDeadBridges(pinRoot(d.namespace))", new: "error(nil)",
			pkg: "./tcprog", run: "TestOldPinsAreRemoved",
		},
		mutant{
			name: "verdict: pins of an older schema are removed", file: "tcprog/maps.go",
			old: "	if err := removePins(filepath.Dir(dir)); err != nil {\n		return nil, false, err\n", new: "	if err := removePins(dir); err != nil {\n		return nil, false, err\n",
			pkg: "./tcprog", run: "TestOldPinsAreRemoved",
		},
		mutant{
			name: "verdict: a port that is read live is still the device's", file: "tcprog/bpf/images.h",
			old: "(__u64)device_in(seen)->rx_handler_data == seen->port &&\n	       ", new: "",
			pkg: "./tcprog", run: "TestAnImageIsOfOnePort",
		},
		mutant{
			name: "verdict: a port that is read live is still the bridge's", file: "tcprog/bpf/images.h",
			old: " &&\n	       (__u64)port_in(seen)->br == bridge.image.bridge;", new: ";",
			pkg: "./tcprog", run: "TestAnImageIsOfOnePort",
		},
	)
}
