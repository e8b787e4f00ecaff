// Package backup owns what a backup of an issuer is: one tar file with the store's records and the private keys, and the way
// back into a fresh data directory. It does not encrypt (that is internal/seal), and it does not know what the records mean
// (that is issuer/store).
package backup

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Parts are what a backup is made of.
type Parts struct {
	TrustDomain spiffeid.TrustDomain
	// Save writes a consistent copy of the records.
	Save func(ctx context.Context, w io.Writer) (int64, error)
	// KeyFile has the private keys; "" if they are kept in memory alone, and a restored issuer then makes new ones.
	KeyFile string
	// Version is Lanyard's, for the reader.
	Version string
	Now     func() time.Time // nil is time.Now
}

// Write writes a backup to w. It is as secret as the private keys in it. What was written is of no use unless the error is
// nil.
func Write(ctx context.Context, w io.Writer, p Parts) error { return errors.ErrUnsupported }

// Target says where a backup goes.
type Target struct {
	// DataDir is made if it is missing, and refused if anything is in it.
	DataDir string
	// TrustDomain refuses a backup of another one; zero takes any.
	TrustDomain spiffeid.TrustDomain
	Now         func() time.Time // nil is time.Now
}

// Restored is what a backup was.
type Restored struct {
	TrustDomain spiffeid.TrustDomain
	CreatedAt   time.Time
	Version     string
	HasKeys     bool
}

// Restore reads a backup that Write made into a fresh data directory: all of it or nothing.
func Restore(ctx context.Context, r io.Reader, into Target) (Restored, error) {
	return Restored{}, errors.ErrUnsupported
}
