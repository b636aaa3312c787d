package telemetry

import (
	"log/slog"
	"sync"
	"time"
)

// patience is how long after one complaint the next ones go unsaid.
const patience = time.Minute

// complaints logs the SDK's errors, which come with every attempt to reach a
// collector that is away: one a minute.
type complaints struct {
	logger *slog.Logger

	mu   sync.Mutex
	next time.Time
}

// Handle is called by the SDK, from any goroutine.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.next) {
		return
	}
	c.next = now.Add(patience)
	c.logger.Warn("telemetry cannot be sent; further such errors are logged once a minute", "error", err)
}
