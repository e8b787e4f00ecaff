package issuercli

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// bundleFormat is a flag: pem or spiffe, in any case.
type bundleFormat struct{ cli.Choice }

// add adds the flag; what says what it is the format of.
func (f *bundleFormat) add(fs *pflag.FlagSet, name, what string) {
	f.Choice = cli.Choice{Value: "pem", Accepts: []string{"pem", "spiffe"}}
	fs.Var(f, name, what+": pem, certificates alone, or spiffe, the JWKS document of the SPIFFE standard")
}

// Set implements pflag.Value.
func (f *bundleFormat) Set(v string) error { return f.Choice.Set(strings.ToLower(v)) }

// encode writes a bundle.
func (f *bundleFormat) encode(bundle *types.Bundle) ([]byte, error) {
	authorities, err := certificates(bundle)
	if err != nil {
		return nil, err
	}
	if f.Value == "pem" {
		var ders [][]byte
		for _, c := range authorities {
			ders = append(ders, c.Raw)
		}
		return cli.PEM("CERTIFICATE", ders...), nil
	}
	doc, err := bundleDocument(bundle, authorities)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, doc, "", "    "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// bundleDocument gives the JWKS document of the SPIFFE standard.
func bundleDocument(bundle *types.Bundle, authorities []*x509.Certificate) ([]byte, error) {
	td, err := spiffeid.TrustDomainFromString(bundle.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("trust domain %q of the bundle: %w", bundle.TrustDomain, err)
	}
	sb := spiffebundle.FromX509Authorities(td, authorities)
	for _, k := range bundle.JwtAuthorities {
		public, err := x509.ParsePKIXPublicKey(k.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("JWT authority %q: %w", k.KeyId, err)
		}
		if err := sb.AddJWTAuthority(k.KeyId, public); err != nil {
			return nil, err
		}
	}
	if bundle.RefreshHint > 0 {
		sb.SetRefreshHint(time.Duration(bundle.RefreshHint) * time.Second)
	}
	if bundle.SequenceNumber > 0 {
		sb.SetSequenceNumber(bundle.SequenceNumber)
	}
	return sb.Marshal()
}

func certificates(bundle *types.Bundle) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for i, a := range bundle.X509Authorities {
		certs, err := x509.ParseCertificates(a.Asn1)
		if err != nil {
			return nil, fmt.Errorf("X.509 authority %d of the bundle: %w", i+1, err)
		}
		all = append(all, certs...)
	}
	return all, nil
}

// decode reads the bundle of a trust domain.
func (f *bundleFormat) decode(data []byte, td spiffeid.TrustDomain) (*types.Bundle, error) {
	if f.Value == "pem" {
		return decodePEM(data, td)
	}
	sb, err := spiffebundle.Parse(td, data)
	if err != nil {
		return nil, fmt.Errorf("not a SPIFFE bundle document: %w", err)
	}
	bundle := &types.Bundle{TrustDomain: td.Name()}
	for _, c := range sb.X509Authorities() {
		bundle.X509Authorities = append(bundle.X509Authorities, &types.X509Certificate{Asn1: c.Raw})
	}
	for id, public := range sb.JWTAuthorities() {
		pkix, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return nil, fmt.Errorf("JWT authority %q: %w", id, err)
		}
		bundle.JwtAuthorities = append(bundle.JwtAuthorities, &types.JWTKey{KeyId: id, PublicKey: pkix})
	}
	if hint, ok := sb.RefreshHint(); ok {
		bundle.RefreshHint = int64(hint / time.Second)
	}
	if n, ok := sb.SequenceNumber(); ok {
		bundle.SequenceNumber = n
	}
	return bundle, nil
}

// read reads the bundle of a trust domain from a file, or from standard input where path is empty or "-".
func (f *bundleFormat) read(v *verb, path string, td spiffeid.TrustDomain) (*types.Bundle, error) {
	if path == "" {
		path = "-"
	}
	data, err := readData(v.env.Stdin, path)
	if err != nil {
		return nil, err
	}
	bundle, err := f.decode(data, td)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", inputName(path), err)
	}
	return bundle, nil
}

func decodePEM(data []byte, td spiffeid.TrustDomain) (*types.Bundle, error) {
	bundle := &types.Bundle{TrustDomain: td.Name()}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block %q, where only CERTIFICATE belongs", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(bundle.X509Authorities)+1, err)
		}
		bundle.X509Authorities = append(bundle.X509Authorities, &types.X509Certificate{Asn1: block.Bytes})
	}
	if len(bundle.X509Authorities) > 0 {
		return bundle, nil
	}
	if strings.HasPrefix(strings.TrimSpace(string(data)), "{") {
		return nil, cli.Hint(errors.New("no PEM certificate in it"), "it looks like a SPIFFE bundle document: say so with the flag for its format, spiffe")
	}
	return nil, errors.New("no PEM certificate in it")
}
