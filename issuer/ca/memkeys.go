package ca

import (
	"context"
	"crypto"
	"fmt"
	"sync"
)

// MemoryKeys keeps keys in memory alone: each start of the issuer makes new
// authorities.
type MemoryKeys struct {
	mu   sync.Mutex // guards keys
	keys map[string]crypto.Signer
}

// NewMemoryKeys returns a MemoryKeys without keys.
func NewMemoryKeys() *MemoryKeys {
	return &MemoryKeys{keys: map[string]crypto.Signer{}}
}

// Generate implements [Keys].
func (k *MemoryKeys) Generate(_ context.Context, id string, t KeyType) (crypto.Signer, error) {
	key, err := t.generate()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[id] = key
	return key, nil
}

// Signer implements [Keys].
func (k *MemoryKeys) Signer(_ context.Context, id string) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.keys[id]
	if !ok {
		return nil, fmt.Errorf("key %q in memory: %w", id, ErrNoKey)
	}
	return key, nil
}
