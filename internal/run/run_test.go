package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) role(name string) Role {
	return Role{Name: name, Run: func(ctx context.Context, ready func()) error {
		j.add("start %s", name)
		ready()
		ready() // harmless
		<-ctx.Done()
		j.add("stop %s", name)
		return ctx.Err()
	}}
}

func TestInOrderStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithCancel(t.Context())
		end := make(chan error, 1)
		go func() { end <- InOrder(ctx, j.role("a"), j.role("b"), j.role("c")) }()
		synctest.Wait()
		cancel()
		if err := <-end; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"start a", "start b", "start c", "stop c", "stop b", "stop a"}, j.lines); diff != "" {
			t.Error(diff)
		}
	})
}

func TestInOrderNamesTheRoleThatFailed(t *testing.T) {
	var j journal
	broken := errors.New("disk on fire")
	err := InOrder(t.Context(), j.role("a"), Role{Name: "b", Run: func(context.Context, func()) error { return broken }}, j.role("c"))
	if !errors.Is(err, broken) || err.Error() != "b: disk on fire" {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"start a", "stop a"}, j.lines); diff != "" {
		t.Error(diff)
	}
}

func TestInOrderTakesAnEndWithoutReasonAsAFault(t *testing.T) {
	err := InOrder(t.Context(), Role{Name: "a", Run: func(_ context.Context, ready func()) error { ready(); return nil }})
	if err == nil || err.Error() != "a ended by itself" {
		t.Errorf("got %v", err)
	}
}

func TestInOrderStopsWhileOneIsStillStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithCancel(t.Context())
		end := make(chan error, 1)
		slow := Role{Name: "slow", Run: func(ctx context.Context, _ func()) error { <-ctx.Done(); return errors.New("half way") }}
		go func() { end <- InOrder(ctx, j.role("a"), slow, j.role("c")) }()
		synctest.Wait()
		cancel()
		if err := <-end; err == nil || err.Error() != "slow: half way" {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff([]string{"start a", "stop a"}, j.lines); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSignalsCancelThenExit(t *testing.T) {
	var stderr bytes.Buffer
	exited := make(chan int, 1)
	ctx, stop := Signals(t.Context(), &stderr, func(code int) { exited <- code })
	kill(t)
	<-ctx.Done()
	if cause, ok := errors.AsType[*StopError](context.Cause(ctx)); !ok || cause.Signal != syscall.SIGTERM {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	kill(t)
	if code := <-exited; code != 1 {
		t.Errorf("exit code %d", code)
	}
	stop()
	if !strings.Contains(stderr.String(), "second terminated: stopping at once") {
		t.Errorf("stderr %q", stderr.String())
	}
}

func TestSignalsStopLeavesNothingBehind(t *testing.T) {
	ctx, stop := Signals(t.Context(), &bytes.Buffer{}, func(int) { t.Error("exit") })
	stop()
	if context.Cause(ctx) != context.Canceled {
		t.Errorf("cause %v", context.Cause(ctx))
	}
}

func kill(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}
