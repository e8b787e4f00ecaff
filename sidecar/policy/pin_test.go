package policy

import (
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"strings"
	"testing"
)

func TestPins(t *testing.T) {
	cert, other := leaf(t, x509.Certificate{Subject: pkix.Name{CommonName: "web"}}), leaf(t, x509.Certificate{Subject: pkix.Name{CommonName: "web"}})
	spki := cert.RawSubjectPublicKeyInfo
	sum384, sum512 := sha512.Sum384(spki), sha512.Sum512(spki)
	own := PinOf(spki)
	pins := map[string]string{
		"sha256":   own,
		"any case": "ShA256" + strings.TrimPrefix(own, "sha256"),
		"sha384":   "sha384:" + base64.StdEncoding.EncodeToString(sum384[:]),
		"sha512":   "sha512:" + base64.StdEncoding.EncodeToString(sum512[:]),
	}
	for name, pin := range pins {
		p := compiled(t, Config{Pins: []string{PinOf(nil), pin}})
		if got := p.Decide(t.Context(), Request{Certificate: cert}); !got.Allowed || got.Rule != "--allow-spki-pin "+pin {
			t.Errorf("%s: %+v", name, got)
		}
		got := p.Decide(t.Context(), Request{Certificate: other})
		if want := "no pin matches the peer's public key, " + PinOf(other.RawSubjectPublicKeyInfo); got.Allowed || got.Reason != want {
			t.Errorf("%s: %+v, want %s", name, got, want)
		}
		// The names of a certificate that nobody verified count for nothing.
		if got := p.Decide(t.Context(), Request{Own: web, Peer: web}); got.Allowed || got.Reason == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
