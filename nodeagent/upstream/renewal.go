package upstream

import (
	"crypto/x509"
	"math/rand/v2"
	"time"
)

const (
	// targetSpread is how far agents spread renewals by availability_target,
	// and targetGrace how much longer than that an SVID must live for it to
	// count, both as SPIRE's.
	targetSpread = 10 * time.Minute
	targetGrace  = 12 * time.Hour
)

// renewalTime returns when an SVID that was received at now is renewed: a little
// before or after [dueTime], so that agents which started together do not renew
// together.
func renewalTime(cert *x509.Certificate, now time.Time, target time.Duration) time.Time {
	from := now.Round(0) // certificates know wall-clock time only
	half, due := halfLife(cert, now), dueTime(cert, now, target)
	if due.Before(half) {
		return due.Add(-time.Duration(rand.Int64N(int64(targetSpread))))
	}
	return from.Add(jitter(half.Sub(from)))
}

// dueTime returns when half of what was left of an SVID at now is over; or as long
// before its end as target says, where that is sooner and leaves it a life.
func dueTime(cert *x509.Certificate, now time.Time, target time.Duration) time.Time {
	half, early := halfLife(cert, now), cert.NotAfter.Add(-target)
	if target != 0 && cert.NotAfter.Sub(cert.NotBefore)-target > targetGrace && early.Before(half) {
		return early
	}
	return half
}

// halfLife returns when half of what is left of cert at now is over.
func halfLife(cert *x509.Certificate, now time.Time) time.Time {
	from := now.Round(0)
	if cert.NotBefore.After(from) {
		from = cert.NotBefore
	}
	return from.Add(cert.NotAfter.Sub(from) / 2)
}

// hangsFrom reports whether a chain ends at one of the authorities.
func hangsFrom(chain, authorities []*x509.Certificate) bool {
	if len(authorities) == 0 {
		return false
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range authorities {
		roots.AddCert(cert)
	}
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		// Whether it has expired is another question.
		CurrentTime: chain[0].NotBefore.Add(chain[0].NotAfter.Sub(chain[0].NotBefore) / 2),
	})
	return err == nil
}
