package main

// mutants is the list of guards and the tests that hold them.
var mutants = []mutant{
	{
		name: "a station that moved is revoked by the program",
		file: "tcprog/bpf/shunt.c", old: "			revoke(c, s, f);\n", new: "			(void)revoke;\n",
		pkg: "./tcprog", run: "TestStationThatMovedIsForgottenAtItsFirstFrame",
	},
	{
		name: "a revocation by the program ends the cached flows",
		file: "tcprog/bpf/shunt.c", old: "	__sync_fetch_and_add(&c->epoch[shard(f->source)], 1);\n", new: "",
		pkg: "./tcprog", run: "TestStationThatMovedIsForgottenAtItsFirstFrame",
	},
	{
		name: "a move is seen while the gate is shut",
		file: "tcprog/bpf/shunt.c", old: "	vlan = resolve_vlan(f, c, in);\n", new: "	if (f->now_ns >= c->lease_ns)\n		return c->reason;\n	vlan = resolve_vlan(f, c, in);\n",
		pkg: "./tcprog", run: "TestMoveIsSeenWhateverTheFrameAndTheGate",
	},
	{
		name: "a move is seen in a frame that always goes up",
		file: "tcprog/bpf/shunt.c", old: "	if (class == SOURCE_MULTICAST || class == SOURCE_ZERO)\n", new: "	if (class != FAST)\n",
		pkg: "./tcprog", run: "TestMoveIsSeenWhateverTheFrameAndTheGate",
	},
	{
		name: "a candidate decides nothing",
		file: "tcprog/bpf/shunt.c", old: "	if (s->flags & STATION_LOCAL)\n		return DESTINATION_LOCAL;\n	if (!(s->flags & STATION_ACTIVE))\n", new: "	if (s->flags & STATION_LOCAL)\n		return DESTINATION_LOCAL;\n	if (0)\n",
		pkg: "./tcprog", run: "TestCandidateDecidesNothing",
	},
	{
		name: "a candidate that was revoked is not activated",
		file: "tcprog/bpf/batch.c", old: "&c->record, BPF_EXIST)", new: "&c->record, BPF_ANY)",
		pkg: "./tcprog", run: "TestCandidateThatMovedIsNotActivated",
	},
	{
		name: "an active entry is not overwritten by a candidate",
		file: "tcprog/bpf/batch.c", old: "&c->record, BPF_NOEXIST)", new: "&c->record, BPF_ANY)",
		pkg: "./tcprog", run: "TestAdmitLeavesAnActiveEntryAlone",
	},
	{
		name: "the lease ends cached flows",
		file: "tcprog/bpf/shunt.c", old: "	if (end > lease_ns)\n		end = lease_ns;\n", new: "",
		pkg: "./tcprog", run: "TestACachedFlowEnds",
	},
	{
		name: "a revocation by the daemon ends cached flows",
		file: "tcprog/bpf/batch.c", old: "	if (!c->result)\n		end_flows(&c->key);\n", new: "	if (c->result > 0)\n		end_flows(&c->key);\n",
		pkg: "./tcprog", run: "TestChangesReachCachedFlows",
	},
	{
		name: "a change of a port ends cached flows",
		file: "tcprog/port.go", old: "	br.control.bumpAll()\n	if err == nil {\n		br.storeImage(p.slot, &rec)\n		err = errors.Join(br.put(p.slot, barred(rec)), br.storeVLANs(p.slot, p.vlans, vlans))\n	}\n	br.control.bumpAll() // who read half of each must not meet the open record\n", new: "	if err == nil {\n		br.storeImage(p.slot, &rec)\n		err = errors.Join(br.put(p.slot, barred(rec)), br.storeVLANs(p.slot, p.vlans, vlans))\n	}\n",
		pkg: "./tcprog", run: "TestChangesReachCachedFlows",
	},
	{
		name: "the shards are the same in C and Go",
		file: "tcprog/bpf/batch.c", old: "key->mac[4] ^ key->mac[5]", new: "key->mac[3] ^ key->mac[5]",
		pkg: "./tcprog", run: "TestChangesReachCachedFlows",
	},
	{
		name: "isolated ports do not reach each other",
		file: "tcprog/bpf/shunt.c", old: "		return ISOLATED;\n", new: "		return FAST;\n",
		pkg: "./tcprog", run: "TestChangesReachCachedFlows",
	},
	{
		name: "a source is shown to the bridge now and then",
		file: "tcprog/bpf/shunt.c", old: "		return KEEPALIVE;\n", new: "",
		pkg: "./tcprog", run: "TestSourceIsShownToTheBridgeNowAndThen",
	},
	{
		name: "a frame longer than the egress MTU is passed up",
		file: "tcprog/bpf/shunt.c", old: "		return MTU;\n", new: "		return FAST;\n",
		pkg: "./tcprog", run: "TestEveryFrameHasItsReason",
	},
	{
		name: "ARP is passed up",
		file: "tcprog/bpf/shunt.c", old: "	case bpf_htons(ETH_P_ARP):\n", new: "",
		pkg: "./tcprog", run: "TestEveryFrameHasItsReason",
	},
	{
		name: "a wrong IP checksum is left to br_netfilter",
		file: "tcprog/bpf/shunt.c", old: "	return sum == 0xffff;\n", new: "	return sum != 0;\n",
		pkg: "./tcprog", run: "TestEveryFrameHasItsReason",
	},
	{
		name: "stations of an earlier daemon are not trusted",
		file: "tcprog/bridge.go", old: "errors.Join(br.clearStations(), br.clearVLANs())", new: "br.clearVLANs()",
		pkg: "./tcprog", run: "TestNextDaemonTakesOver",
	},
	{
		name: "a foreign filter keeps its qdisc",
		file: "tcprog/clsact.go", old: "	if !isOurs || err != nil {\n", new: "	if err != nil {\n",
		pkg: "./tcprog", run: "TestStopKeepsAForeignQdisc",
	},
	{
		name: "a foreign filter closes the port",
		file: "tcprog/tcx.go", old: "	filters, err := filtersAt(t.place)\n	if err != nil {\n		return false, err\n	}\n", new: "	var filters []tc.Object\n",
		pkg: "./tcprog", run: "TestForeignFilterIsLeftAloneAndCloses",
	},
	{
		name: "a program behind ours closes the port",
		file: "tcprog/tcx.go", old: "	return n == 0 || attached[n-1] != t.own, nil\n", new: "	return n == 0, nil\n",
		pkg: "./tcprog", run: "TestProgramBehindOursCloses",
	},
	{
		name: "frames follow a station that moves",
		file: "tcprog/bpf/shunt.c", old: "			revoke(c, s, f);\n", new: "			(void)revoke;\n",
		pkg: "./integration", run: "TestFramesFollowAStationThatMoves",
	},
	{
		name: "stations in use do not age",
		file: "tcprog/bpf/shunt.c", old: "		return KEEPALIVE;\n", new: "",
		pkg: "./integration", run: "TestTrap14_StationsInUseDoNotAge",
	},
	{
		name: "the lease ends the fast path of a dead daemon",
		file: "tcprog/control.go", old: "monotonicNow() + uint64(lease.Nanoseconds())", new: "monotonicNow() + 10*uint64(lease.Nanoseconds())",
		pkg: "./integration", run: "TestLeaseEndsTheFastPathOfADeadDaemon",
	},
	{
		name: "the next daemon takes over what a dead one left",
		file: "tcprog/maps.go", old: "	maps, err = adoptMaps(dir, sharedMaps, spec)\n	if err == nil {\n", new: "	maps, err = adoptMaps(dir, sharedMaps, spec)\n	if false {\n",
		pkg: "./integration", run: "TestNothingIsLostWhileShuntComesAndGoes",
	},
	{
		name: "a frame that counts as fast is redirected",
		file: "tcprog/bpf/shunt.c", old: "	return bpf_redirect(flow->ifindex, 0);\n", new: "	return PASS_UP;\n",
		pkg: "./tcprog", run: "TestAFlowIsOfOnePort",
	},
	{
		name: "off holds from the next frame on",
		file: "tcprog/control.go", old: "	atomic.StoreUint64(&c.shared.LeaseNs, 0)\n	c.bumpAll()\n", new: "",
		pkg: "./integration", run: "TestOffHoldsFromTheNextFrameOn",
	},
	{
		name: "detach leaves no qdisc",
		file: "tcprog/clsact.go", old: "	if !hasQdisc || others > 0 {\n", new: "	if hasQdisc = false; !hasQdisc || others > 0 {\n",
		pkg: "./integration", run: "TestDetachLeavesNothing",
	},
	{
		name: "detach leaves no pins",
		file: "tcprog/bridge.go", old: "	errs = append(errs, removePins(filepath.Dir(br.dir)))\n", new: "",
		pkg: "./integration", run: "TestDetachLeavesNothing",
	},
	{
		name: "a full map is no failure",
		file: "tcprog/stations.go", old: "				unmirrored++\n", new: "				return fmt.Errorf(\"admit %s: %w\", k, errno)\n",
		pkg: "./tcprog", run: "TestFullMapIsSaidAndHarmless",
	},
	{
		name: "a bridge that comes back is taken again",
		file: "fdbsync/syncer.go", old: "	m.logger.Info(\"the bridge is here\", \"ifindex\", l.ifindex)\n", new: "	if m.link.ifindex != 0 {\n		return nil\n	}\n",
		pkg: "./integration", run: "TestBridgeMayGoAndComeBack",
	},
	{
		name: "entries that events tell of are mirrored",
		file: "fdbsync/syncer.go", old: "				m.newNeigh(n.station)\n", new: "",
		pkg: "./integration", run: "TestMirrorIsRightAfterChurn",
	},
	{
		name: "what the kernel deletes is revoked without the daemon",
		file: "tcprog/bpf/revoke.c", old: "SEC(\"tp_btf/fdb_delete\")\nint BPF_PROG(shunt_fdb_delete, struct net_bridge *br, struct net_bridge_fdb_entry *f)\n{\n	if (of_bridge(br))", new: "SEC(\"tp_btf/fdb_delete\")\nint BPF_PROG(shunt_fdb_delete, struct net_bridge *br, struct net_bridge_fdb_entry *f)\n{\n	if (!br)",
		pkg: "./integration", run: "TestRevocationNeedsNoDaemon/delete",
	},
	{
		name: "what the kernel replaces is revoked without the daemon",
		file: "tcprog/bpf/revoke.c", old: "	if (!in_namespace(dev))\n		return 0;\n	forget(addr, vid, true);\n", new: "	if (!in_namespace(dev))\n		return 0;\n",
		pkg: "./integration", run: "TestRevocationNeedsNoDaemon/replace",
	},
	{
		name: "a bridge's events do not touch the other namespace's",
		file: "tcprog/bpf/revoke.c", old: "	return BPF_CORE_READ(dev, nd_net.net, ns.inum) == netns_inode;\n", new: "	(void)dev;\n	return true;\n",
		pkg: "./integration", run: "TestTrap29_TwoNamespaces",
	},
	{
		name: "no event of a burst is lost",
		file: "fdbsync/syncer.go", old: "		if n < maxEvents { // what", new: "		if e = s.nextEvent(); n < maxEvents { // what",
		pkg: "./fdbsync", run: "TestEveryEventOfABurstIsTakenIn",
	},
}
