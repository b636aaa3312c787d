package nicswap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// upgradeJournal is what a daemon that is started in the middle of an upgrade has
// to know of it.
type upgradeJournal struct {
	ID        string    `json:"id"`
	Namespace uint64    `json:"namespace"` // as in record
	Began     time.Time `json:"began"`
	// Before has the active member of every group at the beginning.
	Before map[string]string `json:"before"`
	// Away are the members that may be away.
	Away []placement `json:"away"`
}

// journals are those of the upgrades in a network namespace. Daemons in several
// namespaces may have one directory.
type journals struct {
	dir       string // .../upgrades
	namespace uint64
	replace   func(path string, content []byte) error // writeFile, but for tests
}

func newJournals(stateDir string, namespace uint64, replace func(path string, content []byte) error) journals {
	return journals{filepath.Join(stateDir, "upgrades"), namespace, replace}
}

func (d journals) path(id string) string { return filepath.Join(d.dir, id+recordSuffix) }

// write replaces the journal of an upgrade, as a whole or not at all.
func (d journals) write(j upgradeJournal) error {
	j.Namespace = d.namespace
	content, err := json.MarshalIndent(j, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	return d.replace(d.path(j.ID), append(content, '\n'))
}

// remove forgets an upgrade. One that was never written is no error.
func (d journals) remove(id string) error {
	if err := os.Remove(d.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(d.dir)
}

// all reads what is there of this namespace. What cannot be read is logged and
// removed: there is nothing in it that the groups need.
func (d journals) all(logger *slog.Logger) []upgradeJournal {
	entries, err := os.ReadDir(d.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		logger.Warn("the journals of upgrades cannot be read", "error", err)
	}
	var all []upgradeJournal
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), recordSuffix) {
			continue // another daemon may be writing it
		}
		path := filepath.Join(d.dir, entry.Name())
		j, err := readUpgradeJournal(path)
		switch {
		case err != nil:
			logger.Warn("the journal of an upgrade is removed", "error", errors.Join(err, os.Remove(path)))
		case j.Namespace == d.namespace:
			all = append(all, j)
		}
	}
	return all
}

func readUpgradeJournal(path string) (j upgradeJournal, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(content, &j); err != nil {
		return j, fmt.Errorf("%s: %w", path, err)
	}
	if filepath.Base(path) != j.ID+recordSuffix {
		return j, fmt.Errorf("%s is the journal of upgrade %q", path, j.ID)
	}
	return j, nil
}

// resume ends an upgrade that the daemon before did not: its client has gone with
// it. The members are taken back by the engine like any others; when all are, that
// is announced and the journal goes. Traffic stays where it is: what the command did
// to the members is not known here.
func (u *upgrader) resume(j upgradeJournal) {
	u.logger.Warn("the daemon ended in the middle of an upgrade", "began", j.Began, "away", j.Away, "active_before", j.Before)
	err := u.await(u.ctx, 0, func(groups []GroupV1) bool { return j.isOver(groups) })
	if err != nil {
		return // the next daemon goes on
	}
	for _, p := range j.Away {
		text := fmt.Sprintf("the upgrade was interrupted by the end of the daemon; %s is in service", p.Member)
		if before := j.Before[p.Group]; before != "" {
			text += "; before it, the traffic was on " + before
		}
		u.announce(EventV1{Time: time.Now(), Group: p.Group, Event: eventUpgrade, Member: p.Member, State: resultFailed, Text: text})
	}
	u.forget(j.ID)
}

// forget removes the journal of an upgrade that has ended.
func (u *upgrader) forget(id string) {
	if err := u.journals.remove(id); err != nil {
		u.logger.Warn("the journal of an upgrade cannot be removed", "error", err)
	}
}

// isOver says whether every member that was away is in service, or is not a member
// any more.
func (j upgradeJournal) isOver(groups []GroupV1) bool {
	for _, p := range j.Away {
		g, _ := groupOf(groups, p.Group)
		m, ok := memberOf(g, p.Member)
		if ok && !isBack(groups, g, m) {
			return false
		}
	}
	return true
}
