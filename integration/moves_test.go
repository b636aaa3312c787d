package integration

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"errors"

	"github.com/shunt-dev/shunt/integration/lab"
)

// A station moves among four ports while another host sends to it. From the
// moment when the first frame from the new port was delivered, every frame that
// is sent to the station must arrive there, and nowhere else.
func TestFramesFollowAStationThatMoves(t *testing.T) {
	const moves, ports, perSecond = 1000, 4, 10_000
	l := newLab(t, lab.Options{Hosts: ports + 2})
	d := startDaemon(t, l)
	m := newMover(t, l, ports)
	load := &lab.Sender{
		Wire:  newWire(t, l.Hosts[ports]),
		Frame: lab.Frame{Source: l.Hosts[ports].MAC, Destination: m.mac, Stream: loadStream},
		Pace:  lab.Pace{PerSecond: perSecond},
	}
	ctx, stop := context.WithCancel(t.Context())
	sent := make(chan error, 1)

	m.move(0, load)
	go func() { sent <- load.Send(ctx, 1<<40) }()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range moves {
		to := (m.at + 1 + random.IntN(ports-1)) % ports
		m.move(to, load)
		// Some stays are too short for the fast path to open, most are not.
		m.stay(load, uint64(random.IntN(perSecond/25)))
	}
	stop()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	m.finish(load.Next.Load())
	b := d.bridge()
	t.Logf("%d moves under %d frames, %d fast and %d slow", moves, load.Next.Load(), b.Fast, b.Slow)
	if b.Fast < load.Next.Load()/4 {
		t.Errorf("only %d of %d frames were fast: the test shows little", b.Fast, load.Next.Load())
	}
}

const (
	loadStream     = 21
	announceStream = 22
)

// mover is a station that can be behind any of some hosts' ports.
type mover struct {
	t       *testing.T
	mac     net.HardwareAddr
	wires   []lab.Wire
	witness *lab.Host // to whom it announces itself
	heard   lab.Wire
	at      int
	moves   uint64

	// stays are the times at a port: every load frame with a number from
	// from on and below to arrives there. Between two stays it may arrive at
	// either, or nowhere.
	stays []stay

	mu       sync.Mutex
	arrivals []arrival
	readers  sync.WaitGroup
}

type stay struct {
	port     int
	from, to uint64
}

type arrival struct {
	port     int
	sequence uint64
}

func newMover(t *testing.T, l *lab.Lab, ports int) *mover {
	m := &mover{t: t, mac: lab.MACOf(0x5100), witness: l.Hosts[ports+1], at: -1}
	m.heard = newWire(t, m.witness)
	for port := range ports {
		w := newWire(t, l.Hosts[port])
		m.wires = append(m.wires, w)
		m.readers.Go(func() { m.read(port, w) })
	}
	return m
}

// read notes every load frame that arrives at a port, until the wire's deadline
// is set into the past.
func (m *mover) read(port int, w lab.Wire) {
	buffer := make([]byte, 2048)
	for {
		n, err := w.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			m.t.Error(err)
			return
		}
		if f, ok := lab.ParseFrame(buffer[:n]); ok && f.Stream == loadStream {
			m.mu.Lock()
			m.arrivals = append(m.arrivals, arrival{port, f.Sequence})
			m.mu.Unlock()
		}
	}
}

// move sends the station's first frame from the new port and waits until it has
// arrived at the witness.
func (m *mover) move(to int, load *lab.Sender) {
	m.t.Helper()
	if n := len(m.stays); n > 0 {
		m.stays[n-1].to = load.Next.Load()
	}
	m.at = to
	m.moves++
	announce := lab.Frame{Source: m.mac, Destination: m.witness.MAC, Stream: announceStream, Sequence: m.moves}
	if _, err := m.wires[to].Write(announce.Bytes()); err != nil {
		m.t.Fatal(err)
	}
	m.awaitAnnounce()
	// The frame with this number may be on its way already; the one behind
	// it is not.
	m.stays = append(m.stays, stay{port: to, from: load.Next.Load() + 1})
}

func (m *mover) awaitAnnounce() {
	m.t.Helper()
	if err := m.heard.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	buffer := make([]byte, 2048)
	for {
		n, err := m.heard.Read(buffer)
		if err != nil {
			m.t.Fatalf("announcement %d did not arrive: %v", m.moves, err)
		}
		if f, ok := lab.ParseFrame(buffer[:n]); ok && f.Stream == announceStream && f.Sequence == m.moves {
			return
		}
	}
}

// stay waits until the load has sent so many more frames.
func (m *mover) stay(load *lab.Sender, frames uint64) {
	until := load.Next.Load() + frames
	await(m.t, "the load goes on", func() bool { return load.Next.Load() >= until })
}

// finish holds what arrived against the stays.
func (m *mover) finish(sent uint64) {
	m.t.Helper()
	m.stays[len(m.stays)-1].to = sent
	m.awaitArrival(sent - 1)
	for _, w := range m.wires {
		if err := w.SetReadDeadline(time.Unix(1, 0)); err != nil {
			m.t.Fatal(err)
		}
	}
	m.readers.Wait()

	at := make(map[uint64][]int)
	for _, a := range m.arrivals {
		at[a.sequence] = append(at[a.sequence], a.port)
	}
	wrong, missing, doubled := 0, 0, 0
	for _, s := range m.stays {
		for n := s.from; n < s.to; n++ {
			switch ports := at[n]; {
			case len(ports) == 0:
				missing++
			case len(ports) > 1:
				doubled++
			case ports[0] != s.port:
				wrong++
			}
		}
	}
	if wrong+missing+doubled > 0 {
		m.t.Errorf("%d frames arrived where the station was not, %d nowhere, %d twice", wrong, missing, doubled)
	}
}

func (m *mover) awaitArrival(sequence uint64) {
	await(m.t, "the last frame arrives", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		n := len(m.arrivals)
		return n > 0 && m.arrivals[n-1].sequence >= sequence
	})
}
