package upstream

import (
	"crypto/x509"
	"errors"
	"sync"
	"time"
)

// distrust knows since when no issuer could be verified for its authority's sake.
// The zero value is ready.
type distrust struct {
	mu    sync.Mutex
	since time.Time // zero: it is not so
	begun signal
}

// note takes note of a handshake: err is why the issuer was not verified.
func (d *distrust) note(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.since = time.Time{}
	case d.since.IsZero() && strangeAuthority(err):
		d.since = time.Now()
		d.begun.fire()
	}
}

// over returns when it will have been so for the time; false where it isn't so.
func (d *distrust) over(delay time.Duration) (time.Time, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.since.Add(delay), !d.since.IsZero()
}

// strangeAuthority reports whether a newer bundle might mend err: the issuer's
// certificate hangs from no authority that the agent knows, or only from one that
// has expired. An issuer of another name or trust domain is none of that.
func strangeAuthority(err error) bool {
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return true
	}
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}
