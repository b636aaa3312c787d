package twin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/integration/lab"
)

// receiver is a packet socket that takes everything that comes in at a device,
// with its tag and how it is to be segmented, and that can send.
type receiver struct {
	fd     int
	buffer []byte
}

// receiveBuffer holds more than a burst, in bytes.
const receiveBuffer = 32 << 20

func newReceiver(ifindex int) (r receiver, err error) {
	r.buffer = make([]byte, largest)
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return r, err
	}
	err = errors.Join(
		unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifindex}))
	if err != nil {
		r.close()
		return receiver{}, fmt.Errorf("open a packet socket: %w", err)
	}
	return r, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (r receiver) close() {
	if r.fd != 0 {
		unix.Close(r.fd)
	}
}

// send sends one frame. A wire without a carrier may swallow it or refuse it:
// that is when the kernel gets to it, and the same for both sides.
func (r receiver) send(frame []byte) error {
	_, err := unix.Write(r.fd, frame)
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENETDOWN) {
		return nil
	}
	return err
}

// largest is more than any frame of a script, in bytes.
const largest = 1 << 16

// receive returns what waits at the socket, in order. Each begins with the
// header and tag that nativeHeader takes off.
func (r receiver) receive() (frames [][]byte, err error) {
	var auxiliary [128]byte
	for {
		n, oob, _, _, err := unix.Recvmsg(r.fd, r.buffer, auxiliary[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return frames, nil
		case errors.Is(err, unix.ENETDOWN): // the device was down meanwhile
			continue
		case err != nil:
			return nil, fmt.Errorf("receive: %w", err)
		case n < vnetLen:
			return nil, fmt.Errorf("received %d bytes", n)
		}
		f := make([]byte, n+tagBytes)
		copy(f, r.buffer[:vnetLen])
		copy(f[vnetLen+tagBytes:], r.buffer[vnetLen:n])
		if err := readTag(f[vnetLen:], auxiliary[:oob]); err != nil {
			return nil, err
		}
		frames = append(frames, f)
	}
}

// readTag takes the tag from a struct tpacket_auxdata.
func readTag(to, oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20 {
			status := binary.NativeEndian.Uint32(m.Data)
			putTag(to, status&unix.TP_STATUS_VLAN_VALID != 0,
				binary.NativeEndian.Uint16(m.Data[18:]), binary.NativeEndian.Uint16(m.Data[16:]))
		}
	}
	return nil
}

// drops returns how many frames found no room in the socket since it was asked
// last.
func (r receiver) drops() (uint32, error) {
	stats, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, err
	}
	return stats.Drops, nil
}

// fence tells when everything that was sent has arrived, or will not. On one
// CPU, what a veth is given waits in one queue for all devices of all namespaces
// (net/core/dev.c: enqueue_to_backlog). So a frame that goes over a wire of the
// fence's own arrives behind everything that was in the queue before it. One
// such round brings a frame to the bridge's port, the next one to the host; what
// is put into a port's ingress anew takes one more.
type fence struct {
	ns   *lab.Namespace
	a, b receiver
}

const fenceRounds = 4

func newFence() (f *fence, err error) {
	f = &fence{}
	if f.ns, err = lab.NewNamespace(); err != nil {
		return nil, err
	}
	if err := f.ns.Do(f.build); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *fence) close() error {
	f.a.close()
	f.b.close()
	return f.ns.Close()
}

// wait returns when what this thread sent before has arrived.
func (f *fence) wait() error {
	frame := Frame{Source: PortMAC(1), Destination: BarrierMAC, Kind: "raw", Size: 60}
	for range fenceRounds {
		if err := f.a.send(frame.bytes(0)); err != nil {
			return err
		}
		ready := []unix.PollFd{{Fd: int32(f.b.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, int(waitTimeout.Milliseconds()))
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(ready, int(waitTimeout.Milliseconds()))
		}
		if err != nil || n == 0 {
			return errors.Join(err, errors.New("a frame of the fence did not arrive"))
		}
		if _, err := f.b.receive(); err != nil {
			return err
		}
	}
	return nil
}

// pin keeps this goroutine on one CPU; its thread ends with it.
func pin() error {
	runtime.LockOSThread()
	var have, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return err
	}
	for cpu := range 1024 {
		if have.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	return unix.SchedSetaffinity(0, &one)
}

func (f *fence) build() error {
	pair := netlink.NewVeth(netlink.NewLinkAttrs())
	pair.Name, pair.PeerName = "a", "b"
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	for name, r := range map[string]*receiver{"a": &f.a, "b": &f.b} {
		end, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(end); err != nil {
			return err
		}
		if *r, err = newReceiver(end.Attrs().Index); err != nil {
			return err
		}
	}
	k, err := openKernel()
	if err != nil {
		return err
	}
	defer k.conn.Close()
	return waitUntil("the fence has a carrier", func() (bool, error) {
		a, err := k.linkState(pair.Attrs().Index)
		if err != nil || !a.carrier {
			return false, err
		}
		b, err := k.linkState(pair.Attrs().Index - 1)
		return b.carrier, err
	})
}
