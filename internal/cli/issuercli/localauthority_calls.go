package issuercli

import (
	"context"

	"google.golang.org/protobuf/proto"

	api "github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
)

func x509States(ctx context.Context, c api.LocalAuthorityClient) (authorityStates, error) {
	return c.GetX509AuthorityState(ctx, &api.GetX509AuthorityStateRequest{})
}

func jwtStates(ctx context.Context, c api.LocalAuthorityClient) (authorityStates, error) {
	return c.GetJWTAuthorityState(ctx, &api.GetJWTAuthorityStateRequest{})
}

func x509Calls() map[string]authorityCall {
	return map[string]authorityCall{
		"prepare": func(ctx context.Context, c api.LocalAuthorityClient, _ string) (proto.Message, *api.AuthorityState, error) {
			r, err := c.PrepareX509Authority(ctx, &api.PrepareX509AuthorityRequest{})
			return r, r.GetPreparedAuthority(), err
		},
		"activate": func(ctx context.Context, c api.LocalAuthorityClient, id string) (proto.Message, *api.AuthorityState, error) {
			r, err := c.ActivateX509Authority(ctx, &api.ActivateX509AuthorityRequest{AuthorityId: id})
			return r, r.GetActivatedAuthority(), err
		},
		"taint": func(ctx context.Context, c api.LocalAuthorityClient, id string) (proto.Message, *api.AuthorityState, error) {
			r, err := c.TaintX509Authority(ctx, &api.TaintX509AuthorityRequest{AuthorityId: id})
			return r, r.GetTaintedAuthority(), err
		},
		"revoke": func(ctx context.Context, c api.LocalAuthorityClient, id string) (proto.Message, *api.AuthorityState, error) {
			r, err := c.RevokeX509Authority(ctx, &api.RevokeX509AuthorityRequest{AuthorityId: id})
			return r, r.GetRevokedAuthority(), err
		},
	}
}

func jwtCalls() map[string]authorityCall {
	return map[string]authorityCall{
		"prepare": func(ctx context.Context, c api.LocalAuthorityClient, _ string) (proto.Message, *api.AuthorityState, error) {
			r, err := c.PrepareJWTAuthority(ctx, &api.PrepareJWTAuthorityRequest{})
			return r, r.GetPreparedAuthority(), err
		},
		"activate": func(ctx context.Context, c api.LocalAuthorityClient, id string) (proto.Message, *api.AuthorityState, error) {
			r, err := c.ActivateJWTAuthority(ctx, &api.ActivateJWTAuthorityRequest{AuthorityId: id})
			return r, r.GetActivatedAuthority(), err
		},
		"taint": func(ctx context.Context, c api.LocalAuthorityClient, id string) (proto.Message, *api.AuthorityState, error) {
			r, err := c.TaintJWTAuthority(ctx, &api.TaintJWTAuthorityRequest{AuthorityId: id})
			return r, r.GetTaintedAuthority(), err
		},
		"revoke": func(ctx context.Context, c api.LocalAuthorityClient, id string) (proto.Message, *api.AuthorityState, error) {
			r, err := c.RevokeJWTAuthority(ctx, &api.RevokeJWTAuthorityRequest{AuthorityId: id})
			return r, r.GetRevokedAuthority(), err
		},
	}
}
