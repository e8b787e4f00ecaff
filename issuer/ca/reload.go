package ca

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/issuer/store"
	"github.com/lanyard-mtls/lanyard/issuer/store/storepb"
)

// reload reads the records from the journal and puts the active ones to work.
func (a *Authority) reload(ctx context.Context) error {
	var state store.CAState
	rev, err := a.cfg.Journal.UpdateCA(ctx, func(s *store.CAState) error {
		state = *s
		return nil
	})
	if err != nil {
		return err
	}
	if !a.stale && uint64(rev) == a.seen {
		return nil
	}
	v := &view{bundle: state.Bundle, pruneAt: pruneAt(state)}
	for _, p := range state.Authorities {
		r, err := a.readX509(ctx, p, state.Bundle)
		if err != nil {
			return err
		}
		v.x509 = append(v.x509, r)
	}
	for _, p := range state.JWTAuthorities {
		r, err := a.readJWT(ctx, p, state.Bundle)
		if err != nil {
			return err
		}
		v.jwt = append(v.jwt, r)
	}
	was := a.view.Swap(v)
	a.x509.records, a.jwt.records = v.x509, v.jwt
	a.stale, a.seen = false, uint64(rev)
	now := a.cfg.Now()
	for _, k := range a.kinds() {
		l := a.lane(k)
		if active := signing(now, l.records); active != nil {
			l.active.Store(active)
		}
	}
	if was == nil || !sameView(was, v) {
		a.announce()
	}
	return nil
}

// signing returns the authority to sign with: rather one that is not valid yet
// than none.
func signing(now time.Time, records []*record) *record {
	if active := newest(now, records, storepb.X509Authority_ACTIVE); active != nil {
		return active
	}
	for _, r := range slices.Backward(records) {
		if r.status == storepb.X509Authority_ACTIVE && r.signer != nil && now.Before(r.notAfter) {
			return r
		}
	}
	return nil
}

// sameView reports whether the two tell readers the same.
func sameView(a, b *view) bool {
	same := func(x, y *record) bool {
		return x.id == y.id && x.status == y.status && x.distrusted == y.distrusted && x.tainted == y.tainted
	}
	return slices.EqualFunc(a.x509, b.x509, same) && slices.EqualFunc(a.jwt, b.jwt, same) && proto.Equal(a.bundle, b.bundle)
}
