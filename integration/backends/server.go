package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/shunt-dev/shunt/integration/lab"
)

// server is a process with an HTTP API in a network namespace.
type server struct {
	name  string
	cmd   *exec.Cmd
	http  *http.Client
	base  string // of its URLs
	ended chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// serve starts the command in the namespace; its API is at base.
func serve(ns *lab.Namespace, base string, cmd *exec.Cmd) (*server, error) {
	s := &server{name: cmd.Path, cmd: cmd, base: base, ended: make(chan struct{}),
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: ns.Dial}}}
	cmd.Stdout, cmd.Stderr = s, s
	// Ctrl-C is for this program, which ends the server in its turn, or the kernel does
	// when the thread is gone that started it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go ns.Do(func() error {
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(s.ended)
		}
		return nil
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	return s, nil
}

// Write takes what the server logs.
func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *server) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// get reads the JSON at a path of the API.
func (s *server) get(ctx context.Context, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return err
	}
	response, err := s.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.200s", path, response.Status, text)
	}
	return json.Unmarshal(text, answer)
}

const (
	patience  = 30 * time.Second
	lookAgain = 50 * time.Millisecond
)

// await asks until look is content, whose error says with what it is not.
func (s *server) await(ctx context.Context, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	var last error
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && last != nil {
			err = last // and not that it was cut short
		}
		last = err
		select {
		case <-again.C:
		case <-s.ended:
			return fmt.Errorf("%s has ended: %w\n%s", s.name, err, s.logged())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// stop ends the server.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		<-s.ended
	}
}
