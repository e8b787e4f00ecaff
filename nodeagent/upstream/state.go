package upstream

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// DataFile, in the data directory, is there once the agent has joined.
const DataFile = "agent-data.json"

// The files in the data directory, in SPIRE's formats: a spire-agent's directory
// can be taken over.
const (
	dataFile = DataFile
	keysFile = "keys.json"
)

// data is the content of agent-data.json.
type data struct {
	SVID         []*x509.Certificate // leaf first; empty: has not joined
	Bundle       []*x509.Certificate
	Reattestable bool
	// rest is what spire-agent keeps there besides; carried, not used.
	rest dataRest
}

type dataRest struct {
	BootstrapUse       int       `json:"bootstrap_use"`
	BootstrapStartTime time.Time `json:"bootstrap_start_time"`
	ConnectionAttempts int       `json:"connection_attempts"`
}

// dataJSON holds PEM texts, which encoding/json writes in base64.
type dataJSON struct {
	SVID         [][]byte `json:"svid"`
	Bundle       [][]byte `json:"bundle"`
	Reattestable bool     `json:"reattestable"`
	dataRest
}

func decodeData(b []byte) (data, error) {
	var j dataJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return data{}, err
	}
	svid, err := parsePEMs(j.SVID)
	if err != nil {
		return data{}, fmt.Errorf("svid: %w", err)
	}
	bundle, err := parsePEMs(j.Bundle)
	if err != nil {
		return data{}, fmt.Errorf("bundle: %w", err)
	}
	return data{SVID: svid, Bundle: bundle, Reattestable: j.Reattestable, rest: j.dataRest}, nil
}

func (d data) encode() ([]byte, error) {
	return json.Marshal(dataJSON{
		SVID:         encodePEMs(d.SVID),
		Bundle:       encodePEMs(d.Bundle),
		Reattestable: d.Reattestable,
		dataRest:     d.rest,
	})
}

// parsePEMs takes one certificate from each text.
func parsePEMs(texts [][]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for i, text := range texts {
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("item %d is no PEM certificate", i)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func encodePEMs(certs []*x509.Certificate) [][]byte {
	var texts [][]byte
	for _, cert := range certs {
		texts = append(texts, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return texts
}

// keys is the content of keys.json: private keys by slot.
type keys map[string]crypto.Signer

// The slots of the agent's own key, SPIRE's names. One holds the key in use, the
// other that of a renewal under way.
const (
	slotA = "agent-svid-A"
	slotB = "agent-svid-B"
)

type keysJSON struct {
	Keys map[string][]byte `json:"keys"`
}

// decodeKeys never repeats content in its error: it is secret.
func decodeKeys(b []byte) (keys, error) {
	var j keysJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, errors.New("is not JSON of the expected shape")
	}
	ks := make(keys, len(j.Keys))
	for slot, der := range j.Keys {
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, fmt.Errorf("key %q is not PKCS #8", slot)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("key %q cannot sign", slot)
		}
		ks[slot] = signer
	}
	return ks, nil
}

func (ks keys) encode() ([]byte, error) {
	j := keysJSON{Keys: make(map[string][]byte, len(ks))}
	for slot, key := range ks {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", slot, err)
		}
		j.Keys[slot] = der
	}
	return json.MarshalIndent(j, "", "\t")
}

// slotOf returns the slot of the key with public key pub, "" if there is none.
func (ks keys) slotOf(pub crypto.PublicKey) string {
	for slot, key := range ks {
		if samePublicKey(key.Public(), pub) {
			return slot
		}
	}
	return ""
}

func samePublicKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}

// load reads a state file with decode. Absent is the zero value; a file that
// cannot be understood is an error and stays as it is.
func load[T any](dir, name string, decode func([]byte) (T, error)) (T, error) {
	var zero T
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return zero, nil
	}
	if err != nil {
		return zero, err
	}
	v, err := decode(b)
	if err != nil {
		return zero, fmt.Errorf("%s is damaged (%w): restore it, or remove %s and %s from %s and join with a new token", path, err, dataFile, keysFile, dir)
	}
	return v, nil
}

func save(dir, name string, v interface{ encode() ([]byte, error) }) error {
	path := filepath.Join(dir, name)
	b, err := v.encode()
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.WriteFile(path, b, 0o600)
}
