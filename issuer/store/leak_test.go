package store_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// leaked returns the stacks of goroutines of etcd and of the store.
func leaked() (stacks []string) {
	buf := make([]byte, 4<<20)
	all := string(buf[:runtime.Stack(buf, true)])
	for stack := range strings.SplitSeq(all, "\n\n") {
		if strings.Contains(stack, "go.etcd.io/") || strings.Contains(stack, "issuer/store.(") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// It runs alone: the tests that open stores beside others wait for it.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	if before := leaked(); len(before) > 0 {
		t.Skip("other stores are open")
	}
	s := open(t, t.TempDir())
	create(t, s, entry("web"))
	done := make(chan error)
	go func() { done <- s.Watch(t.Context(), 0, func(store.Batch) error { return nil }) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, store.ErrClosed) {
		t.Errorf("watch: %v", err)
	}
	// Some end a moment after what they were waited for with.
	deadline := time.Now().Add(10 * time.Second)
	for len(leaked()) > 0 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	for _, stack := range leaked() {
		t.Errorf("left after Close:\n%s", stack)
	}
}
