// Package run owns the life of a process that serves: signals, and several roles started in order and stopped in reverse.
// What a role is, and how it drains, is the role's own.
package run

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// StopError is the cause of a context that a signal ended.
type StopError struct{ Signal os.Signal }

func (e *StopError) Error() string { return fmt.Sprintf("stopped by signal %q", e.Signal) }

// Signals gives a context that the first SIGINT or SIGTERM cancels, with a StopError as its cause. A second one says so on
// stderr and ends the process at once by exit(1), which is os.Exit in a main, so that a drain that hangs can be cut short.
// stop gives the signals back and waits for the goroutine behind.
func Signals(parent context.Context, stderr io.Writer, exit func(int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	got := make(chan os.Signal, 2)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case s := <-got:
				if n == 0 {
					cancel(&StopError{Signal: s})
					continue
				}
				fmt.Fprintf(stderr, "second %s: stopping at once\n", s)
				exit(1)
				return
			case <-quit:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(got)
		close(quit)
		<-done
		cancel(nil)
	}
}
