package svidcache

import (
	"crypto/x509"
	"slices"
	"sync"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/internal/workload"
)

// Answer is what all callers of one set of identities are given, until any of it
// changes. It is immutable; encodings are made when first asked for, once.
type Answer struct {
	identities []identity
	bundles    *Bundles
	expires    time.Time // of the first SVID

	encode  func() ([]byte, error)
	context func() *workload.X509Context
}

// identity is an SVID as an entry gives it.
type identity struct {
	svid   *svid
	fields *fields
}

func newAnswer(identities []identity, bundles *Bundles) *Answer {
	a := &Answer{identities: identities, bundles: bundles}
	for i, id := range identities {
		if i == 0 || id.svid.notAfter.Before(a.expires) {
			a.expires = id.svid.notAfter
		}
	}
	a.encode = sync.OnceValues(a.marshal)
	a.context = sync.OnceValue(a.x509Context)
	return a
}

// X509SVIDResponse returns the encoded message of the Workload API. It is shared
// and must not be changed.
func (a *Answer) X509SVIDResponse() ([]byte, error) { return a.encode() }

// X509Context returns the answer decoded; shared and immutable.
func (a *Answer) X509Context() *workload.X509Context { return a.context() }

// same reports whether an answer from these parts would say the same.
func (a *Answer) same(identities []identity, bundles *Bundles) bool {
	return a != nil && a.bundles == bundles && slices.EqualFunc(a.identities, identities, func(a, b identity) bool {
		return a.svid == b.svid && (a.fields == b.fields || a.fields.sameAnswer(b.fields))
	})
}

func (a *Answer) marshal() ([]byte, error) {
	resp := &workloadpb.X509SVIDResponse{FederatedBundles: make(map[string][]byte)}
	for td, der := range a.bundles.der {
		if td != a.bundles.own {
			resp.FederatedBundles[td.IDString()] = der
		}
	}
	for _, id := range a.identities {
		resp.Svids = append(resp.Svids, &workloadpb.X509SVID{
			SpiffeId:    id.svid.id.String(),
			X509Svid:    id.svid.chainDER,
			X509SvidKey: id.svid.keyDER,
			Bundle:      a.bundles.der[a.bundles.own],
			Hint:        id.fields.more().hint,
		})
	}
	return proto.Marshal(resp)
}

func (a *Answer) x509Context() *workload.X509Context {
	ctx := &workload.X509Context{Bundles: a.bundles.parsed}
	for _, id := range a.identities {
		chain, key := id.svid.parsed()
		ctx.SVIDs = append(ctx.SVIDs, &x509svid.SVID{ID: id.svid.id, Certificates: chain, PrivateKey: key, Hint: id.fields.more().hint})
	}
	return ctx
}

// Identity is one SVID of an [Answer]. It is shared and must not be changed.
type Identity struct {
	// Entry has the SPIFFE ID filled in where it is an instance of a template.
	Entry registration.Entry
	// Chain is leaf first, ChainDER the same in DER, concatenated.
	Chain    []*x509.Certificate
	ChainDER []byte
	// KeyDER is PKCS #8. It is secret.
	KeyDER []byte
	// NotAfter is when the first of the chain ends.
	NotAfter time.Time
}

// Identities returns the SVIDs of the answer, the default first.
func (a *Answer) Identities() []Identity {
	all := make([]Identity, len(a.identities))
	for i, id := range a.identities {
		chain, _ := id.svid.parsed()
		all[i] = Identity{
			Entry: id.fields.entry(), Chain: chain, ChainDER: id.svid.chainDER, KeyDER: id.svid.keyDER, NotAfter: id.svid.notAfter,
		}
	}
	return all
}

// Bundles returns those that go with the answer.
func (a *Answer) Bundles() *Bundles { return a.bundles }
