package jwtcache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/nodeagent/internal/jwttest"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtcache"
)

func TestOneTokenForAnIdentityAndItsAudiences(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		first := w.fetch("web", "shop", "bank")
		if again := w.fetch("web", "bank", "shop", "bank"); again.Text != first.Text {
			t.Error("the order of audiences matters")
		}
		w.wantSigned(1, "the same")
		w.fetch("web", "shop")
		w.fetch("db", "shop", "bank")
		w.fetch("web", "shopbank")
		w.wantSigned(4, "others")
		e := entry("web")
		e.JWTSVIDTTL = time.Minute
		if _, err := w.Fetch(t.Context(), e, []string{"shop", "bank"}); err != nil {
			t.Fatal(err)
		}
		w.wantSigned(5, "another life by the entry")
		if _, err := w.Fetch(t.Context(), entry("web"), []string{strings.Repeat("x", 5<<10)}); !errors.Is(err, jwtcache.ErrAudience) {
			t.Errorf("a long audience: %v", err)
		}
	})
}

func TestRenewedOnUseAtHalfLife(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		first := w.fetch("web", "shop")
		time.Sleep(149 * time.Second)
		if w.fetch("web", "shop").Text != first.Text {
			t.Error("renewed before half its life was over")
		}
		time.Sleep(2 * time.Second)
		if w.fetch("web", "shop").Text == first.Text {
			t.Error("not renewed after half its life")
		}
		time.Sleep(time.Hour)
		w.wantSigned(2, "unused for an hour")
		w.fetch("web", "shop")
		w.wantSigned(3, "after an hour")
	})
}

func TestKeptTokenServesWhileTheIssuerIsAway(t *testing.T) {
	for name, down := range map[string]error{"away": away, "trouble": errors.New("x"), "the agent is refused": status.Error(codes.PermissionDenied, "x")} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 0, func(t *testing.T, w *world) {
				first := w.fetch("web", "shop")
				w.issuer.set(func(s *issuer) { s.down = down })
				for at := time.Now(); time.Since(at) < 5*time.Minute-time.Second; time.Sleep(10 * time.Second) {
					began := time.Now()
					if w.fetch("web", "shop").Text != first.Text || time.Since(began) > 5*time.Second {
						t.Fatalf("after %s", time.Since(at))
					}
				}
				time.Sleep(time.Until(first.ExpiresAt))
				if _, err := w.Fetch(t.Context(), entry("web"), []string{"shop"}); err == nil {
					t.Error("a token was served that has expired")
				}
				w.issuer.set(func(s *issuer) { s.down = nil })
				w.fetch("web", "shop")
			})
		})
	}
}

// An issuer that says nothing holds nobody up for long while there is a good token.
func TestSlowIssuer(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		hold := make(chan struct{})
		w.issuer.set(func(s *issuer) { s.hold = hold })
		began := time.Now()
		if _, err := w.Fetch(t.Context(), entry("web"), []string{"shop"}); err == nil || time.Since(began) != 5*time.Second {
			t.Errorf("nothing kept: %v after %s", err, time.Since(began))
		}
		w.issuer.set(func(s *issuer) { s.hold = nil })
		first := w.fetch("web", "shop")
		w.issuer.set(func(s *issuer) { s.hold = hold })
		time.Sleep(3 * time.Minute)
		began = time.Now()
		if w.fetch("web", "shop").Text != first.Text || time.Since(began) != time.Second {
			t.Errorf("past half its life: after %s", time.Since(began))
		}
		close(hold)
		synctest.Wait()
		began = time.Now()
		if w.fetch("web", "shop").Text == first.Text || time.Since(began) != 0 {
			t.Error("the late token was not kept")
		}
		w.wantSigned(3, "in all")
	})
}

