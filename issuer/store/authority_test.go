package store_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// What an authority needs after a restart is written with the bundle, or not at
// all.
func TestUpdateCAKeepsJWTAuthoritiesAndRevocations(t *testing.T) {
	s := open(t, t.TempDir())
	update := func(change func(*store.CAState) error) (store.CAState, error) {
		var got store.CAState
		_, err := s.UpdateCA(t.Context(), func(c *store.CAState) error {
			err := change(c)
			got = *c
			return err
		})
		return got, err
	}
	want := store.CAState{
		JWTAuthorities: []*storepb.JWTAuthority{
			{AuthorityId: "zz", KeyId: "JWT-Signer-A", PublicKey: []byte("a"), Status: storepb.X509Authority_OLD, IssuedAt: 1, NotAfter: 2},
			{AuthorityId: "aa", KeyId: "JWT-Signer-B", PublicKey: []byte("b"), Status: storepb.X509Authority_ACTIVE, IssuedAt: 2, NotAfter: 3, Eager: true},
		},
		Revoked: []*storepb.RevokedAuthority{{Kind: "jwt", AuthorityId: "xx", ExpiresAt: 9}},
	}
	if _, err := update(func(c *store.CAState) error {
		c.JWTAuthorities = []*storepb.JWTAuthority{want.JWTAuthorities[1], want.JWTAuthorities[0]}
		c.Revoked = want.Revoked
		c.Bundle.JwtAuthorities = []*types.JWTKey{{KeyId: "aa"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got, err := update(func(*store.CAState) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.JWTAuthorities, got.JWTAuthorities, protocmp.Transform()); diff != "" {
		t.Errorf("oldest first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.Revoked, got.Revoked, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got.Bundle.SequenceNumber != 1 {
		t.Errorf("sequence %d after one new authority", got.Bundle.SequenceNumber)
	}
	_, err = update(func(c *store.CAState) error {
		c.Bundle.JwtAuthorities = nil
		c.JWTAuthorities = append(c.JWTAuthorities, c.JWTAuthorities[0])
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), `"zz" is empty or there twice`) {
		t.Errorf("twice the same authority: %v", err)
	}
	got, err = update(func(c *store.CAState) error {
		c.JWTAuthorities, c.Revoked = c.JWTAuthorities[1:], nil
		return nil
	})
	if err != nil || len(got.Bundle.JwtAuthorities) != 1 {
		t.Fatalf("the refused change left its mark: %v, %v", got.Bundle, err)
	}
	if got, _ = update(func(*store.CAState) error { return nil }); len(got.JWTAuthorities) != 1 || len(got.Revoked) != 0 {
		t.Errorf("what was left out is still there: %v", got)
	}
}
