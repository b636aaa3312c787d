package telemetry

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// scraped is an exporter that Prometheus asks at the address.
func scraped(t *testing.T) (e *Exporter, address string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(address)
	e, _, err = exporter(t, "OTEL_METRICS_EXPORTER=prometheus", "OTEL_EXPORTER_PROMETHEUS_HOST=127.0.0.1", "OTEL_EXPORTER_PROMETHEUS_PORT="+port)
	if err != nil {
		t.Fatal(err)
	}
	sample().serve(e)
	return e, address
}

func TestPrometheusIsAnswered(t *testing.T) {
	e, address := scraped(t)
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || !strings.Contains(string(body), "shunt_frames_total{") {
		t.Errorf("got %v, %s", err, body)
	}
	for range 2 {
		if err := e.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("somebody listens after Stop")
	}
}

// TestACrowdOfScrapersTakesFewFiles: each connection that the daemon takes is a file
// that a port cannot have. One that it took answers, the next ones wait.
func TestACrowdOfScrapersTakesFewFiles(t *testing.T) {
	e, address := scraped(t)
	var crowd []net.Conn
	ask := func(answered bool) {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, conn)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if !answered {
			conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		}
		if _, err := conn.Read(make([]byte, 1)); (err == nil) != answered {
			t.Errorf("connection %d: %v", len(crowd), err)
		}
	}
	for range mostScrapers {
		ask(true)
	}
	ask(false)
	crowd[0].Close()
	ask(false) // the one before has its turn
	crowd[mostScrapers].SetReadDeadline(time.Time{})
	if _, err := crowd[mostScrapers].Read(make([]byte, 1)); err != nil {
		t.Error("the next does not get the place that was left:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), flushTimeout)
	defer cancel()
	if err := e.Stop(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("got %v, %v", err, ctx.Err())
	}
	for _, conn := range crowd {
		conn.Close()
	}
}
