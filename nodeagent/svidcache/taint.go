package svidcache

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"
)

const (
	// taintBatch SVIDs are signed anew each taintEvery when an authority is
	// tainted, those in use first: every agent of the trust domain does it at
	// once, and the SVIDs are good until the authority is removed.
	taintBatch = 100
	taintEvery = time.Second
	// taintRetry is when an SVID is asked for again that the issuer signed with
	// a tainted authority though it knew, or will soon.
	taintRetry = 30 * time.Second
)

// tainted are the authorities that no SVID is to hang from.
type tainted struct{ certs []*x509.Certificate }

// setTainted has SVIDs of authorities that were not tainted before signed anew.
// They serve meanwhile.
func (c *Cache) setTainted(certs []*x509.Certificate) {
	var fresh []*x509.Certificate
	for _, cert := range certs {
		if !slices.ContainsFunc(c.tainted.certs, cert.Equal) {
			fresh = append(fresh, cert)
		}
	}
	if len(fresh) == 0 {
		if len(certs) != len(c.tainted.certs) {
			c.tainted.certs = certs
		}
		return
	}
	c.tainted.certs = certs
	var used, unused []*record
	for _, r := range c.expiries.list {
		switch l := r.live; {
		case !mayHangFrom(l.svid, fresh):
		case l.demand > 0:
			used = append(used, r)
		default:
			unused = append(unused, r)
		}
	}
	at := c.since()
	all := append(used, unused...)
	for i, r := range all {
		r.live.suspect = true
		r.live.nextTry = max(r.live.nextTry, at+time.Duration(i/taintBatch)*taintEvery)
		c.place(r)
	}
	c.log.Warn("an X.509 authority is tainted: SVIDs that hang from it are signed anew", "count", len(all))
}

// taintedNow returns the authorities that are tainted.
func (c *Cache) taintedNow() []*x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tainted.certs
}

// mayHangFrom compares key IDs alone, which costs nothing: it is true of an SVID
// that says that one of certs signed it, or does not say who did.
func mayHangFrom(s *svid, certs []*x509.Certificate) bool {
	return slices.ContainsFunc(certs, func(cert *x509.Certificate) bool {
		return s.signer == "" || len(cert.SubjectKeyId) == 0 || s.signer == string(cert.SubjectKeyId)
	})
}

// hangsFrom reports whether one of certs signed the last certificate of the SVID's
// chain, or is it. It verifies signatures.
func hangsFrom(s *svid, certs []*x509.Certificate) bool {
	if !mayHangFrom(s, certs) {
		return false
	}
	last, err := x509.ParseCertificate(s.chainDER[s.last:])
	if err != nil {
		return false
	}
	return slices.ContainsFunc(certs, func(cert *x509.Certificate) bool {
		return cert.Equal(last) || bytes.Equal(last.RawIssuer, cert.RawSubject) && last.CheckSignatureFrom(cert) == nil
	})
}
