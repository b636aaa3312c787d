package accel

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/spf13/cobra"
)

// Component is one running part of shunt. The package comment tells its life.
type Component interface {
	Provision(ctx context.Context, h *Host) error
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// Plugin describes what a package adds to shunt. Every field but Name may be
// left out: a plugin may be a component, a set of commands, or both.
type Plugin struct {
	// Name is the plugin's package name; it is unique.
	Name string
	// After names the plugins that must have started first. A name that is
	// not registered is ignored: it says an order, not a need.
	After []string
	// New makes the component. It has no side effects.
	New func() Component
	// Commands makes the plugin's own commands, such as demo.
	Commands func() []*cobra.Command
}

var registry struct {
	sync.Mutex
	plugins []Plugin
}

// Register adds a plugin to the list that Main works with. It is called from
// init, and panics on a plugin without a name or with one that is taken, since
// that is a mistake in the program.
func Register(p Plugin) {
	registry.Lock()
	defer registry.Unlock()
	if p.Name == "" {
		panic("accel: a plugin without a name")
	}
	for _, other := range registry.plugins {
		if other.Name == p.Name {
			panic("accel: two plugins are named " + p.Name)
		}
	}
	registry.plugins = append(registry.plugins, p)
}

// registered returns the plugins in the order in which they start.
func registered() ([]Plugin, error) {
	registry.Lock()
	plugins := slices.Clone(registry.plugins)
	registry.Unlock()
	return startOrder(plugins)
}

// startOrder sorts plugins so that each comes behind those that it names in
// After, and otherwise keeps the order of registration.
func startOrder(plugins []Plugin) ([]Plugin, error) {
	byName := make(map[string]Plugin, len(plugins))
	for _, p := range plugins {
		byName[p.Name] = p
	}
	var order []Plugin
	state := make(map[string]int, len(plugins)) // 1: on the way, 2: placed
	var place func(p Plugin) error
	place = func(p Plugin) error {
		switch state[p.Name] {
		case 1:
			return fmt.Errorf("plugin %s wants to start after itself", p.Name)
		case 2:
			return nil
		}
		state[p.Name] = 1
		for _, name := range p.After {
			before, ok := byName[name]
			if !ok {
				continue
			}
			if err := place(before); err != nil {
				return err
			}
		}
		state[p.Name] = 2
		order = append(order, p)
		return nil
	}
	for _, p := range plugins {
		if err := place(p); err != nil {
			return nil, err
		}
	}
	return order, nil
}
