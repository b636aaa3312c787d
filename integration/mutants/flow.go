package main

// The guards of policies and upgrades.
func init() {
	n := func(name, file, old, new, run string) {
		mutants = append(mutants, mutant{name: "flow: " + name, file: "nicswap/" + file, old: old, new: new, pkg: "./nicswap", run: run})
	}
	n("a load must last", "policy.go", "now.Sub(g.since) >= g.Hold &&", "true &&", "TestAFlappingLoadMovesNothing")
	n("counters that go back restart the measurement", "policy.go", " || wentBack(g.last, count)", "", "TestCountersThatGoBackRestartTheMeasurement")
	n("a shared member is left to who has it", "policy.go", " && !takenElsewhere(groups, group, m.Member)", "", "TestTheBusiestGroupGetsTheSharedMember")
	n("what failed is remembered", "policy.go", "g.want != g.failed || !now.Before(g.retry)", "!now.Before(g.retry)", "TestWhatFailedIsRememberedOverASwapByTheOperator")
	n("no group is left empty", "upgrade.go", "\tif err := s.checkRoom(groups); err != nil {", "\tif err := error(nil); err != nil {", "TestAnUpgradeThatWouldEmptyAGroupIsRefused")
	n("a group stays on the member that works", "upgrade.go", "if !s.doubted && !stops(ctx)", "if !stops(ctx)", "TestAGroupStaysOnTheMemberThatWorks")
	n("what is away is taken back", "upgrade.go", "\ts.takeBack()\n\tif !s.doubted", "\tif !s.doubted", "TestTheClientMayDieAtEveryStep")
	n("Ctrl-C does not reach the command", "upgradecommand.go", "trap \"\" INT HUP; ", "", "TestTheCommandDoesNotGetCtrlC")
	n("the daemon's end ends an upgrade", "plugin.go", "\te.upgrades.stop()\n", "", "TestTheDaemonsEndEndsAnUpgrade")
	n("policies run", "plugin.go", "\te.workers.Go(func() { policy.run(e.working) })\n", "\t_ = policy\n", "TestAnIdleGroupLeavesThePhysicalMember")
}
