package telemetry

import (
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
)

// patience is how long there must have been no error for the next one to be news.
// While a collector is away they come with every attempt, a minute or less apart.
const patience = 10 * time.Minute

// complaints logs the SDK's errors: the first, and then none as long as they go on.
type complaints struct {
	logger *slog.Logger

	mu   sync.Mutex
	last time.Time
}

// complainTo has the SDK tell of what goes wrong behind its callers' backs. It has
// this one place for that.
func complainTo(logger *slog.Logger) { otel.SetErrorHandler(&complaints{logger: logger}) }

// Handle is called by the SDK, from any goroutine.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	isNews := now.Sub(c.last) > patience
	c.last = now
	if isNews {
		c.logger.Warn("telemetry cannot be sent, and what does not fit into its queues is lost; this is not said again while it goes on", "error", err)
	}
}
