package upstream

import (
	"crypto/x509"
	"math/rand/v2"
	"slices"
	"time"
)

// setBundle keeps the authorities of the trust domain, and which of them are
// tainted. They are used even if they cannot be written, which the error tells.
func (id *identity) setBundle(certs, tainted []*x509.Certificate, now time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.taint(tainted, now)
	same := slices.EqualFunc(certs, id.data.Bundle, (*x509.Certificate).Equal)
	if same && !id.unsaved {
		return nil
	}
	if !same {
		id.data.Bundle, id.bundle = certs, newBundle(id.td, certs)
	}
	err := id.saveData(id.data)
	id.unsaved = err != nil
	return err
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
