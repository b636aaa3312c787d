package main

// The guards of wires, held by the data plane's own tests.
func init() {
	c := func(name, file, old, new, run string) {
		mutants = append(mutants, mutant{
			name: "wire: " + name, file: "tcprog/" + file, old: old, new: new, pkg: "./tcprog", run: run,
		})
	}
	c("a standby member is silent", "bpf/wire.h", "	if (!is_active && ifindex != draining_of(members))\n		return STANDBY;\n", "", "TestWireCarriesWithoutABridge")
	c("no member, no frame", "bpf/wire.c", "	if (!to) {\n", "	if (0) {\n", "TestWireCarriesWithoutABridge")
	c("the active member is asked for with every frame", "bpf/shunt.c", "	*ifindex = active_of(members_of(*w));\n", "", "TestMemberTakesTheFastPath")
	c("a frame on its way is not overtaken", "bpf/shunt.c", "	if (v.reason == FAST && is_taken(l, f.now_ns))\n		v.reason = OUT_OF_TURN;\n", "	is_taken(l, f.now_ns);\n", "TestFramesKeepTheirOrder")
	c("what leaves opens its lane", "bpf/wire.h", "	__sync_fetch_and_add(&l->left, 1);\n", "", "TestFramesKeepTheirOrder")
	c("a quiet lane is empty", "bpf/wire.h", "		l->left = *(volatile __u64 *)&l->entered;\n		return false;\n", "		return true;\n", "TestALostFrameDoesNotShutItsLane")
	c("a busy lane makes good what it lost", "bpf/wire.h", "	__sync_fetch_and_add(&l->left, lost);\n", "", "TestALostFrameDoesNotShutABusyLane")
	c("the clocks of two CPUs differ", "bpf/wire.h", "	return (__s64)(now_ns - then_ns) >= (__s64)LANE_LONG_NS;\n", "	return now_ns - then_ns >= LANE_LONG_NS;\n", "TestALaneIsTakenByWhatEnteredJustNow")
	c("what comes by both members is delivered once", "bpf/wire.h", "	if (is_copy(skb, w, number))\n", "	if (is_copy(skb, w, number) && 0)\n", "TestTheDrainIsAProtocol")
	c("a copy comes once", "bpf/wire.h", "	bpf_map_delete_elem(&delivered, &print);\n", "", "TestTheDrainIsAProtocol")
	c("frames are told apart by what is in them", "bpf/wire.h", "^ words[i])", "^ words[0])", "TestTheDrainIsAProtocol")
	c("what goes to all is not drained", "bpf/wire.h", "		return is_active ? FAST : DOUBLED;\n", "		return is_active ? FAST : DRAINED;\n", "TestTheDrainIsAProtocol")
	c("what a member delivered is not held against itself", "bpf/wire.h", " || d->ifindex == now.ifindex ||", " ||", "TestAFlipThatIsUndoneDrainsToo")
	c("our own do not come back by the member that was left", "bpf/shunt.c", "	return reason == DRAINED || reason == DOUBLED;\n", "	return false;\n", "TestTheDrainIsAProtocol")
	c("our own do not come back", "bpf/wire.h", "	if (is_marked(&sent, p, w->generation))\n", "	if (is_marked(&sent, p, w->generation) && 0)\n", "TestTheDrainIsAProtocol")
	c("the fast path marks what it sends", "bpf/shunt.c", "		note_sent(v->wire, &p);\n", "		(void)p;\n", "TestOwnFramesOfTheFastPathAreKnown")
	c("after a loss our own are known by the table", "bpf/shunt.c", "		return draining_of(members_of(w)) && !*(const volatile __u32 *)&w->marking;\n", "		return false;\n", "TestOwnFramesAfterALoss")
	c("a drain that is over delivers nothing", "wires.go", "	active, _ := w.state()\n	atomic.StoreUint64(&w.shared.Members, packMembers(active, 0))\n", "", "TestTheDrainIsAProtocol")
	c("the fast path leaves the wire with its bridge", "port.go", "		errs = append(errs, p.wire.judgeByNone(p.judge))\n", "", "TestMemberTakesTheFastPath")
	c("the fast path of another bridge is left alone", "wires.go", "	if program == nil || w.judge != program {\n", "	if program == nil {\n", "TestAStablePortThatGoesToAnotherBridge")
	c("a program before ours closes a stable port", "port.go", "	if foreign, err = p.hook.shared(); foreign || err != nil {\n		return foreign, err\n	}\n", "", "TestAProgramBeforeOursClosesAStablePort")
	c("only members become active", "wires.go", " || to != 0 && w.members[to] == nil {\n", " {\n", "TestOnlyMembersBecomeActive")
	c("marks of an earlier flip are void", "wires.go", "		atomic.AddUint64(&w.shared.Generation, 1)\n", "", "TestMarksOfAnEarlierFlipAreVoid")
	c("a drain outlasts a moment without a member", "wires.go", "	if from != 0 {\n		draining = from\n", "	if true {\n		draining = from\n", "TestOwnFramesAfterAMomentWithoutAMember")
	c("a member that is gone is not active", "wires.go", "	if w.members[active] == nil {\n		active = 0\n	}\n", "", "TestWireForgetsWhatIsGone")
	c("a wire is its port's only with its program there", "wires.go", "		case isLeft:\n", "		case isLeft || err == nil:\n", "TestWireForgetsWhatIsGone")
	c("detach leaves wires", "clean.go", "	kept, err := cutWires(root)\n	errs = append(errs, err)\n", "	var kept []string\n	errs = append(errs, removePins(root))\n", "TestCleanLeavesWires")
	c("a filter at the stable port's egress counts", "port.go", "	return p.wire.out.shared()\n", "	return false, nil\n", "TestForeignProgramsAreSeen")
	c("who carries traffic is not removed", "wires.go", "ifindex == active || ifindex == draining", "active < 0 && draining < 0", "TestMemberThatCarriesIsNotRemoved")
	c("a member that was away gets its program again", "wires.go", "	if w.members[ifindex] != nil {\n		if has", "	if w.members[ifindex] != nil {\n		return nil\n	}\n	if w.members[ifindex] != nil {\n		if has", "TestAMemberThatWasAway")
	c("a link may be on a device that moved away", "tcx.go", "	return err == nil && slices.Contains(attached, info.Program)\n", "	_ = attached\n	return true\n", "TestAMemberThatWasAway")
	c("a device serves one wire", "wires.go", "		if other != w && other.members[ifindex] != nil {\n", "		if false {\n", "TestADeviceServesOneWire")
	c("a stable port is no member", "wires.go", "	if ws.byPort[ifindex] != nil || ifindex == w.ifindex {\n", "	if false {\n", "TestADeviceServesOneWire")
	c("a port of a closed wire is told to be gone", "port.go", "is not attached: %w\", p.Name, unix.ENOENT)", "is not attached\", p.Name)", "TestPortOfAClosedWire")
}
