package accel

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What GET /v1/explain asks and answers. The command line's flags have the names
// of the query's parameters, and one reader checks both.

const (
	paramIn       = "in"
	paramSource   = "src"
	paramDest     = "dst"
	paramVLAN     = "vlan"
	paramProtocol = "vlan_protocol"
	paramFrame    = "frame"
)

var explainParams = []string{paramDest, paramFrame, paramIn, paramSource, paramVLAN, paramProtocol}

const (
	ethernetHeader = 14 // destination, source and EtherType, in bytes
	// shortestFrame is what the least frame on a wire has, without its checksum.
	shortestFrame = 60
	// longestFrame is a jumbo frame's, with its header.
	longestFrame = 9216 + ethernetHeader
	// typeExperimental is "local experimental EtherType 1" (IEEE 802): no one
	// but the bridge does anything with such a frame.
	typeExperimental = unix.ETH_P_802_EX1
	lastVID          = 4094
)

// asked is a frame and the port where it arrives.
type asked struct {
	in    string
	frame []byte
	// tagged says that the frame has a tag with this VID and protocol; protocol
	// 0 is the bridge's own.
	tagged        bool
	vid, protocol uint16
}

// readAsked checks the parameters. Its errors name them as name does.
func readAsked(params url.Values, name func(string) string) (a asked, err error) {
	for param := range params {
		if !slices.Contains(explainParams, param) {
			return a, fmt.Errorf("unknown parameter %q; %s", param, suggestion(param, explainParams))
		}
	}
	if a.in = params.Get(paramIn); a.in == "" {
		return a, fmt.Errorf("%s is missing: the port where the frame arrives", name(paramIn))
	}
	if err := a.readTag(params, name); err != nil {
		return a, err
	}
	return a, a.readFrame(params, name)
}

func (a *asked) readTag(params url.Values, name func(string) string) error {
	if params.Has(paramProtocol) {
		if !params.Has(paramVLAN) {
			return fmt.Errorf("%s says what kind of tag %s adds: give both", name(paramProtocol), name(paramVLAN))
		}
		var ok bool
		if a.protocol, ok = vlanProtocol(params.Get(paramProtocol)); !ok {
			return fmt.Errorf("%s must be 802.1Q or 802.1ad, not %q", name(paramProtocol), params.Get(paramProtocol))
		}
	}
	if a.tagged = params.Has(paramVLAN); !a.tagged {
		return nil
	}
	vid, err := strconv.ParseUint(params.Get(paramVLAN), 10, 16)
	if err != nil || vid > lastVID {
		return fmt.Errorf("%s must be a number from 0 to %d, not %q", name(paramVLAN), lastVID, params.Get(paramVLAN))
	}
	a.vid = uint16(vid)
	return nil
}

// vlanProtocol reads a protocol as ip(8) writes it.
func vlanProtocol(text string) (protocol uint16, ok bool) {
	switch {
	case strings.EqualFold(text, "802.1Q"):
		return unix.ETH_P_8021Q, true
	case strings.EqualFold(text, "802.1ad"):
		return unix.ETH_P_8021AD, true
	}
	return 0, false
}

func (a *asked) readFrame(params url.Values, name func(string) string) (err error) {
	addresses := params.Has(paramSource) || params.Has(paramDest)
	switch {
	case params.Has(paramFrame) && addresses:
		return fmt.Errorf("the addresses are in the frame: give %s, or %s and %s", name(paramFrame), name(paramSource), name(paramDest))
	case params.Has(paramFrame):
		a.frame, err = parseFrame(params.Get(paramFrame))
		if err != nil {
			return fmt.Errorf("%s: %w", name(paramFrame), err)
		}
		return a.refuseTagInFrame(name)
	case !params.Has(paramSource) || !params.Has(paramDest):
		return fmt.Errorf("whose frame is it? Give %s and %s, or the whole %s", name(paramSource), name(paramDest), name(paramFrame))
	}
	source, err := ParseMAC(params.Get(paramSource))
	if err != nil {
		return fmt.Errorf("%s: %w", name(paramSource), err)
	}
	destination, err := ParseMAC(params.Get(paramDest))
	if err != nil {
		return fmt.Errorf("%s: %w", name(paramDest), err)
	}
	a.frame = smallFrame(source, destination)
	return nil
}

// smallFrame is a frame that the bridge forwards by its addresses alone.
func smallFrame(source, destination MAC) []byte {
	frame := make([]byte, shortestFrame)
	copy(frame, destination[:])
	copy(frame[6:], source[:])
	binary.BigEndian.PutUint16(frame[12:], typeExperimental)
	return frame
}

// parseFrame reads hexadecimal digits, with colons or spaces where one likes.
func parseFrame(text string) ([]byte, error) {
	frame, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(text))
	switch {
	case err != nil:
		return nil, fmt.Errorf("not hexadecimal, two digits a byte: %w", err)
	case len(frame) < ethernetHeader || len(frame) > longestFrame:
		return nil, fmt.Errorf("%d bytes; it must have %d to %d, from the destination address on", len(frame), ethernetHeader, longestFrame)
	}
	return frame, nil
}

