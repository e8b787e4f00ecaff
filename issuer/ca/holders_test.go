package ca_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

// holders is agents, each with the sequence of the bundle that it acknowledged.
type holders struct {
	mu      sync.Mutex
	acks    map[spiffeid.ID]uint64
	changed chan struct{}
}

func newHolders(agents ...spiffeid.ID) *holders {
	h := &holders{acks: map[spiffeid.ID]uint64{}, changed: make(chan struct{})}
	for _, id := range agents {
		h.acks[id] = 0
	}
	return h
}

func (h *holders) Hold(sequence uint64) (missing []spiffeid.ID, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, held := range h.acks {
		if held < sequence {
			missing = append(missing, id)
		}
	}
	return missing, h.changed
}

func (h *holders) ack(id spiffeid.ID, sequence uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acks[id] = sequence
	close(h.changed)
	h.changed = make(chan struct{})
}

var agentOne, agentTwo = spiffeid.RequireFromPath(td, "/spire/agent/one"), spiffeid.RequireFromPath(td, "/spire/agent/two")

func TestActivatesOnceAllAgentsHoldIt(t *testing.T) {
	s := newSite(t)
	h := newHolders(agentOne, agentTwo)
	start := func() *ca.Authority { return s.with(func(cfg *ca.Config) { cfg.Holders = h }) }
	a := start()
	first := hexOf(sign(t, a).AuthorityKeyId)
	s.clock.Set(12 * time.Hour)
	s.advance(a)
	s.clock.Set(13 * time.Hour)
	s.advance(a)
	if hexOf(sign(t, a).AuthorityKeyId) != first {
		t.Fatal("activated before anyone held it")
	}
	sequence := s.state().Bundle.SequenceNumber
	h.ack(agentOne, sequence)
	h.ack(agentTwo, sequence-1)
	s.advance(a)
	plan := a.Plan()
	if len(plan.WaitingFor) != 1 || plan.WaitingFor[0] != agentTwo {
		t.Errorf("waiting for %v, want %v", plan.WaitingFor, agentTwo)
	}
	if hexOf(sign(t, a).AuthorityKeyId) != first {
		t.Fatal("activated before all held it")
	}
	// Also after a restart, which forgets nothing.
	a = start()
	h.ack(agentTwo, sequence)
	s.advance(a)
	if hexOf(sign(t, a).AuthorityKeyId) == first {
		t.Error("all agents hold it and it does not sign")
	}
	states, err := a.JWTState()
	if err != nil || states.Old == nil {
		t.Errorf("the JWT authority did not follow: %+v, %v", states, err)
	}
}

// Whoever joins next may be anyone: nobody to hold it is no reason.
func TestNoAgentsMeansSPIREsPoint(t *testing.T) {
	s := newSite(t)
	a := s.with(func(cfg *ca.Config) { cfg.Holders = newHolders() })
	first := hexOf(sign(t, a).AuthorityKeyId)
	s.clock.Set(12 * time.Hour)
	s.advance(a)
	s.clock.Set(20*time.Hour - time.Second)
	s.advance(a)
	if hexOf(sign(t, a).AuthorityKeyId) != first {
		t.Error("activated early")
	}
	s.clock.Set(20 * time.Hour)
	s.advance(a)
	if hexOf(sign(t, a).AuthorityKeyId) == first {
		t.Error("not activated in time")
	}
}

// Run wakes when the last agent acknowledges, and not at its next look.
func TestRunActivatesAtTheLastAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memory{}
		h := newHolders(agentOne)
		a := ca.New(ca.Config{TrustDomain: td, Keys: ca.NewMemoryKeys(), Journal: journal, Holders: h})
		ctx, cancel := context.WithCancel(t.Context())
		if err := a.Load(ctx); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		time.Sleep(13*time.Hour + 30*time.Second)
		first := hexOf(sign(t, a).AuthorityKeyId)
		h.ack(agentOne, 100)
		time.Sleep(time.Second)
		synctest.Wait()
		if hexOf(sign(t, a).AuthorityKeyId) == first {
			t.Error("the new authority does not sign")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A restored issuer may not be the only one with its keys.
func TestRestoredPreparesAtOnce(t *testing.T) {
	s := newSite(t)
	first := hexOf(sign(t, s.start()).AuthorityKeyId)
	h := newHolders(agentOne)
	a := s.with(func(cfg *ca.Config) { cfg.Holders, cfg.Restored = h, true })
	x, err := a.X509State()
	if err != nil || x.Prepared == nil || x.Active.ID != first {
		t.Fatalf("%+v, %v", x, err)
	}
	j, err := a.JWTState()
	if err != nil || j.Prepared == nil {
		t.Fatalf("%+v, %v", j, err)
	}
	s.advance(a)
	if again, _ := a.X509State(); again.Prepared.ID != x.Prepared.ID {
		t.Error("prepared twice")
	}
	h.ack(agentOne, s.state().Bundle.SequenceNumber)
	s.advance(a)
	if now, _ := a.X509State(); now.Active.ID != x.Prepared.ID {
		t.Errorf("%+v: held and not activated", now)
	}
}

func TestPlanTellsWhatWillHappen(t *testing.T) {
	s := newSite(t)
	if plan := s.open().Plan(); len(plan.Events) != 0 {
		t.Errorf("a plan before anything is loaded: %+v", plan)
	}
	a := s.start()
	var got []string
	for _, e := range a.Plan().Events {
		got = append(got, e.Kind+" "+e.Action+" "+e.At.Sub(epoch).String())
	}
	want := "x509 prepare 12h0m0s, jwt prepare 12h0m0s, x509 activate 20h0m0s, jwt activate 20h0m0s, x509 expire 24h0m0s, jwt expire 24h0m0s"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
	s.clock.Set(21 * time.Hour)
	s.advance(a)
	s.advance(a)
	plan := a.Plan()
	if len(plan.Authorities) != 4 || plan.Authorities[0].Status != "active" || plan.Authorities[1].Status != "prepared" {
		t.Errorf("%+v", plan.Authorities)
	}
}

// With the keys gone, the authority that is made at once is nobody else's.
func TestRestoredWithoutKeysMakesOneAuthority(t *testing.T) {
	s := newSite(t)
	s.start()
	a := s.with(func(cfg *ca.Config) { cfg.Keys, cfg.Restored = ca.NewMemoryKeys(), true })
	s.advance(a)
	states, err := a.X509State()
	if err != nil || states.Prepared != nil {
		t.Errorf("%+v, %v", states, err)
	}
	if n := len(s.bundle()); n != 2 {
		t.Errorf("%d authorities in the bundle, want the lost one and the new one", n)
	}
}
