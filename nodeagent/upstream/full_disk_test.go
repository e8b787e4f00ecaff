package upstream_test

import (
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/spiretest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// An agent that joined by token outlives its SVID on a full disk, and starts again
// once it could be written.
func TestGuardAFullDiskDoesNotCostTheSVID(t *testing.T) {
	disk := upstream.NewDisk(t)
	s := spiretest.New(t, "example.org")
	s.Set(func(sw *spiretest.Switches) { sw.AgentTTL = 2 * time.Second })
	cfg := config(s, disk.Dir, s.Token("tok", time.Hour))
	written := newSignal("on disk again")
	cfg.Log = logTo(written)
	a := start(t, cfg)
	a.drain()
	s.Await("the agent, joined", func() bool { return s.Calls("Watch") > 0 })
	joined, _ := s.Serials(s.AgentID("tok"))
	disk.Fill()
	s.Await("renewals for longer than that lives", func() bool {
		serial, _ := s.Serials(s.AgentID("tok"))
		return s.Calls("RenewAgent") > 2 && serial.Cmp(joined) != 0
	})
	disk.Free()
	select {
	case <-written.seen:
	case <-time.After(time.Minute):
		t.Fatal("not written in a minute")
	}
	a.stop()
	start(t, config(s, disk.Dir, "")).synced()
}

// An agent that is evicted while its disk is full attests again, and goes on.
func TestAttestsAgainOnAFullDisk(t *testing.T) {
	disk := upstream.NewDisk(t)
	s := spiretest.New(t, "example.org")
	cfg := popConfig(t, s, disk.Dir)
	a := start(t, cfg)
	a.synced()
	a.drain()
	disk.ReadOnly(true) // where nothing can be deleted either
	s.Evict(a.ID())
	s.Await("the agent, again", func() bool { return s.Calls("AttestAgent") == 2 && s.Calls("Watch") > 1 })
	a.stop()
	disk.ReadOnly(false)
	start(t, cfg).synced()
	if n := s.Calls("AttestAgent"); n > 3 {
		t.Errorf("attested %d times", n)
	}
}
