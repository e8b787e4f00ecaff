package policy

import (
	"context"
	"crypto"
	_ "crypto/sha256" // for crypto.SHA256.New
	_ "crypto/sha512" // and SHA384, SHA512
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// pin is the hash of a public key: of the SubjectPublicKeyInfo, in DER (RFC 7858, section 4.2).
type pin struct {
	text
	hash   crypto.Hash
	digest []byte
}

// pinHash is the algorithm of a pin by name, in any case.
func pinHash(name string) (crypto.Hash, bool) {
	switch strings.ToLower(name) {
	case "sha256":
		return crypto.SHA256, true
	case "sha384":
		return crypto.SHA384, true
	case "sha512":
		return crypto.SHA512, true
	}
	return 0, false
}

func parsePin(s string) (pin, error) {
	algo, encoded, ok := strings.Cut(s, ":")
	if !ok {
		return pin{}, errors.New("not a pin: give ALGORITHM:BASE64, such as sha256:DIGEST")
	}
	hash, ok := pinHash(algo)
	if !ok {
		return pin{}, fmt.Errorf("unknown algorithm %s: give sha256, sha384 or sha512", quote(algo))
	}
	digest, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return pin{}, fmt.Errorf("not in base64: %w", err)
	}
	if len(digest) != hash.Size() {
		return pin{}, fmt.Errorf("%d bytes in base64, but %s gives %d", len(digest), strings.ToLower(algo), hash.Size())
	}
	return pin{hash: hash, digest: digest}, nil
}

// pins is a policy of the peer's public key alone.
type pins struct {
	pins []pin
	reporter
}

// Decide implements Policy.
func (p *pins) Decide(ctx context.Context, r Request) Decision {
	return p.report(ctx, r, p.decide(r))
}

func (p *pins) decide(r Request) Decision {
	if r.Certificate == nil {
		return Decision{Reason: "the peer showed no certificate, so no public key to compare with the pins"}
	}
	for _, pin := range p.pins {
		if pin.matches(r.Certificate.RawSubjectPublicKeyInfo) {
			return Decision{Allowed: true, Rule: pin.String()}
		}
	}
	return Decision{Reason: fmt.Sprintf("no pin matches the peer's public key, %s", PinOf(r.Certificate.RawSubjectPublicKeyInfo))}
}

func (p pin) matches(spki []byte) bool {
	h := p.hash.New()
	h.Write(spki)
	return subtle.ConstantTimeCompare(h.Sum(nil), p.digest) == 1
}

// PinOf returns the pin of a public key, given as SubjectPublicKeyInfo in DER.
func PinOf(spki []byte) string {
	h := crypto.SHA256.New()
	h.Write(spki)
	return "sha256:" + base64.StdEncoding.EncodeToString(h.Sum(nil))
}
