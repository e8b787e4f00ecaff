package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Progress is a bar on standard error that shows how far a long batch is. It is silent where nobody would see it, and for
// batches that are done at once. Not safe for concurrent use.
type Progress struct {
	w           io.Writer // nil: silent
	what        string
	done, total int
	start, last time.Time
	shown       bool
}

const (
	progressAfter = 400 * time.Millisecond
	progressEvery = 100 * time.Millisecond
	progressWidth = 30 // columns
)

// Progress starts a bar for so many things. It is shown only if standard error is a terminal and the answer is for people:
// json says it is not.
func (env *Env) Progress(what string, total int, json bool) *Progress {
	p := &Progress{what: what, total: total, start: time.Now()}
	if !json && IsTerminal(env.Stderr) {
		p.w = env.Stderr
	}
	return p
}

// IsTerminal says whether w, or an io.Reader, is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Add tells that n more are done.
func (p *Progress) Add(n int) {
	p.done += n
	now := time.Now()
	if p.w == nil || now.Sub(p.start) < progressAfter || now.Sub(p.last) < progressEvery {
		return
	}
	p.last, p.shown = now, true
	fmt.Fprint(p.w, "\r", p.line(now.Sub(p.start)), "\x1b[K")
}

// line is the bar.
func (p *Progress) line(since time.Duration) string {
	part := 0.0
	if p.total > 0 {
		part = min(1, float64(p.done)/float64(p.total))
	}
	full := int(part * progressWidth)
	left := ""
	if p.done > 0 && p.done < p.total {
		left = fmt.Sprintf(", %v left", (time.Duration(float64(since) * (1 - part) / part)).Round(time.Second))
	}
	return fmt.Sprintf("%s [%s%s] %d of %d%s", p.what, strings.Repeat("=", full), strings.Repeat(" ", progressWidth-full), p.done, p.total, left)
}

// End takes the bar away.
func (p *Progress) End() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
