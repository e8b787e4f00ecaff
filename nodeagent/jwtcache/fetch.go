package jwtcache

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/jwtsvid"
)

// flight is a request for a token, which any number of callers wait for.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when what follows is set
	token  jwtsvid.Token
	err    error
}

// Fetch returns a JWT-SVID of the entry, an instance of a template perhaps, for
// the audiences: the one that is kept while less than half its life is over, a new
// one otherwise. While the issuer is away a kept one is good until it expires. It
// waits for 5 s at most, or as configured while there is one. Tokens of entries that want a "jti" in each are neither
// kept nor shared. Errors are ErrAudience, ctx's, or the issuer's.
func (c *Cache) Fetch(ctx context.Context, e registration.Entry, audience []string) (jwtsvid.Token, error) {
	k, err := keyOf(e, audience)
	if err != nil {
		return jwtsvid.Token{}, err
	}
	if e.JWTSVIDIncludeJTI {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return c.sign(ctx, e, audience)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		token, again, err := c.try(ctx, k, e, audience, timer.C)
		if !again {
			return token, err
		}
	}
}

// try is again to be tried where another's request failed that began before this
// caller came.
func (c *Cache) try(ctx context.Context, k key, e registration.Entry, audience []string, patience <-chan time.Time) (_ jwtsvid.Token, again bool, _ error) {
	f, kept, began := c.lookup(ctx, k, e, audience)
	if f == nil {
		return kept.token, false, nil
	}
	var enough <-chan time.Time
	if kept != nil {
		timer := time.NewTimer(min(c.cfg.CacheHitTimeout, kept.token.ExpiresAt.Sub(c.cfg.Now())/2))
		defer timer.Stop()
		enough, patience = timer.C, nil
	}
	select {
	case <-f.done:
	case <-enough:
		return kept.token, false, nil
	case <-patience:
		return jwtsvid.Token{}, false, status.Error(codes.Unavailable, "the issuer has not answered yet")
	case <-ctx.Done():
		return jwtsvid.Token{}, false, ctx.Err()
	}
	if f.err != nil && kept != nil && !final(f.err) && c.cfg.Now().Before(kept.token.ExpiresAt) {
		return kept.token, false, nil
	}
	return f.token, f.err != nil && !began && isTransient(f.err), f.err
}

// lookup returns the token kept, or the request to wait for, and whether that
// began now; both where a newer token would be better.
func (c *Cache) lookup(ctx context.Context, k key, e registration.Entry, audience []string) (_ *flight, _ *item, began bool) {
	now, at := c.cfg.Now(), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	most := patience
	kept := c.good(k, now)
	if kept != nil {
		kept = &item{token: kept.token, renewAt: kept.renewAt, nextTry: kept.nextTry}
		if now.Before(kept.renewAt) || at.Before(kept.nextTry) || c.backoffs.wait(e.ID, at) > 0 {
			return nil, kept, false
		}
		most = max(most, c.cfg.CacheHitTimeout)
	}
	f := c.flights[k]
	if f != nil {
		return f, kept, false
	}
	f = &flight{done: make(chan struct{})}
	if c.stopped {
		f.err = errStopped
		close(f.done)
		return f, kept, true
	}
	c.flights[k] = f
	// Whoever asked first may go; others are waiting.
	ctx, f.cancel = context.WithTimeout(context.WithoutCancel(ctx), most)
	audience = slices.Clone(audience)
	c.requests.Go(func() { c.fly(ctx, f, k, e, audience) })
	return f, kept, true
}

// fly has the token signed and tells all that wait.
func (c *Cache) fly(ctx context.Context, f *flight, k key, e registration.Entry, audience []string) {
	defer f.cancel()
	token, err := c.sign(ctx, e, audience)
	if expires := c.land(f, k, token, err); !expires.IsZero() {
		c.log.Warn("JWT-SVID not renewed: the one there is serves until it expires", "spiffe_id", e.SPIFFEID, "expires", expires, "reason", err)
	}
}

// land ends f with its outcome. It returns when the token expires that goes on to
// serve instead of a new one.
func (c *Cache) land(f *flight, k key, token jwtsvid.Token, err error) (expires time.Time) {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	f.token, f.err = token, err
	switch kept := c.items[k]; {
	case err == nil:
		c.put(k, token, now)
	case kept != nil && final(err):
		c.drop(kept)
	case kept != nil:
		it := kept.Value.(*item)
		it.nextTry = time.Now().Add(quiet)
		expires = it.token.ExpiresAt
	}
	delete(c.flights, k)
	close(f.done)
	return expires
}

// sign tries the issuer until it answers or ctx ends. An identity that the issuer
// refused just now is asked for a little later.
func (c *Cache) sign(ctx context.Context, e registration.Entry, audience []string) (jwtsvid.Token, error) {
	c.mu.Lock()
	wait := c.backoffs.wait(e.ID, time.Now())
	c.mu.Unlock()
	if err := sleep(ctx, wait); err != nil {
		return jwtsvid.Token{}, status.Error(codes.Unavailable, "the issuer refused this identity just now, and is not asked again yet")
	}
	for pause := firstRetry; ; pause *= 2 {
		token, err := c.ask(ctx, e, audience)
		if err == nil {
			c.log.Debug("JWT-SVID signed", "entry_id", e.ID, "spiffe_id", e.SPIFFEID, "audience", audience, "expires", token.ExpiresAt)
			return token, nil
		}
		if !retried(err) || sleep(ctx, pause) != nil {
			return jwtsvid.Token{}, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask makes one call.
func (c *Cache) ask(ctx context.Context, e registration.Entry, audience []string) (jwtsvid.Token, error) {
	began := time.Now()
	token, err := c.cfg.Signer.NewJWTSVID(ctx, e.ID, audience)
	if err == nil {
		err = c.check(token, e, audience)
	}
	if c.cfg.Signed != nil {
		c.cfg.Signed(1, time.Since(began), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		delete(c.backoffs, e.ID)
	case ctx.Err() == nil && !retried(err) && status.Code(err) != codes.InvalidArgument: // that is the caller's
		c.backoffs.failed(e.ID, time.Now())
	}
	return token, err
}

// retried reports whether the issuer may do better in a moment.
func retried(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.ResourceExhausted
}

// check reports whether the issuer signed what it was asked for.
func (c *Cache) check(token jwtsvid.Token, e registration.Entry, audience []string) error {
	if token.ID != e.SPIFFEID {
		return fmt.Errorf("the issuer signed a JWT-SVID of %s instead of %s", token.ID, e.SPIFFEID)
	}
	for _, a := range audience {
		if !token.For(a) {
			return fmt.Errorf("the issuer signed a JWT-SVID of %s for other audiences than were asked for", token.ID)
		}
	}
	if !c.cfg.Now().Before(token.ExpiresAt) {
		return fmt.Errorf("the JWT-SVID from the issuer expired at %s, before it came: compare the clocks", token.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// final reports whether the issuer has said that there is no such token: what is
// kept is not to be served any more either. What it says about the agent itself,
// PermissionDenied, is no such word.
func final(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.Unimplemented:
		return true
	}
	return false
}

// isTransient reports whether the issuer could not be asked in time.
func isTransient(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	}
	return false
}
