package svidcache

import (
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
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
	svid *svid
	hint string
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
	return a != nil && a.bundles == bundles && slices.Equal(a.identities, identities)
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
			Hint:        id.hint,
		})
	}
	return proto.Marshal(resp)
}

func (a *Answer) x509Context() *workload.X509Context {
	ctx := &workload.X509Context{Bundles: a.bundles.parsed}
	for _, id := range a.identities {
		ctx.SVIDs = append(ctx.SVIDs, &x509svid.SVID{ID: id.svid.id, Certificates: id.svid.chain, PrivateKey: id.svid.key, Hint: id.hint})
	}
	return ctx
}

// Bundles are those that a set of identities may verify peers with: their own
// trust domain's and those that the entries federate with. Immutable.
type Bundles struct {
	own    spiffeid.TrustDomain
	parsed map[spiffeid.TrustDomain]*x509bundle.Bundle
	der    map[spiffeid.TrustDomain][]byte // authorities concatenated

	encode func() ([]byte, error)
}

// derBundle is a bundle and its wire form, made once per change.
type derBundle struct {
	bundle *x509bundle.Bundle
	der    []byte
}

func newBundles(own spiffeid.TrustDomain, known map[spiffeid.TrustDomain]derBundle, federated []spiffeid.TrustDomain) *Bundles {
	b := &Bundles{own: own, parsed: make(map[spiffeid.TrustDomain]*x509bundle.Bundle), der: make(map[spiffeid.TrustDomain][]byte)}
	for _, td := range append([]spiffeid.TrustDomain{own}, federated...) {
		if k, ok := known[td]; ok {
			b.parsed[td], b.der[td] = k.bundle, k.der
		}
	}
	b.encode = sync.OnceValues(b.marshal)
	return b
}

// X509BundlesResponse returns the encoded message of the Workload API. It is
// shared and must not be changed.
func (b *Bundles) X509BundlesResponse() ([]byte, error) { return b.encode() }

func (b *Bundles) marshal() ([]byte, error) {
	resp := &workloadpb.X509BundlesResponse{Bundles: make(map[string][]byte)}
	for td, der := range b.der {
		resp.Bundles[td.IDString()] = der
	}
	return proto.Marshal(resp)
}

// same compares by identity of the shared encodings: a bundle that did not change
// keeps its bytes.
func (b *Bundles) same(other *Bundles) bool {
	if b == nil || len(b.der) != len(other.der) {
		return false
	}
	for td, der := range b.der {
		o := other.der[td]
		if len(o) != len(der) || len(der) > 0 && &o[0] != &der[0] {
			return false
		}
	}
	return true
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
func (a *Answer) Identities() []Identity { return nil }

// ByDomain returns the authorities of each trust domain, DER concatenated.
func (b *Bundles) ByDomain() map[spiffeid.TrustDomain][]byte { return b.der }
