package sidecar_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

// journal keeps log records and lets tests wait for them.
type journal struct {
	t       testing.TB
	mu      sync.Mutex
	records []map[string]any // guarded by mu
	changed chan struct{}    // guarded by mu
}

func newJournal(t testing.TB) *journal { return &journal{t: t, changed: make(chan struct{})} }

func (j *journal) Write(line []byte) (int, error) {
	rec := map[string]any{}
	if err := json.Unmarshal(line, &rec); err != nil {
		j.t.Errorf("log line %q: %v", line, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, rec)
	close(j.changed)
	j.changed = make(chan struct{})
	return len(line), nil
}

// connections waits until there are n connection records and returns them.
func (j *journal) connections(n int) []map[string]any {
	j.t.Helper()
	return j.await("connection", n)
}

func (j *journal) await(msg string, n int) []map[string]any {
	j.t.Helper()
	timeout := time.After(limit)
	for {
		j.mu.Lock()
		var found []map[string]any
		for _, rec := range j.records {
			if rec["msg"] == msg {
				found = append(found, rec)
			}
		}
		changed := j.changed
		j.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-changed:
		case <-timeout:
			j.t.Fatalf("%d records %q, want %d\n%s", len(found), msg, n, stacks())
		}
	}
}

// count is how many connection records there are now.
func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, rec := range j.records {
		if rec["msg"] == "connection" {
			n++
		}
	}
	return n
}

// want checks fields of the only connection record.
func (j *journal) want(fields map[string]any) map[string]any {
	j.t.Helper()
	recs := j.connections(1)
	if len(recs) != 1 {
		j.t.Fatalf("%d records, want 1: %v", len(recs), recs)
	}
	for k, want := range fields {
		got := recs[0][k]
		if s, ok := want.(string); ok && strings.HasPrefix(s, "~") {
			if text, _ := got.(string); !strings.Contains(text, s[1:]) {
				j.t.Errorf("record has %s=%q, want it to contain %q", k, got, s[1:])
			}
		} else if n, ok := want.(int); ok {
			if got != float64(n) {
				j.t.Errorf("record has %s=%v, want %d", k, got, n)
			}
		} else if got != want {
			j.t.Errorf("record has %s=%v, want %v", k, got, want)
		}
	}
	return recs[0]
}
