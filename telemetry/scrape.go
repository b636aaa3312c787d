package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"golang.org/x/net/netutil"
)

// What those who scrape may take of the daemon, whose files are there for the bridges
// first: whoever reaches the port may connect, on the same host every user.
const (
	mostScrapers = 16 // connections at a time; others wait in the kernel
	mostScrapes  = 4  // answers at a time
	// A scraper that is idle for longer connects anew.
	scraperIdle    = 30 * time.Second
	scrapeTimeout  = 10 * time.Second // to ask, and to take the answer
	scrapeFarewell = time.Second      // for the last answers, at the end
)

// scrapeServer answers Prometheus at /metrics.
type scrapeServer struct {
	http.Server
	serving sync.WaitGroup
}

// listenToScrapers makes the reader for OTEL_METRICS_EXPORTER=prometheus. It stands in
// the place of autoexport's, which lets everybody in.
func listenToScrapers(ctx context.Context, logger *slog.Logger) (sdkmetric.Reader, *scrapeServer, error) {
	registry := prometheus.NewRegistry()
	reader, err := promexporter.New(promexporter.WithRegisterer(registry))
	if err != nil {
		return nil, nil, err
	}
	address := net.JoinHostPort(orElse(os.Getenv("OTEL_EXPORTER_PROMETHEUS_HOST"), "localhost"), orElse(os.Getenv("OTEL_EXPORTER_PROMETHEUS_PORT"), "9464"))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen to Prometheus: %w", err), reader.Shutdown(ctx))
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry, MaxRequestsInFlight: mostScrapes}))
	s := &scrapeServer{Server: http.Server{
		Handler: mux, ReadTimeout: scrapeTimeout, WriteTimeout: scrapeTimeout, IdleTimeout: scraperIdle,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}
	s.serving.Go(func() {
		if err := s.Serve(netutil.LimitListener(listener, mostScrapers)); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("Prometheus is not answered any more", "error", err)
		}
	})
	return reader, s, nil
}

// end answers no more. It does not wait for those who connected and asked nothing.
func (s *scrapeServer) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, scrapeFarewell)
	defer cancel()
	defer s.serving.Wait()
	if s.Shutdown(ctx) != nil {
		return s.Close()
	}
	return nil
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
