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
	"math/big"
	"slices"
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
	ErrParams   = errors.New("cannot sign SVID")
)

// X509SVID is a signed SVID in DER: what goes over the wire.
type X509SVID struct {
	// Chain is what to present, leaf first and without the root.
	Chain     [][]byte
	Serial    *big.Int
	ExpiresAt time.Time // in whole seconds
}

// IssueX509SVID signs an SVID for a workload. It neither blocks nor touches the
// disk. The error wraps [ErrParams] or [ErrNotReady].
func (a *Authority) IssueX509SVID(ctx context.Context, p Params) (X509SVID, error) {
	if p.ID == a.serverID {
		return X509SVID{}, fmt.Errorf("%w: %s is the issuer's own ID", ErrParams, p.ID)
	}
	svid, _, err := a.issue(ctx, RoleWorkload, p)
	return svid, err
}

// SignX509SVID is [Authority.IssueX509SVID] for who needs the certificates
// themselves: the chain to present, leaf first and without the root, which is in
// the bundle.
func (a *Authority) SignX509SVID(ctx context.Context, p Params) ([]*x509.Certificate, error) {
	if p.ID == a.serverID {
		return nil, fmt.Errorf("%w: %s is the issuer's own ID", ErrParams, p.ID)
	}
	return a.sign(ctx, RoleWorkload, p)
}

// SignAgentSVID signs the SVID of an agent, which lives for the agents' TTL.
func (a *Authority) SignAgentSVID(ctx context.Context, id spiffeid.ID, pub crypto.PublicKey) ([]*x509.Certificate, error) {
	if id == a.serverID {
		return nil, fmt.Errorf("%w: %s is the issuer's own ID", ErrParams, id)
	}
	return a.sign(ctx, RoleAgent, Params{ID: id, PublicKey: pub, TTL: a.cfg.AgentTTL})
}

// sign is issue with the certificates parsed.
func (a *Authority) sign(ctx context.Context, role Role, p Params) ([]*x509.Certificate, error) {
	svid, issuer, err := a.issue(ctx, role, p)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(svid.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	return append([]*x509.Certificate{leaf}, issuer.behind...), nil
}

// issue signs an SVID, and says with which authority.
func (a *Authority) issue(ctx context.Context, role Role, p Params) (svid X509SVID, issuer *record, err error) {
	start := time.Now()
	svid, issuer, err = a.issueNow(ctx, role, p, a.cfg.Now())
	a.cfg.Signed("x509", time.Since(start), err)
	return svid, issuer, err
}

func (a *Authority) issueNow(ctx context.Context, role Role, p Params, now time.Time) (X509SVID, *record, error) {
	if !p.ID.MemberOf(a.cfg.TrustDomain) || p.ID.Path() == "" {
		return X509SVID{}, nil, fmt.Errorf("%w: %q is not a member of trust domain %q", ErrParams, p.ID, a.cfg.TrustDomain.Name())
	}
	if err := checkPublicKey(p.PublicKey); err != nil {
		return X509SVID{}, nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	if p.TTL <= 0 {
		p.TTL = a.cfg.X509SVIDTTL
	}
	issuer, err := a.signer(&a.x509, now)
	if err != nil {
		return X509SVID{}, nil, err
	}
	spki, ski, err := encodeKey(p.PublicKey)
	if err != nil {
		return X509SVID{}, nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	template := leafTemplate(issuer.cert, p, ski, now)
	if err := a.composeX509(ctx, role, p.ID, template); err != nil {
		return X509SVID{}, nil, err
	}
	leaf, err := issuer.leaves.certify(template, p.PublicKey, spki)
	if err != nil {
		return X509SVID{}, nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	chain := make([][]byte, 0, 1+len(issuer.behind))
	chain = append(chain, leaf)
	for _, cert := range issuer.behind {
		chain = append(chain, cert.Raw)
	}
	return X509SVID{Chain: chain, Serial: template.SerialNumber, ExpiresAt: template.NotAfter.UTC().Truncate(time.Second)}, issuer, nil
}

// signer returns the authority that signs at now.
func (a *Authority) signer(l *lane, now time.Time) (*record, error) {
	r := l.active.Load()
	if r == nil {
		return nil, ErrNotReady
	}
	if !now.Before(r.notAfter) {
		return nil, fmt.Errorf("%w: authority %s expired at %s", ErrNotReady, r.id, r.notAfter.Format(time.RFC3339))
	}
	return r, nil
}

// SVID returns the issuer's own SVID, spiffe://<trust domain>/spire/server: the
// same pointer until it is renewed.
func (a *Authority) SVID() (*x509svid.SVID, error) {
	if svid := a.own.Load(); svid != nil {
		return svid, nil
	}
	return nil, ErrNotReady
}

// renewOwn signs the issuer's own SVID, for a new key that stays in memory, once
// half of its life is over, its root is tainted, or the clock was set back to
// before it.
func (a *Authority) renewOwn(ctx context.Context, now time.Time) error {
	own := a.own.Load()
	active := a.x509.active.Load()
	due := own == nil || !now.Before(a.renewAt) || now.Add(maxClockStep).Before(own.Certificates[0].NotBefore) ||
		active != nil && active.id != a.ownBy && a.distrusts(a.ownBy)
	if active == nil || !due {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	svid, issuer, err := a.issueNow(ctx, RoleServer, Params{ID: a.serverID, PublicKey: key.Public()}, now)
	if err != nil {
		return fmt.Errorf("renew the issuer's own SVID: %w", err)
	}
	leaf, err := x509.ParseCertificate(svid.Chain[0])
	if err != nil {
		return fmt.Errorf("renew the issuer's own SVID: %w", err)
	}
	chain := append([]*x509.Certificate{leaf}, issuer.behind...)
	a.own.Store(&x509svid.SVID{ID: a.serverID, Certificates: chain, PrivateKey: key})
	// On the wall clock, which goes on while the machine sleeps, as the
	// certificate does; Go would compare two monotonic readings instead.
	a.renewAt = now.Round(0).Add(leaf.NotAfter.Sub(now) / 2)
	a.ownBy = issuer.id
	a.cfg.Log.Info("issuer SVID renewed", "expires", leaf.NotAfter, "serial", leaf.SerialNumber, "authority", issuer.id)
	a.announce()
	return nil
}

// distrusts reports whether what that X.509 authority signed is tainted, or
// revoked already.
func (a *Authority) distrusts(id string) bool {
	i := slices.IndexFunc(a.x509.records, func(r *record) bool { return r.id == id })
	return i < 0 || a.x509.records[i].distrusted
}
