package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-dev/shunt/accel"
	"github.com/shunt-dev/shunt/integration/lab"
)

// crowd is how many clients come at the same time.
const crowd = 1000

// What a crowd may cost the daemon: its files, and memory beside what it has for its
// table. The host lets 256 clients in that may change things, and 64 others.
const (
	crowdFiles  = 256 + 64 + 16
	crowdMemory = 64 << 20
	fewClients  = 2*256/8 + 16 // where it may open 256 files
)

// nobody is a user without rights.
const nobody = 65534

// figures are what a daemon takes of the machine now.
type figures struct {
	rss   int // bytes
	peak  int // bytes, since it started
	files int
}

func (d *daemon) figures() (f figures) {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	must(d.t, err)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kilobytes, _ := strconv.Atoi(fields[1])
		switch fields[0] {
		case "VmRSS:":
			f.rss = kilobytes << 10
		case "VmHWM:":
			f.peak = kilobytes << 10
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	must(d.t, err)
	f.files = len(files)
	return f
}

func (f figures) String() string {
	return fmt.Sprintf("%5.1f MB (peak %5.1f MB), %3d files", float64(f.rss)/(1<<20), float64(f.peak)/(1<<20), f.files)
}

// connectAs connects to the daemon as a user: the kernel notes who the thread is
// that connects.
func connectAs(uid int, socket string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread ends with the user that it became
		if uid != 0 {
			if err = become(uid); err != nil {
				return
			}
		}
		fd, socketErr := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err = socketErr; err != nil {
			return
		}
		file := os.NewFile(uintptr(fd), socket)
		defer file.Close()
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			return
		}
		conn, err = net.FileConn(file)
	}()
	<-done
	return conn, err
}

// become makes the thread, and no other, a user's, with the group of the same number.
func become(uid int) error {
	id := uintptr(uid)
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, id, id, id}, {unix.SYS_SETRESUID, id, id, id},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	return nil
}

// request is one whole request, after which the connection ends.
func request(method, path, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: shunt\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
}

// attacks are what a hostile client sends, before it neither reads nor goes.
var attacks = []struct{ name, sends string }{
	{"nothing", ""},
	{"half a line", "GET /v1/st"},
	{"half a header", "GET /v1/status HTTP/1.1\r\nHost: shunt\r\nX: "},
	{"a slow body", "POST /v1/off HTTP/1.1\r\nHost: shunt\r\nContent-Length: 60000\r\n\r\n{"},
	{"a large body", "POST /v1/off HTTP/1.1\r\nHost: shunt\r\nContent-Length: 100000000\r\n\r\n" + strings.Repeat("x", 100_000)},
	{"chunks without end", "POST /v1/off HTTP/1.1\r\nHost: shunt\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("4\r\nxxxx\r\n", 10_000)},
	{"the table, unread", "GET /v1/fdb HTTP/1.1\r\nHost: shunt\r\n\r\n"},
	{"the tables, unread", strings.Repeat("GET /v1/fdb HTTP/1.1\r\nHost: shunt\r\n\r\n", 100)},
	{"a stream, unread", "GET /v1/events HTTP/1.1\r\nHost: shunt\r\n\r\n"},
	{"no HTTP", "\x16\x03\x01" + strings.Repeat("\x00\xff", 1000)},
}

// storm opens the crowd's connections at the same time, sends the attacks, and leaves
// them as they are.
func storm(t *testing.T, uid int, socket string) (conns []net.Conn) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range crowd {
		all.Go(func() {
			conn, err := connectAs(uid, socket)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			conn.SetWriteDeadline(time.Now().Add(2 * time.Second)) // who is not let in is not heard
			io.WriteString(conn, attacks[i%len(attacks)].sends)
		})
	}
	all.Wait()
	return conns
}

// answers counts what waits at the connections, by status; 0 is none.
func answers(conns []net.Conn) map[int]int {
	statuses := make(map[int]int)
	for _, conn := range conns {
		conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		status := 0
		fmt.Sscanf(line, "HTTP/1.1 %d", &status)
		statuses[status]++
	}
	return statuses
}

func closeAll(conns []net.Conn) {
	for _, conn := range conns {
		conn.Close()
	}
}

// ask sends one request and returns its status.
func ask(uid int, socket, text string) (status int, answer string, err error) {
	conn, err := connectAs(uid, socket)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, writeErr := io.WriteString(conn, text)
	read, err := io.ReadAll(conn)
	if len(read) == 0 {
		return 0, "", errors.Join(writeErr, err)
	}
	fmt.Sscanf(string(read), "HTTP/1.1 %d", &status)
	return status, string(read), nil
}

