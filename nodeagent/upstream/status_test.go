package upstream_test

import (
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
)

func TestIssuerIsToldVersionAndBundle(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
	cfg := config(s, t.TempDir(), s.Token("tok", time.Hour))
	cfg.Version = "lanyard/v1.2.3"
	a := start(t, cfg)
	a.synced()
	a.drain()
	posts := func(n int) func() bool { return func() bool { return len(s.Posted()) >= n } }
	s.Await("the first status", posts(1))
	s.AddAuthority()
	s.Await("the status with the new bundle", posts(2))
	s.Stop() // and all that it was told is forgotten
	s.Start()
	s.Await("the status over the new connection", posts(3))
	calls := s.Calls("SyncAuthorizedEntries")
	s.Await("more syncs", func() bool { return s.Calls("SyncAuthorizedEntries") > calls+3 })
	all := s.Posted()
	if len(all) > 4 { // two, where the connection broke between two calls
		t.Errorf("%d statuses were posted", len(all))
	}
	for i, want := range []uint64{1, 2, 2} {
		if all[i].CurrentBundleSerial != want || all[i].AgentVersion != "lanyard/v1.2.3" {
			t.Errorf("status %d: %v, want bundle %d", i, all[i], want)
		}
	}
}

func TestIssuerWithoutPostStatus(t *testing.T) {
	s := spiretest.New(t, "example.org")
	pollOnly(s)
	s.Set(func(sw *spiretest.Switches) { sw.NoStatus = true })
	a := start(t, config(s, t.TempDir(), s.Token("tok", time.Hour)))
	a.synced()
	a.drain()
	calls := s.Calls("SyncAuthorizedEntries")
	s.Await("more syncs", func() bool { return s.Calls("SyncAuthorizedEntries") > calls+3 })
	if n := s.Calls("PostStatus"); n != 1 {
		t.Errorf("tried %d times", n)
	}
}
