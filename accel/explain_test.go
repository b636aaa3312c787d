package accel

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

var (
	macA = MAC{0x52, 0x54, 0, 0, 0, 1}
	macB = MAC{0x52, 0x54, 0, 0, 0, 2}
)

// small is the frame that --src and --dst make.
var small = append([]byte{0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5}, make([]byte, 46)...)

// TestExplainAsks compares what the data plane is asked with what the command
// line says.
func TestExplainAsks(t *testing.T) {
	f := sample()
	f.states[2].Ports = []PortState{{Port: Port{Name: "q1", Ifindex: 31}}}
	f.explain = func(Question) (Explanation, error) { return Explanation{}, nil }
	d := startDaemon(t, socketPath(t), f)
	d.ready(t)
	const pair = " --src 52:54:00:00:00:01 --dst 52-54-00-00-00-02"
	tagInside := append(bytes.Clone(small[:12]), 0x81, 0, 0, 5, 0x88, 0xb5)
	for args, want := range map[string]Question{
		"--in p1" + pair:                                                           {Bridge: 10, In: 11, Frame: small},
		"--in p2 --vlan 10" + pair:                                                 {Bridge: 10, In: 12, Frame: small, Tag: 10, TagProtocol: 0x88a8},
		"--in q1 --vlan 10" + pair:                                                 {Bridge: 30, In: 31, Frame: small, Tag: 10, TagProtocol: 0x8100},
		"--in p1 --vlan 0" + pair:                                                  {Bridge: 10, In: 11, Frame: small, TagProtocol: 0x88a8},
		"--in p1 --vlan 4094 --vlan-protocol 802.1q" + pair:                        {Bridge: 10, In: 11, Frame: small, Tag: 4094, TagProtocol: 0x8100},
		"--in q1 --vlan 1 --vlan-protocol 802.1ad" + pair:                          {Bridge: 30, In: 31, Frame: small, Tag: 1, TagProtocol: 0x88a8},
		fmt.Sprintf("--in p1 --frame %x", small[:14]):                              {Bridge: 10, In: 11, Frame: small[:14]},
		"--in p1 --frame 52:54:00:00:00:02:52:54:00:00:00:01:08:00":                {Bridge: 10, In: 11, Frame: append(bytes.Clone(small[:12]), 8, 0)},
		fmt.Sprintf("--in p1 --vlan 1 --frame %x", tagInside):                      {Bridge: 10, In: 11, Frame: tagInside, Tag: 1, TagProtocol: 0x88a8},
		"--in p1 --frame " + strings.Repeat("00", 12) + strings.Repeat("ee", 9218): {Bridge: 10, In: 11, Frame: append(make([]byte, 12), bytes.Repeat([]byte{0xee}, 9218)...)},
	} {
		code, out, stderr := newTestApp().call(t, append([]string{"explain", "--socket", d.config.Socket}, strings.Fields(args)...)...)
		if code != 0 || out == "" {
			t.Errorf("%.80s: got %d %s", args, code, stderr)
			continue
		}
		if got := f.asked[len(f.asked)-1]; !reflect.DeepEqual(got, want) {
			t.Errorf("%.80s: asked %+v, want %+v", args, got, want)
		}
	}
}

