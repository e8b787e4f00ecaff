package upstream

import (
	"crypto/x509"
	"math/rand/v2"
	"slices"
	"time"
)

// setBundle keeps the authorities of the trust domain, and tells where they cannot be
// written.
func (c *Client) setBundle(certs, tainted []*x509.Certificate) {
	if err := c.id.setBundle(certs, tainted, time.Now()); err != nil && c.unsaved.now() {
		c.log.Warn("the trust bundle cannot be written: it is used, and would be missing after a restart", "reason", err)
	}
}

// setBundle keeps the authorities of the trust domain, and which of them are
// tainted. They are used even if they cannot be written, which the error tells.
func (id *identity) setBundle(certs, tainted []*x509.Certificate, now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.taint(tainted, now)
	if !slices.EqualFunc(certs, id.data.Bundle, (*x509.Certificate).Equal) {
		id.data.Bundle, id.bundle = certs, newBundle(id.td, certs)
	}
	if id.files.hold(id.data, id.keys) {
		return nil
	}
	if err := id.save(); err != nil && !id.files.holdBundle(certs) {
		return err
	}
	return nil
}

// taint has the SVID renewed soon where it hangs from an authority that is tainted
// now; id.mu is held.
func (id *identity) taint(tainted []*x509.Certificate, now time.Time) {
	before := id.tainted
	id.tainted = tainted
	if id.svid == nil || slices.EqualFunc(before, tainted, (*x509.Certificate).Equal) {
		return
	}
	if hangsFrom(id.svid.Certificates, before) || !hangsFrom(id.svid.Certificates, tainted) {
		return
	}
	if soon := now.Round(0).Add(time.Duration(rand.Int64N(int64(id.opt.spread) + 1))); soon.Before(id.renewAt) {
		id.renewAt = soon
	}
	select {
	case id.wake <- struct{}{}:
	default:
	}
}
