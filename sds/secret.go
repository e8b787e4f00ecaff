package sds

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// validatorName is Envoy's extension that verifies a peer with the bundle of
// the trust domain in the peer's own SPIFFE ID.
const validatorName = "envoy.tls.cert_validator.spiffe"

// newCertificate makes the tls_certificate secret of an SVID. Its version is of
// the name and the chain: that determines the key, and a hash of the key has no
// place in logs.
func newCertificate(name string, svid *x509svid.SVID) (*resource, error) {
	der, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("private key of %s: %w", svid.ID, err)
	}
	chain := encodeChain(svid.Certificates)
	body, err := encode(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(chain),
		PrivateKey:       inline(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}}})
	if err != nil {
		return nil, err
	}
	r := &resource{name: name, version: contentHash([]byte(name), chain), body: body}
	if len(svid.Certificates) > 0 {
		r.ends = svid.Certificates[0].NotAfter
	}
	return r, nil
}

// newTrustedCA makes a validation context that takes the bundle's authorities
// for whatever SPIFFE ID they sign.
func newTrustedCA(name string, bundle *x509bundle.Bundle) (*resource, error) {
	return newValidation(name, &tlsv3.CertificateValidationContext{TrustedCa: inline(encodeAuthorities(bundle))})
}

// newSPIFFEValidator makes a validation context in which each bundle is good for
// its own trust domain only.
func newSPIFFEValidator(name string, bundles []*x509bundle.Bundle) (*resource, error) {
	// A map had them in any order; equal sets must be equal bytes, or Envoy
	// would make new TLS contexts for nothing, again and again.
	slices.SortFunc(bundles, func(a, b *x509bundle.Bundle) int { return a.TrustDomain().Compare(b.TrustDomain()) })
	config := &tlsv3.SPIFFECertValidatorConfig{}
	for _, bundle := range bundles {
		config.TrustDomains = append(config.TrustDomains, &tlsv3.SPIFFECertValidatorConfig_TrustDomain{
			Name:        bundle.TrustDomain().Name(),
			TrustBundle: inline(encodeAuthorities(bundle)),
		})
	}
	typed, err := encode(config)
	if err != nil {
		return nil, err
	}
	return newValidation(name, &tlsv3.CertificateValidationContext{
		CustomValidatorConfig: &corev3.TypedExtensionConfig{Name: validatorName, TypedConfig: typed},
	})
}

func newValidation(name string, validation *tlsv3.CertificateValidationContext) (*resource, error) {
	body, err := encode(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: validation}})
	if err != nil {
		return nil, err
	}
	return &resource{name: name, version: contentHash([]byte(name), body.GetValue()), body: body}, nil
}

func encode(m proto.Message) (*anypb.Any, error) {
	body := new(anypb.Any)
	err := anypb.MarshalFrom(body, m, proto.MarshalOptions{Deterministic: true})
	return body, err
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

// encodeAuthorities returns the bundle's authorities as PEM, each once, in the
// order of their bytes: a bundle is a set.
func encodeAuthorities(bundle *x509bundle.Bundle) []byte {
	certs := bundle.X509Authorities()
	slices.SortFunc(certs, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return encodeChain(slices.CompactFunc(certs, (*x509.Certificate).Equal))
}

func encodeChain(certs []*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// versionOf is the version of a set of secrets.
func versionOf(rs []*resource) string {
	parts := make([][]byte, 0, 2*len(rs))
	for _, r := range rs {
		parts = append(parts, []byte(r.name), []byte(r.version))
	}
	return contentHash(parts...)
}

// contentHash identifies content, the parts' bounds included.
func contentHash(parts ...[]byte) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