// TestExplainScreens compares what people see, and what scripts read, of every
// kind of answer.
func TestExplainScreens(t *testing.T) {
	source := &Station{StationKey: StationKey{macA, 10}, Port: 11, Active: true}
	destination := &Station{StationKey: StationKey{macB, 10}, Port: 12, Sticky: true, Active: true}
	local := &Station{StationKey: StationKey{MAC: macB}, Local: true, Active: true}
	untagged := &Station{StationKey: StationKey{MAC: macA}, Port: 11, Active: true}
	for name, c := range map[string]struct {
		in     string
		answer Explanation
	}{
		"fast":        {"p1", Explanation{VID: 10, Source: source, Destination: destination, Out: 12, Pop: true}},
		"push":        {"p1", Explanation{VID: 10, Source: source, Destination: destination, Out: 12, Push: 10}},
		"keepalive":   {"p1", Explanation{Reason: Keepalive, VID: 10, Source: source}},
		"unknown":     {"p1", Explanation{Reason: DestinationUnknown, Source: untagged}},
		"nosource":    {"p1", Explanation{Reason: SourceUnknown, VID: 4094}},
		"candidate":   {"p1", Explanation{Reason: Unverified, Source: &Station{StationKey: StationKey{MAC: macA}, Port: 11}}},
		"local":       {"p1", Explanation{Reason: DestinationLocal, Source: untagged, Destination: local}},
		"egress":      {"p1", Explanation{Reason: PortEgress, VID: 10, Source: source, Destination: destination, Out: 12}},
		"egressgone":  {"p1", Explanation{Reason: PortEgress, Source: untagged, Destination: destination, Out: 99}},
		"ingress":     {"p2", Explanation{Reason: PortForeignTC}},
		"changed":     {"a-long-port-nam", Explanation{Reason: PortChanged}},
		"vlaningress": {"p1", Explanation{Reason: VLANIngress, VID: 7}},
		"bridge":      {"p1", Explanation{Reason: Hub}},
	} {
		f := sample()
		f.explain = func(Question) (Explanation, error) { return c.answer, nil }
		d := startDaemon(t, socketPath(t), f)
		d.ready(t)
		args := []string{"explain", "--socket", d.config.Socket, "--in", c.in, "--src", macA.String(), "--dst", macB.String()}
		code, out, stderr := newTestApp().call(t, args...)
		if code != 0 || stderr != "" {
			t.Errorf("%s: got %d %s", name, code, stderr)
		}
		compare(t, "explain-"+name+".txt", out)
		checkWidth(t, out)
		code, out, stderr = newTestApp().call(t, append(args, "-j")...)
		if code != 0 || stderr != "" {
			t.Errorf("%s: got %d %s", name, code, stderr)
		}
		compare(t, "explain-"+name+".json", out)
	}
}

