package x509pop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

const nonceBytes = 32

// Challenge is one question to the holder of a key: a fresh nonce.
type Challenge struct {
	nonce []byte
	pub   crypto.PublicKey
}

type nonceJSON struct {
	Nonce []byte `json:"nonce"`
}

// challengeJSON has one member set, by the kind of key; the other is null.
type challengeJSON struct {
	RSA   *nonceJSON `json:"rsa_signature"`
	ECDSA *nonceJSON `json:"ecdsa_signature"`
}

type rsaResponse struct {
	Nonce     []byte `json:"nonce"`
	Signature []byte `json:"signature"`
}

// ecdsaResponse has unsigned big-endian numbers.
type ecdsaResponse struct {
	Nonce []byte `json:"nonce"`
	R     []byte `json:"r"`
	S     []byte `json:"s"`
}

type responseJSON struct {
	RSA   *rsaResponse   `json:"rsa_signature"`
	ECDSA *ecdsaResponse `json:"ecdsa_signature"`
}

// NewChallenge asks the holder of leaf's key to prove it. The key must be for
// digital signatures, and RSA or ECDSA.
func NewChallenge(leaf *x509.Certificate) (*Challenge, error) {
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, errors.New("certificate not intended for digital signature use")
	}
	switch leaf.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
	default:
		return nil, fmt.Errorf("unsupported public key type %T: want RSA or ECDSA", leaf.PublicKey)
	}
	c := &Challenge{nonce: make([]byte, nonceBytes), pub: leaf.PublicKey}
	_, err := rand.Read(c.nonce)
	return c, err
}

// Message returns the challenge as it is sent.
func (c *Challenge) Message() ([]byte, error) {
	if _, ok := c.pub.(*rsa.PublicKey); ok {
		return json.Marshal(challengeJSON{RSA: &nonceJSON{c.nonce}})
	}
	return json.Marshal(challengeJSON{ECDSA: &nonceJSON{c.nonce}})
}

// Respond answers a challenge with the key of the leaf that was shown.
func Respond(key crypto.Signer, challenge []byte) ([]byte, error) {
	var c challengeJSON
	if err := decode(challenge, &c); err != nil {
		return nil, fmt.Errorf("challenge: %w", err)
	}
	nonce := make([]byte, nonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	switch key.Public().(type) {
	case *rsa.PublicKey:
		if c.RSA == nil {
			return nil, errors.New("expecting RSA challenge")
		}
		return respondRSA(key, c.RSA.Nonce, nonce)
	case *ecdsa.PublicKey:
		if c.ECDSA == nil {
			return nil, errors.New("expecting ECDSA challenge")
		}
		return respondECDSA(key, c.ECDSA.Nonce, nonce)
	}
	return nil, fmt.Errorf("unsupported private key of type %T: want RSA or ECDSA", key.Public())
}

func respondRSA(key crypto.Signer, challenge, nonce []byte) ([]byte, error) {
	digest, err := combine(challenge, nonce)
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(rand.Reader, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256})
	if err != nil {
		return nil, err
	}
	return json.Marshal(responseJSON{RSA: &rsaResponse{Nonce: nonce, Signature: signature}})
}

func respondECDSA(key crypto.Signer, challenge, nonce []byte) ([]byte, error) {
	digest, err := combine(challenge, nonce)
	if err != nil {
		return nil, err
	}
	der, err := key.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	return json.Marshal(responseJSON{ECDSA: &ecdsaResponse{Nonce: nonce, R: sig.R.Bytes(), S: sig.S.Bytes()}})
}

// Verify checks the response. It costs one signature, whatever was sent.
func (c *Challenge) Verify(response []byte) error {
	var r responseJSON
	if err := decode(response, &r); err != nil {
		return fmt.Errorf("unable to unmarshal challenge response: %w", err)
	}
	switch pub := c.pub.(type) {
	case *rsa.PublicKey:
		if r.RSA == nil {
			return errors.New("expecting RSA response")
		}
		digest, err := combine(c.nonce, r.RSA.Nonce)
		if err != nil {
			return err
		}
		if rsa.VerifyPSS(pub, crypto.SHA256, digest, r.RSA.Signature, nil) != nil {
			return errors.New("RSA signature verify failed")
		}
		return nil
	case *ecdsa.PublicKey:
		if r.ECDSA == nil {
			return errors.New("expecting ECDSA response")
		}
		digest, err := combine(c.nonce, r.ECDSA.Nonce)
		if err != nil {
			return err
		}
		// Numbers longer than the curve's are no signature; they are not looked at.
		most := (pub.Curve.Params().BitSize + 7) / 8
		if len(r.ECDSA.R) > most || len(r.ECDSA.S) > most ||
			!ecdsa.Verify(pub, digest, new(big.Int).SetBytes(r.ECDSA.R), new(big.Int).SetBytes(r.ECDSA.S)) {
			return errors.New("ECDSA signature verify failed")
		}
		return nil
	}
	return fmt.Errorf("unsupported public key type %T", c.pub)
}

// combine returns the digest that is signed: of the nonces of both sides, so
// that neither chooses it alone.
func combine(challenge, response []byte) ([]byte, error) {
	if len(challenge) != nonceBytes {
		return nil, errors.New("invalid challenge nonce")
	}
	if len(response) != nonceBytes {
		return nil, errors.New("invalid response nonce")
	}
	digest := sha256.Sum256(append(challenge[:nonceBytes:nonceBytes], response...))
	return digest[:], nil
}

func decode(message []byte, into any) error {
	if len(message) > maxResponse {
		return fmt.Errorf("it has %d bytes, at most %d", len(message), maxResponse)
	}
	return json.Unmarshal(message, into)
}
