package main

// The guards of what an operator is shown: the demo, the traces of swaps, the dashboard
// and the rules.
func init() {
	a := func(name, file, old, new, pkg, run string) {
		mutants = append(mutants, mutant{name: "seen: " + name, file: file, old: old, new: new, pkg: pkg, run: run})
	}
	a("what the demo's daemon pins goes with it", "integration/beside/daemon.go", "map[string]string{\"/sys/fs/bpf\": \"bpf\", \"/run\": \"tmpfs\"}", "map[string]string{\"/run\": \"tmpfs\"}", "./integration", "TestDemoRemovesWhatItMade/SIGKILL")
	a("the operator's backend gets the demo's traces", "integration/demo/collector.go", "	if err := c.onward.UploadTraces(ctx, spans); err != nil {\n", "	if err := error(nil); err != nil {\n", "./integration", "TestDemoMeasuresAndLosesNothing")
	a("a backend that is away is asked once", "integration/demo/collector.go", "c.onward == nil || c.failure() != nil", "c.onward == nil", "./integration/demo", "TestABackendThatIsAwayHoldsNobody")
	a("the operator hears of traces that were lost", "integration/demo/collector.go", "errors.Join(c.server.Close(), c.failure())", "errors.Join(c.server.Close())", "./integration/demo", "TestABackendThatIsAwayHoldsNobody")
	a("the demo's daemon does not try what it cannot reach", "integration/beside/daemon.go", "		return strings.HasPrefix(name, \"OTEL_\") && ", "		return false && ", "./integration/demo", "TestTheDaemonsEnvironment")
	a("a trace is shown when it is whole", "integration/demo/collector.go", "func(s spantree.Span) bool { return s.Parent == \"\" }", "func(s spantree.Span) bool { return true }", "./integration/demo", "TestATraceIsWholeWithItsRoot")
	a("a span that is missing is noticed", "integration/spantree/spantree.go", "		case s.Parent != \"\":\n", "		case s.Parent != \"\" && false:\n", "./integration/spantree", "TestTracesThatAreNotWhole")
	a("phases that leave time unexplained are noticed", "integration/spantree/spantree.go", "	if share < 1-Gap || share > 1+Gap {\n", "	if false {\n", "./integration/spantree", "TestSwapsThatDoNotAddUp")
	a("the order of phases is looked at", "integration/spantree/spantree.go", "	if !slices.Equal(names, phases) {\n", "	if false {\n", "./integration/spantree", "TestSwapsThatDoNotAddUp")
	a("forgetting the journal is in a phase", "nicswap/swap.go", "			defer func() { over = s.leave() }()\n			return s.retire(ctx)\n		})\n	}\n", "			return s.retire(ctx)\n		})\n		over = s.leave()\n	}\n", "./nicswap", "TestThePhasesExplainTheTimeOfASwap")
	a("undoing is in a phase as a whole", "nicswap/swap.go", "		defer s.leave()\n		return s.undo(ctx)\n	})\n", "		return s.undo(ctx)\n	})\n	s.leave()\n", "./nicswap", "TestThePhasesExplainTheTimeOfASwap")
	a("the dashboard asks for metrics that there are", "packaging/grafana/shunt.json", "\"expr\": \"sum(shunt_bridge_eligible{", "\"expr\": \"sum(shunt_bridges_eligible{", "./integration/backends", "TestTheDashboardAndTheRulesKnowTheMetrics")
	a("the rules ask for labels that there are", "packaging/prometheus/shunt.rules.yml", "shunt_group_members{shunt_state=~\"active|draining\"}", "shunt_group_members{state=~\"active|draining\"}", "./integration/backends", "TestTheDashboardAndTheRulesKnowTheMetrics")
}
