package conformance

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/agentv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	la "github.com/lanyard-mtls/lanyard/internal/spireapi/localauthorityv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/svidv1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

func shortChecks() []Check { return []Check{{"short/expired agent", expiredAgent}} }

// expiredAgent goes on with a connection that it made in time.
func expiredAgent(c *C) {
	a := c.join()
	c.must(a.post(c))
	cert := a.svid.Certificates[0]
	c.validity(cert, 4*time.Second)
	c.sleepUntil(cert.NotAfter.Add(1100 * time.Millisecond))
	c.access(caller{"expired agent", "none", a.conn, types.PermissionDeniedDetails_AGENT_EXPIRED})
	c.noHandshake(caller{conn: c.dial(a.svid)})
	got, err := c.agents.GetAgent(c.ctx, &agentv1.GetAgentRequest{Id: a.id})
	c.must(err) // it is still known, and may be renewed by an operator's eviction only
	c.equal("serial number", got.X509SvidSerialNumber, cert.SerialNumber.String())
}

func noJWTChecks() []Check {
	return []Check{
		{"nojwt/refused", jwtDisabled},
		{"bundle/append an empty certificate", appendEmpty},
	}
}

// jwtDisabled wants every call that would make a JWT refused, and no key in the bundle.
func jwtDisabled(c *C) {
	a, authority, id := c.join(), la.NewLocalAuthorityClient(c.conn), "x"
	for what, call := range map[string]func(ctx context.Context) error{
		"NewJWTSVID": func(ctx context.Context) error {
			_, err := a.svids.NewJWTSVID(ctx, &svidv1.NewJWTSVIDRequest{EntryId: id, Audience: []string{"a"}})
			return err
		},
		"MintJWTSVID": func(ctx context.Context) error {
			_, err := c.svids.MintJWTSVID(ctx, &svidv1.MintJWTSVIDRequest{Id: c.pid("/a"), Audience: []string{"a"}})
			return err
		},
		"GetJWTAuthorityState": func(ctx context.Context) error {
			_, err := authority.GetJWTAuthorityState(ctx, &la.GetJWTAuthorityStateRequest{})
			return err
		},
		"PrepareJWTAuthority": func(ctx context.Context) error {
			_, err := authority.PrepareJWTAuthority(ctx, &la.PrepareJWTAuthorityRequest{})
			return err
		},
		"ActivateJWTAuthority": func(ctx context.Context) error {
			_, err := authority.ActivateJWTAuthority(ctx, &la.ActivateJWTAuthorityRequest{AuthorityId: id})
			return err
		},
		"TaintJWTAuthority": func(ctx context.Context) error {
			_, err := authority.TaintJWTAuthority(ctx, &la.TaintJWTAuthorityRequest{AuthorityId: id})
			return err
		},
		"RevokeJWTAuthority": func(ctx context.Context) error {
			_, err := authority.RevokeJWTAuthority(ctx, &la.RevokeJWTAuthorityRequest{AuthorityId: id})
			return err
		},
	} {
		err := call(c.ctx)
		if c.refused(err, codes.Unimplemented, "JWT functionality is disabled"); c.Failed() {
			c.Log("by ", what)
		}
	}
	c.equal("JWT keys in the bundle", len(c.rawBundle().JwtAuthorities), 0)
	c.mint("/still/good")
}

func limitChecks() []Check {
	return []Check{
		{"limits/more than the burst", limitBurst},
		{"limits/many agents behind one address", limitJoins},
	}
}

// limitBurst asks for more at once than may be waited for.
func limitBurst(c *C) {
	a := c.join()
	params := make([]*svidv1.NewX509SVIDParams, 501)
	for i := range params {
		params[i] = &svidv1.NewX509SVIDParams{EntryId: "unheard-of", Csr: []byte("x")}
	}
	_, err := a.svids.BatchNewX509SVID(c.ctx, &svidv1.BatchNewX509SVIDRequest{Params: params})
	c.refused(err, codes.ResourceExhausted, c.words(
		"rejecting request due to certificate signing rate limiting: rate (501) exceeds burst size (500)", "…"))
	for range 12 { // PostStatus has a limit too, which is waited for
		c.must(a.post(c))
	}
	_, err = bundlev1.NewBundleClient(a.conn).GetBundle(c.ctx, &bundlev1.GetBundleRequest{})
	c.must(err)
}

// limitJoins joins four agents from one address, with a second to do so.
func limitJoins(c *C) {
	type attempt struct {
		conn  *grpc.ClientConn
		first *agentv1.AttestAgentRequest
	}
	var attempts []attempt
	for range 4 {
		attempts = append(attempts, attempt{c.dial(nil), attestation("join_token", []byte(c.token()), newCSR(c))})
	}
	begun := time.Now()
	var wait sync.WaitGroup
	for _, a := range attempts {
		wait.Go(func() {
			if _, err := c.converseOver(a.conn, a.first, nil); err != nil {
				c.Errorf("%s: %v", status.Code(err), err)
			}
		})
	}
	wait.Wait()
	took := time.Since(begun)
	if c.Differs("limits: joins behind one address") {
		if took > time.Second {
			c.Errorf("four joins took %s", took)
		}
	} else if took < 2*time.Second {
		c.Errorf("four joins took %s, want one a second", took)
	}
}
