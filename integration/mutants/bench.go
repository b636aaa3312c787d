package main

// The guards of the benchmark: what it must not take for a figure, and its fairness.
func init() {
	a := func(name, file, old, new, run string) {
		mutants = append(mutants, mutant{name: "bench: " + name, file: "integration/bench/" + file, old: old, new: new, pkg: "./integration/bench", run: run})
	}
	a("frames on the slow path are no figure", "compare.go", "case slow > max(allowedSlow, (fast+slow)/100) || fast == 0:", "case false:", "TestWhatWasNotFastIsNoFigure")
	a("the counters are looked at", "compare.go", "	return checkPath(framesBy(before), framesBy(after))\n", "	fast, slow, _ = checkPath(framesBy(before), framesBy(after))\n	return fast, slow, nil\n", "TestABridgeThatIsSlowIsNotMeasured")
	a("what was counted before is not in it", "compare.go", "		n -= before[reason]\n", "", "TestWhatWasNotFastIsNoFigure")
	a("frames that are lost are no figure", "meters.go", "sent == 0 || arrived*100 < sent*99", "sent == 0", "TestFramesThatDidNotArriveAreNoFigure")
	a("what is nothing has no ratio", "compare.go", "		if !(figure > 0) {\n", "		if figure > 0 && false {\n", "TestFiguresThatAreNone")
	a("a moment on the slow path is measured again", "compare.go", "const tries = 3\n", "const tries = 1\n", "TestAMomentOnTheSlowPathIsRepeated")
	a("who is first alternates", "compare.go", "shuntFirst: n%2 == 1", "shuntFirst: false", "TestRoundsAlternate")
	a("shunt changes places", "compare.go", "served: 2 * n / rounds", "served: 0 * n / rounds", "TestRoundsAlternate")
	a("why it cannot begin is said", "compare.go", "	if !b.status.Eligible {\n", "	if false {\n", "TestWhyItCannotBegin")
	a("a ratio is that of a round", "report.go", "p.on[number]/p.off[number])\n", "p.on[number]/rounds[0].off[number])\n", "TestRatiosAreThoseOfTheRounds")
	a("a metric has its own column", "report.go", "append(off, p.off[number])", "append(off, p.off[0])", "TestEachMetricHasItsColumn")
	a("forwarding that cannot be told is left out", "report.go", "p.sending > 0 && offAlone > 0 && onAlone > 0", "p.sending > 0", "TestForwardingThatCannotBeToldIsLeftOut")
	a("frames of two metrics are counted once", "report.go", "			if n == 0 { // the frames are those of the probe\n", "			if true {\n", "TestReportOfMeasurements")
	a("where shunt is worse is said", "report.go", "		case worse:\n", "		case \"never\":\n", "TestReportOnAScreen")
	a("a verdict needs rounds that agree", "stats.go", "> chance:\n", "> 1:\n", "TestVerdicts")
	a("less is better for a time", "stats.go", "(above > below) != u.less", "above > below", "TestVerdicts")
	a("an interruption is not in the pace", "blast.go", "return slots / quantile(volleys, 0.5)", "return slots / quantile(volleys, 1)", "TestAnInterruptionIsNotInThePace")
	a("a super-frame has its pseudo header", "packet.go", "checksum(ip[12:20], uint32(ip[9])+uint32(len(payload)))", "checksum(ip[12:20], uint32(len(payload)))", "TestFramesAreValid")
	a("a picture that is not drawn leaves no file", "picture.go", "p.made && !p.done", "false && p.made", "TestAPictureThatIsNotDrawnLeavesTheFile")
	a("a picture replaces the whole file", "picture.go", "if err := p.file.Truncate(0); err != nil {", "if err := error(nil); err != nil {", "TestAPictureReplacesTheFile")
	a("what names have in them does not break a picture", "plot.go", "	xml.EscapeText(&b, []byte(text)) // a Builder never fails\n", "	_ = xml.EscapeText\n	b.WriteString(text)\n", "TestPicturesThatAreUnusual")
	a("a sentence of a picture is wrapped", "plot.go", "100 / (62 * letter)", "100 / (31 * letter)", "TestPicture")
	a("an axis has few steps", "plot.go", "		if highest/step > 6 {\n", "		if false {\n", "TestAxesHaveStepsThatPeopleCountIn")
	a("nobody is told of progress who does not look", "bench.go", "	if !accel.IsTerminal(f) {\n", "	if false {\n", "TestProgress")
}
