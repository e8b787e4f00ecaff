package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
)

// screen prints: with colours on a terminal, plainly anywhere else.
type screen struct {
	out     *os.File
	colours bool
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{out, terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (s *screen) print(colour, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if s.colours && colour != "" {
		text = "\x1b[" + colour + "m" + text + "\x1b[0m"
	}
	fmt.Fprintln(s.out, text)
}

func (s *screen) title(format string, args ...any) { s.print("1", "\n"+format, args...) }
func (s *screen) say(format string, args ...any)   { s.print("", "  "+format, args...) }
func (s *screen) good(format string, args ...any)  { s.print("32", format, args...) }
func (s *screen) bad(format string, args ...any)   { s.print("31", format, args...) }

// width is where a long line of a program is broken.
const width = 100

// quote prints what a program said, indented, and broken between words where it is long.
func (s *screen) quote(text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		indent := "    "
		for part := range wrapped(strings.TrimRight(line, "\n")) {
			s.print("36", "%s%s", indent, part)
			indent = "      "
		}
	}
}

func wrapped(line string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(line) > width {
			at := strings.LastIndexByte(line[:width], ' ')
			if at <= 0 {
				break
			}
			if !yield(line[:at]) {
				return
			}
			line = line[at+1:]
		}
		yield(line)
	}
}

// failure is a part of the demo that did not hold.
type failure struct{ error }

// show is the harness.T of the demo: a failure ends it.
type show struct {
	*screen
	ctx      context.Context
	cleanups []func()
	failed   bool
	cleaning error
}

func (s *show) Helper()                         {}
func (s *show) Context() context.Context        { return s.ctx }
func (s *show) Cleanup(f func())                { s.cleanups = append(s.cleanups, f) }
func (s *show) Failed() bool                    { return s.failed }
func (s *show) Logf(format string, args ...any) { s.quote(fmt.Sprintf(format, args...)) }

// Fatalf ends the demo. It must be called from the goroutine that performs.
func (s *show) Fatalf(format string, args ...any) {
	s.failed = true
	panic(failure{fmt.Errorf(format, args...)})
}

// clean runs the cleanups, the youngest first.
func (s *show) clean() error {
	for _, f := range slices.Backward(s.cleanups) {
		func() {
			defer func() {
				if failed, ok := recover().(failure); ok {
					s.cleaning = errors.Join(s.cleaning, failed)
				}
			}()
			f()
		}()
	}
	return s.cleaning
}