// attackRig is a daemon with a large table, a short lease and a socket that is open
// to all, and a stream of frames that must not notice anything.
func attackRig(t *testing.T, by []string) (d *daemon, s *lab.Sender, calm func()) {
	t.Helper()
	const entries = 10_000
	l := newLab(t, lab.Options{Hosts: 3})
	inBridge(t, l, func(f *fdb) {
		for n := range entries {
			f.replace(n, n%3, static)
		}
	})
	config := filepath.Join(t.TempDir(), "shunt.yaml")
	must(t, os.WriteFile(config, []byte("bridges: [br0]\nlease: 1s\n"), 0o600))
	d = launchBy(t, by, nil, l.Bridge, "--config", config)
	d.awaitReady()
	must(t, os.Chmod(d.socket, 0o666))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(d.socket)), 0o755))
	a, b := hostStation(t, l.Hosts[0]), hostStation(t, l.Hosts[1])
	introduce(t, a.wire, a.mac, b.wire, b.mac)
	d.awaitActive(a.mac, b.mac)
	s, calm = underStream(t, d, a, b)
	return d, s, calm
}

// underStream sends frames until the returned function is called, which wants none
// of them lost, nor on the slow path for want of a lease or of anything else.
func underStream(t *testing.T, d *daemon, a, b station) (s *lab.Sender, calm func()) {
	t.Helper()
	before := d.reasons()
	ctx, end := context.WithCancel(t.Context())
	s = &lab.Sender{
		Wire: a.wire, Frame: lab.Frame{Source: a.mac, Destination: b.mac, Stream: 1},
		Pace: lab.Pace{PerSecond: 5000, Gentle: true},
	}
	type result struct {
		lab.Report
		err error
	}
	done := make(chan result, 1)
	go func() {
		report, err := lab.Run(ctx, s, 1<<40, b.wire)
		done <- result{report, err}
	}()
	return s, sync.OnceFunc(func() {
		end()
		r := <-done
		must(t, r.err)
		counted := d.reasons()
		for reason, n := range before {
			counted[reason] -= n
		}
		sent := s.Next.Load()
		t.Logf("of %d frames meanwhile: lost %d, fast %d, keepalive %d, without a lease %d", sent, r.Lost(sent), counted[accel.Fast], counted[accel.Keepalive], counted[accel.Lease])
		if r.Lost(sent) != 0 || r.Doubled != 0 || r.Reordered != 0 {
			t.Errorf("the stream: %+v of %d", r.Report, sent)
		}
		for _, reason := range []accel.Reason{accel.Lease, accel.Unchecked, accel.Syncing} {
			if n := counted[reason]; n > 0 {
				t.Errorf("%d frames took the slow path: %v", n, reason)
			}
		}
	})
}

// TestAThousandClients ask, lie and dawdle at the same time, some with rights and
// some without. The daemon answers those who ask, and keeps its lease, its files and
// its memory.
func TestAThousandClients(t *testing.T) {
	d, _, calm := attackRig(t, []string{binary})
	before := d.figures()
	t.Logf("before:                     %v", before)

	var answered, refused int
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range crowd {
		path := []string{"/v1/status", "/v1/fdb", "/v1/ports", "/v1/reasons", "/v1/groups"}[i%5]
		all.Go(func() {
			status, answer, err := ask(0, d.socket, request("GET", path, ""))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && status == 200:
				answered++
			case status == 503:
				refused++
			default:
				t.Errorf("%s: %d %.200s, %v", path, status, answer, err)
			}
		})
	}
	all.Wait()
	t.Logf("%d at once, as root:      %v; answered %d, refused %d", crowd, d.figures(), answered, refused)
	if answered < crowd*9/10 {
		t.Errorf("only %d of %d were answered", answered, crowd)
	}

	for _, uid := range []int{nobody, 0} {
		conns := storm(t, uid, d.socket)
		during := d.figures()
		if uid == nobody { // who could also kill the daemon may keep others waiting
			mustAnswerRoot(t, d)
		}
		t.Logf("%d attackers, user %-5d: %v; their answers, 0 for none: %v", crowd, uid, during, answers(conns))
		if during.files > before.files+crowdFiles {
			t.Errorf("%d files are open, %d before", during.files, before.files)
		}
		closeAll(conns)
		mustAnswerRoot(t, d)
		await(t, "the files of the attackers are closed", func() bool { return d.figures().files <= before.files+2 })
	}
	calm()
	after := d.figures()
	t.Logf("after:                      %v", after)
	if grown := after.peak - before.rss; grown > crowdMemory {
		t.Errorf("the memory grew by %d MB", grown>>20)
	}
	if b := d.bridge(); !b.Eligible {
		t.Errorf("the bridge is %v", b.Reason)
	}
}