func TestWaitsForAnIssuerThatComesBack(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		w.issuer.set(func(s *issuer) { s.down = away })
		time.AfterFunc(3*time.Second, func() { w.issuer.set(func(s *issuer) { s.down = nil }) })
		w.fetch("web", "shop")
		w.issuer.set(func(s *issuer) { s.down = away })
		began := time.Now()
		_, err := w.Fetch(t.Context(), entry("db"), []string{"shop"})
		if status.Code(err) != codes.Unavailable || time.Since(began) != 5*time.Second {
			t.Errorf("away for good: %v after %s", err, time.Since(began))
		}
	})
}

func TestOneRequestForAllThatWait(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		hold := make(chan struct{})
		w.issuer.set(func(s *issuer) { s.hold = hold })
		first, leave := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		callers.Go(func() {
			if _, err := w.Fetch(first, entry("web"), []string{"shop"}); !errors.Is(err, context.Canceled) {
				t.Errorf("who left: %v", err)
			}
		})
		synctest.Wait()
		for range 50 {
			callers.Go(func() {
				if _, err := w.Fetch(t.Context(), entry("web"), []string{"shop"}); err != nil {
					t.Errorf("who waits: %v", err)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(hold)
		callers.Wait()
		w.wantSigned(1, "51 callers")
	})
}

func TestLeastRecentlyUsedGoFirst(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		for i := range 3 {
			w.fetch(fmt.Sprint(i), "shop")
		}
		w.fetch("0", "shop")
		w.fetch("3", "shop")
		w.wantSigned(4, "four")
		if n := w.Len(); n != 3 {
			t.Errorf("keeps %d", n)
		}
		w.fetch("0", "shop")
		w.wantSigned(4, "used lately")
		w.fetch("1", "shop")
		w.wantSigned(5, "used longest ago")
	})
}

func TestNotKept(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		e := entry("web")
		e.JWTSVIDIncludeJTI = true
		for range 2 {
			if _, err := w.Fetch(t.Context(), e, []string{"shop"}); err != nil {
				t.Fatal(err)
			}
		}
		w.wantSigned(2, "each with its jti")
		if n := w.Len(); n != 0 {
			t.Errorf("keeps %d tokens with jti", n)
		}
	})
	inWorld(t, -1, func(t *testing.T, w *world) {
		w.fetch("web", "shop")
		if n := w.Len(); n != 0 {
			t.Errorf("keeps %d without room", n)
		}
	})
}

func TestTokensOfATaintedKeyAreDropped(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		old := w.fetch("web", "shop")
		next := jwttest.New(t, "example.org", "k2")
		w.Apply(w.issuer.a.Bundle(next))
		if w.Len() != 1 {
			t.Error("dropped for a key more")
		}
		w.issuer.set(func(s *issuer) { s.a = next })
		w.Apply(next.Bundle())
		if w.Len() != 0 || w.fetch("web", "shop").KeyID == old.KeyID {
			t.Error("a token of a key that is no more")
		}
		time.Sleep(time.Hour)
		w.Apply(next.Bundle())
		if w.Len() != 0 {
			t.Error("keeps what has expired")
		}
	})
}

func TestTheIssuersLastWord(t *testing.T) {
	inWorld(t, 0, func(t *testing.T, w *world) {
		w.fetch("web", "shop")
		time.Sleep(3 * time.Minute)
		w.issuer.set(func(s *issuer) { s.down = status.Error(codes.NotFound, "entry not found or not authorized") })
		if _, err := w.Fetch(t.Context(), entry("web"), []string{"shop"}); status.Code(err) != codes.NotFound || w.Len() != 0 {
			t.Errorf("the entry is gone: %v, keeps %d", err, w.Len())
		}
		w.issuer.set(func(s *issuer) { s.down, s.other = nil, "spiffe://example.org/admin" })
		if _, err := w.Fetch(t.Context(), entry("web"), []string{"shop"}); err == nil || !strings.Contains(err.Error(), "instead of") {
			t.Errorf("another's token: %v", err)
		}
		w.issuer.set(func(s *issuer) { s.other, s.life = "", -time.Second })
		if _, err := w.Fetch(t.Context(), entry("web"), []string{"shop"}); err == nil || !strings.Contains(err.Error(), "compare the clocks") {
			t.Errorf("an expired token: %v", err)
		}
	})
}
