package main

// The guards of frames that go straight to a veth's far end.
func init() {
	c := func(name, file, old, new, run string) {
		mutants = append(mutants, mutant{
			name: "peer: " + name, file: "tcprog/bpf/" + file, old: old, new: new, pkg: "./integration", run: run,
		})
	}
	left := "TestPeerLeavesNothingOut"
	c("nobody is overtaken", "peer.h", "	return (__s32)(sd->input_queue_head - turn) >= 0 ||", "	return true || (__s32)(sd->input_queue_head - turn) >= 0 ||", "TestPeerKeepsOrder")
	c("who goes up steps back", "shunt.c", "		step_back(flow, &g);\n", "		(void)step_back;\n", "TestPeerKeepsOrder/keepalives_over")
	c("queueing disciplines", "peer.h", "		return HAS_QDISC;\n", "		return FIT;\n", left+"/qdisc")
	c("filters at egress", "peer.h", "	return WORD(tcx->miniq) && WORD(filters->filter_list);\n", "	return !filters;\n", left+"/tc_egress")
	c("tcx programs at egress", "peer.h", "	if (WORD(entry->fp_items[0].prog))\n		return true;\n", "", "TestPeerLeavesNoProgramOut")
	c("captures of the device", "peer.h", "word_at(own) != own || ", "!own || ", "TestPeerIsCaptured/p2")
	c("captures of all devices", "peer.h", " || word_at(all) != all", "", "TestPeerIsCaptured/any")
	c("offloads", "peer.h", "		return LACKS_OFFLOAD;\n", "		return FIT;\n", left+"/offloads")
	c("steering", "peer.h", "			return IS_STEERED;\n", "			return FIT;\n", left+"/rps")
	c("NAPI", "peer.h", "			return HAS_NAPI;\n", "			return FIT;\n", left+"/napi")
	c("the same namespace", "peer.h", "		return SAME_NAMESPACE;\n", "		return FIT;\n", "TestPeerInTheSameNamespace")
	c("the far end's address", "shunt.c", "(WORD(*far->dev_addr) & MAC_MASK) == destination && ", "", "TestPeerKeepsWhoseAFrameIs")
	c("the far end's MTU", "shunt.c", " && longest(far) >= flow->max_len", "", "TestPeerKeepsMTU")
	c("no copy is forwarded", "peer.h", "		 SHOWN_FORWARDED_) &&", "		 0) &&", "TestPeerShowsTheBridgeItsStations")
	c("the bridge is shown a copy", "peer.h", "	done = !bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);\n", "	done = true;\n", "TestPeerShowsTheBridgeItsStations")
}