// TestTheLastFileIsNotForClients gives the daemon few files, which the crowd must not
// take: it looks at the firewall twice a second, and needs some for that.
func TestTheLastFileIsNotForClients(t *testing.T) {
	d, stream, calm := attackRig(t, []string{"sh", "-c", `ulimit -n 256 && exec "$0" "$@"`, binary})
	before := d.figures()
	for _, uid := range []int{nobody, 0} {
		conns := storm(t, uid, d.socket)
		during := d.figures()
		// Long enough for a few looks at the firewall.
		looked := stream.Next.Load() + 10_000
		await(t, "the stream goes on", func() bool { return stream.Next.Load() >= looked })
		if during.files > before.files+fewClients {
			t.Errorf("%d files are open, %d before", during.files, before.files)
		}
		t.Logf("of 256 files: %d before, %d under %d attackers of user %d", before.files, during.files, crowd, uid)
		closeAll(conns)
		mustAnswerRoot(t, d)
	}
	calm()
}

func mustAnswerRoot(t *testing.T, d *daemon) {
	t.Helper()
	if status, _, err := ask(0, d.socket, request("GET", "/v1/status", "")); status != 200 {
		t.Errorf("root gets %d, %v", status, err)
	}
}

// TestRequestsThatAreNone are answered with an error, and leave the daemon as it was.
func TestRequestsThatAreNone(t *testing.T) {
	l := newLab(t, lab.Options{Hosts: 2})
	d := startDaemon(t, l)
	must(t, os.Chmod(d.socket, 0o666))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(d.socket)), 0o755))
	long := strings.Repeat("x", 100_000)
	for name, c := range map[string]struct {
		uid    int
		text   string
		status int
	}{
		"no HTTP":               {0, "\x16\x03\x01\r\n\r\n", 400},
		"no version":            {0, "GET /v1/status\r\n\r\n", 400},
		"another version":       {0, "GET /v1/status HTTP/9.9\r\nHost: x\r\n\r\n", 505},
		"no host":               {0, "GET /v1/status HTTP/1.1\r\n\r\n", 400},
		"HTTP/2":                {0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		"a header without end":  {0, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + long + "\r\n\r\n", 431},
		"a path without end":    {0, request("GET", "/"+long, ""), 431},
		"a broken header":       {0, "GET /v1/status HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400},
		"two lengths":           {0, "POST /v1/off HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{", 400},
		"a negative length":     {0, "POST /v1/off HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
		"a broken chunk":        {0, "POST /v1/off HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		"another encoding":      {0, "POST /v1/off HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
		"a long body":           {0, request("POST", "/v1/off", `{"bridge": "`+long+`"}`), 400},
		"no JSON":               {0, request("POST", "/v1/off", "bridge=br0"), 400},
		"deep JSON":             {0, request("POST", "/v1/off", strings.Repeat("[", 60_000)), 400},
		"a mistyped key":        {0, request("POST", "/v1/swap", `{"groups": ["g"], "two": "x"}`), 400},
		"another method":        {0, request("BREW", "/v1/status", ""), 404},
		"CONNECT":               {0, "CONNECT br0:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404},
		"all":                   {0, "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200},
		"dots":                  {0, request("GET", "/v1/../v1/off", ""), 307},
		"a bridge of zeros":     {0, request("GET", "/v1/fdb?bridge=%00%00", ""), 404},
		"a slow body":           {0, "POST /v1/off HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{", 400},
		"off without rights":    {nobody, request("POST", "/v1/off", `{"bridge": ""}`), 403},
		"on without rights":     {nobody, request("POST", "/v1/on", `{"bridge": ""}`), 403},
		"detach without rights": {nobody, request("POST", "/v1/detach", "{}"), 403},
		"swap without rights":   {nobody, request("POST", "/v1/swap", `{"groups": ["g"], "to": "m"}`), 403},
		"adopt without rights":  {nobody, request("POST", "/v1/adopt", `{"port": "p1"}`), 403},
		"release, so":           {nobody, request("POST", "/v1/release", `{"group": "g"}`), 403},
		"upgrade, so":           {nobody, request("POST", "/v1/upgrades", `{"group": "g"}`), 403},
		"done, so":              {nobody, request("POST", "/v1/upgrades/1/done", `{"member": "m"}`), 403},
		"stop, so":              {nobody, request("POST", "/v1/upgrades/1/stop", `{}`), 403},
		"reading without":       {nobody, request("GET", "/v1/status", ""), 200},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer, err := ask(c.uid, d.socket, c.text)
			if err != nil || status != c.status {
				t.Errorf("got %d %.300s, %v; want %d", status, answer, err, c.status)
			}
		})
	}
	must(t, os.Chmod(d.socket, 0o660))
	if _, err := connectAs(nobody, d.socket); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a closed socket is open to nobody: %v", err)
	}
	if b := d.bridge(); !b.On || !b.Eligible {
		t.Errorf("the bridge is %+v", b)
	}
}
