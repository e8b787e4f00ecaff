package joinkey

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// exporterLabel has the prefix that RFC 5705, section 4, leaves to private
	// use. As with RFC 9266 the context is empty and the value has 32 bytes.
	exporterLabel = "EXPERIMENTAL lanyard join_key v1"
	exporterBytes = 32
	nonceBytes    = 32
)

// Attempt is what both ends know of an attempt to join, and nobody changes
// without their noticing.
type Attempt struct {
	TrustDomain spiffeid.TrustDomain
	// CSRKeyHash is the SHA-256 of the SubjectPublicKeyInfo that the SVID is for.
	CSRKeyHash [32]byte
	// Exporter gives keying material of the TLS connection
	// (tls.ConnectionState.ExportKeyingMaterial).
	Exporter func(label string, context []byte, n int) ([]byte, error)
}

// digest returns what is signed: as in TLS (RFC 8446, section 4.4.3), 64 spaces
// and a text keep it apart from what else the key may sign.
func (a Attempt) digest(claim, challenge []byte) ([]byte, error) {
	var c challengeJSON
	if err := decode(challenge, &c); err != nil {
		return nil, fmt.Errorf("challenge to a node key: %w", err)
	}
	if len(c.Nonce) != nonceBytes {
		return nil, fmt.Errorf("challenge to a node key: nonce has %d bytes, want %d", len(c.Nonce), nonceBytes)
	}
	if a.Exporter == nil {
		return nil, errors.New("join_key needs a TLS connection from the agent to the issuer, with no proxy that ends it in between")
	}
	exported, err := a.Exporter(exporterLabel, nil, exporterBytes)
	if err != nil {
		return nil, fmt.Errorf("join_key needs TLS 1.3: %w", err)
	}
	claimHash := sha256.Sum256(claim)
	h := sha256.New()
	h.Write([]byte(strings.Repeat(" ", 64) + exporterLabel + "\x00"))
	for _, field := range [][]byte{[]byte(a.TrustDomain.Name()), c.Nonce, exported, a.CSRKeyHash[:], claimHash[:]} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(field)))
		h.Write(n[:])
		h.Write(field)
	}
	return h.Sum(nil), nil
}
