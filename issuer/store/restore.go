package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// RestoreConfig says where a copy is restored to, and whose it must be.
type RestoreConfig struct {
	// Dir must be missing or empty; the directory that it is in must be there.
	Dir string
	// TrustDomain must be that of the copy.
	TrustDomain spiffeid.TrustDomain
	// Log may be nil.
	Log *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Restore makes a store in cfg.Dir of what Save wrote, and marks it. It has no
// join tokens, and the sequence number of its bundle is the time in Unix
// seconds if that is more, so that it is higher than any that was given out
// since the copy. cfg.Dir is there when all of it is, and not before: where
// Restore fails, nothing is left.
func Restore(ctx context.Context, cfg RestoreConfig, r io.Reader) (err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dir := filepath.Clean(cfg.Dir)
	if err := vacant(dir); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	work := dir + ".restore"
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	s, err := Open(ctx, Config{Dir: work, TrustDomain: cfg.TrustDomain, Log: cfg.Log, Now: cfg.Now})
	if err != nil {
		return err
	}
	if err := errors.Join(s.load(ctx, r), s.Close()); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	if err := syncTree(work); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	// What is empty may go; anything that came meanwhile fails the rename.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: restore: %w", err)
	}
	if err := os.Rename(work, dir); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// vacant refuses a directory that has anything in it.
func vacant(dir string) error {
	found, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(found) > 0:
		return fmt.Errorf("%s is not empty: name a new directory, or move that one away", dir)
	}
	return nil
}

// load fills an empty store.
func (s *Store) load(ctx context.Context, r io.Reader) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	l := loader{s: s, ctx: ctx}
	if err := readCopy(r, l.record); err != nil {
		return err
	}
	if !l.domain {
		return fmt.Errorf("the input %w: it names no trust domain", errBadCopy)
	}
	l.t.put(restoredKey, strconv.FormatInt(s.cfg.Now().Unix(), 10))
	return l.flush()
}

// loader gathers records into transactions.
type loader struct {
	s      *Store
	ctx    context.Context
	t      txn
	size   int
	domain bool // its record has come
}

func (l *loader) record(key string, value []byte) error {
	switch {
	case leftOut(key):
		return nil
	case key == domainKey:
		l.domain = true
		if err := l.s.ours(string(value)); err != nil {
			return err
		}
	case key == bundleKey:
		raised, err := l.s.raise(value)
		if err != nil {
			return err
		}
		value = raised
	}
	l.t.put(key, string(value))
	l.size += len(key) + len(value)
	if len(l.t.then) < batchEntries && l.size < batchBytes {
		return nil
	}
	return l.flush()
}

func (l *loader) flush() error {
	if _, err := l.t.commit(l.ctx, l.s); err != nil {
		return l.s.fault("restore", err)
	}
	l.t, l.size = txn{}, 0
	return nil
}

// ours refuses a copy of another trust domain.
func (s *Store) ours(name string) error {
	if name != s.cfg.TrustDomain.Name() {
		return fmt.Errorf("the copy is of trust domain %q, not %q", name, s.cfg.TrustDomain.Name())
	}
	return nil
}

// raise returns the bundle with a sequence number above any that its readers can
// have seen.
func (s *Store) raise(data []byte) ([]byte, error) {
	b := &types.Bundle{}
	if err := proto.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("record of the bundle: %w", err)
	}
	if err := s.ours(b.TrustDomain); err != nil {
		return nil, err
	}
	b.SequenceNumber = max(b.SequenceNumber, uint64(max(s.cfg.Now().Unix(), 0)))
	raised, err := encode(b)
	return []byte(raised), err
}

// Restored reports whether the store was made by Restore and nobody has called
// ClearRestored since: whoever has the keys of the copy's time is not to be
// trusted any more than the copy's readers, so new authorities are due.
func (s *Store) Restored(ctx context.Context) (bool, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer end()
	kvs, err := s.read(ctx, restoredKey)
	if err != nil {
		return false, s.fault("read the mark of a restore", err)
	}
	return kvs[0] != nil && strings.TrimSpace(string(kvs[0].Value)) != "", nil
}

// ClearRestored takes the mark of a restore off.
func (s *Store) ClearRestored(ctx context.Context) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if _, err := s.client.Delete(ctx, restoredKey); err != nil {
		return s.fault("take off the mark of a restore", err)
	}
	return nil
}
