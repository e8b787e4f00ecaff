package serverapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
)

func TestX509AuthorityByHand(t *testing.T) {
	r := newRig(t)
	ctx, c := t.Context(), localauthorityv1.NewLocalAuthorityClient(r.local())
	activate := func(id string) error {
		_, err := c.ActivateX509Authority(ctx, &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: id})
		return err
	}
	taint := func(id string) error {
		_, err := c.TaintX509Authority(ctx, &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: id})
		return err
	}
	revoke := func(id string) error {
		_, err := c.RevokeX509Authority(ctx, &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: id})
		return err
	}
	states, err := c.GetX509AuthorityState(ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
	must(t, err)
	first := states.GetActive().GetAuthorityId()
	if first == "" || states.Active.ExpiresAt == 0 || states.Prepared != nil || states.Old != nil {
		t.Fatalf("states = %v", states)
	}
	wantStatus(t, activate(""), codes.InvalidArgument, "no authority ID provided")
	wantStatus(t, activate("none"), codes.InvalidArgument, "unexpected authority ID")
	wantStatus(t, taint(""), codes.InvalidArgument, "no authority ID provided")
	wantStatus(t, taint(first), codes.InvalidArgument, "unable to taint current local authority")
	wantStatus(t, revoke(first), codes.InvalidArgument, "invalid authority ID: unable to use current authority")
	wantStatus(t, revoke(""), codes.InvalidArgument, "invalid authority ID: no authority ID provided")

	prepared, err := c.PrepareX509Authority(ctx, &localauthorityv1.PrepareX509AuthorityRequest{})
	must(t, err)
	second := prepared.GetPreparedAuthority().GetAuthorityId()
	if n := len(r.deps.Registry.Bundle().X509Authorities); n != 2 || second == first || prepared.PreparedAuthority.ExpiresAt == 0 {
		t.Errorf("%d authorities in the bundle; prepared %v", n, prepared)
	}
	wantStatus(t, taint(second), codes.InvalidArgument, "only Old local authorities can be tainted: unsupported local authority status: PREPARED")
	must(t, activate(second))
	states, err = c.GetX509AuthorityState(ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
	must(t, err)
	if states.GetActive().GetAuthorityId() != second || states.GetOld().GetAuthorityId() != first || states.Prepared != nil {
		t.Errorf("states = %v", states)
	}
	wantStatus(t, activate(first), codes.Internal, "only Prepared authorities can be activated: unsupported local authority status: OLD")
	if err := revoke(first); status.Code(err) != codes.Internal || !strings.HasPrefix(status.Convert(err).Message(), "failed to revoke X.509 authority: ") {
		t.Errorf("revoked untainted: %v", err)
	}
	must(t, taint(first))
	must(t, revoke(first))
	if b := r.deps.Registry.Bundle(); len(b.X509Authorities) != 1 {
		t.Errorf("bundle = %v", b)
	}
	for _, method := range []string{"PrepareX509Authority", "ActivateX509Authority", "TaintX509Authority", "RevokeX509Authority"} {
		want := fmt.Sprintf("LocalAuthority/%s caller=local", method)
		if n := strings.Count(r.log.String(), want); n == 0 {
			t.Errorf("the log has no %q", want)
		}
	}
	for _, id := range []string{first, second} {
		if !strings.Contains(r.log.String(), "local_authority_id="+id) {
			t.Errorf("the log does not name authority %s", id)
		}
	}
	_, err = c.TaintX509UpstreamAuthority(ctx, &localauthorityv1.TaintX509UpstreamAuthorityRequest{SubjectKeyId: "AB"})
	wantStatus(t, err, codes.FailedPrecondition, "upstream authority is not configured")
	_, err = c.RevokeX509UpstreamAuthority(ctx, &localauthorityv1.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: "AB"})
	wantStatus(t, err, codes.FailedPrecondition, "upstream authority is not configured")
}

