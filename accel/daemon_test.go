package accel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDaemonAnswersBeforeItIsReady(t *testing.T) {
	f := sample()
	f.startGate = make(chan struct{})
	d := startDaemon(t, socketPath(t), f)
	client := NewClient(d.config.Socket)
	status, err := client.Status(t.Context(), "")
	if err != nil || status.Ready || len(status.Bridges) != 1 || status.Bridges[0].Reason != Syncing {
		t.Errorf("got %+v, %v", status, err)
	}
	if _, err := client.Ports(t.Context(), ""); err == nil || err.Error() != errNotReady.Text {
		t.Errorf("got %v", err)
	}
	close(f.startGate)
	d.ready(t)
	d.end()
	if err := d.wait(t); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(d.config.Socket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's directory is still there: %v", err)
	}
}

func TestSignalWhileStarting(t *testing.T) {
	f := &fake{startGate: make(chan struct{})}
	d := startDaemon(t, socketPath(t), f)
	d.end()
	if err := d.wait(t); err != nil {
		t.Error(err)
	}
}

func TestFailures(t *testing.T) {
	no := errors.New("no")
	for name, c := range map[string]struct {
		fake *fake
		want string
	}{
		"provision": {&fake{provisionErr: no}, "fake provision"},
		"start":     {&fake{startErr: no}, "fake provision,fake start,fake stop"},
	} {
		calls := new([]string)
		c.fake.name, c.fake.calls = "fake", calls
		d := startDaemon(t, socketPath(t), c.fake)
		if err := d.wait(t); !errors.Is(err, no) {
			t.Errorf("%s: got %v", name, err)
		}
		if got := strings.Join(*calls, ","); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestComponentFails(t *testing.T) {
	f := sample()
	d := startDaemon(t, socketPath(t), f)
	d.ready(t)
	f.host.Fail(errors.New("the kernel is gone"))
	if err := d.wait(t); err == nil || err.Error() != "the kernel is gone" {
		t.Errorf("got %v", err)
	}
}

func TestDetachAnswersWhenAllIsRemoved(t *testing.T) {
	f := sample()
	f.stopGate = make(chan struct{})
	d := startDaemon(t, socketPath(t), f)
	open := sync.OnceFunc(func() { close(f.stopGate) })
	t.Cleanup(open) // or a failure here would wait for the daemon for ever
	client := d.ready(t)
	answered := make(chan error, 1)
	go func() {
		detached, err := client.Detach(t.Context())
		if _, statErr := os.Lstat(d.config.Socket); !errors.Is(statErr, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("the socket is still there: %v", statErr))
		}
		if !detached.Daemon || !reflect.DeepEqual(detached.Bridges, []string{"br0", "a-long-bridge-n", "br1", "br9"}) {
			err = errors.Join(err, fmt.Errorf("got %+v", detached))
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("answered before the components had stopped: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	open()
	if err := errors.Join(<-answered, d.wait(t)); err != nil {
		t.Error(err)
	}
}

func TestDetachTellsWhatFailed(t *testing.T) {
	f := sample()
	f.stopErr = errors.New("a pin stays")
	d := startDaemon(t, socketPath(t), f)
	client := d.ready(t)
	if _, err := client.Detach(t.Context()); err == nil || err.Error() != "stop fake: a pin stays" {
		t.Errorf("got %v", err)
	}
	if err := d.wait(t); err == nil {
		t.Error("the daemon says that all went well")
	}
}

func TestHungClientsHoldNothing(t *testing.T) {
	d := startDaemon(t, socketPath(t), sample())
	client := d.ready(t)
	for _, sent := range []string{"", "GET /v1/st", "POST /v1/off HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{"} {
		conn, err := net.Dial("unix", d.config.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Switch(t.Context(), "br0", false); err != nil {
		t.Error(err)
	}
	begin := time.Now()
	d.end()
	if err := d.wait(t); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 2*farewellTimeout {
		t.Errorf("hung clients held the daemon for %v", took)
	}
}

func TestSocketInUse(t *testing.T) {
	socket := socketPath(t)
	d := startDaemon(t, socket, sample())
	d.ready(t)
	second := startDaemon(t, socket, &fake{})
	want := "a daemon already serves " + socket + `: stop it with "shunt detach --socket ` + socket + `", or choose another --socket`
	if err := second.wait(t); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	d.ready(t)
}

func TestSocketOfAnotherProgram(t *testing.T) {
	socket := socketPath(t)
	if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := startDaemon(t, socket, &fake{}).wait(t); err == nil {
		t.Error("took a socket in use")
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Error("removed it:", err)
	}
}

func TestFileInTheSocketsPlace(t *testing.T) {
	socket := socketPath(t)
	err := errors.Join(os.Mkdir(filepath.Dir(socket), 0o755), os.WriteFile(socket, nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	want := socket + " exists and is not a socket: remove it, or choose another --socket"
	if err := startDaemon(t, socket, &fake{}).wait(t); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Error("removed it:", err)
	}
}

func TestStaleSocket(t *testing.T) {
	socket := socketPath(t)
	leaveSocket(t, socket)
	_, err := NewClient(socket).Status(t.Context(), "")
	want := "no daemon answers at " + socket + ` (connection refused); start one with "shunt run --bridge br0"`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	d := startDaemon(t, socket, sample())
	d.ready(t)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
	d.end()
	if err := d.wait(t); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(socket)) // not made by the daemon, so it stays
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// leaveSocket leaves what a killed daemon leaves.
func leaveSocket(t *testing.T, socket string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	if err := os.WriteFile(socket+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSecondDaemonForABridge(t *testing.T) {
	d := startDaemon(t, socketPath(t), sample())
	d.ready(t)
	second := startDaemon(t, socketPath(t), &fake{}, func(s *service) { s.config.Bridges = d.config.Bridges })
	want := fmt.Sprintf("another daemon (process %d) works on bridge %s in this network namespace: stop it first", os.Getpid(), d.config.Bridges[0])
	if err := second.wait(t); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	// Nor is anything cleaned up under it.
	cleaner := &fake{clean: []string{"everything"}}
	a := newTestApp(cleaner.plugin())
	a.alone = refuseOtherDaemon
	code, out, stderr := a.call(t, "detach", "--socket", socketPath(t))
	if code != 1 || out != "" {
		t.Errorf("got %d %s", code, out)
	}
	mustContain(t, stderr, d.config.Bridges[0], "name it with --socket")
}

// inNewNamespace runs f in a network namespace of its own, on a thread of its
// own: what f starts in other goroutines is not in there.
func inNewNamespace(t *testing.T, f func()) {
	t.Helper()
	needRoot(t)
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestAllBridgesExcludeNamedOnes claims for one daemon after the other.
func TestAllBridgesExcludeNamedOnes(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	all := Config{AllBridges: true, Bridges: []string{"br0"}} // named for its options only
	pair, other := Config{Bridges: []string{"br0", "br1"}}, Config{Bridges: []string{"br2"}}
	refused := fmt.Sprintf("another daemon (process %d) works on %%s in this network namespace: stop it first", os.Getpid())
	inNewNamespace(t, func() {
		for _, c := range []struct {
			first, second Config
			want          string
		}{
			{pair, other, ""},
			{pair, pair, fmt.Sprintf(refused, "bridge br0")},
			{pair, all, fmt.Sprintf(refused, "bridge br0")},
			{all, other, fmt.Sprintf(refused, "all bridges")},
			{all, pair, fmt.Sprintf(refused, "all bridges")},
			{all, all, fmt.Sprintf(refused, "all bridges")},
		} {
			first, err := claimBridges(c.first, logger)
			if err != nil {
				t.Error(err)
				return
			}
			second, err := claimBridges(c.second, logger)
			if err == nil && c.want != "" || err != nil && err.Error() != c.want {
				t.Errorf("%+v: got %v", c, err)
			}
			if c.second.AllBridges || c.first.AllBridges {
				if err := refuseOtherDaemon(); err == nil {
					t.Error("would clean up under a daemon")
				}
			}
			second.release()
			first.release()
		}
		if err := refuseOtherDaemon(); err != nil {
			t.Error("a claim that was refused, or given back, is held:", err)
		}
		claimed, err := claimBridges(all, logger)
		defer claimed.release()
		if err := errors.Join(err, refuseOtherDaemon()); err == nil || !strings.HasPrefix(err.Error(), "a daemon works on all bridges here ") {
			t.Errorf("got %v", err)
		}
	})
}

// TestClaimsOfNobody binds the name without listening, as one does for an instant
// who is about to claim, or without the rights of a daemon.
func TestClaimsOfNobody(t *testing.T) {
	inNewNamespace(t, func() {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err == nil {
			defer unix.Close(fd)
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: claimPrefix + "br0"})
		}
		claimed, claimErr := claimBridges(Config{AllBridges: true}, slog.New(slog.DiscardHandler))
		claimed.release()
		if err := errors.Join(err, claimErr); err != nil {
			t.Error(err)
		}
	})
}

// TestFirstStatus is what is answered before the components have started.
func TestFirstStatus(t *testing.T) {
	named := Config{Bridges: []string{"br0", "br1"}, BypassNetfilter: []string{"br1"}}
	got := (&service{config: named}).firstStatus(Namespace{}).Bridges
	if len(got) != 2 || got[0].Netfilter != "respect" || got[1].Netfilter != "bypass" {
		t.Errorf("got %+v", got)
	}
	named.AllBridges = true // then only the components know which there are
	if got := (&service{config: named}).firstStatus(Namespace{}).Bridges; got == nil || len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestManyListenAtOnce(t *testing.T) {
	socket := socketPath(t)
	leaveSocket(t, socket)
	const many = 32
	var won atomic.Int32
	var all sync.WaitGroup
	sockets := make([]*controlSocket, many)
	for i := range many {
		all.Go(func() {
			if s, err := listenControl(socket); err == nil {
				won.Add(1)
				sockets[i] = s
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d daemons serve one socket", won.Load())
	}
	for _, s := range sockets {
		if s != nil {
			s.remove()
		}
	}
}

func TestDaemonThatDoesNotListenYetHoldsTheSocket(t *testing.T) {
	socket := socketPath(t)
	if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := takeLock(socket + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if s, err := listenControl(socket); err == nil {
		t.Error("took the socket of a daemon that starts")
		s.remove()
	}
}

// TestLockHasOneHolder takes and removes a lock from many sides.
func TestLockHasOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var holders atomic.Int32
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for range 500 {
				lock, err := takeLock(path)
				if err != nil {
					continue
				}
				if holders.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				for range 20 {
					runtime.Gosched() // give the others a chance to get it wrong
				}
				holders.Add(-1)
				os.Remove(path)
				lock.Close()
			}
		})
	}
	all.Wait()
}

func TestPeers(t *testing.T) {
	for _, c := range []struct {
		peer *unix.Ucred
		self int
		want string
	}{
		{&unix.Ucred{Uid: 0}, 0, ""},
		{&unix.Ucred{Uid: 0}, 55, ""},
		{&unix.Ucred{Uid: 55}, 55, ""},
		{&unix.Ucred{Uid: 1000}, 0, "user 1000 may look but not change anything: use sudo"},
		{&unix.Ucred{Uid: 1000}, 55, "user 1000 may look but not change anything: use sudo"},
		{nil, 0, "the kernel does not say who asks, so nothing is changed"},
	} {
		err := mayChange(c.peer, c.self)
		if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	calls := new([]string)
	f := sample()
	f.calls = calls
	d := startDaemon(t, socketPath(t), f)
	client := d.ready(t)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "off", ``, 400},
		{"POST", "off", `{`, 400},
		{"POST", "off", `{"brigde": "br0"}`, 400},
		{"POST", "off", `{"bridge": 1}`, 400},
		{"POST", "off", `{"bridge": "br0"} {}`, 400},
		{"POST", "off", `{"bridge": "` + strings.Repeat("x", maxBody) + `"}`, 400},
		{"POST", "off", `{"bridge": "br7"}`, 404},
		{"GET", "off", ``, 404},
		{"POST", "status", ``, 404},
		{"GET", "nothing", ``, 404},
		{"GET", "ports?bridge=br7", ``, 404},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "http://shunt/v1/"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != c.status || !strings.Contains(string(text), `"error"`) {
			t.Errorf("%s %s %.30s: got %s %s, want %d", c.method, c.path, c.body, response.Status, text, c.status)
		}
	}
	for _, call := range *calls {
		if strings.Contains(call, "switch") {
			t.Error("a bad request was obeyed:", call)
		}
	}
}

func TestClientErrors(t *testing.T) {
	ended := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(ended), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", ended)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	_, err = NewClient(ended).Status(t.Context(), "")
	if want := "the daemon at " + ended + " ended before it answered: see its log"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	// Which error it is that the connection ends with is a matter of chance.
	for _, cause := range []error{io.EOF, unix.ECONNRESET, unix.EPIPE, errors.New(closedEarly)} {
		got := NewClient(ended).explain(&url.Error{Op: "Get", URL: "http://shunt/v1/status", Err: cause})
		if want := "the daemon at " + ended + " ended before it answered: see its log"; got.Error() != want {
			t.Errorf("%v: got %v", cause, got)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = NewClient(ended).Status(cancelled, ""); err == nil || err.Error() != "interrupted" {
		t.Errorf("got %v", err)
	}
}
