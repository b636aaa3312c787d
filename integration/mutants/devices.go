package main

import "strings"

// The guards of what nicswap asks of network devices and sends on them.
func init() {
	n := func(file, old, new, run string) {
		pkg, _, _ := strings.Cut(file, "/")
		mutants = append(mutants, mutant{
			name: "devices: " + run + " holds " + strings.Join(strings.Fields(old), " "), file: "nicswap/" + file, old: old, new: new,
			pkg: "./nicswap/" + pkg, run: run,
		})
	}
	n("links/watch.go", "\t\t\tchanged(Event{All: true})\n", "", "TestOverrun")
	n("links/watch.go", " && link.family == unix.AF_UNSPEC", "", "TestWatch$")
	n("links/decode.go", "\tif elsewhere {\n", "\tif elsewhere = false; elsewhere {\n", "TestWatchSeesWhatLeaves")
	n("links/decode.go", "\t\t\tl.Physical = true\n", "", "TestPhysical")
	n("links/find.go", " && !isPair(other.Kind)", "", "TestUppers")
	n("links/find.go", "!ip.IsLinkLocalUnicast()", "ip.IsValid()", "TestHasAddresses")
	n("links/port.go", "\thave, readErr := l.portSettings(ifindex)\n", "\thave, readErr := want, error(nil)\n", "TestApplyNames")
	n("links/port.go", "; len(v) == o.size {", "; len(v) > 0 {", "TestDecodePort")
	n("links/port.go", "\t\t\tif have.BackupPort != want.BackupPort {\n\t\t\t\te.", "\t\t\tif false {\n\t\t\t\te.", "TestPortSettingsGo")
	n("links/vlan.go", "\tranges := []VLANs{}\n", "\tvar ranges []VLANs\n", "TestDecodeVLANs")
	n("links/vlan.go", " && flags&vlanInfoPVID == 0 {", " {", "FuzzDecodeVLANs")
	n("links/vlan.go", " || int(binary.NativeEndian.Uint32(data[4:])) != port {", " {", "TestDecodeVLANs")
	n("links/vlan.go", "vlanInfoRangeEnd)", "vlanInfoRangeBegin)", "TestEncodeVLANs")
	n("links/address.go", "\t\ta.Peer = other\n", "", "TestAddressesGo")
	n("links/address.go", "\tslices.Reverse(ipv6)\n", "", "TestAddressesGo")
	n("links/address.go", "a.Flags = flags & settableFlags", "a.Flags = flags", "TestAddressesGo")
	n("links/address.go", "\tif isAbout(err, unix.EADDRNOTAVAIL) {\n\t\treturn nil\n\t}\n", "", "TestAddressesGo")
	n("links/address.go", "netlink.Create|netlink.Replace", "netlink.Create|netlink.Excl", "TestAddressesGo")
	n("links/ipv6.go", "\t\treturn l.removeLinkLocal(link.Ifindex)\n", "\t\treturn nil\n", "TestQuietIPv6WithoutProc")
	n("links/ipv6.go", "\tif now.AddrGenMode != s.AddrGenMode {\n", "\tif false {\n", "TestQuietIPv6")
	n("links/ipv6.go", "unix.Openat(int(l.sysctl.Fd()), name", "unix.Openat(-1, \"/proc/sys/net/ipv6/conf/\"+name", "TestWorksWhere")
	n("links/kernel.go", "discard(l.conn, func() bool { return false })", "error(nil)", "TestErrorLeaves")
	n("links/kernel.go", "\tcase op.Message != \"\":\n", "\tcase false:\n", "TestSetMTU")
	n("links/kernel.go", "\tcase errors.Is(err, unix.ENODEV):\n\t\terr = ErrGone\n", "", "TestGone")
	n("links/change.go", "netlink.Create|netlink.Excl", "netlink.Create", "TestCreatePort")
	n("links/change.go", "\t\tif mac != (accel.MAC{}) {\n", "\t\tif false {\n", "TestCarrierFollows")
	n("links/change.go", "\tif len(port)+len(suffix) < unix.IFNAMSIZ {\n", "\tif len(port)+len(suffix) < 99 {\n", "TestStubName")
	n("links/change.go", "len(port)+len(suffix) < unix.IFNAMSIZ", "len(port)+len(suffix) <= unix.IFNAMSIZ", "TestStubName")
	n("announce/announce.go", "\t\tif !errors.Is(err, unix.ENOBUFS) {\n", "\t\tif err != unix.EBADF {\n", "TestSendThrough|TestFullQueue")
	n("announce/announce.go", "\t\tif err := p.next(ctx); err != nil {\n\t\t\treturn frames, err\n\t\t}\n", "", "TestSendRefused")
	n("announce/pace.go", "min(p.credit+now.Sub(p.last), burst*p.each)", "p.credit+now.Sub(p.last)", "TestPace")
	n("announce/pace.go", "max(p.each-p.credit, leastWait)", "p.each-p.credit", "TestPace")
	n("announce/pace.go", "\t\t\tp.credit -= p.each\n", "", "TestPace")
	n("announce/frame.go", "naRouter | naOverride", "naRouter", "TestNeighboursBelieve")
	n("announce/frame.go", "\tbinary.BigEndian.PutUint16(body[2:], checksum(source, destination, body))\n", "", "TestNeighboursBelieve|TestProbe$")
	n("announce/frame.go", "isHost(a) && ", "", "TestSend$")
	n("announce/probe.go", "\tif vid != q.tag || ", "\tif ", "TestIsAnswered|TestProbeUntil")
	n("announce/probe.go", " && bytes.Equal(b[target:target+6], q.from[:])", "", "TestIsAnswered")
	n("announce/probe.go", "b[hops] == noHops && ", "", "TestIsAnswered")
	n("announce/probe.go", "time.Now().Add(probeInterval)", "time.Now().Add(time.Hour)", "TestProbeUntil")
	n("announce/neighbours.go", "\t\tif !disputed[addr] {\n", "\t\t{\n", "TestAddresses")
	n("announce/neighbours.go", " && n.confirmed <= oldestNeighbour", "", "TestOldNeighbour")
	n("announce/neighbours.go", "n.state&learnedStates != 0", "n.state != 0", "TestAddresses")
	n("links/decode.go", "\t\tRunning:  m.flags&unix.IFF_RUNNING != 0,\n", "\t\tRunning:  m.flags&unix.IFF_LOWER_UP == 0,\n", "TestWatch$")
	n("links/vlan.go", "\tcase isAbout(err, unix.EOPNOTSUPP):\n\t\treturn nil, nil\n", "", "TestPortSettings")
}
