package workload_test

import (
	"context"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/workload"
	"github.com/lanyard-mtls/lanyard/internal/workload/workloadtest"
)

// start runs a client of s until the test ends, and checks that Run returns.
func start(t *testing.T, s *workloadtest.Server, change ...func(*workload.Config)) *workload.Client {
	t.Helper()
	cfg := workload.Config{Addr: s.Addr(), MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	c, err := workload.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// until waits for a state that ok accepts.
func until(t *testing.T, c *workload.Client, what string, ok func(workload.State) bool) workload.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		s, changed := c.Observe()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("never saw %s; last state: connected %v, held %v, error %v", what, s.Connected, s.Context != nil, s.Err)
		}
	}
}

func connected(s workload.State) bool { return s.Connected && s.Err == nil }

func holds(svid *x509svid.SVID) func(workload.State) bool {
	return func(s workload.State) bool {
		return s.Context != nil && s.Context.Default().Certificates[0].Equal(svid.Certificates[0])
	}
}
