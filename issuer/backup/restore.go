package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/store"
)

// What a data directory holds; the first three are the issuer's.
const (
	lockName  = "lock"
	storeName = "store"
	// partialName is there while a restore is at work, and after one that was killed.
	partialName = "restore.partial"
	lostFound   = "lost+found" // of a file system's root
)

// Target says where a backup goes.
type Target struct {
	// DataDir is made if it is missing, and refused if anything is in it.
	DataDir string
	// KeyFile is where the private keys go; "" is keys.json in DataDir. It must not be there.
	KeyFile string
	// TrustDomain refuses a backup of another one; zero takes any.
	TrustDomain spiffeid.TrustDomain
	Now         func() time.Time // nil is time.Now
}

// Restore reads a backup that Write made into a fresh data directory: all of it or nothing. What others could have done
// since with what was lost is undone as far as it can be: join tokens are void, the bundle's sequence number goes on above
// any that was used, and the issuer makes new authorities when it starts (see store.Restore).
func Restore(ctx context.Context, r io.Reader, into Target) (_ Restored, err error) {
	if into.KeyFile == "" {
		into.KeyFile = filepath.Join(into.DataDir, keysName)
	}
	if err := durable.MkdirPrivate(into.DataDir); err != nil {
		return Restored{}, fmt.Errorf("data directory: %w", err)
	}
	unlock, err := durable.Lock(filepath.Join(into.DataDir, lockName))
	if err != nil {
		return Restored{}, fmt.Errorf("data directory %s: %w", into.DataDir, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := into.mustBeFresh(); err != nil {
		return Restored{}, err
	}
	partial := filepath.Join(into.DataDir, partialName)
	if err := os.RemoveAll(partial); err != nil { // of a restore that was killed
		return Restored{}, err
	}
	if err := os.Mkdir(partial, 0o700); err != nil {
		return Restored{}, err
	}
	c, err := into.prepare(ctx, r, partial)
	if err == nil {
		err = into.commit(partial, c)
	}
	if err != nil {
		return Restored{}, errors.Join(err, os.RemoveAll(partial))
	}
	// Durable before the mark of an unfinished restore goes.
	if err := durable.SyncDir(into.DataDir); err != nil {
		return Restored{}, err
	}
	return c.Restored, errors.Join(os.RemoveAll(partial), durable.SyncDir(into.DataDir))
}

// mustBeFresh refuses a directory that anything else uses. A restore that was killed left nothing that anybody saw.
func (t Target) mustBeFresh() error {
	files, err := os.ReadDir(t.DataDir)
	if err != nil {
		return err
	}
	interrupted := false
	for _, f := range files {
		interrupted = interrupted || f.Name() == partialName
	}
	for _, f := range files {
		switch name := f.Name(); {
		case name == lockName, name == lostFound, name == partialName:
		case interrupted && filepath.Join(t.DataDir, name) == filepath.Clean(t.KeyFile):
		default:
			return fmt.Errorf("data directory %s is not empty, it has %s: restore into a fresh one, or move what is in it away", t.DataDir, name)
		}
	}
	if _, err := os.Lstat(t.KeyFile); !interrupted && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("key file %s is there already: move it away", t.KeyFile)
	}
	return nil
}

// prepare makes everything below partial, and checks it.
func (t Target) prepare(ctx context.Context, r io.Reader, partial string) (*content, error) {
	copyFile := filepath.Join(partial, "records")
	f, err := os.OpenFile(copyFile, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := read(ctx, r, t.TrustDomain, f)
	if err != nil {
		return nil, err
	}
	if c.HasKeys {
		keyFile := filepath.Join(partial, keysName)
		if err := durable.WriteFile(keyFile, c.keys, 0o600); err != nil {
			return nil, err
		}
		if _, err := ca.OpenKeys(keyFile); err != nil {
			return nil, invalid("its key file cannot be read")
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	cfg := store.RestoreConfig{Dir: filepath.Join(partial, storeName), TrustDomain: c.TrustDomain, Now: t.Now}
	if err := store.Restore(ctx, cfg, f); err != nil {
		return nil, fmt.Errorf("restore the records: %w", err)
	}
	return c, os.Remove(copyFile)
}

// commit gives everything its place. The store is last: before it is there, nothing is.
func (t Target) commit(partial string, c *content) error {
	if c.HasKeys {
		if err := durable.WriteFile(t.KeyFile, c.keys, 0o600); err != nil {
			return err
		}
	}
	err := os.Rename(filepath.Join(partial, storeName), filepath.Join(t.DataDir, storeName))
	if err != nil && c.HasKeys {
		err = errors.Join(err, os.Remove(t.KeyFile))
	}
	return err
}

// CheckWhole says what is wrong with a data directory that a restore left unfinished; an issuer must not start on it.
func CheckWhole(dataDir string) error {
	_, err := os.Lstat(filepath.Join(dataDir, partialName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("data directory %s: not a directory: choose another", dataDir)
	case err != nil:
		return fmt.Errorf("data directory %s: %w", dataDir, errors.Unwrap(err)) // without the name that was looked for
	}
	return fmt.Errorf("data directory %s: a restore into it did not end: run it again, or move the directory away", dataDir)
}
