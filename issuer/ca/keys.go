package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// Keys holds private keys, each under an id. It is the seam for key managers:
// [DiskKeys] and [MemoryKeys] are there.
type Keys interface {
	// Generate makes a new key under id, in place of an older one, and returns
	// when it would survive a crash, if any key of the manager does.
	Generate(ctx context.Context, id string, t KeyType) (crypto.Signer, error)
	// Signer returns the key under id, or an error that wraps [ErrNoKey].
	Signer(ctx context.Context, id string) (crypto.Signer, error)
}

// ErrNoKey says that there is no key under an id.
var ErrNoKey = errors.New("no such key")

// maxKeyFile bounds the file that is read into memory, in bytes.
const maxKeyFile = 1 << 20

// DiskKeys keeps keys in one file of SPIRE's format ("keys.json"), rewritten as
// a whole by [durable.WriteFile], mode 0600.
type DiskKeys struct {
	path string

	mu   sync.Mutex // guards keys and the file
	keys map[string]crypto.Signer
}

// keyFile is the content of keys.json: PKCS #8 (RFC 5958) in base64 by key id.
type keyFile struct {
	Keys map[string][]byte `json:"keys"`
}

// OpenKeys reads the key file at path, whose directory it makes private and
// nobody else may be using. A file that is not there has no keys. One that cannot
// be read is an error and stays as it is.
func OpenKeys(path string) (*DiskKeys, error) {
	if err := durable.MkdirPrivate(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := durable.Sweep(path); err != nil {
		return nil, fmt.Errorf("left-over copies of key file: %w", err)
	}
	data, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &DiskKeys{path: path, keys: map[string]crypto.Signer{}}, nil
	}
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w: restore it from a backup, or move it away to start with a new authority that no agent trusts yet", path, err)
	}
	return &DiskKeys{path: path, keys: keys}, nil
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("key file %s (mode %04o) is open to every user: run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	return io.ReadAll(io.LimitReader(f, maxKeyFile+1))
}

// parseKeys reads the content of a key file. Its errors repeat none of it.
func parseKeys(data []byte) (map[string]crypto.Signer, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("larger than %d bytes", maxKeyFile)
	}
	var file keyFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(&file)
	if _, end := dec.Token(); err != nil || !errors.Is(end, io.EOF) {
		return nil, errors.New(`not of the form {"keys":{"ID":"PKCS #8 in base64"}}`)
	}
	keys := make(map[string]crypto.Signer, len(file.Keys))
	for id, der := range file.Keys {
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, fmt.Errorf("key %q is not PKCS #8", id)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("key %q (%T) cannot sign", id, key)
		}
		keys[id] = signer
	}
	return keys, nil
}

// Generate implements [Keys].
func (k *DiskKeys) Generate(_ context.Context, id string, t KeyType) (crypto.Signer, error) {
	key, err := t.generate()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := maps.Clone(k.keys)
	keys[id] = key
	data, err := marshalKeys(keys)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(k.path, data, 0o600); err != nil {
		return nil, err
	}
	k.keys = keys
	return key, nil
}

func marshalKeys(keys map[string]crypto.Signer) ([]byte, error) {
	file := keyFile{Keys: make(map[string][]byte, len(keys))}
	for id, key := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", id, err)
		}
		file.Keys[id] = der
	}
	return json.MarshalIndent(file, "", "\t")
}

// Signer implements [Keys].
func (k *DiskKeys) Signer(_ context.Context, id string) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.keys[id]
	if !ok {
		return nil, fmt.Errorf("key %q in %s: %w", id, k.path, ErrNoKey)
	}
	return key, nil
}

// Preserve copies the key file beside itself, if it has any keys, and returns
// where to; empty if there was nothing to keep. The copy is as secret.
func (k *DiskKeys) Preserve(_ context.Context, now time.Time) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) == 0 {
		return "", nil
	}
	data, err := marshalKeys(k.keys)
	if err != nil {
		return "", err
	}
	path := k.path + ".found-" + now.UTC().Format("20060102T150405Z")
	return path, durable.WriteFile(path, data, 0o600)
}
