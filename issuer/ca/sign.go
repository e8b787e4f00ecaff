package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Params say what an X.509-SVID is to hold.
type Params struct {
	// ID is of the issuer's trust domain, with a path.
	ID        spiffeid.ID
	PublicKey crypto.PublicKey
	// DNSNames become DNS SANs, the first one the common name too. They must be
	// valid: see registration.ValidateDNSName.
	DNSNames []string
	// TTL is cut to the life of the authority; 0 is the default.
	TTL time.Duration
	// Subject is C=US,O=SPIRE where it is empty.
	Subject pkix.Name
}

// Errors of signing, which its own wrap.
var (
	// ErrNotReady says that no authority can sign: none has been loaded, or the
	// last one expired before its successor could be made.
	ErrNotReady = errors.New("no authority can sign at present")
	ErrParams   = errors.New("cannot sign X509-SVID")
)

// SignX509SVID signs an SVID for a workload. It returns the chain to present,
// leaf first and without the root, which is in the bundle. It neither blocks
// nor touches the disk.
func (a *Authority) SignX509SVID(_ context.Context, p Params) ([]*x509.Certificate, error) {
	if p.ID == a.serverID {
		return nil, fmt.Errorf("%w: %s is the issuer's own ID", ErrParams, p.ID)
	}
	return a.sign(p, a.cfg.Now())
}

// SignAgentSVID signs the SVID of an agent, which lives for the agents' TTL.
func (a *Authority) SignAgentSVID(ctx context.Context, id spiffeid.ID, pub crypto.PublicKey) ([]*x509.Certificate, error) {
	return a.SignX509SVID(ctx, Params{ID: id, PublicKey: pub, TTL: a.cfg.AgentTTL})
}

func (a *Authority) sign(p Params, now time.Time) ([]*x509.Certificate, error) {
	if !p.ID.MemberOf(a.cfg.TrustDomain) || p.ID.Path() == "" {
		return nil, fmt.Errorf("%w: %q is not a member of trust domain %q", ErrParams, p.ID, a.cfg.TrustDomain.Name())
	}
	if err := checkPublicKey(p.PublicKey); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	if p.TTL <= 0 {
		p.TTL = a.cfg.X509SVIDTTL
	}
	issuer := a.active.Load()
	if issuer == nil {
		return nil, ErrNotReady
	}
	if !now.Before(issuer.cert.NotAfter) {
		return nil, fmt.Errorf("%w: authority %s expired at %s", ErrNotReady, issuer.id, issuer.cert.NotAfter.Format(time.RFC3339))
	}
	template, err := svidTemplate(issuer.cert, p, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	leaf, err := certify(template, issuer.cert, p.PublicKey, issuer.signer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	return append([]*x509.Certificate{leaf}, issuer.behind...), nil
}

// SVID returns the issuer's own SVID, spiffe://<trust domain>/spire/server: the
// same pointer until it is renewed.
func (a *Authority) SVID() (*x509svid.SVID, error) {
	if svid := a.own.Load(); svid != nil {
		return svid, nil
	}
	return nil, ErrNotReady
}

// renewOwn signs the issuer's own SVID, for a new key that stays in memory, and
// is due again at half its life.
func (a *Authority) renewOwn(_ context.Context, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	chain, err := a.sign(Params{ID: a.serverID, PublicKey: key.Public()}, now)
	if err != nil {
		return fmt.Errorf("renew the issuer's own SVID: %w", err)
	}
	a.own.Store(&x509svid.SVID{ID: a.serverID, Certificates: chain, PrivateKey: key})
	// On the wall clock, which goes on while the machine sleeps, as the
	// certificate does; Go would compare two monotonic readings instead.
	a.renewAt = now.Round(0).Add(chain[0].NotAfter.Sub(now) / 2)
	a.cfg.Log.Info("issuer SVID renewed", "expires", chain[0].NotAfter, "serial", chain[0].SerialNumber)
	return nil
}
