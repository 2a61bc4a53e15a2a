//go:build race

package netstack

// raceEnabled: the race detector makes everything ten times slower.
const raceEnabled = true
