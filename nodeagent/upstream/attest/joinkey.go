package attest

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest/joinkey"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
)

// KeyFile is the node's own key in the data directory: PKCS #8 in PEM. It is made
// once and stays for good, apart from the keys of SVIDs: whoever has it is this
// node to the issuer.
const KeyFile = "node-key.pem"

// JoinKey proves the node's own key; the first time it shows a token with it. It
// is safe for concurrent use.
type JoinKey struct {
	// Dir is the agent's data directory, which is its alone.
	Dir string
	// Token is needed until the issuer knows the key, and again after an
	// eviction.
	Token Token

	mu  sync.Mutex
	key *ecdsa.PrivateKey
}

// Kind implements upstream.Attestor.
func (*JoinKey) Kind() (string, bool) { return nodeattest.JoinKey, true }

// Check implements upstream.Attestor: without a token, the key must be there. The
// issuer may know it.
func (j *JoinKey) Check() error {
	if _, err := os.Lstat(filepath.Join(j.Dir, KeyFile)); err == nil {
		return nil
	}
	token, err := j.Token.Read()
	if err == nil && token == "" {
		return fmt.Errorf("the node has no key in %s and no join token: %s", j.Dir, upstream.NewKeyTokenMend)
	}
	return err
}

// Begin implements upstream.Attestor.
func (j *JoinKey) Begin(_ context.Context, a upstream.Attempt) (upstream.Proof, error) {
	key, err := j.nodeKey()
	if err != nil {
		return upstream.Proof{}, err
	}
	// A token that is spent, or gone, must not keep a node out that is known.
	token := ""
	if !a.Joined {
		token, err = j.Token.Read()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return upstream.Proof{}, err
		}
	}
	claim, err := joinkey.NewClaim(key.Public(), token)
	if err != nil {
		return upstream.Proof{}, err
	}
	respond := func(_ context.Context, challenge []byte, exporter upstream.Exporter) ([]byte, error) {
		return joinkey.Respond(key, claim, challenge, joinkey.Attempt{TrustDomain: a.TrustDomain, CSRKeyHash: a.CSRKeyHash, Exporter: exporter})
	}
	proof := upstream.Proof{Payload: claim, Respond: respond}
	if token != "" {
		proof.Token = upstream.Redacted(token)
	}
	return proof, nil
}

// nodeKey reads the node's own key, and makes it if there is none. It is on disk
// before anybody sees it.
func (j *JoinKey) nodeKey() (*ecdsa.PrivateKey, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.key != nil {
		return j.key, nil
	}
	path := filepath.Join(j.Dir, KeyFile)
	if err := durable.Sweep(path); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		j.key, err = newNodeKey(path)
	case err == nil:
		j.key, err = parseNodeKey(text)
		if err != nil {
			err = fmt.Errorf("%s is damaged (%w): restore it, or remove it and join with a new token as another agent", path, err)
		}
	}
	return j.key, err
}

func newNodeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := joinkey.GenerateKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// parseNodeKey never repeats content in its error: it is secret.
func parseNodeKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) > 0 {
		return nil, errors.New("not one PEM block PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not PKCS #8")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return key, nil
}
