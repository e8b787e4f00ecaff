package svidcache

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/keep"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// Expect announces that [Cache.Restore] or [Cache.Apply] is about to be called:
// who asks before is held, for 5 s at most, and not told [ErrNotSynced]. It is
// over when either was called, or done is.
func (c *Cache) Expect() (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.expected--; c.expected == 0 && c.knows() != nil {
			c.ready.ring()
			for _, g := range c.groups {
				c.tell(g, true)
			}
		}
	})
}

// Known returns as soon as there is something to answer with, nil then. It waits
// only while something is expected ([Cache.Expect]), 5 s at most, and fails with
// [ErrNotSynced] or ctx's error. It is for callers without a subscription.
func (c *Cache) Known(ctx context.Context) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		err, expected, rung := c.knows(), c.expected > 0, c.ready.rung
		c.mu.Unlock()
		if err == nil || !expected {
			return err
		}
		select {
		case <-rung:
		case <-timer.C:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// News has an element when there are entries, bundles or first SVIDs that
// [Cache.Holds] has not told of yet. It is for one reader.
func (c *Cache) News() <-chan struct{} { return c.news }

// Version grows with whatever [Cache.Holds] returns: renewed SVIDs, too.
func (c *Cache) Version() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// Holds returns what is worth keeping on disk, but for Agent and Saved; nil
// before the issuer has told anything. Its Entries take no memory.
func (c *Cache) Holds() *keep.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.synced {
		return nil
	}
	all := make([]*fields, 0, len(c.records))
	for _, r := range c.records {
		all = append(all, r.fields)
	}
	s := &keep.State{
		Entries: func(yield func(registration.Entry) bool) {
			for _, f := range all {
				if !yield(f.entry()) {
					return
				}
			}
		},
		Bundle:    c.bundles[c.cfg.TrustDomain].bundle,
		Federated: make(map[spiffeid.TrustDomain]*x509bundle.Bundle),
		JWT:       maps.Clone(c.jwt),
		Tainted:   c.tainted.certs,
	}
	for td, b := range c.bundles {
		if td != c.cfg.TrustDomain {
			s.Federated[td] = b.bundle
		}
	}
	for _, r := range c.expiries.list {
		l := r.live
		if l.resign {
			continue // no longer what the entry says
		}
		s.SVIDs = append(s.SVIDs, keep.SVID{
			EntryID: r.id, Chain: l.svid.chainDER, Key: l.svid.keyDER, RotateAt: l.svid.rotateAt, NotAfter: l.svid.notAfter,
		})
	}
	now := c.cfg.Now()
	for id, one := range c.spare {
		if !one.expired(now) {
			s.SVIDs = append(s.SVIDs, keep.SVID{EntryID: id, Chain: one.chainDER, Key: one.keyDER, RotateAt: one.rotateAt, NotAfter: one.notAfter})
		}
	}
	return s
}

// Restore serves what was kept, as it was at now, until the issuer tells what is
// so today: of SVIDs those that have not expired and are of an entry that was kept
// too. Whom none of that matches is told [ErrNotSynced], for the issuer may know
// better. It does nothing once [Cache.Apply] was called.
func (c *Cache) Restore(s *keep.State, now time.Time) {
	svids := make(map[string]*svid, len(s.SVIDs))
	for _, one := range s.SVIDs {
		kept, err := restoreSVID(one, c.cfg.TrustDomain)
		if err != nil {
			c.log.Warn("an SVID that was kept is of no use", "entry_id", one.EntryID, "reason", err)
		} else if !kept.expired(now) {
			svids[one.EntryID] = kept
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.synced {
		return
	}
	// SVIDs come after the entries, and before anyone is told of these.
	u := upstream.Update{
		Whole: true, Entries: slices.Collect(s.Entries),
		Bundle: s.Bundle, Federated: s.Federated, JWT: s.JWT,
	}
	c.apply(u, &c.restored)
	n := 0
	for id, kept := range svids {
		if c.adopt(id, kept) {
			n++
		}
	}
	c.setTainted(s.Tainted)
	c.evict()
	c.log.Info("what was known before is served until the issuer answers", "entries", len(c.records), "svids", n, "saved", s.Saved)
}

// adopt gives a kept SVID to whose it is. An instance of a template is made when
// it is asked for; its SVID waits for that.
func (c *Cache) adopt(entryID string, kept *svid) bool {
	r := c.records[entryID]
	if name, _, ok := strings.Cut(entryID, instanceMark); ok && r == nil {
		t := c.records[name]
		if t == nil || !t.isTemplate() || t.ended || instanceID(name, kept.id.Path()) != entryID {
			return false
		}
		if t.live == nil || t.live.instances[kept.id] == nil {
			c.spare[entryID] = kept
			return true
		}
		r = t.live.instances[kept.id]
	}
	if r == nil || r.spiffeID != kept.id || r.ended || r.more().storeSVID {
		return false
	}
	r.living().svid = kept
	c.place(r)
	for _, set := range r.live.sets {
		c.refresh(set)
	}
	return true
}

// restoreSVID reads and checks an SVID that was kept.
func restoreSVID(k keep.SVID, td spiffeid.TrustDomain) (*svid, error) {
	chain, err := x509.ParseCertificates(k.Chain)
	if err != nil || len(chain) == 0 {
		return nil, errors.New("its chain can't be read")
	}
	key, err := x509.ParsePKCS8PrivateKey(k.Key)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("its key can't be read")
	}
	id, err := x509svid.IDFromCert(chain[0])
	if err != nil {
		return nil, err
	}
	if !id.MemberOf(td) {
		return nil, fmt.Errorf("%s is of another trust domain", id)
	}
	s, err := wrapSVID(id, signer, k.Key, chain)
	if err != nil {
		return nil, err
	}
	if s.rotateAt = k.RotateAt; s.rotateAt.After(s.notAfter) {
		s.rotateAt = s.notAfter
	}
	return s, nil
}