// TestEveryExplanationFits shows each reason with the longest names.
func TestEveryExplanationFits(t *testing.T) {
	long := strings.Repeat("x", maxInterfaceName)
	entry := &Station{StationKey: StationKey{MAC: macA, VID: 4094}, Port: 11, Local: true, NoSource: true, Sticky: true}
	var out strings.Builder
	for _, r := range Reasons() {
		b := BridgeState{Bridge: Bridge{Name: long}, Ports: []PortState{{Port: Port{Name: long, Ifindex: 11, In: r, Out: r}}}}
		for _, port := range []int{0, 11} {
			e := describeExplanation(b, b.Ports[0], Explanation{Reason: r, VID: 4094, Source: entry, Destination: entry, Out: port, Pop: true, Push: 4094})
			if (e.Advice == "") != (r == Fast) {
				t.Errorf("%s: what would change it is %q", r, e.Advice)
			}
			if err := (Screen{Writer: &out}).explanation(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	checkWidth(t, out.String())
}

func TestExplainUsage(t *testing.T) {
	const pair = " --src 52:54:00:00:00:01 --dst 52:54:00:00:00:02"
	const frame = " --frame 5254000000025254000000010800"
	for args, want := range map[string]string{
		"":                                 `--in is missing: the port where the frame arrives`,
		pair:                               `--in is missing: the port where the frame arrives`,
		"--in p1":                          `whose frame is it? Give --src and --dst, or the whole --frame`,
		"--in p1 --src 52:54:00:00:00:01":  `whose frame is it? Give --src and --dst, or the whole --frame`,
		"--in p1 --dst 52:54:00:00:00:01":  `whose frame is it? Give --src and --dst, or the whole --frame`,
		"--in p1" + pair + frame:           `the addresses are in the frame: give --frame, or --src and --dst`,
		"--in p1 --src x" + frame:          `the addresses are in the frame: give --frame, or --src and --dst`,
		"--in p1 --src x --dst y":          `--src: "x" is not an Ethernet address such as 52:54:00:12:34:56`,
		"--in p1" + pair + " --dst y":      `--dst: "y" is not an Ethernet address such as 52:54:00:12:34:56`,
		"--in p1 --vlan 4095" + pair:       `--vlan must be a number from 0 to 4094, not "4095"`,
		"--in p1 --vlan -1" + pair:         `--vlan must be a number from 0 to 4094, not "-1"`,
		"--in p1 --vlan ten" + pair:        `--vlan must be a number from 0 to 4094, not "ten"`,
		"--in p1 --vlan=" + pair:           `--vlan must be a number from 0 to 4094, not ""`,
		"--in p1 --vlan-protocol x" + pair: `--vlan-protocol says what kind of tag --vlan adds: give both`,
		"--in p1 --vlan 1 --vlan-protocol 802.1x" + pair: `--vlan-protocol must be 802.1Q or 802.1ad, not "802.1x"`,
		"--in p1 --frame 0":                                    `--frame: not hexadecimal, two digits a byte: encoding/hex: odd length hex string`,
		"--in p1 --frame 0g":                                   `--frame: not hexadecimal, two digits a byte: encoding/hex: invalid byte: U+0067 'g'`,
		"--in p1 --frame 52540000000252540000000108":           `--frame: 13 bytes; it must have 14 to 9230, from the destination address on`,
		"--in p1 --frame " + strings.Repeat("00", 9231):        `--frame: 9231 bytes; it must have 14 to 9230, from the destination address on`,
		"--in p1 --frame 525400000002525400000001810000050800": `--frame begins with a tag (EtherType 0x8100): leave its 4 bytes out and give --vlan`,
		"--in p1 --frame 52540000000252540000000188a800050800": `--frame begins with a tag (EtherType 0x88a8): leave its 4 bytes out and give --vlan`,
	} {
		code, out, stderr := newTestApp().call(t, append([]string{"explain"}, strings.Fields(args)...)...)
		if code != 2 || out != "" || stderr != "shunt: "+want+"; see \"shunt explain --help\"\n" {
			t.Errorf("%.80q: got %d %q %q", args, code, out, stderr)
		}
	}
}

func TestExplainRefused(t *testing.T) {
	manyPorts := make([]PortState, 1000)
	for i := range manyPorts {
		manyPorts[i].Name = fmt.Sprintf("v%d", i)
	}
	for name, c := range map[string]struct {
		port   string
		change func(*fake)
		want   string
	}{
		"unknown port": {"p9", func(*fake) {}, "the daemon knows no port p9; it works on p1, p2 and a-long-port-nam"},
		"no port":      {"p1", func(f *fake) { f.states = f.states[3:] }, "the daemon knows no port p1, nor any other: see shunt status"},
		"many ports": {"p1", func(f *fake) { f.states[0].Ports = manyPorts },
			"the daemon knows no port p1; it works on v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15 and 984 more (see shunt ports)"},
		"data plane": {"p1", func(f *fake) {
			f.explain = func(Question) (Explanation, error) { return Explanation{}, errors.New("it has no such port") }
		}, "explain a frame on port p1 of bridge br0: it has no such port"},
	} {
		f := sample()
		c.change(f)
		d := startDaemon(t, socketPath(t), f)
		d.ready(t)
		code, out, stderr := newTestApp().call(t, "explain", "--socket", d.config.Socket, "--in", c.port, "--src", macA.String(), "--dst", macB.String())
		if code != 1 || out != "" || stderr != "shunt: "+c.want+"\n" {
			t.Errorf("%s: got %d %q %q", name, code, out, stderr)
		}
	}
}

// bridgesOnly hides what a fake has beside bridges.
type bridgesOnly struct {
	Component
	BridgeSource
}

func TestExplainWithoutAnExplainer(t *testing.T) {
	f := sample()
	d := startDaemon(t, socketPath(t), f, func(s *service) {
		s.plugins = []Plugin{{Name: "fake", New: func() Component { return bridgesOnly{f, f} }}}
	})
	d.ready(t)
	code, _, stderr := newTestApp().call(t, "explain", "--socket", d.config.Socket, "--in", "p1", "--src", macA.String(), "--dst", macB.String())
	want := "shunt: 0 plugins can ask the data plane about a frame, need exactly one: see the imports of main.go\n"
	if code != 1 || stderr != want {
		t.Errorf("got %d %s", code, stderr)
	}
}

// TestExplainBadRequests asks without the command line, which would have refused.
func TestExplainBadRequests(t *testing.T) {
	f := sample()
	d := startDaemon(t, socketPath(t), f)
	client := d.ready(t)
	const pair = "&src=52:54:00:00:00:01&dst=52:54:00:00:00:02"
	for query, want := range map[string]string{
		"in=p1&vlna=10" + pair:       `unknown parameter "vlna"; did you mean "vlan"?`,
		"in=p1&vlan=4095" + pair:     `vlan must be a number from 0 to 4094, not "4095"`,
		"in=p1&vlan_protocol" + pair: `vlan_protocol says what kind of tag vlan adds: give both`,
		"":                           `in is missing: the port where the frame arrives`,
	} {
		var e ExplainV1
		if err := client.Do(t.Context(), http.MethodGet, "/v1/explain?"+query, nil, &e); err == nil || err.Error() != want {
			t.Errorf("%s: got %v", query, err)
		}
	}
	if len(f.asked) > 0 {
		t.Error("a bad question was put:", f.asked)
	}
}