func TestJWTAuthorityByHand(t *testing.T) {
	r := newRig(t)
	ctx, c := t.Context(), localauthorityv1.NewLocalAuthorityClient(r.local())
	states, err := c.GetJWTAuthorityState(ctx, &localauthorityv1.GetJWTAuthorityStateRequest{})
	must(t, err)
	first := states.GetActive().GetAuthorityId()
	prepared, err := c.PrepareJWTAuthority(ctx, &localauthorityv1.PrepareJWTAuthorityRequest{})
	must(t, err)
	second := prepared.GetPreparedAuthority().GetAuthorityId()
	activated, err := c.ActivateJWTAuthority(ctx, &localauthorityv1.ActivateJWTAuthorityRequest{AuthorityId: second})
	if err != nil || activated.GetActivatedAuthority().GetAuthorityId() != second || activated.ActivatedAuthority.ExpiresAt == 0 {
		t.Errorf("activated %v, %v", activated, err)
	}
	_, err = c.RevokeJWTAuthority(ctx, &localauthorityv1.RevokeJWTAuthorityRequest{AuthorityId: second})
	wantStatus(t, err, codes.InvalidArgument, "invalid authority ID: unable to use current authority")
	tainted, err := c.TaintJWTAuthority(ctx, &localauthorityv1.TaintJWTAuthorityRequest{AuthorityId: first})
	if err != nil || tainted.GetTaintedAuthority().String() != (&localauthorityv1.AuthorityState{AuthorityId: first}).String() {
		t.Errorf("tainted %v, %v", tainted, err)
	}
	if keys := r.deps.Registry.Bundle().JwtAuthorities; len(keys) != 2 || !tainted1(keys, first) || tainted1(keys, second) {
		t.Errorf("keys = %v", keys)
	}
	revoked, err := c.RevokeJWTAuthority(ctx, &localauthorityv1.RevokeJWTAuthorityRequest{AuthorityId: first})
	if err != nil || revoked.GetRevokedAuthority().GetAuthorityId() != first {
		t.Errorf("revoked %v, %v", revoked, err)
	}
	if keys := r.deps.Registry.Bundle().JwtAuthorities; len(keys) != 1 {
		t.Errorf("keys = %v", keys)
	}
}

func tainted1(keys []*types.JWTKey, id string) bool {
	for _, key := range keys {
		if key.GetKeyId() == id {
			return key.GetTainted()
		}
	}
	return false
}

func TestLocalAuthorityWithout(t *testing.T) {
	r := newRig(t)
	c := localauthorityv1.NewLocalAuthorityClient(r.local())
	_, err := c.GetWITAuthorityState(t.Context(), &localauthorityv1.GetWITAuthorityStateRequest{})
	wantStatus(t, err, codes.Unimplemented, "WIT-SVID functionality is not yet implemented")

	// Before the first authority, and without JWT.
	empty := NewLocalAuthorityService(Deps{TrustDomain: td, CA: ca.New(ca.Config{TrustDomain: td})})
	_, err = empty.GetX509AuthorityState(t.Context(), nil)
	wantStatus(t, err, codes.Unavailable, "server is initializing")
	_, err = empty.PrepareX509Authority(t.Context(), nil)
	wantStatus(t, err, codes.Unavailable, "server is initializing")
	noJWT := NewLocalAuthorityService(Deps{TrustDomain: td, CA: ca.New(ca.Config{TrustDomain: td, DisableJWT: true})})
	_, err = noJWT.GetJWTAuthorityState(t.Context(), nil)
	wantStatus(t, err, codes.Unimplemented, "JWT functionality is disabled")
	_, err = noJWT.RevokeJWTAuthority(t.Context(), &localauthorityv1.RevokeJWTAuthorityRequest{AuthorityId: "x"})
	wantStatus(t, err, codes.Unimplemented, "JWT functionality is disabled")
}

func TestAuthorityErrors(t *testing.T) {
	for err, code := range map[error]codes.Code{
		ca.ErrAuthorityID: codes.InvalidArgument, ca.ErrAuthorityState: codes.Internal, ca.ErrUpstream: codes.FailedPrecondition,
		ca.ErrJWTDisabled: codes.Unimplemented, ca.ErrNotReady: codes.Unavailable, errors.New("x"): codes.Internal,
		context.Canceled: codes.Canceled, context.DeadlineExceeded: codes.DeadlineExceeded,
	} {
		wantStatus(t, authorityError(fmt.Errorf("it: %w", err)), code, "it: "+err.Error())
	}
}
