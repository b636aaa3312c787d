// Package pages reads the project's pages as its tests do: the commands, settings
// and units that an operator would copy out of them. The tests run them.
package pages
