package store

import (
	"os"
	"runtime/debug"
)

// What the collector is told, in percent of the heap that is in use. While a
// store is opened and read, nearly all that is allocated stays, and to look
// through it again at each doubling took a seventh of a restart's CPU.
const (
	loadingGC = 400
	usualGC   = 100 // Go's own
)

// collectRarely is for the time from Open until the first Load is done, or the
// store is closed. Whoever set GOGC knows better.
func collectRarely() { setGC(loadingGC) }

func collectAsUsual() { setGC(usualGC) }

func setGC(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
