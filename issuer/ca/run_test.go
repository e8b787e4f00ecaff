package ca_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// memory is a journal for a bubble of synctest, in which etcd cannot live: its
// ticks would keep the bubble's clock at 10 ms steps for days.
type memory struct {
	mu       sync.Mutex
	state    store.CAState
	revision store.Revision
	broken   bool
}

func (m *memory) UpdateCA(_ context.Context, change func(*store.CAState) error) (store.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state := store.CAState{Bundle: &types.Bundle{}}
	proto.Merge(state.Bundle, m.state.Bundle)
	for _, a := range m.state.Authorities {
		state.Authorities = append(state.Authorities, proto.Clone(a).(*storepb.X509Authority))
	}
	for _, a := range m.state.JWTAuthorities {
		state.JWTAuthorities = append(state.JWTAuthorities, proto.Clone(a).(*storepb.JWTAuthority))
	}
	was := fingerprint(&state)
	if err := change(&state); err != nil {
		return 0, err
	}
	if m.broken && fingerprint(&state) != was {
		return 0, errBroken
	}
	if fingerprint(&state) != was {
		m.revision++
		state.Bundle.SequenceNumber = uint64(m.revision)
	}
	m.state = state
	return m.revision, nil
}

func (m *memory) setBroken(broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
}

// TestRunRotates lets Run's own timers fire for two days. The journal cannot be
// written when the first rotation is due, and for two hours more.
func TestRunRotates(t *testing.T) {
	keys, err := ca.OpenKeys(filepath.Join(t.TempDir(), "keys", "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		journal := &memory{}
		a := ca.New(ca.Config{TrustDomain: td, Keys: keys, Journal: journal})
		ctx, cancel := context.WithCancel(t.Context())
		if err := a.Load(ctx); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		signers := map[string]bool{}
		serials := map[string]bool{}
		for hour := range 48 {
			journal.setBroken(hour >= 11 && hour < 14)
			time.Sleep(time.Hour)
			signers[string(sign(t, a).AuthorityKeyId)] = true
			own, err := a.SVID()
			if err != nil {
				t.Fatal(err)
			}
			if !time.Now().Before(own.Certificates[0].NotAfter) {
				t.Fatalf("hour %d: the issuer's own SVID has expired", hour)
			}
			serials[own.Certificates[0].SerialNumber.String()] = true
		}
		if len(signers) != 4 {
			t.Errorf("%d authorities signed in two days, want 4", len(signers))
		}
		if len(serials) != 48 {
			t.Errorf("%d SVIDs of the issuer's own were seen, want a new one each hour", len(serials))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}
