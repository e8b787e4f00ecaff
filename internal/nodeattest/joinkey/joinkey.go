// Package joinkey owns both halves of the join_key attestation: a node proves
// that it holds a key of its own, over the TLS connection that it joins on. The
// first time it shows a token with it; from then on the key is enough. The
// package is pure: it keeps no key and knows no token.
//
// The agent sends a [Claim], gets a nonce and answers with a signature over it
// and over all that the attempt is about, so that the answer is good for this
// connection, this claim and this SVID's key alone. Verifying it costs one
// ECDSA signature whatever was sent.
package joinkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
)

// maxMessage bounds what is parsed, in bytes.
const maxMessage = 4 << 10

// Claim is what an agent sends first.
type Claim struct {
	// KeyHash is the SHA-256 of the node key's SubjectPublicKeyInfo.
	KeyHash [32]byte
	// Token is empty where the agent shows none.
	Token string

	key *ecdsa.PublicKey
	// raw is the message; the proof covers it.
	raw []byte
}

type claimJSON struct {
	// PublicKey is a SubjectPublicKeyInfo in DER.
	PublicKey []byte `json:"public_key"`
	Token     string `json:"token,omitempty"`
}

type challengeJSON struct {
	Nonce []byte `json:"nonce"`
}

type responseJSON struct {
	// Signature is an ECDSA-Sig-Value in DER (RFC 3279, section 2.2.3).
	Signature []byte `json:"signature"`
}

// GenerateKey makes a node's own key.
func GenerateKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// NewClaim returns the message that says which key the agent will prove. token
// is empty where the key alone is shown.
func NewClaim(key crypto.PublicKey, token string) ([]byte, error) {
	if token != "" {
		if err := nodeattest.CheckJoinToken(token); err != nil {
			return nil, err
		}
	}
	if _, err := checkKey(key); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return json.Marshal(claimJSON{PublicKey: der, Token: token})
}

// ParseClaim reads what [NewClaim] returned at the other end. The error does
// not repeat the token.
func ParseClaim(message []byte) (*Claim, error) {
	var c claimJSON
	if err := decode(message, &c); err != nil {
		return nil, fmt.Errorf("claim of a node key: %w", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(c.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("claim of a node key: public key: %w", err)
	}
	key, err := checkKey(parsed)
	if err != nil {
		return nil, fmt.Errorf("claim of a node key: %w", err)
	}
	// One key has one encoding, or it would have several hashes and be several nodes.
	if der, err := x509.MarshalPKIXPublicKey(key); err != nil || string(der) != string(c.PublicKey) {
		return nil, errors.New("claim of a node key: public key is not in DER")
	}
	if c.Token != "" {
		if err := nodeattest.CheckJoinToken(c.Token); err != nil {
			return nil, fmt.Errorf("claim of a node key: %w", err)
		}
	}
	return &Claim{KeyHash: sha256.Sum256(c.PublicKey), Token: c.Token, key: key, raw: message}, nil
}

// checkKey reports why pub cannot be a node's own key.
func checkKey(pub crypto.PublicKey) (*ecdsa.PublicKey, error) {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
		return nil, errors.New("node key is not ECDSA on P-256 or P-384")
	}
	return key, nil
}

// NewChallenge returns a message with a nonce that never was before.
func NewChallenge() ([]byte, error) {
	nonce := make([]byte, nonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return json.Marshal(challengeJSON{Nonce: nonce})
}

// Respond answers a challenge to claim, the message that was sent first.
func Respond(key crypto.Signer, claim, challenge []byte, a Attempt) ([]byte, error) {
	if _, err := checkKey(key.Public()); err != nil {
		return nil, err
	}
	digest, err := a.digest(claim, challenge)
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign with the node key: %w", err)
	}
	return json.Marshal(responseJSON{Signature: signature})
}

// Verify checks the response to challenge, a message of [NewChallenge].
func (c *Claim) Verify(challenge, response []byte, a Attempt) error {
	var r responseJSON
	if err := decode(response, &r); err != nil {
		return fmt.Errorf("response of a node key: %w", err)
	}
	digest, err := a.digest(c.raw, challenge)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(c.key, digest, r.Signature) {
		return ErrSignature
	}
	return nil
}

// ErrSignature says that a response is not by the key claimed, or is about
// another attempt.
var ErrSignature = errors.New("the signature of the node key does not match")

// AgentID returns the SPIFFE ID of the agent with that node key; group may be empty.
func AgentID(td spiffeid.TrustDomain, group string, keyHash [32]byte) (spiffeid.ID, error) {
	path := []string{"spire", "agent", nodeattest.JoinKey}
	if group != "" {
		path = append(path, group)
	}
	return spiffeid.FromSegments(td, append(path, hex.EncodeToString(keyHash[:]))...)
}

// decode reads one JSON object. Its error does not repeat content: it may be secret.
func decode(message []byte, into any) error {
	if len(message) > maxMessage {
		return fmt.Errorf("has %d bytes, at most %d", len(message), maxMessage)
	}
	if err := json.Unmarshal(message, into); err != nil {
		return errors.New("is not JSON of the expected shape")
	}
	return nil
}
