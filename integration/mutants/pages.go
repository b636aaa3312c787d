package main

// The guards of the pages: what they tell an operator is so.
func init() {
	a := func(name, file, old, new, run string) {
		mutants = append(mutants, mutant{name: name, file: file, old: old, new: new, pkg: "./integration/pages", run: run})
	}
	const sandbox, tests = "integration/pages/testdata/sandbox.sh", "integration/pages/run_test.go"
	const outages = "integration/exampleplugin/outages/outages.go"
	a("pages: a flag that does not exist", "docs/upgrades.md", "shunt upgrade --driver ixgbe", "shunt upgrade --drivr ixgbe", "TestEveryCommandIsOneOfTheProgram")
	a("pages: a flag that was renamed", "nicswap/commands.go", `&r.Members, "member"`, `&r.Members, "members"`, "TestEveryCommandIsOneOfTheProgram")
	a("pages: a command that fails in the README", "README.md", "shunt swap uplink --to eth1", "shunt swap uplink --to eth2", "TestPagesWork/README.md")
	a("pages: a command that fails in operating", "docs/operating.md", "sudo shunt release uplink\n", "sudo shunt release eth0\n", "TestPagesWork/docs/operating.md")
	a("pages: networkd is kept from the members", "docs/recipes/networkd.md", "    Unmanaged=yes\n", "    RequiredForOnline=no\n", "TestPagesWork/docs/recipes/networkd.md")
	a("pages: a bridge with rules is slow, as the recipe says", "fdbsync/netfilter.go", "	if f.ip && f.brNetfilter {\n", "	if f.ip && f.brNetfilter && f.bridge {\n", "TestPagesWork/docs/recipes/docker.md")
	a("pages: a failure at a block's end counts", tests, "\\n[ $ended = 0 ]\\n", "\\n", "TestACommandThatFailsIsNoticed")
	a("pages: a daemon that does not start counts", sandbox, "        kill -0 $daemon 2>/dev/null || { cat $log; return 1; }\n", "        kill -0 $daemon 2>/dev/null || return 0\n", "TestACommandThatFailsIsNoticed")
	a("pages: a setting that does not exist", "docs/policy.md", "          hold: 10s\n", "          held: 10s\n", "TestSettingsOnThePagesAreRead")
	a("pages: a unit with a mistake", "docs/operating.md", "Before=network-online.target", "Befor=network-online.target", "TestUnitsOnThePagesAreTaken")
	a("pages: a reason without a row", "docs/never-accelerated.md", "| `hub` |", "| `hubs` |", "TestEveryReasonIsExplained")
	a("pages: a reason that is new", "accel/reason.go", `Hub:             {"hub",`, `Hub:             {"ageing_zero",`, "TestEveryReasonIsExplained")
	a("pages: the code of plugins is the example's", outages, "	if r.end != nil {\n", "	if r.end != nil && true {\n", "TestThePageOfPluginsShowsTheExample")
	a("pages: the example has every part", "integration/exampleplugin/main.go", "	_ \"github.com/shunt-dev/shunt/telemetry\"\n", "", "TestThePageOfPluginsShowsTheExample")
	a("pages: the example sees an outage end", outages, "			o.Ended = &now\n", "			_ = now\n", "TestTheExamplePluginWorks")
	a("pages: a page that is not in the index", "docs/README.md", "(kernel.md)", "(kernels.md)", "TestTheIndexHasEveryPage")
}
