// Package store owns what an issuer must not forget: entries, agents, join
// tokens, the bundle and the journal of its authorities, as records in an etcd
// that runs inside the process. It holds no index and answers no RPC (that is
// issuer/registry), and it never sees a private key. DESIGN.md argues the
// layout of the keys and the shape of the transactions.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/lanyard-mtls/lanyard/internal/durable"
)

// Revision is a position in the one total order of all changes: etcd's
// revision. 0 comes before the first change.
type Revision int64

var (
	// ErrExists is wrapped where a record with that identity is there already.
	ErrExists = errors.New("already exists")
	// ErrNotFound is wrapped where the record is not there.
	ErrNotFound = errors.New("not found")
	// ErrTokenUnknown is wrapped where a join token does not exist or another
	// key has spent it; which of them is not told.
	ErrTokenUnknown = errors.New("join token does not exist or has already been used")
	// ErrTokenExpired is wrapped where a join token is past its life.
	ErrTokenExpired = errors.New("join token expired")
	// ErrAgentBanned is wrapped where a banned agent tries to join again.
	ErrAgentBanned = errors.New("agent is banned")
	// ErrConflict is wrapped where a record was changed by others each time it
	// was about to be written.
	ErrConflict = errors.New("changed by others at the same time")
	// ErrTooLarge is wrapped where a record is over [MaxRecordBytes].
	ErrTooLarge = errors.New("record is too large")
	// ErrCompacted ends a Watch whose starting point is no longer kept; take a
	// new Snapshot.
	ErrCompacted = errors.New("revision was compacted away")
	// ErrInUse is wrapped where other records still need the one to be deleted.
	ErrInUse = errors.New("in use")
	// ErrReserved is wrapped where an entry's SPIFFE ID lies at or below the
	// literal prefix of an ID template, or a template's prefix above an ID.
	ErrReserved = errors.New("reserved")
	// ErrClosed is the cause of every failure after Close.
	ErrClosed = errors.New("store is closed")
)

// MaxRecordBytes bounds one encoded entry, so that an answer with it always
// fits gRPC's default limit of 4 MiB.
const MaxRecordBytes = 512 << 10

// Config says where a store is and whose records it holds.
type Config struct {
	// Dir is made if it is missing, mode 0700, and locked while the store is open.
	Dir string
	// TrustDomain is the issuer's own; a directory belongs to one trust domain.
	TrustDomain spiffeid.TrustDomain
	// Log takes what etcd warns about. nil discards it.
	Log *slog.Logger
	// Now is the clock, of the registry over this store too; nil is time.Now.
	Now func() time.Time

	// patience is how long an etcd that starts may take to commit; 0 is slowStart.
	patience time.Duration
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	cfg    Config
	etcd   *embed.Etcd
	client *clientv3.Client
	unlock func() error
	hook   *fatalHook

	// life ends when the store closes or etcd fails; its cause says which.
	life context.Context
	kill context.CancelCauseFunc

	done chan error
	lost chan struct{} // closed when etcd has failed, life being over

	// entries is held for reading by whoever writes entries, and for writing by
	// whoever needs that all of them stay as they are. What it spares is trying
	// again: etcd's conditions say whether they did.
	entries sync.RWMutex
	// templateSet is the ID templates as they were read last; nil at first.
	templateSet atomic.Pointer[templateSet]

	// runs are those on record, this one last. They do not change after Open.
	runs []pastRun

	// written spares the watch decoding what was encoded here.
	written written

	// mu guards closed against begin, so that Close waits for every operation.
	mu     sync.Mutex
	closed bool
	ops    sync.WaitGroup
	once   sync.Once
	err    error // of Close
}

// Open starts the etcd in cfg.Dir and returns when it takes reads and writes,
// or when ctx ends. It opens no listener of any kind. Where another process
// has the directory, the error wraps [durable.ErrLocked] and names it.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("store: no directory given")
	}
	if cfg.TrustDomain.IsZero() {
		return nil, errors.New("store: no trust domain given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := durable.MkdirPrivate(cfg.Dir); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	unlock, err := durable.Lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	collectRarely()
	s := &Store{cfg: cfg, unlock: unlock, done: make(chan error, 1), lost: make(chan struct{})}
	s.life, s.kill = context.WithCancelCause(context.WithoutCancel(ctx))
	s.hook = &fatalHook{fail: s.fail}
	if err := s.start(ctx); err != nil {
		collectAsUsual()
		s.kill(err)
		return nil, errors.Join(err, unlock())
	}
	if err := s.adopt(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.beginRun(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	// Nothing can be done without the bundle: better said now than by readers
	// that try again for ever.
	if _, err := s.UpdateCA(ctx, func(*CAState) error { return nil }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// adopt binds a new directory to its trust domain and refuses one of another.
func (s *Store) adopt(ctx context.Context) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	name := s.cfg.TrustDomain.Name()
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(domainKey), "=", 0)).
		Then(clientv3.OpPut(domainKey, name)).
		Else(clientv3.OpGet(domainKey)).Commit()
	if err != nil {
		return s.fault("open", err)
	}
	if resp.Succeeded {
		return nil
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && string(kvs[0].Value) != name {
		return fmt.Errorf("store: %s holds trust domain %q, not %q: name that trust domain or another directory",
			s.cfg.Dir, kvs[0].Value, name)
	}
	return nil
}

// Done delivers one error if etcd ends by itself, such as on a full disk; by
// then every call fails, and the process should end. It delivers nothing on Close.
func (s *Store) Done() <-chan error { return s.done }

// Err is nil while the store works, and then says for good why it does not.
func (s *Store) Err() error {
	if s.life.Err() == nil {
		return nil
	}
	return context.Cause(s.life)
}

// TrustDomain is the one whose records the store holds.
func (s *Store) TrustDomain() spiffeid.TrustDomain { return s.cfg.TrustDomain }

// Now is the time on the store's clock.
func (s *Store) Now() time.Time { return s.cfg.Now() }

// Close ends running calls with [ErrClosed], waits for them, stops etcd and
// releases the directory. Further calls do nothing.
func (s *Store) Close() error {
	s.once.Do(func() {
		collectAsUsual()
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.kill(ErrClosed)
		s.ops.Wait()
		s.err = errors.Join(s.stop(), s.unlock())
	})
	return s.err
}

// begin counts an operation and returns the context that it runs under, which
// also ends with the store. The caller must call end.
func (s *Store) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	if s.life.Err() != nil {
		return nil, nil, context.Cause(s.life)
	}
	s.ops.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(context.Cause(s.life)) })
	return ctx, func() {
		stop()
		cancel(nil)
		s.ops.Done()
	}, nil
}
