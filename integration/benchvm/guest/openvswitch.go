package main

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of the generic netlink families of Open vSwitch what is needed to make a datapath
// with two ports and one flow, as its daemon does (linux/openvswitch.h).
const (
	ovsNew = 1 // OVS_DP_CMD_NEW, OVS_VPORT_CMD_NEW, OVS_FLOW_CMD_NEW
	ovsDel = 2

	ovsDatapathName   = 1
	ovsDatapathUpcall = 2

	ovsPortNumber = 1
	ovsPortType   = 2
	ovsPortName   = 3
	ovsPortUpcall = 5
	ovsPortNetdev = 1 // OVS_VPORT_TYPE_NETDEV

	ovsFlowKey     = 1
	ovsFlowActions = 2
	ovsFlowMask    = 7

	ovsKeyInPort    = 3
	ovsKeyEthernet  = 4
	ovsKeyEtherType = 6

	ovsActionOutput = 1
)

// openVSwitch is a datapath.
type openVSwitch struct {
	conn     *netlink.Conn
	datapath net.Interface
}

// newOpenVSwitch makes a datapath of p1 and p2 with one flow: from p1, of host 1 to
// host 2, to p2.
func newOpenVSwitch() (*openVSwitch, error) {
	conn, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return nil, err
	}
	o := &openVSwitch{conn: conn}
	if err := o.build(); err != nil {
		return nil, fmt.Errorf("make Open vSwitch's datapath: %w", err)
	}
	return o, nil
}

func (o *openVSwitch) build() error {
	err := o.do("ovs_datapath", ovsNew, func(e *netlink.AttributeEncoder) {
		e.String(ovsDatapathName, "dp0")
		e.Uint32(ovsDatapathUpcall, 0)
	})
	if err != nil {
		return err
	}
	datapath, err := net.InterfaceByName("dp0")
	if err != nil {
		return err
	}
	o.datapath = *datapath
	for n := uint32(1); n <= 2; n++ {
		err := o.do("ovs_vport", ovsNew, func(e *netlink.AttributeEncoder) {
			e.Uint32(ovsPortNumber, n)
			e.Uint32(ovsPortType, ovsPortNetdev)
			e.String(ovsPortName, fmt.Sprintf("p%d", n))
			e.Uint32(ovsPortUpcall, 0)
		})
		if err != nil {
			return err
		}
	}
	return o.do("ovs_flow", ovsNew, func(e *netlink.AttributeEncoder) {
		key(e, ovsFlowKey, 1, append(append([]byte{}, source...), destination(0)...), 0x88b5)
		key(e, ovsFlowMask, 0xffffffff, ones(12), 0xffff)
		e.Nested(ovsFlowActions, func(e *netlink.AttributeEncoder) error {
			e.Uint32(ovsActionOutput, 2)
			return nil
		})
	})
}

// key is a flow's key, or its mask.
func key(e *netlink.AttributeEncoder, attribute uint16, port uint32, addresses []byte, etherType uint16) {
	e.Nested(attribute, func(e *netlink.AttributeEncoder) error {
		e.Uint32(ovsKeyInPort, port)
		e.Bytes(ovsKeyEthernet, addresses)
		e.Bytes(ovsKeyEtherType, binary.BigEndian.AppendUint16(nil, etherType))
		return nil
	})
}

func ones(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

// do sends a command about the datapath to a family.
func (o *openVSwitch) do(family string, command byte, attributes func(e *netlink.AttributeEncoder)) error {
	id, err := o.family(family)
	if err != nil {
		return fmt.Errorf("find the family %s: %w", family, err)
	}
	header := binary.NativeEndian.AppendUint32(nil, uint32(o.datapath.Index)) // struct ovs_header
	_, err = o.execute(id, command, netlink.Acknowledge, header, attributes)
	if err != nil {
		return fmt.Errorf("%s, command %d: %w", family, command, err)
	}
	return nil
}

func (o *openVSwitch) family(name string) (id uint16, err error) {
	answers, err := o.execute(unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, 0, nil, func(e *netlink.AttributeEncoder) {
		e.String(unix.CTRL_ATTR_FAMILY_NAME, name)
	})
	if err != nil {
		return 0, err
	}
	for _, a := range answers {
		d, err := netlink.NewAttributeDecoder(a.Data[genericHeader:])
		if err != nil {
			return 0, err
		}
		for d.Next() {
			if d.Type() == unix.CTRL_ATTR_FAMILY_ID {
				id = d.Uint16()
			}
		}
		if err := d.Err(); err != nil {
			return 0, err
		}
	}
	return id, nil
}

// genericHeader is the length of struct genlmsghdr, in bytes.
const genericHeader = 4

func (o *openVSwitch) execute(family uint16, command byte, flags netlink.HeaderFlags, header []byte, attributes func(e *netlink.AttributeEncoder)) ([]netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	attributes(e)
	data, err := e.Encode()
	if err != nil {
		return nil, err
	}
	const version = 2 // OVS_DATAPATH_VERSION; the others take it
	message := append([]byte{command, version, 0, 0}, header...)
	return o.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(family), Flags: netlink.Request | flags},
		Data:   append(message, data...),
	})
}

func (o *openVSwitch) close() error {
	if o == nil {
		return nil
	}
	defer o.conn.Close()
	return o.do("ovs_datapath", ovsDel, func(*netlink.AttributeEncoder) {})
}
