package main

// The guards of what people see, and of what scripts read.
func init() {
	a := func(name, file, old, new, pkg, run string) {
		mutants = append(mutants, mutant{name: name, file: file, old: old, new: new, pkg: pkg, run: run})
	}
	const output, rates, model, view, plugin, daemon = "accel/output.go", "accel/top/rates.go", "accel/top/model.go", "accel/top/view.go", "accel/top/plugin.go", "accel/top/daemon.go"
	const top, screens = "./accel/top", "./integration/screens"
	a("screens: a table that is too wide is folded", output, "	t = t.printable().folded(s.Columns())\n", "	t = t.printable()\n", screens, "TestScreens/swaps-80")
	a("screens: what was folded is shown", output, "append([]string{strings.Join(rest, \", \")}, r.Notes...)", "append([]string{strings.Join(nil, \", \")}, r.Notes...)", screens, "TestScreens/swaps-80")
	a("screens: sentences are as wide as the terminal", output, "		s.columns = max(int(size.Col), narrowest)\n", "		s.columns = 0*int(size.Col) + screenWidth\n", screens, "TestScreens/status-200")
	a("screens: colour is not for NO_COLOR", output, `os.Getenv("NO_COLOR") == "" && `, "", screens, "TestColourIsOnlyForTerminalsThatTakeIt")
	a("screens: colour is not for a dumb terminal", output, ` && os.Getenv("TERM") != "dumb"`, "", screens, "TestColourIsOnlyForTerminalsThatTakeIt")
	a("screens: a member of a group is named below it", "nicswap/commands.go", "			t.Rows = append(t.Rows, memberRow(m))\n", "			_ = memberRow(m)\n", screens, "TestScreens/groups-80")
	a("screens: the reason for a dropped frame is said", "nicswap/commands.go", "				note += \": \" + reason.Text()\n", "", screens, "TestScreens/groups-80")
	a("screens: errors are wrapped at a terminal", output, "		s.behind(&b, who, \"  \", text)\n", "		b.WriteString(who + text + \"\\n\")\n", screens, "TestErrorsFitTheTerminal")
	a("screens: errors are a line for programs", output, "	if s.columns == 0 {\n", "	if false {\n", screens, "TestErrorsFitTheTerminal")
	a("screens: an alarm is wrapped", output, "	s.note(&note, text)\n", "	note.WriteString(\"    \" + text + \"\\n\")\n", screens, "TestNarrowTerminal")
	a("screens: every key is documented", "nicswap/api.go", "	Carrier bool   `json:\"carrier\"`\n", "	Carrier bool   `json:\"carrier\"`\n	More    bool   `json:\"more\"`\n", screens, "TestEveryKeyIsDocumented")
	a("screens: a key that is gone is not documented", "accel/wire.go", "	Attach string `json:\"attach\"`\n", "	Attach string `json:\"attached\"`\n", screens, "TestEveryKeyIsDocumented")
	a("screens: the document has the types", "docs/json.md", "| `pid` | integer |", "| `pid` | string |", screens, "TestEveryKeyIsDocumented")
	a("screens: a list is never null", "accel/view.go", "VLANs: []VLANV1{}, In: p.In", "In: p.In", "./integration", "TestWhatScriptsReadIsAsDocumented")
	a("top: rates are of the daemon's time", rates, "float64(after-before) * 1e9 / float64(nanoseconds)", "float64(after-before) * 1e9 / float64(min(nanoseconds, 1e9))", top, "TestRatesAreOfTheDaemonsOwnTime")
	a("top: the snapshot has the daemon's time", "accel/view.go", "	s.TimeNS = now.Nano()\n", "", "./accel", "TestSnapshot")
	a("top: two daemons make no rates", rates, "before.Status.PID != after.Status.PID || ", "", top, "TestRatesThatAreNotKnown")
	a("top: counters begun anew make no rates", rates, "after.Fast < before.Fast || after.Slow < before.Slow || after.FastBytes < before.FastBytes || after.SlowBytes < before.SlowBytes", "false", top, "TestRatesThatAreNotKnown")
	a("top: a port that comes back is another", rates, "portKey{p.Bridge, p.Ifindex}", "portKey{p.Bridge, len(p.Port)}", top, "TestPortThatComesBack")
	a("top: reasons are ranked by rate", rates, "cmp.Compare(r.reasons[b.Reason], r.reasons[a.Reason]), ", "", top, "TestReasonsAreRankedByRate")
	a("top: no rates while the daemon is away", model, "		m.rates, m.last.snapshot.TimeNS = rates{}, 0 // the next reading is the first again\n", "", top, "TestNothingStaleIsShownAsNow")
	a("top: no rates of the time when it was away", model, "		m.rates, m.last.snapshot.TimeNS = rates{}, 0 // the next reading is the first again\n", "		m.rates = rates{}\n", top, "TestNothingStaleIsShownAsNow")
	a("top: why there is no answer is said", model, "	m.trouble = r.err\n", "", top, "TestNothingStaleIsShownAsNow")
	a("top: the phases of a swap are told", model, "		m.running = m.entered(e)\n", "", top, "TestSwapIsFollowed")
	a("top: a swap that is over does not run", model, "		m.running = without(m.running, e.Group)\n		if", "		if", top, "TestSwapIsFollowed")
	a("top: a swap that nobody follows does not run", model, "		m.running = nil\n", "", top, "TestSwapIsFollowed")
	a("top: events are followed again", daemon, "	for ctx.Err() == nil {\n", "	for range 1 {\n", top, "TestFollowGoesOnAfterTheDaemonEnded")
	a("top: another bridge's groups are left out", daemon, "	if d.bridge == \"\" {\n", "	if true {\n", top, "TestOtherBridgesGroupsAreLeftOut")
	a("top: scrolling ends with the lines", model, "min(max(m.offset[i], 0), max(0, len(p.lines)-p.room))", "max(m.offset[i], 0*len(p.lines))", screens, "TestTopScrolls")
	a("top: no line is wider than the terminal", view, "	if len(long) <= m.columns() {\n", "	if true {\n", top, "TestEveryScreenIsWhole")
	a("top: no more lines than the terminal has", view, "append(lines[:max(0, m.height-1)], m.foot())", "append(lines, m.foot())", top, "TestEveryScreenIsWhole")
	a("top: a wide terminal has the parts side by side", view, "	if m.width >= besides {\n		lines = append(lines, beside", "	if false {\n		lines = append(lines, beside", screens, "TestTopInATerminal")
	a("top: a daemon without groups is shown", daemon, "refused.Status == http.StatusNotFound", "false", screens, "TestTopWithoutGroups")
	a("top: SIGTERM restores the terminal", plugin, "	defer context.AfterFunc(ctx, program.Quit)()\n", "", screens, "TestTopLeavesTheTerminalAsItWas/SIGTERM")
	a("top: Ctrl-C ends", model, `"q", "ctrl+c"`, `"q"`, screens, "TestTopLeavesTheTerminalAsItWas/Ctrl-C")
	a("top: a dumb terminal is not drawn on", plugin, `os.Getenv("TERM") == "dumb"`, "false", screens, "TestTopOnADumbTerminal")
	a("top: a pipe is refused", plugin, "!ok || !accel.IsTerminal(f)", "!ok && f == nil", screens, "TestTopWithoutATerminal")
}
