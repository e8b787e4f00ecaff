// Package faults owns the runs in which everything around a pair of sidecars breaks at once, with both sidecars in the
// test's own process, under the race detector. It holds tests only; the runs on built binaries are in integration.
package faults
