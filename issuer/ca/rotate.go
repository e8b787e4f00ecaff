package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// Two slots are enough: one key signs, the other follows. What an old authority
// signed is verified with the bundle, so its key is overwritten.
const (
	slotA = "x509-CA-A"
	slotB = "x509-CA-B"
)

// reload reads the records from the journal and puts the active one to work.
func (a *Authority) reload(ctx context.Context) error {
	var state []*storepb.X509Authority
	_, err := a.cfg.Journal.UpdateCA(ctx, func(s *store.CAState) error {
		state = s.Authorities
		return nil
	})
	if err != nil {
		return err
	}
	records := make([]*record, 0, len(state))
	for _, p := range state {
		r, err := a.readRecord(ctx, p)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	a.records, a.stale = records, false
	if active := newest(a.cfg.Now(), records, storepb.X509Authority_ACTIVE); active != nil {
		a.active.Store(active)
	}
	return nil
}

// readRecord joins a record of the journal to its key. A key that is gone, or
// another's since, leaves an authority that cannot sign and is replaced.
func (a *Authority) readRecord(ctx context.Context, p *storepb.X509Authority) (*record, error) {
	chain, err := x509.ParseCertificates(p.GetCertificate())
	if err == nil && len(chain) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("certificate of authority %q in the store: %w", p.GetAuthorityId(), err)
	}
	r := &record{
		id:     p.GetAuthorityId(),
		slot:   p.GetKeyId(),
		status: p.GetStatus(),
		cert:   chain[0],
		chain:  chain,
		behind: presented(chain),
		issued: time.Unix(p.GetIssuedAt(), 0),
	}
	signer, err := a.cfg.Keys.Signer(ctx, r.slot)
	switch {
	case err == nil && samePublicKey(signer, r.cert):
		r.signer = signer
	case err != nil && !errors.Is(err, ErrNoKey):
		return nil, err
	case r.status != storepb.X509Authority_OLD:
		a.cfg.Log.Warn("the key of an authority is gone: it will be replaced",
			"authority", r.id, "key", r.slot, "status", r.status)
	}
	return r, nil
}

func samePublicKey(signer crypto.Signer, cert *x509.Certificate) bool {
	pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(cert.PublicKey)
}

// create makes an authority in the slot that nothing usable is in. The key is
// on disk before the record exists: after a crash in between, the record still
// names the older authorities, and the key is overwritten by the next try.
func (a *Authority) create(ctx context.Context, now time.Time, status storepb.X509Authority_Status) error {
	slot := freeSlot(now, a.records)
	signer, err := a.cfg.Keys.Generate(ctx, slot, a.cfg.KeyType)
	if err != nil {
		return fmt.Errorf("new key for authority: %w", err)
	}
	template, err := caTemplate(a.cfg.TrustDomain, a.cfg.Subject, signer.Public(), now, a.cfg.TTL)
	if err != nil {
		return err
	}
	chain, roots, err := a.cfg.Parent.Certify(ctx, template, signer)
	if err != nil {
		return fmt.Errorf("certify authority: %w", err)
	}
	r := &record{
		id:     hex.EncodeToString(chain[0].SubjectKeyId),
		slot:   slot,
		status: status,
		cert:   chain[0],
		chain:  chain,
		behind: presented(chain),
		signer: signer,
		issued: now.Truncate(time.Second),
	}
	return a.write(ctx, now, r, func(s *store.CAState) {
		retire(s, slot, status)
		s.Authorities = append(s.Authorities, r.proto())
		s.Bundle = withAuthorities(s.Bundle, a.cfg.TrustDomain.Name(), roots)
	})
}

// activate lets r sign from now on, and the one before it no more.
func (a *Authority) activate(ctx context.Context, now time.Time, r *record) error {
	active := *r
	active.status = storepb.X509Authority_ACTIVE
	return a.write(ctx, now, &active, func(s *store.CAState) {
		retire(s, "", storepb.X509Authority_ACTIVE)
		for _, p := range s.Authorities {
			if p.GetAuthorityId() == r.id {
				p.Status = storepb.X509Authority_ACTIVE
			}
		}
	})
}

// write changes the journal and then the records from what it has. Only when it
// is written does r, if active, sign.
func (a *Authority) write(ctx context.Context, now time.Time, r *record, change func(*store.CAState)) error {
	_, err := a.cfg.Journal.UpdateCA(ctx, func(s *store.CAState) error {
		change(s)
		return nil
	})
	if err != nil {
		return fmt.Errorf("record authority %s: %w", r.id, err)
	}
	if err := a.reload(ctx); err != nil {
		return err
	}
	a.cfg.Log.Info("authority "+verb(r.status), "authority", r.id, "expires", r.cert.NotAfter,
		"next_prepared", r.prepareAt())
	return nil
}

func verb(status storepb.X509Authority_Status) string {
	if status == storepb.X509Authority_PREPARED {
		return "prepared"
	}
	return "activated"
}

// retire turns into old what a new authority with that status takes the place
// of: the former of the same slot, and of the same status.
func retire(s *store.CAState, slot string, status storepb.X509Authority_Status) {
	for _, p := range s.Authorities {
		if p.GetKeyId() == slot || p.GetStatus() == status {
			p.Status = storepb.X509Authority_OLD
		}
	}
}

// freeSlot returns the slot whose key nothing needs any more.
func freeSlot(now time.Time, records []*record) string {
	for _, r := range records {
		if r.slot == slotA && r.status != storepb.X509Authority_OLD && r.usable(now) {
			return slotB
		}
	}
	return slotA
}

func (r *record) proto() *storepb.X509Authority {
	var der []byte
	for _, cert := range r.chain {
		der = append(der, cert.Raw...)
	}
	return &storepb.X509Authority{
		AuthorityId: r.id,
		KeyId:       r.slot,
		Certificate: der,
		Status:      r.status,
		IssuedAt:    r.issued.Unix(),
		NotAfter:    r.cert.NotAfter.Unix(),
	}
}

// withAuthorities returns the bundle with each of roots in it once.
func withAuthorities(bundle *types.Bundle, td string, roots []*x509.Certificate) *types.Bundle {
	if bundle == nil {
		bundle = &types.Bundle{TrustDomain: td}
	}
	for _, root := range roots {
		known := slices.ContainsFunc(bundle.X509Authorities, func(c *types.X509Certificate) bool {
			return bytes.Equal(c.GetAsn1(), root.Raw)
		})
		if !known {
			bundle.X509Authorities = append(bundle.X509Authorities, &types.X509Certificate{Asn1: root.Raw})
		}
	}
	return bundle
}
