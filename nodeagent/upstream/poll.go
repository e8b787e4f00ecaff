package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/bundlev1"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// poll asks for everything once, as spire-agent does, and hands on what changed. A
// poll that fails hands on nothing, and the next one finds it again.
func (w *watcher) poll(ctx context.Context) error {
	c := w.c
	var got *synced
	err := c.agentCallFor(ctx, rpcTimeout, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		got, err = w.entries.sync(ctx, conn)
		return err
	})
	if err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	own, err := w.fetchBundle(ctx, c.cfg.TrustDomain, func(ctx context.Context, client bundlev1.BundleClient) (*types.Bundle, error) {
		return client.GetBundle(ctx, &bundlev1.GetBundleRequest{OutputMask: bundleMask()})
	})
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	wanted := w.entries.federates(got)
	next, err := w.fetchFederated(ctx, wanted)
	if err != nil {
		return err
	}
	next[c.cfg.TrustDomain] = own
	w.entries.keep(got)
	w.hand(got.change, w.bundles.with(c.cfg.TrustDomain, next, func(td spiffeid.TrustDomain) bool { return wanted[td] }))
	return nil
}

// fetchBundle fetches the bundle of one trust domain.
func (w *watcher) fetchBundle(ctx context.Context, td spiffeid.TrustDomain, fetch func(context.Context, bundlev1.BundleClient) (*types.Bundle, error)) (b bundle, err error) {
	var p *types.Bundle
	err = w.c.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		p, err = fetch(ctx, bundlev1.NewBundleClient(conn))
		return err
	})
	if err != nil {
		return bundle{}, err
	}
	if b, err = readBundle(p, w.c.log); err != nil {
		return bundle{}, err
	}
	if is := b.x509.TrustDomain(); is != td {
		return bundle{}, fmt.Errorf("is of trust domain %q, want %q", is.Name(), td.Name())
	}
	return b, nil
}

// parallelBundles is how many federated bundles are fetched at once, as SPIRE.
const parallelBundles = 10

// fetchFederated fetches the bundles of the domains. One that the issuer does not
// have is empty; one that cannot be had just now is left out, and stays as it was,
// for it is not the other domains' fault.
func (w *watcher) fetchFederated(ctx context.Context, wanted map[spiffeid.TrustDomain]bool) (map[spiffeid.TrustDomain]bundle, error) {
	var mu sync.Mutex
	next := make(map[spiffeid.TrustDomain]bundle)
	var g errgroup.Group
	g.SetLimit(parallelBundles)
	for _, td := range slices.Collect(maps.Keys(wanted)) {
		g.Go(func() error {
			b, err := w.fetchBundle(ctx, td, func(ctx context.Context, client bundlev1.BundleClient) (*types.Bundle, error) {
				return client.GetFederatedBundle(ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: td.Name(), OutputMask: bundleMask()})
			})
			if code := status.Code(err); err != nil && code != codes.NotFound && code != codes.Unimplemented {
				w.c.log.Warn("no newer federated bundle", "trust_domain", td.Name(), "reason", reason(err))
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			next[td] = b
			return nil
		})
	}
	return next, errors.Join(g.Wait(), ctx.Err())
}
