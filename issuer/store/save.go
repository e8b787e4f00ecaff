package store

import (
	"context"
	"io"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Save writes a copy of all records, as of one revision, and returns its size
// in bytes. The store goes on meanwhile.
func (s *Store) Save(ctx context.Context, w io.Writer) (size int64, err error) {
	panic("later")
}

// RestoreConfig says where a copy is restored to, and whose it must be.
type RestoreConfig struct {
	// Dir must be missing or empty.
	Dir string
	// TrustDomain must be that of the copy.
	TrustDomain spiffeid.TrustDomain
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Restore makes a store in cfg.Dir of what Save wrote.
func Restore(ctx context.Context, cfg RestoreConfig, r io.Reader) error {
	panic("later")
}

// Restored reports whether the store was made by Restore and nobody has called
// ClearRestored since.
func (s *Store) Restored(ctx context.Context) (bool, error) {
	return false, nil // until Restore exists
}

// ClearRestored takes the mark of a restore off.
func (s *Store) ClearRestored(ctx context.Context) error {
	return nil
}
