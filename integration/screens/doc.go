// Package screens holds the tests of what people see, and of what scripts read: the
// program itself in a real terminal, of tmux, against a daemon of which every figure
// is known.
package screens
