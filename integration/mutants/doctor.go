package main

// The guards of shunt doctor, and those of the control API against a crowd.
func init() {
	in := func(pkg string) func(name, file, old, new, run string) {
		return func(name, file, old, new, run string) {
			mutants = append(mutants, mutant{name: name, file: file, old: old, new: new, pkg: pkg, run: run})
		}
	}
	f := in("./fdbsync")
	const examine, forecast, sample = "fdbsync/doctor.go", "fdbsync/forecast.go", "fdbsync/sample.go"
	f("the doctor looks at tc programs of others", examine, "		p.around.tc, j.others[ifindex]", "		_, j.others[ifindex]", "TestDoctorAndDaemonAgree")
	f("the doctor judges by the firewall", examine, "	j.gate = m.wantGate(e.fw, e.fwErr)\n", "	j.gate = m.wantGate(firewall{}, e.fwErr)\n", "TestDoctorAndDaemonAgree")
	f("the doctor knows the daemon's bypass", examine, "e.Served[l.name].Netfilter == \"bypass\"", "false", "TestBypassCountsForTheDoctor")
	f("a bridge that filters VLANs has weaker guarantees", examine, "j.can.VLANs || !l.bridge.vlanFiltering", "true", "TestWhatTheDoctorSaysOfBridges")
	f("a bridge that is none fails", examine, "Level: accel.LevelFail, Bridge: e.Bridge", "Level: accel.LevelNote, Bridge: e.Bridge", "TestWhatTheDoctorSaysOfBridges")
	f("what the bridge must see is foretold", forecast, "	if class != accel.Fast {\n		return class\n	}\n	if r", "	if r", "TestReasonsOfFrames")
	f("a source elsewhere is foretold", forecast, "	case s.Port != a.port:\n		return accel.SourceMoved\n", "", "TestReasonsOfFrames")
	f("isolation is foretold", forecast, "	case in.Flags.Isolated() && out.Flags.Isolated():\n		return accel.Isolated\n", "", "TestReasonsOfFrames")
	f("keepalives are foretold", forecast, "	j.shown[from] = at\n", "", "TestKeepalivesAreForeseen")
	f("those looked at stand for all", sample, "n.Packets * p.total / looked", "n.Packets", "TestThoseLookedAtStandForAll")
	f("what is sent is not taken for what arrives", sample, "unix.PACKET_IGNORE_OUTGOING, 1)", "unix.PACKET_IGNORE_OUTGOING, 0)", "TestSampleSeesWhatArrives")
	f("the tag that the kernel put aside counts", sample, "			a.tag, a.tagProtocol = aux.Vlan_tci, aux.Vlan_tpid\n", "", "TestSampleSeesWhatArrives")
	f("the length is that of the whole frame", sample, "		a.length = int(aux.Len)\n", "", "TestSampleSeesWhatArrives")
	f("nothing is counted behind the end of a sample", sample, "	if err := t.keep(0); err != nil {\n", "	if err := t.keep(snapLength); err != nil {\n", "TestSampleSeesWhatArrives")
	f("a sample ends when it is interrupted", sample, "	for ctx.Err() == nil {\n", "	for {\n", "TestSampleEndsWithItsContext")

	a := in("./accel")
	a("the doctor asks no daemon of another namespace", "accel/doctor.go", "err == nil && here.Inode != status.Namespace", "err == nil && here.Inode == 0", "TestDoctorPassesADaemonOfAnotherNamespaceOver")
	a("the doctor counts what came meanwhile", "accel/doctor.go", "now.Packets - min(r.Frames, now.Packets)", "now.Packets", "TestDoctorAsksTheDaemon")
	a("without rights the doctor does not guess", "accel/doctor.go", "	if privileges.Level == LevelFail {\n", "	if false {\n", "TestDoctorWithoutRights")
	a("what is not GET is for root", "accel/api.go", "!strings.HasPrefix(e.pattern, \"GET \")", "!strings.HasPrefix(e.pattern, \"\")", "TestEveryEndpointIsGuarded")
	a("off is for root", "accel/api.go", "{\"POST /v1/off\", true, ", "{\"GET /v1/off\", false, ", "TestBadRequests|TestPeerWithoutRights")
	a("strangers are turned away", "accel/turnstile.go", "		default:\n			t.turnAway(conn)\n", "		default:\n			v.leave = func() {}\n			return v, nil\n", "TestStrangersAreTurnedAway")
	a("who goes gives the turn back", "accel/turnstile.go", "	defer v.leave()\n", "", "TestStrangersAreTurnedAway|TestTheTrustedWait")
	a("the trusted wait", "accel/turnstile.go", "			case t.trusted <- struct{}{}:\n", "			case t.trusted <- struct{}{}:\n			default:\n", "TestTheTrustedWaitForTheirTurn")
	a("the end does not wait for a turn", "accel/turnstile.go", "	t.close()\n", "", "TestTheTrustedWaitForTheirTurn")
	a("few answers are made at a time", "accel/api.go", "	few := newPlaces(mostReading)\n", "	few := newPlaces(100)\n", "TestFewAnswersAreMadeAtATime")
	a("few large answers are held", "accel/api.go", "large: newPlaces(mostLarge)", "large: newPlaces(100)", "TestFewLargeAnswersAreHeld")
	a("strangers do not shut root out", "accel/turnstile.go", "		return p.trusted\n", "		return p.others\n", "TestStreamsAreBounded")
	a("streams are bounded", "accel/api.go", "streams: newPlaces(mostStreams)", "streams: newPlaces(1000)", "TestStreamsAreBounded")

	i := in("./integration")
	i("clients do not take the files", "accel/turnstile.go", "mostTrusted = 256 ", "mostTrusted = 2000 ", "TestAThousandClients")
	i("clients do not take the last files", "accel/turnstile.go", "filesShare = 8", "filesShare = 1", "TestTheLastFileIsNotForClients")
	i("the doctor and the program give one reason", forecast, "	case to.Local:\n		return accel.DestinationLocal\n", "", "TestDoctorForetellsWhatTheDaemonCounts")
	i("the doctor sees that pins are hidden", "tcprog/doctor.go", "	case !have && isHidden():\n", "	case false && isHidden():\n", "TestDoctorSeesThatPinsAreHidden")
	i("the doctor sees filters of others", "tcprog/doctor.go", "	if len(names) > 0 {\n", "	if false {\n", "TestDoctorAgreesWithTheDaemonHere")
}