// refuseTagInFrame: the kernel takes the outermost tag off before anyone sees
// the frame (net/core/dev.c: __netif_receive_skb_core), so it is not in Frame.
// With a tag given, another one in the frame makes it double tagged.
func (a *asked) refuseTagInFrame(name func(string) string) error {
	kind := binary.BigEndian.Uint16(a.frame[12:])
	if a.tagged || kind != unix.ETH_P_8021Q && kind != unix.ETH_P_8021AD {
		return nil
	}
	return fmt.Errorf("%s begins with a tag (EtherType %#04x): leave its 4 bytes out and give %s", name(paramFrame), kind, name(paramVLAN))
}

// question puts the frame to the data plane of a bridge.
func (a asked) question(b BridgeState, in PortState) Question {
	q := Question{Bridge: b.Ifindex, In: in.Ifindex, Frame: a.frame}
	if a.tagged {
		q.Tag = a.vid
		q.TagProtocol = cmp.Or(a.protocol, b.VLANProtocol, unix.ETH_P_8021Q)
	}
	return q
}

// explain asks the data plane about a frame.
func (v view) explain(params url.Values) (ExplainV1, error) {
	a, err := readAsked(params, func(param string) string { return param })
	if err != nil {
		return ExplainV1{}, Statusf(http.StatusBadRequest, "%v", err)
	}
	if len(v.explainers) != 1 {
		return ExplainV1{}, Statusf(http.StatusNotImplemented,
			"%d plugins can ask the data plane about a frame, need exactly one: see the imports of main.go", len(v.explainers))
	}
	b, in, err := v.port(a.in)
	if err != nil {
		return ExplainV1{}, err
	}
	e, err := v.explainers[0].Explain(a.question(b, in))
	if err != nil {
		return ExplainV1{}, fmt.Errorf("explain a frame on port %s of bridge %s: %w", in.Name, b.Name, err)
	}
	return describeExplanation(b, in, e), nil
}

// port finds a port, which names its bridge.
func (v view) port(name string) (BridgeState, PortState, error) {
	var names []string
	for _, b := range v.bridges.Bridges() {
		for _, p := range b.Ports {
			if p.Name == name {
				return b, p, nil
			}
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return BridgeState{}, PortState{}, notFoundf("the daemon knows no port %s, nor any other: see shunt status", name)
	}
	return BridgeState{}, PortState{}, notFoundf("the daemon knows no port %s; it works on %s", name, enumerateSome(names))
}

// enumerateSome is enumerate for what may be many.
func enumerateSome(words []string) string {
	const some = 16
	if more := len(words) - some; more > 1 {
		words = append(slices.Clone(words[:some]), fmt.Sprintf("%d more (see shunt ports)", more))
	}
	return enumerate(words)
}

func describeExplanation(b BridgeState, in PortState, e Explanation) ExplainV1 {
	names := portNames(b)
	d := ExplainV1{
		Verdict: path(e.Reason == Fast), Reason: e.Reason, Text: e.Reason.Text(),
		Bridge: b.Name, In: in.Name, VLAN: e.VID, Action: describeAction(e),
	}
	if e.Out != 0 {
		d.Out = portName(e.Out, names)
	}
	if e.Source != nil {
		source := describeStation(*e.Source, b.Name, names)
		d.Source = &source
	}
	if e.Destination != nil {
		destination := describeStation(*e.Destination, b.Name, names)
		d.Destination = &destination
	}
	d.adviseOn(b, in, e)
	return d
}

func describeAction(e Explanation) string {
	var actions []string
	if e.Pop {
		actions = append(actions, "untag")
	}
	if e.Push != 0 {
		actions = append(actions, fmt.Sprintf("tag %d", e.Push))
	}
	return strings.Join(actions, ", ")
}

// adviseOn says what would change the verdict, and for a port that may not be
// used, why not.
func (d *ExplainV1) adviseOn(b BridgeState, in PortState, e Explanation) {
	if e.Reason == Fast {
		return
	}
	// The ingress port is judged before the egress port is looked for.
	port, own := in.Name, in.In
	if e.Out != 0 {
		port, own = d.Out, outOf(b, e.Out)
	}
	d.Advice = whatWouldChange(e.Reason, b.Name, port)
	if e.Reason.ofPort() && own != Fast {
		d.WhyPort = fmt.Sprintf("%s: %s: %s", port, own, own.Text())
		d.Advice = whatWouldChange(own, b.Name, port)
	}
}

// ofPort: the reason is the state of a port.
func (r Reason) ofPort() bool { return r >= PortUnknown && r < Off }

// outOf says why a port may not be the egress.
func outOf(b BridgeState, port int) Reason {
	for _, p := range b.Ports {
		if p.Ifindex == port {
			return p.Out
		}
	}
	return Fast // it left meanwhile
}

// whatWouldChange is a reason's advice, or says why there is none to give.
func whatWouldChange(r Reason, bridge, port string) string {
	switch r {
	case Keepalive:
		return "nothing: the next frame is fast"
	case Unverified, Syncing, PortUnknown:
		return "nothing: shunt is about to look; ask again in a moment"
	}
	return cmp.Or(Advise(r, bridge, port), "nothing is wrong: the bridge decides over such frames")
}
