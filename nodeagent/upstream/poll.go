package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
)

// Watch calls apply with the present state, and again after each round trip that
// may have changed it, until ctx ends. It waits for the agent to join and
// outlasts an issuer that is away. How changes reach the agent is known here and
// nowhere else: today it asks at an interval, as spire-agent does.
func (c *Client) Watch(ctx context.Context, apply func(Update)) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.joined:
	}
	p := &poller{c: c}
	wait := growing{first: min(time.Second, c.cfg.SyncInterval), most: max(15*time.Second, c.cfg.SyncInterval)}
	for {
		state, err := p.poll(ctx)
		next := c.cfg.SyncInterval
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			next = wait.next()
			c.log.Warn("cannot sync with the issuer", "issuer", c.cfg.ServerAddress, "reason", reason(err), "retry_in", next.String())
		default:
			if wait.last != 0 {
				c.log.Info("in sync with the issuer again", "issuer", c.cfg.ServerAddress)
			}
			wait.reset()
			apply(state)
			p.post(ctx)
		}
		if err := pause(ctx, next); err != nil {
			return err
		}
	}
}

// poller remembers what it has fetched; it is used by one goroutine.
type poller struct {
	c         *Client
	entries   syncer
	federated map[spiffeid.TrustDomain]*x509bundle.Bundle
	jwt       jwtBundles
	sequence  uint64 // of the bundle last fetched
	posted    posted
}

func (p *poller) poll(ctx context.Context) (Update, error) {
	var entries []registration.Entry
	err := p.c.agentCall(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		entries, err = p.entries.sync(ctx, conn, p.c.log)
		return err
	})
	if err != nil {
		return Update{}, fmt.Errorf("entries: %w", err)
	}
	bundle, sequence, err := p.bundle(ctx)
	if err != nil {
		return Update{}, fmt.Errorf("bundle: %w", err)
	}
	p.sequence = sequence
	if err := p.federate(ctx, entries); err != nil {
		return Update{}, err
	}
	return Update{Whole: true, Entries: entries, Bundle: bundle, Federated: p.federated, JWT: p.jwt.keep(p.c.cfg.TrustDomain, p.federated)}, nil
}

// bundle fetches and keeps the trust domain's, and returns its sequence number
// too.
func (p *poller) bundle(ctx context.Context) (_ *x509bundle.Bundle, sequence uint64, _ error) {
	bundle, err := p.fetchBundle(ctx, func(ctx context.Context, client bundlev1.BundleClient) (*x509bundle.Bundle, error) {
		resp, err := client.GetBundle(ctx, &bundlev1.GetBundleRequest{OutputMask: bundleMask()})
		if err != nil {
			return nil, err
		}
		sequence = resp.GetSequenceNumber()
		if resp.GetTrustDomain() == p.c.cfg.TrustDomain.Name() {
			p.jwt.take(resp, p.c.log)
		}
		return parseBundle(resp)
	})
	if err != nil {
		return nil, 0, err
	}
	if td := p.c.cfg.TrustDomain; bundle.TrustDomain() != td {
		return nil, 0, fmt.Errorf("is of trust domain %q, want %q", bundle.TrustDomain().Name(), td.Name())
	}
	return bundle, sequence, p.c.id.setBundle(bundle.X509Authorities())
}

func (p *poller) fetchBundle(ctx context.Context, fetch func(context.Context, bundlev1.BundleClient) (*x509bundle.Bundle, error)) (bundle *x509bundle.Bundle, err error) {
	err = p.c.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		bundle, err = fetch(ctx, bundlev1.NewBundleClient(conn))
		return err
	})
	return bundle, err
}

// parallelBundles is how many federated bundles are fetched at once, as SPIRE.
const parallelBundles = 10

// federate fetches the bundles of all domains that entries federate with. One
// that the issuer does not have is left out; one that cannot be had just now
// stays as it was, for it is not the other domains' fault.
func (p *poller) federate(ctx context.Context, entries []registration.Entry) error {
	wanted := make(map[spiffeid.TrustDomain]bool)
	for _, e := range entries {
		for _, td := range e.FederatesWith {
			wanted[td] = td != p.c.cfg.TrustDomain
		}
	}
	var mu sync.Mutex
	next := make(map[spiffeid.TrustDomain]*x509bundle.Bundle)
	var g errgroup.Group
	g.SetLimit(parallelBundles)
	for _, td := range slices.Collect(maps.Keys(wanted)) {
		if !wanted[td] {
			continue
		}
		g.Go(func() error {
			bundle, err := p.fetchBundle(ctx, func(ctx context.Context, client bundlev1.BundleClient) (*x509bundle.Bundle, error) {
				return p.federatedBundle(ctx, client, td)
			})
			if err != nil {
				p.c.log.Warn("no newer federated bundle", "trust_domain", td.Name(), "reason", err)
				bundle = p.federated[td]
			}
			mu.Lock()
			defer mu.Unlock()
			if bundle != nil {
				next[td] = bundle
			}
			return nil
		})
	}
	err := g.Wait()
	p.federated = next
	return errors.Join(err, ctx.Err())
}

// federatedBundle returns nil for a domain that the issuer has no bundle of.
func (p *poller) federatedBundle(ctx context.Context, client bundlev1.BundleClient, td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	resp, err := client.GetFederatedBundle(ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: td.Name(), OutputMask: bundleMask()})
	if code := status.Code(err); code == codes.NotFound || code == codes.Unimplemented {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	bundle, err := parseBundle(resp)
	if err == nil && bundle.TrustDomain() != td {
		return nil, fmt.Errorf("the issuer's answer is the bundle of %q", bundle.TrustDomain().Name())
	}
	if err == nil {
		p.jwt.take(resp, p.c.log)
	}
	return bundle, err
}
