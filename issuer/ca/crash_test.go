package ca_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// crasher is a journal on the real store that fails at one write, before it or
// after it with the reply lost, as a crash there looks to who starts next.
type crasher struct {
	*site
	writes, at int
	after      bool
	crashed    bool
}

func (c *crasher) UpdateCA(ctx context.Context, change func(*store.CAState) error) (store.Revision, error) {
	var writes, crash bool
	rev, err := c.store.UpdateCA(ctx, func(s *store.CAState) error {
		was := fingerprint(s)
		err := change(s)
		writes = err == nil && fingerprint(s) != was
		if crash = writes && c.writes+1 == c.at; crash && !c.after {
			return errBroken
		}
		return err
	})
	if writes {
		c.writes++
	}
	if crash {
		c.crashed = true
		return 0, errBroken
	}
	return rev, err
}

// open is a new process on what the last one left.
func (c *crasher) open() *ca.Authority {
	c.t.Helper()
	keys, err := ca.OpenKeys(c.keyFile())
	if err != nil {
		c.t.Fatal(err)
	}
	return ca.New(ca.Config{TrustDomain: td, Keys: keys, Journal: c, Now: c.clock.Now})
}

// TestCrashAtEachWrite goes through first start, rotation on the timeline and an
// incident handled by hand, with a crash at the Nth write, for every N. Whoever
// goes on where it stopped gets there, and at no time is anything signed that
// the bundle does not vouch for.
func TestCrashAtEachWrite(t *testing.T) {
	whole := &crasher{site: newSite(t)}
	whole.incident(t)
	if whole.writes < 9 {
		t.Fatalf("only %d writes", whole.writes)
	}
	for at := 1; at <= whole.writes; at++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, after=%v", at, after), func(t *testing.T) {
				t.Parallel()
				c := &crasher{site: newSite(t), at: at, after: after}
				c.incident(t)
				if !c.crashed {
					t.Error("there was no such write")
				}
			})
		}
	}
}

func (c *crasher) incident(t *testing.T) {
	a := c.open()
	// again starts another process after an error of the crash.
	again := func(err error) {
		t.Helper()
		if err == nil {
			return
		}
		if !c.crashed {
			t.Fatal(err)
		}
		a = c.open()
		if err := a.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, hour := range []int{0, 13, 21} {
		c.clock.Set(time.Duration(hour) * time.Hour)
		again(a.Load(t.Context()))
		again(a.Load(t.Context()))
		c.vouched(t, a)
	}
	states, err := a.X509State()
	if err != nil {
		t.Fatal(err)
	}
	bad := states.Active.ID
	for step := 0; published(c.site, "x509", bad); step++ {
		if step > 8 {
			t.Fatalf("the incident never ends: %+v", states)
		}
		if states, err = a.X509State(); err != nil {
			t.Fatal(err)
		}
		switch {
		case states.Active.ID == bad && states.Prepared == nil:
			_, err = a.PrepareX509(t.Context())
		case states.Active.ID == bad:
			_, err = a.ActivateX509(t.Context(), states.Prepared.ID)
		case !tainted(c.site, "x509", bad):
			_, err = a.TaintX509(t.Context(), bad)
		default:
			_, err = a.RevokeX509(t.Context(), bad)
		}
		again(err)
		c.vouched(t, a)
	}
}

// vouched checks that the bundle has what signs, for both kinds.
func (c *crasher) vouched(t *testing.T, a *ca.Authority) {
	t.Helper()
	leaf := sign(t, a)
	if root := c.bundle()[string(leaf.AuthorityKeyId)]; root == nil || leaf.CheckSignatureFrom(root) != nil {
		t.Fatal("the X.509 authority that signs is not in the bundle")
	}
	svid, err := a.SignJWTSVID(t.Context(), ca.JWTParams{ID: web, Audience: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if kid := part(t, svid.Token, 0)["kid"].(string); !published(c.site, "jwt", kid) {
		t.Fatal("the JWT authority that signs is not in the bundle")
	}
}
