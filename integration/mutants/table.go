package main

// mutants is the list of guards and the tests that hold them.
var mutants = []mutant{
	{
		name: "a station that moved is revoked by the program",
		file: "tcprog/bpf/shunt.c", old: "		revoke(c, s, address);\n", new: "		(void)c, (void)address, (void)revoke;\n",
		pkg: "./tcprog", run: "TestStationThatMovedIsForgottenAtItsFirstFrame",
	},
	{
		name: "a revocation by the program ends the cached flows",
		file: "tcprog/bpf/shunt.c", old: "	__sync_fetch_and_add(&c->epoch[shard(address)], 1);\n", new: "",
		pkg: "./tcprog", run: "TestStationThatMovedIsForgottenAtItsFirstFrame",
	},
	{
		name: "a move is seen while the gate is shut",
		file: "tcprog/bpf/shunt.c", old: "	source = station_of(f->source);\n", new: "	if (f->now_ns >= c->lease_ns)\n		return c->reason;\n	source = station_of(f->source);\n",
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
		file: "tcprog/stations.go", old: "ebpf.UpdateExist)", new: "ebpf.UpdateAny)",
		pkg: "./tcprog", run: "TestCandidateThatMovedIsNotActivated",
	},
	{
		name: "an active entry is not overwritten by a candidate",
		file: "tcprog/stations.go", old: "ebpf.UpdateNoExist)", new: "ebpf.UpdateAny)",
		pkg: "./tcprog", run: "TestAdmitLeavesAnActiveEntryAlone",
	},
	{
		name: "the lease ends cached flows",
		file: "tcprog/bpf/shunt.c", old: " && f->now_ns < c->lease_ns;", new: ";",
		pkg: "./tcprog", run: "TestChangesReachCachedFlows",
	},
	{
		name: "a revocation by the daemon ends cached flows",
		file: "tcprog/stations.go", old: "		br.control.bump(k)\n", new: "",
		pkg: "./tcprog", run: "TestChangesReachCachedFlows",
	},
	{
		name: "a change of a port ends cached flows",
		file: "tcprog/port.go", old: "	br.control.bumpAll()\n", new: "",
		pkg: "./tcprog", run: "TestChangesReachCachedFlows",
	},
	{
		name: "the shards are the same in C and Go",
		file: "tcprog/control.go", old: "k.MAC[4] ^ k.MAC[5]", new: "k.MAC[3] ^ k.MAC[5]",
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
		file: "tcprog/bpf/shunt.c", old: "	case ETH_P_ARP:\n", new: "",
		pkg: "./tcprog", run: "TestEveryFrameHasItsReason",
	},
	{
		name: "a wrong IP checksum is left to br_netfilter",
		file: "tcprog/bpf/shunt.c", old: "	return sum == 0xffff;\n", new: "	return sum != 0;\n",
		pkg: "./tcprog", run: "TestEveryFrameHasItsReason",
	},
	{
		name: "stations of an earlier daemon are not trusted",
		file: "tcprog/bridge.go", old: "	if err := br.clearStations(); err != nil {\n		return err\n	}\n", new: "",
		pkg: "./tcprog", run: "TestNextDaemonTakesOver",
	},
	{
		name: "a foreign filter keeps its qdisc",
		file: "tcprog/clsact.go", old: "	if errors.Is(err, unix.EEXIST) {\n		return filterName, nil\n", new: "	if errors.Is(err, unix.EEXIST) {\n		return filterNameWithQdisc, nil\n",
		pkg: "./tcprog", run: "TestStopKeepsAForeignQdisc",
	},
	{
		name: "a foreign filter closes the port",
		file: "tcprog/tcx.go", old: "		if !ours(f) {\n			return true, nil\n", new: "		if !ours(f) {\n			return false, nil\n",
		pkg: "./tcprog", run: "TestForeignFilterIsLeftAloneAndCloses",
	},
	{
		name: "a program behind ours closes the port",
		file: "tcprog/tcx.go", old: "	return !last, err\n", new: "	_ = last\n	return false, err\n",
		pkg: "./tcprog", run: "TestProgramBehindOursCloses",
	},
}
