package svidcache

import (
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// TestOneChangeAmongMany keeps the cost of one entry's change from being that of
// all: looking at each of them once would take longer than is granted here, and
// what is done takes a hundredth of it.
func TestOneChangeAmongMany(t *testing.T) {
	const n = 50_000
	c := New(Config{TrustDomain: spiffeid.RequireTrustDomainFromString("example.org"), MaxSize: 10})
	entries := many(n)
	c.Apply(upstream.Update{Whole: true, Entries: entries})
	for i := range 500 {
		defer c.Subscribe(service(i)).Close()
	}
	var took []time.Duration
	for i := range 101 {
		e := entries[i]
		e.Revision, e.Hint = 1, "h"
		began := time.Now()
		c.Apply(upstream.Update{Entries: []registration.Entry{e}})
		c.Apply(upstream.Update{Removed: []string{e.ID}})
		c.plan()
		c.Stats()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > 500*time.Microsecond {
		t.Errorf("a change among %d entries takes %s", n, median)
	}
}
