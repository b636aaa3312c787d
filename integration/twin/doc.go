// Package twin compares a bridge that shunt runs beside with one that is left
// alone. Two labs are built alike; a script of steps, each a change of the
// configuration or a frame, is done to both; after every burst of frames what
// each host received, byte for byte, and the bridges' forwarding tables must be
// equal.
//
// A script is text, one step a line (see [Parse]), so that one that fails can be
// shrunk, read and kept.
package twin
